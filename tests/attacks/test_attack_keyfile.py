"""Z2: the key file is private, never overwritten, never half written, and never leaks (security.md)."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from support.hostile import mutations, prefixes

from p2pnode.core.errors import KeyFileError, P2PError, StorageError
from p2pnode.core.keyfile import (
    KdfCost,
    change_passphrase,
    load_account_key,
    load_node_key,
    load_or_create_account_key,
    load_or_create_node_key,
)

CHEAP = KdfCost(memory_kib=8, iterations=1, lanes=1)
SEED = bytes(range(0x30, 0x50))
posix = pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX systems")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.key"


def refused(path: Path, passphrase: str | None = None) -> P2PError:
    """Load, expect a refusal in one printable sentence, and that the file was left as it is."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(KeyFileError) as caught:
        load_or_create_node_key(path, os.urandom, None if passphrase is None else lambda: passphrase)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert caught.value.message.isprintable()
    return caught.value


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_z2_a_new_file_is_0600_whatever_the_umask(path: Path, umask: int) -> None:
    """Nobody else can read it at any moment, and the owner always can."""
    old = os.umask(umask)
    try:
        load_or_create_node_key(path, os.urandom)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_z2_a_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    """Any right of group or others is refused; the sentence says what to type."""
    load_or_create_node_key(path, os.urandom)
    path.chmod(mode)
    assert "chmod 600" in refused(path).message
    path.chmod(0o400)
    load_node_key(path)


def test_z2_an_existing_file_is_never_overwritten(path: Path) -> None:
    """Whatever stands in the key's place stays, byte for byte: empty, foreign, too large, a folder."""
    for content in (
        b"",
        b"\n \n",
        b"\0" * 4096,
        b"hello",
        b"\xff\xfe",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"x" * 100_000,
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        refused(path)
    path.unlink()
    path.mkdir()
    assert "ordinary file" in refused(path).message


def test_z2_an_empty_file_has_its_own_sentence(path: Path) -> None:
    """A crash of a file system leaves empty or zeroed files: the way out is said."""
    for content in (b"", b"\0" * 300):
        path.write_bytes(content)
        path.chmod(0o600)
        assert "is empty" in refused(path).message


@pytest.mark.parametrize("passphrase", [None, "secret words"])
def test_z2_a_truncated_file_is_refused_at_every_length(path: Path, passphrase: str | None) -> None:
    """No prefix of the file is taken for a key, least of all for another one (the last line end may be missing)."""
    ask = None if passphrase is None else (lambda: passphrase)
    load_or_create_node_key(path, os.urandom, ask, encrypt_new=passphrase is not None, cost=CHEAP)
    whole = path.read_bytes()
    for part in prefixes(whole[:-1]):
        path.write_bytes(part)
        refused(path, passphrase)


@pytest.mark.slow
@pytest.mark.parametrize("passphrase", [None, "secret words"])
def test_z2_a_damaged_file_is_never_another_identity(path: Path, passphrase: str | None) -> None:
    """Each byte flipped, dropped, doubled or swapped: refused, or still the same key. PEM alone has no checksum."""
    ask = None if passphrase is None else (lambda: passphrase)
    key = load_or_create_node_key(path, os.urandom, ask, encrypt_new=passphrase is not None, cost=CHEAP)
    whole, accepted = path.read_bytes(), 0
    for changed in mutations(whole):
        path.write_bytes(changed)
        try:
            loaded = load_node_key(path, ask)
        except KeyFileError:
            continue
        accepted += 1
        assert (loaded.seed, loaded.x25519_public) == (key.seed, key.x25519_public)
    print(f"{accepted} harmless changes (white space, unused bits)")


def test_z2_swapped_files_are_refused(tmp_path: Path) -> None:
    """An account's file is no node's and the reverse, plain and encrypted: their keys must never be shared."""
    for encrypt in (False, True):
        node, account = tmp_path / f"node{encrypt}", tmp_path / f"account{encrypt}"
        load_or_create_node_key(node, os.urandom, lambda: "p", encrypt_new=encrypt, cost=CHEAP)
        load_or_create_account_key(account, os.urandom, lambda: "p", encrypt_new=encrypt, cost=CHEAP)
        with pytest.raises(KeyFileError, match="holds an account key"):
            load_node_key(account, lambda: "p")
        with pytest.raises(KeyFileError, match="holds a node key"):
            load_account_key(node, lambda: "p")


@posix
def test_z2_links_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    """Only an ordinary file is read or created: no link (dangling or not), no device, no pipe that would block."""
    real = tmp_path / "real"
    load_or_create_node_key(real, os.urandom)
    link, dangling, pipe = tmp_path / "link", tmp_path / "dangling", tmp_path / "pipe"
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "nowhere")
    os.mkfifo(pipe, 0o600)
    assert "is a link" in refused(link).message
    assert "is a link" in refused(dangling).message
    assert not (tmp_path / "nowhere").exists()
    assert "ordinary file" in refused(pipe).message
    assert "ordinary file" in refused(Path("/dev/null")).message


@posix
def test_z2_a_folder_that_refuses_gives_one_sentence(tmp_path: Path) -> None:
    """A read-only, missing or impossible folder is a StorageError; no identity exists that was not written."""
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "missing", tmp_path / "file"]
    if os.geteuid() == 0:
        folders += [Path("/sys")] if os.path.isdir("/sys/kernel") else []  # refuses new files, root's too
    else:
        folders.append(tmp_path / "read-only")
        folders[-1].mkdir(mode=0o500)
    for folder in folders:
        with pytest.raises(StorageError) as caught:
            load_or_create_node_key(folder / "node.key", os.urandom)
        assert caught.value.message.isprintable()
        assert "cannot be written" in caught.value.message


