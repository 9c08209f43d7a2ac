"""How bursts are cut for one system call, and what comes back is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.core.segments import MAX_GROUP_BYTES, MAX_GROUP_DATAGRAMS, groups, split_untrusted

SIZES = st.lists(st.sampled_from([0, 1, 20, 1199, 1200, 1472, 9000, 65_000, 65_507]), max_size=200)


def cut(group: list[bytes]) -> list[bytes]:
    """What the kernel makes of a group: pieces of the first one's size."""
    whole = b"".join(group)
    return [whole[at : at + len(group[0])] for at in range(0, len(whole), len(group[0]))]


@given(SIZES)
def test_groups_are_whole_in_order_and_cut_where_they_were(sizes: list[int]) -> None:
    """Every datagram is in one group, in its place; the kernel's cuts give back exactly the datagrams."""
    datagrams = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    at = 0
    for first, end in groups(datagrams):
        assert first == at < end
        at = end
        group = datagrams[first:end]
        if len(group) > 1:
            assert len(group) <= MAX_GROUP_DATAGRAMS
            assert sum(map(len, group)) <= MAX_GROUP_BYTES
            assert cut(group) == group
    assert at == len(datagrams)


def test_equal_ones_leave_together() -> None:
    """A burst of QUIC's, 300 of 1,200 bytes and a shorter one, takes six calls."""
    burst = [bytes(1200)] * 300 + [bytes(77)]
    assert len(list(groups(burst))) == 6


@given(st.binary(max_size=5000), st.integers(-5, 70_000))
def test_split_loses_and_invents_nothing(buffer: bytes, size: int) -> None:
    """Whatever size the system, or a bug in it, names: the pieces are the buffer, none longer than the size."""
    pieces = split_untrusted(buffer, size)
    assert b"".join(pieces) == buffer
    if 0 < size < len(buffer):
        assert all(len(piece) == size for piece in pieces[:-1])
        assert 0 < len(pieces[-1]) <= size
    else:
        assert pieces == [buffer]
