"""Backups of keys: both come back with the passphrase only; nothing is overwritten, nothing is half done."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from p2pnode import AccountKey, Home, KeyFileError, NodeKey, StorageError
from p2pnode.core.backup import read_backup, replace_key, write_backup
from p2pnode.core.keyfile import KdfCost, load_account_key
from p2pnode.owning import OwnDevices
from p2pnode.state import NodeState

CHEAP = KdfCost(memory_kib=64, iterations=1, lanes=1)
NODE, ACCOUNT = NodeKey(b"n" * 32, b"x" * 32), AccountKey(b"a" * 32)


def random(count: int) -> bytes:
    return bytes(range(count))


def test_both_keys_come_back_with_the_passphrase_only(tmp_path: Path) -> None:
    """Mode 0600, no secret in clear; a wrong passphrase, a cut or changed file is one error."""
    path = tmp_path / "backup"
    write_backup(path, NODE, ACCOUNT, random, "secret words", cost=CHEAP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    node, account = read_backup(path, lambda: "secret words")
    assert (node.seed, node.x25519_public, account.seed) == (NODE.seed, NODE.x25519_public, ACCOUNT.seed)
    with pytest.raises(KeyFileError):
        read_backup(path, lambda: "other words")
    whole = path.read_text()
    for bad in (whole[: len(whole) // 2], whole.replace("A", "B", 3), "", whole.partition("p2pnode account")[0]):
        path.write_text(bad)
        with pytest.raises(KeyFileError):
            read_backup(path, lambda: "secret words")
    path.write_text(whole)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod"):
        read_backup(path, lambda: "secret words")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A backup needs a new name; a key that is replaced stays beside, and two do not get one place."""
    path, key = tmp_path / "backup", tmp_path / "account.key"
    path.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        write_backup(path, NODE, ACCOUNT, random, "secret words", cost=CHEAP)
    assert path.read_text() == "mine"
    with pytest.raises(KeyFileError, match="empty passphrase"):
        write_backup(tmp_path / "other", NODE, ACCOUNT, random, "", cost=CHEAP)
    assert not replace_key(key, ACCOUNT, random, None, aside=tmp_path / "old.key", cost=CHEAP)
    second = AccountKey(b"b" * 32)
    assert replace_key(key, second, random, "words", aside=tmp_path / "old.key", cost=CHEAP)
    assert load_account_key(tmp_path / "old.key").seed == ACCOUNT.seed
    assert load_account_key(key, lambda: "words").seed == second.seed
    with pytest.raises(StorageError, match="in the way"):
        replace_key(key, ACCOUNT, random, None, aside=tmp_path / "old.key", cost=CHEAP)
    assert load_account_key(key, lambda: "words").seed == second.seed


def test_a_restored_home_asks_the_network_which_devices_there_are(tmp_path: Path) -> None:
    """Any list that was ever made is newer than what it begins with."""
    home = Home(tmp_path / "home")
    home.create()
    home.restored(ACCOUNT.user_id, NODE.peer_id)
    own = OwnDevices(ACCOUNT.user_id, NODE.peer_id, NodeState(home.state, random))
    assert (own.current.number, own.current.devices) == (1, (NODE.peer_id,))
