"""Pools: places that anybody may write who works for it (dht/pools.py)."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.dht_network import DhtNode, make_network
from support.dht_pair import WALL
from support.dht_pools import EXPIRES, POOL, TAG, storage, worked

from p2pnode import BadPacket, Mailing
from p2pnode.core.address import Realm
from p2pnode.core.keys import SigningKey
from p2pnode.dht import MIN_WORK, PLACES, SignedRecord, pool_salt, record_key
from p2pnode.dht.messages import ErrorCode
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def test_a_place_has_one_key_whoever_writes() -> None:
    """Another place, and another pool, have others; the records of mail beside them keep theirs."""
    salts = [pool_salt(POOL, place) for place in range(PLACES)] + [pool_salt(bytes(20), 0)]
    assert len({record_key(bytes(32), salt) for salt in salts}) == 9
    assert record_key(bytes(32), salts[0]) == record_key(b"\1" * 32, salts[0])
    assert record_key(bytes(32), b"mail/\0") != record_key(b"\1" * 32, b"mail/\0")


@pytest.mark.slow
def test_who_has_worked_more_has_the_place_in_whatever_order_they_come() -> None:
    """So holders agree, and those that were away learn the same by repair."""
    one, other = worked(1), worked(2)
    less, more = sorted((one, other), key=lambda each: each.seq)
    for order in ((less, more), (more, less)):
        kept = storage()
        refused = [kept.store(each, Realm.PUBLIC, b"x%d" % n, 0.0, WALL) for n, each in enumerate(order)]
        assert kept.read(Realm.PUBLIC, more.key, 0.0) == more
        assert refused == ([None, None] if order[0] is less else [None, (ErrorCode.LOWER_SEQ, more.seq)])
    assert [entry.prefix for _, entry in kept] == [b"x0"]


@pytest.mark.slow
def test_what_is_no_work_is_refused() -> None:
    """A claimed `seq`, too little work, a value, place, life or signer that it was not done for."""
    good = worked(3)
    key = SigningKey(random.Random(3).randbytes(32))

    def signed(salt: bytes = good.salt, seq: int = good.seq, expires: int = EXPIRES, value: bytes = good.value) -> str:
        try:
            SignedRecord.sign(key, TAG, salt, seq, expires, value).verify(TAG, WALL)
        except BadPacket as bad:
            return bad.reason
        return ""

    assert signed() == ""
    assert signed(seq=2**63 - 1) == "false_work"
    assert signed(value=good.value + b"!") == "false_work"
    assert signed(salt=pool_salt(POOL, 1)) == "false_work"
    assert signed(expires=EXPIRES - 1) == "false_work"
    assert signed(seq=MIN_WORK - 1) == "too_little_work"
    assert signed(expires=EXPIRES + 400) == "expires_too_far"
    for salt, value in (
        (pool_salt(POOL, PLACES), good.value),
        (good.salt[:-1], good.value),
        (good.salt + b"\0", good.value),
        (b"mail/pool/", good.value),
        (good.salt, b"\0" * 7),
    ):
        assert signed(salt=salt, value=value) == "bad_place"
    thief = SigningKey(bytes(32))
    with pytest.raises(BadPacket, match="false_work"):
        SignedRecord.sign(thief, TAG, good.salt, good.seq, EXPIRES, good.value).verify(TAG, WALL)


class Post(Mailing):
    """The mail calls of a node of which only the DHT runs."""

    def __init__(self, node: DhtNode) -> None:
        self.dht, self.network = node.dht, node.network


@pytest.mark.slow
def test_a_letter_in_a_pool_is_found_by_whoever_knows_the_place_and_outlives_holders() -> None:
    """Without its writer, after many of the nodes have gone one by one; who works more takes the place."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 28)
        await asyncio.sleep(60.0)
        writer, reader = Post(nodes[14]), Post(nodes[16])
        assert await reader.look_in_pool(POOL, 3) is None
        mailed = await writer.leave_in_pool(POOL, 3, b"letter", tries=64)
        assert 2 * mailed.stored >= mailed.tried
        for node in nodes[1:13]:
            node.network.host.up = False
            await asyncio.sleep(90.0)
        found = await reader.look_in_pool(POOL, 3)
        assert found is not None
        assert found.value == b"letter"
        assert await reader.look_in_pool(POOL, 2) is None
        mailed = await Post(nodes[25]).leave_in_pool(POOL, 3, b"another", tries=64, above=found.seq)
        after = await reader.look_in_pool(POOL, 3)
        assert after is not None
        assert after.value == (b"another" if mailed.stored else b"letter")

    run_virtual(main, until=10_000.0)
