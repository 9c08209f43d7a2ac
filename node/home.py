"""The home: one directory per node, with its keys, settings, database and the control API's token.

One process at a time holds it (a lock that the kernel drops when the process dies, so nothing has to be cleaned up
after `kill -9`). Everything in it is for the owner only: directory 0700, files 0600.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from p2pnode.core.atomic import replace_file
from p2pnode.core.errors import HomeInUseError, StorageError

if TYPE_CHECKING:
    from p2pnode.core.ids import PeerId, UserId

if sys.platform != "win32":
    import fcntl

__all__ = ["Home", "default_home"]

# s between tries: `holder` of another process has the lock for some microseconds, which is nobody's use of the home.
LOCK_PAUSES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.17, 0.2, 0.2)


def default_home() -> Path:
    """Return the directory that this platform gives to an application's data."""
    from platformdirs import user_data_path  # only needed when nobody named a home

    return user_data_path("p2pnode", appauthor=False)


class Home:
    """A home directory. Making the object touches nothing on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.node_key = path / "node.key"
        self.account_key = path / "account.key"
        self.config = path / "config.toml"
        self.state = path / "state.msgpack"
        self.chat_db = path / "chat.db"
        self.records_db = path / "records.db"
        self.api = path / "api.json"
        self.lock_file = path / "lock"
        self._lock_fd: int | None = None

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        """Make the directory, for the owner only, unless it exists. Raise StorageError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as exc:
            raise StorageError(f"The home {self.path} is not a directory; choose another with --home.") from exc
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def restored(self, user: UserId, device: PeerId) -> None:
        """Keys came from a backup: which devices the account has, the network knows better. Raise StorageError."""
        from p2pnode.core.devices import encode_devices  # hardly anybody restores; every command has a home
        from p2pnode.state import NodeState

        state = NodeState(self.state, secrets.token_bytes)
        state.keep_own_list(user.raw, encode_devices([device], number=1))  # any list that was ever made is newer
        state.write(state.encode())

    def lock(self) -> None:
        """Take the home for this process until `unlock` or its end.

        Raise HomeInUseError, which names the other process, or StorageError. Creates the directory.
        """
        self.create()
        try:
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        if not _try_lock(fd) and not any(_try_again(fd, pause) for pause in LOCK_PAUSES):
            pid = _read_pid(fd)
            os.close(fd)
            raise HomeInUseError(
                f"The home {self.path} is in use by process {pid or 'unknown'}; stop it, or give this node a home of"
                " its own with --home DIR.",
                pid=pid,
            )
        self._lock_fd = fd
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:
            self.unlock()
            raise self._unwritable(exc) from exc

    def unlock(self) -> None:
        """Let others use the home. Harmless when not locked.

        The lock file stays: removing it would let two processes lock two different files of one name.
        """
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for a block."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def holder(self) -> int | None:
        """Return the process that holds the home (0 when it cannot be named), None when nobody does."""
        try:
            fd = os.open(self.lock_file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None  # no lock file, or none that we could lock: no node of ours runs on it
        try:
            if _try_lock(fd):
                return None
            return _read_pid(fd) or 0
        finally:
            os.close(fd)

    def write_api_card(self, data: bytes) -> None:
        """Put down how to reach the control API, for the owner only. Raise StorageError."""
        try:
            replace_file(self.api, data, secrets.token_bytes)
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _unwritable(self, exc: OSError) -> StorageError:
        return StorageError(
            f"The home {self.path} cannot be written ({exc.strerror}); mend that, or choose another with --home DIR.",
            path=str(self.path),
        )


def _try_lock(fd: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(fd, 1 << 30, os.SEEK_SET)  # far behind the pid, which others must be able to read
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_again(fd: int, pause: float) -> bool:
    time.sleep(pause)
    return _try_lock(fd)


def _read_pid(fd: int) -> int | None:
    os.lseek(fd, 0, os.SEEK_SET)
    text = os.read(fd, 32).strip()
    return int(text) if text.isdigit() else None
