"""Records whose author is gone go over to newcomers that are nearer to their keys, in virtual time."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from support.dht_network import PUBLIC, DhtNode, make_network, start_node, stop_all
from support.dht_records import records_of, share_held

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import SignedRecord
from p2pnode.dht.contact import Contact
from p2pnode.dht.handover import FIRST_PAUSE, HANDED, MAX_OF_PREFIX, MAX_WAITING, SECOND_PAUSE, SETTLED, HandOverPlan
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.table import Table
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PUBLIC_ONLY = [Realm.PUBLIC]
FULL = os.environ.get("P2PNODE_DHT") == "full"  # CI's slow part: 60 nodes, 30 newcomers, 40 records
OVERLAY = Overlay.PUBLIC_IPV4


def spent(nodes: list[DhtNode]) -> tuple[int, int, int]:
    """Return (records offered, records given, datagrams for both), all nodes together."""
    parts = [node.dht._upkeep._hand_over for node in nodes]
    offered, given = sum(part.offered for part in parts), sum(part.given for part in parts)
    return offered, given, 2 * offered + 2 * given


async def newcomers(world: VirtualWorld, count: int, through: DhtNode) -> list[DhtNode]:
    ips = [f"6.{i}.0.1" for i in range(count)]
    return list(await asyncio.gather(*(start_node(world, ip, PUBLIC, [through]) for ip in ips)))


def test_records_go_over_to_newcomers_that_are_nearer() -> None:
    """Half as many newcomers as nodes join, the authors are gone: 3 minutes later the true closest hold the records."""
    size, count = (60, 20) if FULL else (36, 6)

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, size)
        await asyncio.sleep(SETTLED + 10)
        authors = nodes[7:9]
        records: list[SignedRecord] = []
        for author in authors:
            records += records_of(author, count)
            await asyncio.gather(*(author.dht.put(record, realms=PUBLIC_ONLY) for record in records[-count:]))
        for author in authors:
            author.network.host.up = False
        nodes = [node for node in nodes if node not in authors]
        nodes += await newcomers(world, size // 2, nodes[0])
        before = [share_held(nodes, records, near, world.loop.time()) for near in (8, 20)]
        await asyncio.sleep(180)
        after = [share_held(nodes, records, near, world.loop.time()) for near in (8, 20)]
        offered, given, datagrams = spent(nodes)
        print(f"held by the true closest 8, 20: {before[0]:.2f}, {before[1]:.2f}")
        print(f"three minutes later: {after[0]:.3f}, {after[1]:.3f}")
        print(f"{offered} offers, {given} given: {datagrams} datagrams, {datagrams / given:.1f} for each given")
        assert before[1] < 0.8
        assert after[0] >= 0.97
        assert after[1] >= 0.90
        assert datagrams <= 8 * given
        await stop_all([*nodes, *authors])

    run_virtual(main, seed=3, delay=lambda rng: rng.uniform(0.025, 0.075), loss=0.05)


@pytest.mark.parametrize("speaks_first", [True, False])
def test_a_node_that_was_restarted_gets_its_records_again(speaks_first: bool) -> None:
    """Its keys and records are gone, its id and address the same: the others notice by its asking for new keys, or by
    its not knowing theirs; minutes later it holds what it held."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30)
        await asyncio.sleep(SETTLED + 10)
        author, one = nodes[7], nodes[12]
        records = records_of(author, 20)
        await asyncio.gather(*(author.dht.put(record, realms=PUBLIC_ONLY) for record in records))
        author.network.host.up = False
        await asyncio.sleep(60)
        before = len(one.dht.storage)
        await one.close()
        again = DhtNode(one.network, one.key, PUBLIC)
        await again.open(one.address.ip)
        if speaks_first:
            await again.dht.bootstrap([nodes[0].contact])
        await asyncio.sleep(200)
        print(f"{before} records before, {len(again.dht.storage)} after")
        assert before >= 8
        assert len(again.dht.storage) >= 0.9 * before
        await stop_all([*nodes, again])

    run_virtual(main, seed=2, delay=0.05)


def test_a_network_that_has_just_begun_hands_nothing_over() -> None:
    """Thirty nodes start at once and publish at once: everybody is a newcomer to everybody, and nobody is offered."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30)
        await asyncio.gather(
            *(node.dht.put(record, realms=PUBLIC_ONLY) for node in nodes for record in records_of(node, 1))
        )
        await asyncio.sleep(100)
        assert spent(nodes) == (0, 0, 0)
        await stop_all(nodes)

    run_virtual(main, seed=1, delay=0.05)


def test_s1_newcomers_without_end_cannot_make_a_holder_send_without_end() -> None:
    """A holder of 60 records whose table is told of a newcomer ten times a second, each in a network of its own: ten
    offers at once, then one a second."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 3)
        await asyncio.sleep(SETTLED + 10)
        target = nodes[1]
        for record in records_of(nodes[2], 60):
            target.dht.storage.store(record, Realm.PUBLIC, b"abc", world.loop.time(), target.network.wall())
        rng, table = random.Random(5), target.dht._members.tables[OVERLAY]
        for i in range(600):
            ghost = contact_at(rng.getrandbits(160), i, world.loop.time())
            table.add_contact(ghost)
            target.dht._upkeep._hand_over.joined(OVERLAY, ghost)
            await asyncio.sleep(0.1)
        offered, given, _ = spent(nodes)
        print(f"600 newcomers in a minute: {offered} offers")
        assert given == 0
        assert 10 <= offered <= 10 + 60
        await stop_all(nodes)

    run_virtual(main, seed=7, delay=0.02)


