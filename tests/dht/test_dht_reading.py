"""What a read does besides returning a record: it may return early and be upgraded, and it mends holders."""

from __future__ import annotations

import asyncio

from support.dht_network import PUBLIC, DhtNode, make_network, stop_all

from p2pnode.core.address import Realm
from p2pnode.dht import DhtSettings, GetResult, SignedRecord
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import CLOSE_TO_EXPIRY
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.links import LaneProfile, LinkProfile

SALT = b"s"
SMALL = DhtSettings(serve=frozenset(Realm), ksize=8)
PUBLIC_ONLY = [Realm.PUBLIC]


def signed(author: DhtNode, seq: int, life: float = 900) -> SignedRecord:
    expires = int(author.network.wall() + life)
    return SignedRecord.sign(author.key, author.dht.network_tag, SALT, seq, expires, b"v%d" % seq)


def give(node: DhtNode, record: SignedRecord) -> None:
    """Have a node hold a record, as if somebody had stored it there."""
    assert node.dht.storage.store(record, Realm.PUBLIC, b"abc", node.network.monotonic(), node.network.wall()) is None


def seq_at(node: DhtNode, record: SignedRecord) -> int:
    held = node.dht.storage.read(Realm.PUBLIC, record.key, node.network.monotonic())
    return held.seq if held is not None else 0


def by_distance(nodes: list[DhtNode], record: SignedRecord) -> list[DhtNode]:
    goal = int.from_bytes(record.key, "big")
    return sorted(nodes, key=lambda node: int.from_bytes(node.key.node_id, "big") ^ goal)


async def read(reader: DhtNode, author: DhtNode) -> GetResult:
    result = await reader.dht.get(author.key.public_raw, SALT, realms=PUBLIC_ONLY)
    await asyncio.sleep(1)
    return result


def stores(nodes: list[DhtNode]) -> int:
    return sum(node.dht.statistics().requests.get("Put", 0) for node in nodes)


def test_a_stale_holder_gets_the_higher_seq_after_one_read() -> None:
    """Of the 8 nearest one holds an older record and one holds none: after one read both hold the newest."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        old, new = signed(nodes[3], 1), signed(nodes[3], 2)
        near = by_distance(nodes, new)
        stale, empty = near[2], near[4]
        give(stale, old)
        for node in near[:8]:
            if node not in (stale, empty):
                give(node, new)
        assert (await read(near[-1], nodes[3])).record == new
        assert [seq_at(node, new) for node in near[:8]] == [2] * 8
        assert seq_at(near[-1], new) == 0  # readers keep nothing
        await stop_all(nodes)

    run_virtual(main, delay=0.05)


def test_a_read_mends_at_most_three_and_nobody_twice_in_five_minutes() -> None:
    """Three holders have the record and five lack it and refuse it: three stores, then two more, then none."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        record = signed(nodes[3], 2)
        near = by_distance(nodes, record)
        for node in near[:3]:
            give(node, record)
        for node in near[3:]:
            node.dht.storage._capacity = 0  # full
        counts = []
        for _ in range(4):
            before = stores(nodes)
            await read(near[-1], nodes[3])
            counts.append(stores(nodes) - before)
        print(f"stores by four reads: {counts}")
        assert counts[0] == 3
        assert counts[2:] == [0, 0]
        await stop_all(nodes)

    run_virtual(main, delay=0.05)


def test_a_record_that_is_about_to_expire_is_brought_to_nobody() -> None:
    """Half a minute before its end a record is still read, and not stored anew."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        record = signed(nodes[3], 2, life=CLOSE_TO_EXPIRY / 2)
        near = by_distance(nodes, record)
        for node in near[:3]:
            give(node, record)
        before = stores(nodes)
        assert (await read(near[-1], nodes[3])).record == record
        assert stores(nodes) == before
        await stop_all(nodes)

    run_virtual(main, delay=0.05)


def test_fast_returns_with_the_first_record_and_tells_of_a_newer_one() -> None:
    """The nearest, asked first, has an older record: it is returned at once; the newer one follows, then the end."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, SMALL)
        await asyncio.sleep(60)
        old, new = signed(nodes[3], 1), signed(nodes[3], 2)
        near = by_distance(nodes, new)
        reader = near[-1]
        known = [c.id for c in reader.dht._members.tables[Overlay.PUBLIC_IPV4].closest(new.key, 8)]
        first = next(node for node in nodes if node.key.node_id == known[0])
        for node in near[:8]:
            if node is not first:
                give(node, new)
                world.set_link(node.network, LinkProfile("slower", up=LaneProfile(0.02)))
        give(first, old)
        later: list[GetResult] = []
        found = await reader.dht.get(
            nodes[3].key.public_raw, SALT, realms=PUBLIC_ONLY, fast=True, on_newer=later.append
        )
        assert (found.record, found.settled) == (old, False)
        assert not later
        await asyncio.sleep(2)
        assert [(result.record, result.settled) for result in later] == [(new, False), (new, True)]
        assert found.elapsed_s < later[-1].elapsed_s
        assert seq_at(first, new) == 2  # mended behind the read
        whole = await reader.dht.get(nodes[3].key.public_raw, b"no such", realms=PUBLIC_ONLY, fast=True)
        assert (whole.record, whole.settled) == (None, True)
        await stop_all(nodes)

    run_virtual(main, delay=0.05)


def test_whoever_gives_up_a_fast_read_leaves_nothing_behind() -> None:
    """A cancelled read ends its search; one that had returned ends with the node."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30, PUBLIC)
        await asyncio.sleep(60)
        reader = nodes[5]
        task = asyncio.ensure_future(reader.dht.get(nodes[3].key.public_raw, SALT, fast=True))
        await asyncio.sleep(0.01)
        assert reader.dht.statistics().pending > 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        assert reader.dht.statistics().pending == 0
        give(nodes[4], signed(nodes[3], 1))
        later: list[GetResult] = []
        await reader.dht.get(nodes[3].key.public_raw, SALT, fast=True, on_newer=later.append)
        await stop_all(nodes)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main, delay=0.05)
