"""What a node remembers between runs."""

import os
from pathlib import Path

import pytest

from p2pnode.core.address import Address
from p2pnode.core.errors import StorageError
from p2pnode.state import MAX_SEEN, NodeState, RememberedContact

CONTACT = RememberedContact(bytes(20), Address("8.8.8.8", 4747).pack(), bytes(32))


def reopened(state: NodeState, path: Path) -> NodeState:
    state.write(state.encode())
    return NodeState(path, os.urandom)


def test_state_survives_a_restart(tmp_path: Path) -> None:
    """Contacts, own and seen sequence numbers come back."""
    path = tmp_path / "state.msgpack"
    state = NodeState(path, os.urandom)
    state.remember_contacts([CONTACT])
    first = state.next_seq(b"salt", 1000.0)
    assert state.accept_seq(b"key", 7)
    again = reopened(state, path)
    assert again.contacts == [CONTACT]
    assert again.next_seq(b"salt", 0.0) == first + 1
    assert not again.accept_seq(b"key", 6)
    assert os.stat(path).st_mode & 0o077 == 0


def test_own_seq_rises_when_the_clock_goes_back() -> None:
    """A clock set back does not produce a lower sequence number."""
    state = NodeState(None, os.urandom)
    assert state.next_seq(b"s", 1000.0) == 1_000_000
    assert state.next_seq(b"s", 10.0) == 1_000_001
    assert state.next_seq(b"s", 2000.0) == 2_000_000


def test_v3_seen_seq_is_remembered_and_older_refused() -> None:
    """The highest seq seen of a key wins; an equal one is the same record."""
    state = NodeState(None, os.urandom)
    assert state.accept_seq(b"k", 5)
    assert state.accept_seq(b"k", 5)
    assert not state.accept_seq(b"k", 4)
    assert state.accept_seq(b"k", 6)


def test_seen_keys_are_bounded() -> None:
    """A reader of very many keys forgets the longest unused."""
    state = NodeState(None, os.urandom)
    state.accept_seq(b"first", 9)
    for i in range(MAX_SEEN):
        state.accept_seq(i.to_bytes(4, "big"), 1)
    assert state.accept_seq(b"first", 1)


def test_empty_contacts_do_not_replace_remembered_ones() -> None:
    """A node that lost the network keeps whom it knew."""
    state = NodeState(None, os.urandom)
    state.remember_contacts([CONTACT])
    state.remember_contacts([])
    assert state.contacts == [CONTACT]


@pytest.mark.parametrize("damage", [b"", b"\x00", b"\xff" * 100, b"\x94\x01\x90\x80"])
def test_damaged_state_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    """The node starts cold, and the damaged file is kept."""
    path = tmp_path / "state.msgpack"
    path.write_bytes(damage)
    state = NodeState(path, os.urandom)
    assert state.contacts == []
    kept = path.with_name("state.msgpack.damaged")
    assert kept.exists() == (not path.exists())


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """One sentence, and what was there is still there."""
    path = tmp_path / "state.msgpack"
    state = NodeState(path, token_bytes=bytes)
    state.remember_contacts([CONTACT])
    state.write(state.encode())
    before = path.read_bytes()
    (tmp_path / f".state.msgpack.{bytes(8).hex()}.tmp").mkdir()
    with pytest.raises(StorageError, match=r"Cannot write state\.msgpack"):
        state.write(b"other")
    assert path.read_bytes() == before
