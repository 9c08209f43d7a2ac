"""security.md Z1: full disk, read-only home, damaged files: one sentence, nothing overwritten, a way out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.require import require

PEER = "12D3KooWPK7MsXCzqaJX1zWetqBFaLs9JA2pfjfMgmf6wHNeDBCE"
JOIN = ("join", "--headless", "--no-lan", "--listen", "127.0.0.1:0")

# Runs in a mount namespace of its own: mounts a file system over the home, then the program on it.
_MOUNTED = """
import subprocess, sys
options, home, prepare, *arguments = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", options.replace("ro,", ""), "tmpfs", home], check=True)
if prepare:
    subprocess.run(["sh", "-c", prepare], cwd=home, check=True)
if options.startswith("ro,"):
    subprocess.run(["mount", "-o", "remount,ro", home], check=True)
done = subprocess.run([sys.executable, "-m", "p2pnode", "--home", home + "/h", *arguments],
                      stdin=subprocess.DEVNULL, timeout=30)
sys.exit(done.returncode)
"""


def mounted(options: str, home: Path, *arguments: str, prepare: str = "") -> subprocess.CompletedProcess[str]:
    """Run p2pnode with a home on a file system of its own."""
    home.mkdir()
    unshare = next((c for c in (["unshare", "-m"], ["unshare", "-Urm"]) if _possible(c)), None)
    require(unshare is not None, "mount namespaces need root or user namespaces")
    command = [*(unshare or []), sys.executable, "-c", _MOUNTED, options, str(home), prepare, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def _possible(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    script = ["sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run([*command, *script], capture_output=True).returncode == 0


def sentence(err: str) -> str:
    """Check that the refusal is one line for people."""
    assert err.startswith("p2pnode: "), err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.namespace
@pytest.mark.slow
@pytest.mark.parametrize("command", [("id",), JOIN], ids=["id", "join"])
def test_z1_full_disk_is_one_sentence_and_leaves_no_half_file(tmp_path: Path, command: tuple[str, ...]) -> None:
    """No room for a key: nothing is left behind, least of all half a key."""
    fill = "mkdir h; dd if=/dev/zero of=fill bs=4096 2>/dev/null; true"
    done = mounted("size=64k,nr_inodes=64", tmp_path / "m", *command, prepare=fill)
    assert done.returncode == 1
    assert done.stdout == ""
    sentence(done.stderr)


@pytest.mark.namespace
@pytest.mark.slow
@pytest.mark.parametrize("command", [("id",), JOIN], ids=["id", "join"])
def test_z1_read_only_home_is_one_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A home that cannot be made."""
    done = mounted("ro,size=64k", tmp_path / "m", *command)
    assert done.returncode == 1
    assert "--home" in sentence(done.stderr)


@pytest.mark.namespace
@pytest.mark.slow
def test_z1_doctor_tells_the_way_out_of_a_read_only_home(tmp_path: Path) -> None:
    """The finding names the home and what to do."""
    done = mounted("ro,size=64k", tmp_path / "m", "doctor", "--json", prepare="mkdir -m 700 h")
    assert done.returncode == 1
    wrong = {c["check"]: c["advice"] for c in json.loads(done.stdout)["checks"] if c["ok"] is False}
    assert "--home" in wrong["home"]


def test_z1_home_under_a_file_system_that_refuses(tmp_path: Path) -> None:
    """/proc takes no directories, not even from root."""
    require(Path("/proc/self").exists(), "there is no /proc here")
    result = p2pnode("id", home=Path("/proc/p2pnode"))
    assert result.code == 1
    assert "--home" in sentence(result.err)


@pytest.mark.parametrize("name", ["node.key", "account.key"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "flipped", "directory", "link", "open to others"])
def test_z1_damaged_key_is_one_sentence_and_stays(tmp_path: Path, name: str, damage: str) -> None:
    """Whatever is wrong with a key file: it is never replaced by a new identity."""
    home = tmp_path / "h"
    assert p2pnode("id", home=home).code == 0
    path = home / name
    good = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"\xff" * 300)
    elif damage == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif damage == "flipped":
        middle = good.rindex(b"-----END") - 10
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 3]) + good[middle + 1 :])
    elif damage == "directory":
        path.unlink()
        path.mkdir()
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.chmod(0o644)
    before = path.read_bytes() if path.is_file() else None
    for command in (("id",), JOIN):
        result = p2pnode(*command, home=home)
        assert result.code == 1
        assert result.out == ""
        assert name in sentence(result.err)
        assert good.splitlines()[-2].decode() not in result.err
    assert (path.read_bytes() if path.is_file() else None) == before
    result = p2pnode("doctor", "--json", home=home)
    assert result.code == 1
    assert any(c["check"] == "key" and c["ok"] is False and c["advice"] for c in result.json["checks"])


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"SQLite format 3\0" + b"\xff" * 8192], ids=["empty", "text", "torn"]
)
def test_z1_damaged_database_is_one_sentence_and_stays(tmp_path: Path, content: bytes) -> None:
    """Reading commands and join refuse it; the file stays byte for byte. An empty file is an empty database."""
    home = tmp_path / "h"
    p2pnode("id", home=home)
    (home / "chat.db").write_bytes(content)
    commands = [("messages",), ("history", PEER), ("contacts", "list")]
    for command in commands:
        result = p2pnode(*command, home=home)
        if content:
            assert result.code == 1
            assert "chat.db" in sentence(result.err)
        assert (home / "chat.db").read_bytes() == content
    if content:
        result = p2pnode("doctor", "--json", home=home)
        assert result.code == 1
        assert any(c["check"] == "database" and c["ok"] is False and c["advice"] for c in result.json["checks"])


def test_z1_damaged_api_card_is_one_sentence(tmp_path: Path) -> None:
    """A card that cannot be read while a node holds the home."""
    from p2pnode import Home

    home = Home(tmp_path)
    with home.locked():
        for content in (b"", b"{", b"[]", b'{"port": "x", "token": 1}', b"\xff\xfe"):
            home.api.write_bytes(content)
            result = p2pnode("status", "--json", home=tmp_path)
            assert result.code == 1
            assert result.json["error"]["code"] == "not_running"


def test_z1_unreadable_passphrase_file_is_one_sentence(tmp_path: Path) -> None:
    """The file that should unlock the keys is missing, a directory, or no text."""
    home = tmp_path / "h"
    p2pnode("id", home=home)
    assert p2pnode("id", "passphrase", home=home, env={"P2PNODE_NEW_PASSPHRASE": "x y z"}).code == 0
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        result = p2pnode("--passphrase-file", str(path), "id", home=home)
        assert result.code == 1
        assert str(path) in sentence(result.err)
