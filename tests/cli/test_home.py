"""The home directory: private, held by one process at a time."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from p2pnode import Home, HomeInUseError, StorageError


def test_home_is_made_for_the_owner_only(tmp_path: Path) -> None:
    """Directory 0700, card 0600, whatever the umask."""
    home = Home(tmp_path / "a" / "b")
    home.create()
    home.write_api_card(b"{}")
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.api.stat().st_mode) == 0o600


def test_second_holder_is_refused_by_name(tmp_path: Path) -> None:
    """The other process is named; after it lets go, the home is free."""
    first, second = Home(tmp_path), Home(tmp_path)
    first.lock()
    with pytest.raises(HomeInUseError, match=f"process {os.getpid()}") as caught:
        second.lock()
    assert caught.value.facts["pid"] == os.getpid()
    assert second.holder() == os.getpid()
    first.unlock()
    assert second.holder() is None
    with second.locked():
        assert first.holder() == os.getpid()


def test_killed_process_leaves_the_home_free(tmp_path: Path) -> None:
    """The kernel drops the lock of a process that was killed; nothing has to be cleaned up."""
    program = (
        "import sys, pathlib; from p2pnode import Home; Home(pathlib.Path(sys.argv[1])).lock();"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert Home(tmp_path).holder() == process.pid
        process.kill()
        process.wait()
    assert Home(tmp_path).holder() is None
    with Home(tmp_path).locked():
        pass


def test_file_in_the_place_of_the_home_is_refused(tmp_path: Path) -> None:
    """One sentence, and the file stays."""
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(StorageError, match="not a directory"):
        Home(path).lock()
    assert path.read_text() == "mine"


def test_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A link in the lock's place is not followed: what it names would be overwritten."""
    target = tmp_path / "precious"
    target.write_text("mine")
    home = tmp_path / "home"
    home.mkdir()
    (home / "lock").symlink_to(target)
    with pytest.raises(StorageError):
        Home(home).lock()
    assert target.read_text() == "mine"


def test_who_only_asks_for_the_holder_keeps_nobody_out(tmp_path: Path) -> None:
    """A command that looks whether a node runs must not make the node that starts just then fail."""
    home = Home(tmp_path)
    home.create()
    with home.lock_file.open("w") as asking:  # in the midst of another process's `holder`, for a tenth of a second
        fcntl.flock(asking, fcntl.LOCK_EX)
        done = threading.Timer(0.1, fcntl.flock, (asking, fcntl.LOCK_UN))
        done.start()
        home.lock()
        done.join()
    assert Home(tmp_path).holder() == os.getpid()
    home.unlock()