# -- the decisions alone ------------------------------------------------------------------------------------------


def contact_at(node_id: int, i: int, now: float = 0.0) -> Contact:
    contact = Contact(NodeId(node_id.to_bytes(20, "big")), Address(f"7.{i // 250}.{i % 250}.1", 4747), OVERLAY)
    contact.last_seen = contact.first_seen = now
    return contact


TAG = bytes(8)
WALL = 1000.0


class Holder:
    """A plan with a record stored at 100 s, and a table of 100 contacts known since the beginning."""

    def __init__(self, rank: int, life: float = 1000.0) -> None:
        """`rank`: how many contacts are nearer to the record's key than the holder."""
        key = NodeKey.generate(random.Random(3).randbytes)
        self.record = SignedRecord.sign(key, TAG, b"s", 1, int(WALL + life), b"v")
        self.goal = int.from_bytes(self.record.key, "big")
        rng = random.Random(1)
        others = sorted((rng.getrandbits(160) for _ in range(100)), key=lambda node_id: node_id ^ self.goal)
        own = others[rank] ^ 1
        self.table = Table(NodeId(own.to_bytes(20, "big")), 20, OVERLAY)
        self.contacts = [contact_at(node_id, i) for i, node_id in enumerate(others) if i != rank]
        for contact in self.contacts:
            self.table.add_contact(contact)
        storage = RecordStorage(TAG, PUBLIC)
        assert storage.store(self.record, Realm.PUBLIC, b"abc", 100.0, WALL) is None
        self.plan = HandOverPlan(own.to_bytes(20, "big"), {OVERLAY: self.table}, storage, PUBLIC)
        self.plan.joined(OVERLAY, self.contacts[0], 0.0, 0.5)  # the first that we meet ourselves

    def joins(self, distance: int, now: float, i: int = 999) -> Contact:
        newcomer = contact_at(self.goal ^ distance, i, now)
        assert self.table.add_contact(newcomer)
        self.plan.joined(OVERLAY, newcomer, now, 0.0)
        return newcomer

    def offers(self, now: float, wall: float = WALL) -> int:
        count = 0
        while self.plan.due(now):
            count += self.plan.next_offer(now, wall) is not None
        return count


def test_the_nearest_offers_soon_the_second_nearest_later_and_others_never() -> None:
    """One offer by each of two holders, whichever they are; none from the third on."""
    counts = []
    for rank in range(4):
        holder = Holder(rank)
        holder.joins(5, 200.0)
        soon = holder.offers(200.0 + FIRST_PAUSE)
        counts.append((soon, holder.offers(200.0 + SECOND_PAUSE)))
        assert len(holder.plan) == 0
    assert counts == [(1, 0), (0, 1), (0, 0), (0, 0)]


def test_who_came_after_the_record_does_not_count_as_its_holder() -> None:
    """Two newcomers nearer than we are do not relieve us, until they have been there for ten minutes."""
    holder = Holder(0)
    holder.joins(7, 200.0, 997)
    holder.joins(6, 200.0, 998)
    assert holder.offers(300.0) == 2
    holder.joins(5, 310.0)
    assert holder.offers(400.0) == 1
    holder.joins(4, 310.0 + HANDED, 996)
    assert holder.offers(400.0 + HANDED) == 0


def test_what_is_not_worth_an_offer() -> None:
    """A record about to expire; a newcomer too far to hold it, one that has left, one that comes while we are new."""
    holder = Holder(0, life=100.0)
    holder.joins(5, 200.0)
    assert holder.offers(200.0 + FIRST_PAUSE, WALL + 50) == 0
    holder = Holder(0)
    far = holder.table.closest(holder.record.key, 40)[25].long_id ^ holder.goal
    holder.joins(far ^ 1, 200.0)
    gone = holder.joins(5, 200.0, 998)
    holder.table.remove_contact(gone)
    assert holder.offers(300.0) == 0
    holder.joins(6, SETTLED - 1.0, 997)
    assert len(holder.plan) == 0


def test_s1_waiting_newcomers_are_bounded_in_all_and_per_prefix() -> None:
    """Of 1,000 newcomers from one network eight wait, of 1,000 from everywhere 256."""
    for spread, expected in ((False, MAX_OF_PREFIX), (True, MAX_WAITING)):
        holder = Holder(0)
        for i in range(1000):
            node_id = NodeId((holder.goal ^ (i + 10)).to_bytes(20, "big"))
            ip = f"8.{i // 250}.{i % 250}.1" if spread else f"8.0.0.{i % 250}"
            holder.plan.joined(OVERLAY, Contact(node_id, Address(ip, 1000 + i), OVERLAY), 200.0, 0.0)
        print(f"waiting: {len(holder.plan)}")
        assert len(holder.plan) == expected
        assert holder.offers(200.0 + SECOND_PAUSE) == 0  # none of them is in the table
        assert len(holder.plan) == 0