def test_z2_a_disk_that_refuses_leaves_the_old_file(path: Path) -> None:
    """When the new content cannot be written, changing a passphrase changes nothing."""
    key = load_or_create_node_key(path, os.urandom)
    before = path.read_bytes()
    # The temporary file's name is taken: writing fails before anything is replaced.
    (path.parent / f".{path.name}.{bytes(8).hex()}.tmp").mkdir()
    with pytest.raises(StorageError):
        change_passphrase(path, "node", bytes, None, "new", cost=CHEAP)
    assert path.read_bytes() == before
    assert load_node_key(path).seed == key.seed


_CREATOR = """
import os, sys
from pathlib import Path
from p2pnode.core.keyfile import load_or_create_node_key
sys.stdin.read(1)
print(load_or_create_node_key(Path(sys.argv[1]), os.urandom).peer_id)
"""


@pytest.mark.slow
def test_z2_two_creators_at_once_agree(path: Path) -> None:
    """Of processes that create the same file at the same moment one wins, and all return its key."""
    command = [sys.executable, "-c", _CREATOR, str(path)]
    creators = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=python_environment())
        for _ in range(3)
    ]
    for creator in creators:
        assert creator.stdin is not None
        creator.stdin.write("g")  # each has imported by then, or does so while the others create
        creator.stdin.flush()
    printed = {creator.communicate(timeout=60)[0].strip() for creator in creators}
    assert printed == {str(load_node_key(path).peer_id)}
    assert os.listdir(path.parent) == [path.name]


def python_environment() -> dict[str, str]:
    """Return the environment in which a child finds the package as we do."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def test_z2_the_loser_of_a_race_takes_the_winners_key(path: Path) -> None:
    """Another process creates the file after we looked and before we wrote: theirs stays, and we use it."""
    winner = []

    def token_bytes(count: int) -> bytes:
        if count == 8 and not winner:  # the name of our temporary file: the last thing drawn before writing
            winner.append(load_or_create_node_key(path, os.urandom))
        return os.urandom(count)

    assert load_or_create_node_key(path, token_bytes).seed == winner[0].seed
    assert os.listdir(path.parent) == [path.name]


def test_z2_wrong_missing_and_empty_passphrases_differ(path: Path) -> None:
    """Each has its own sentence, none names the passphrase, and the file stays."""
    load_or_create_node_key(path, os.urandom, lambda: "right", encrypt_new=True, cost=CHEAP)
    wrong = refused(path, "hunter2")
    assert "Wrong passphrase" in wrong.message
    assert "locked" in refused(path).message
    assert "not valid text" in refused(path, "\ud800").message
    with pytest.raises(KeyFileError, match="empty passphrase"):
        change_passphrase(path, "node", os.urandom, lambda: "right", "", cost=CHEAP)
    with pytest.raises(KeyFileError, match="empty passphrase"):
        load_or_create_node_key(path.with_name("new"), os.urandom, lambda: "", encrypt_new=True, cost=CHEAP)
    assert os.listdir(path.parent) == [path.name]


def test_z2_secrets_are_never_in_exceptions(path: Path) -> None:
    """Neither passphrase nor seed, in any usual form, is in the text of a refusal or of its causes."""
    drawn = iter([SEED, SEED[::-1]])
    key = load_or_create_node_key(path, lambda count: next(drawn) if count == 32 else os.urandom(count))
    assert key.seed == SEED
    secrets = [SEED.hex(), base64.b64encode(SEED).decode()[4:-4], repr(SEED), SEED.decode("latin-1"), "hunter2"]
    secrets.append(path.read_text().splitlines()[4][24:48])  # the seed as it stands in the file
    plain = path.read_bytes()
    contents = [plain[:-40], plain.replace(b"MC4C", b"MC4D"), plain.replace(b"Peer-Id", b"Peer"), plain + plain]
    change_passphrase(path, "node", os.urandom, None, "right", cost=CHEAP)
    contents.append(path.read_bytes())
    for content in contents:
        path.write_bytes(content)
        text = "".join(traceback.format_exception(refused(path, "hunter2")))
        assert not [secret for secret in secrets if secret in text]


def test_z2_a_crafted_file_cannot_take_all_memory(path: Path) -> None:
    """Costs beyond our limits are refused before the key is stretched, even with a right checksum."""
    load_or_create_node_key(path, os.urandom, lambda: "p", encrypt_new=True, cost=CHEAP)
    head, begin, rest = path.read_text().partition("-----BEGIN P2PNODE ENCRYPTED KEY-----\n")
    body = bytearray(base64.b64decode(rest.partition("-----END")[0])[:-4])
    for offset, value in (
        (2, b"\xff\xff\xff\xff"),
        (6, b"\xff\xff\xff\xff"),
        (10, b"\xff"),
        (0, b"\x02"),
        (1, b"\x09"),
    ):
        crafted = bytes(body[:offset]) + value + bytes(body[offset + len(value) :])
        crafted += hashlib.sha256(crafted).digest()[:4]
        path.write_text(f"{head}{begin}{base64.b64encode(crafted).decode()}\n-----END P2PNODE ENCRYPTED KEY-----\n")
        assert "Wrong" not in refused(path, "p").message
