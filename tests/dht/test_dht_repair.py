"""Repair by holders, in virtual time: records whose author is gone stay on the nodes nearest to them."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.dht_network import PUBLIC, make_network, stop_all
from support.dht_records import records_of, share_held

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.contact import Contact, pack_address
from p2pnode.dht.neighbours import CheckUp, most_silent
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.repair import RepairPlan
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.table import Table
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

SMALL = DhtSettings(serve=frozenset(Realm), ksize=8)
PUBLIC_ONLY = [Realm.PUBLIC]


@pytest.mark.parametrize("calm_s", [60, 1500])
def test_holders_repair_when_half_of_all_nodes_and_the_author_die(calm_s: float) -> None:
    """Three minutes after half of 48 nodes died, 97 % of the nearest hold each record unchanged; nobody had before.
    Also where nobody died for long, so that neighbours are seldom asked."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 48, SMALL)
        await asyncio.sleep(calm_s)
        author = nodes[7]
        records = records_of(author, 12)
        for record in records:
            await author.dht.put(record, realms=PUBLIC_ONLY)
        dying, living = nodes[1::2], nodes[::2]
        for node in dying:
            node.network.host.up = False
        before = share_held(living, records, 8, world.loop.time())
        await asyncio.sleep(180)
        after = share_held(living, records, 8, world.loop.time())
        print(f"held by the true closest 8: {before:.2f}, three minutes later {after:.2f}")
        assert before < 0.7
        assert after >= 0.97
        await stop_all(nodes)

    run_virtual(main, seed=6, delay=lambda rng: rng.uniform(0.025, 0.075), loss=0.05)


def test_one_death_costs_a_few_pings_and_no_repair() -> None:
    """With one of 30 nodes gone, nobody searches for records, and all notice within five minutes."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30)
        await asyncio.sleep(60)
        for record in records_of(nodes[3], 5):
            await nodes[3].dht.put(record, realms=PUBLIC_ONLY)
        gone = nodes.pop(11)
        gone.network.host.up = False
        gets = sum(node.dht.statistics().requests.get("Get", 0) for node in nodes)
        await asyncio.sleep(300)
        known = sum(gone.contact in node.dht.known_contacts() for node in nodes)
        assert sum(node.dht.statistics().requests.get("Get", 0) for node in nodes) == gets
        print(f"{known} of 29 still know it after 300 s")
        assert known <= 2
        await stop_all([*nodes, gone])

    run_virtual(main, seed=2, delay=0.05)


def test_an_idle_server_stays_below_thirty_datagrams_a_minute() -> None:
    """Fifty idle servers: none sends and receives more than 30 a minute, on average 24 (0.4 a second)."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 50)
        await asyncio.sleep(240)

        def traffic() -> list[int]:
            found = [node.dht.statistics() for node in nodes]
            return [sum(s.datagrams_in.values()) + sum(s.datagrams_out.values()) for s in found]

        before = traffic()
        await asyncio.sleep(900)
        rates = [(now - then) / 15 for now, then in zip(traffic(), before, strict=True)]
        print(f"datagrams a minute, both directions: mean {sum(rates) / 50:.1f}, most {max(rates):.1f}")
        assert max(rates) <= 30
        assert sum(rates) / 50 <= 24
        await stop_all(nodes)

    run_virtual(main, seed=4, delay=0.05)


def test_a_node_that_is_cut_off_keeps_its_neighbours() -> None:
    """Five minutes without network: when it is back, a node still knows most of its neighbours."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 30)
        await asyncio.sleep(60)
        one = nodes[5]
        before = len(one.dht.known_contacts())
        one.network.host.up = False
        await asyncio.sleep(300)
        one.network.host.up = True
        kept = len(one.dht.known_contacts())
        print(f"{kept} of {before} contacts kept")
        assert kept >= 0.7 * before
        await stop_all(nodes)

    run_virtual(main, seed=5, delay=0.05)


def test_liars_among_the_nearest_cannot_turn_repair_against_a_victim() -> None:
    """Two liars name a victim's address under many ids, and deny having the record: the victim gets no store, and no
    more questions than a lookup allows; the liars get each record once in five minutes."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 32, SMALL)
        await asyncio.sleep(60)
        victim = world.host("5.99.0.1")
        hits: list[bytes] = []
        socket = await victim.open_udp(Address("5.99.0.1", 53), lambda data, _: hits.append(data))
        records = records_of(nodes[3], 6)
        rng = random.Random(1)
        for liar in nodes[2:6:2]:
            lie = [rng.randbytes(20) + pack_address(Address("5.99.0.1", 53 + i % 3)) for i in range(20)]
            service = liar.dht._engine._answerer._service
            service._contacts = lambda *_, lie=lie: (b"".join(lie), b"")  # type: ignore[method-assign]
            liar.dht.storage.read = lambda *_: None  # type: ignore[method-assign]
        for record in records:
            await nodes[3].dht.put(record, realms=PUBLIC_ONLY)
        await asyncio.sleep(10)
        hits.clear()
        stores = [node.dht.statistics().requests.get("Put", 0) for node in nodes[2:6:2]]
        for node in nodes[7::2]:
            node.network.host.up = False
        await asyncio.sleep(240)
        brought = [node.dht.statistics().requests.get("Put", 0) for node in nodes[2:6:2]]
        print(f"victim: {len(hits)} datagrams; liars: {[b - a for a, b in zip(stores, brought, strict=True)]} stores")
        assert {data[0] for data in hits} <= {5}  # signed questions only: a store is always sealed
        assert len(hits) <= 12 * 2 * 2 * len(records)  # 4 asked three times per search; two repairers at most twice
        assert all(b - a <= 2 * 3 * len(records) for a, b in zip(stores, brought, strict=True))
        socket.close()
        await stop_all(nodes)

    run_virtual(main, seed=6, delay=0.05)


def test_flapping_neighbours_cannot_make_a_holder_search_without_end() -> None:
    """Three hundred records whose holders seem to die all the time: ten searches at once, then six a minute."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 12, SMALL)
        await asyncio.sleep(60)
        target = nodes[4]
        for record in records_of(nodes[1], 300):
            target.dht.storage.store(record, Realm.PUBLIC, b"abc", world.loop.time(), target.network.wall())
        repairer = target.dht._upkeep._repairer
        searches: list[float] = []
        repair = repairer._repair

        async def counted(overlay: Overlay, record: SignedRecord) -> None:
            searches.append(world.loop.time())
            await repair(overlay, record)

        repairer._repair = counted  # type: ignore[method-assign]
        contacts = list(target.dht._members.tables[Overlay.PUBLIC_IPV4])
        for _ in range(600):
            for contact in contacts:
                repairer.lost(Overlay.PUBLIC_IPV4, contact)
            await asyncio.sleep(1)
        print(f"{len(searches)} searches in ten minutes")
        assert 10 < len(searches) <= 10 + 60 + 1
        await stop_all(nodes)

    run_virtual(main, seed=7, delay=0.02)


# -- the decisions alone ------------------------------------------------------------------------------------------


def contact_at(node_id: int, i: int, now: float = 0.0) -> Contact:
    contact = Contact(
        NodeId(node_id.to_bytes(20, "big")), Address(f"5.{i // 250}.{i % 250}.1", 4747), Overlay.PUBLIC_IPV4
    )
    contact.last_seen = contact.first_seen = now
    return contact


def filled_table(own: NodeId, count: int, seed: int = 1) -> Table:
    table = Table(own, 20, Overlay.PUBLIC_IPV4)
    rng = random.Random(seed)
    for i in range(count):
        table.add_contact(contact_at(rng.getrandbits(160), i))
    return table


def test_three_of_four_pings_go_to_silent_neighbours() -> None:
    """Neighbours silent for two minutes come first, others after ten minutes, each fourth ping to them."""
    table = filled_table(NodeId(bytes(20)), 200)
    near = {contact.id for contact in table.neighbours()}
    heard = max(table, key=lambda contact: contact.long_id)
    assert most_silent([table], [Overlay.PUBLIC_IPV4], 100.0, PUBLIC, 1) is None
    chosen = most_silent([table], [Overlay.PUBLIC_IPV4], 130.0, PUBLIC, 1)
    assert chosen is not None
    assert chosen.id in near
    assert (
        most_silent([table], [Overlay.PUBLIC_IPV4], 200.0, PUBLIC, 1) is None
    )  # nobody was heard for three minutes: we are cut off
    heard.last_seen = 690.0
    picked = [most_silent([table], [Overlay.PUBLIC_IPV4], 700.0, PUBLIC, turn) for turn in range(1, 9)]
    assert [contact is not None and contact.id in near for contact in picked] == [True, True, True, False] * 2


def test_a_missing_neighbour_is_asked_again_and_others_are_looked_at() -> None:
    """One miss pays for three quick pings; those who answer end it; the missing one is asked after 3 s and 6 s."""
    table = filled_table(NodeId(bytes(20)), 100)
    check = CheckUp(table, PUBLIC)
    missing = table.neighbours()[0]
    far = max(table, key=lambda contact: contact.long_id)
    now = 100.0
    table.missed(far)
    assert not check.missed(far)
    missing.last_pinged = now
    table.missed(missing)
    assert check.missed(missing)
    asked: list[tuple[float, bool]] = []
    for _ in range(100):
        contact, pause = check.next(now)
        if contact is not None:
            asked.append((now - 100, contact is missing))
            if contact is missing:
                table.missed(contact)
            else:
                contact.last_seen = now
        elif pause < 0:
            break
        now += pause
    assert sum(1 for _, again in asked if not again) == 3
    assert [round(at) for at, again in asked if again] == [3, 9]
    assert table.find(missing.id) is None


@pytest.mark.parametrize("lost", [2, 3])
def test_a_record_is_repaired_after_three_losses_by_the_nearest_only(lost: int) -> None:
    """Two of twenty are not worth a search; after three the nearest acts, once in five minutes; others do not."""
    key = NodeKey.generate(random.Random(3).randbytes)
    tag = bytes(8)
    record = SignedRecord.sign(key, tag, b"s", 1, 2000, b"v")
    goal = int.from_bytes(record.key, "big")
    for ours, expected in ((goal ^ 1, lost >= 3), (goal ^ 2**159, False)):
        own = NodeId(ours.to_bytes(20, "big"))
        table = filled_table(own, 100)
        storage = RecordStorage(tag, PUBLIC)
        assert storage.store(record, Realm.PUBLIC, b"abc", 0.0, 1000.0) is None
        plan = RepairPlan(own, {Overlay.PUBLIC_IPV4: table}, storage, PUBLIC)
        dropped = table.closest(record.key, lost)
        for contact in dropped:
            table.remove_contact(contact)
        plan.lost(Overlay.PUBLIC_IPV4, dropped, 50.0, 0.5)
        assert plan.next_due(51.0) is None  # who else dies is awaited
        assert (plan.next_due(120.0) is not None) is expected
        if not expected:
            continue
        plan.lost(Overlay.PUBLIC_IPV4, dropped, 121.0, 0.5)
        assert plan.next_due(400.0) is None
        assert plan.next_due(500.0) is not None


def test_an_author_that_publishes_anew_ends_the_count_of_losses() -> None:
    """What came in since the losses was brought to the others too: nothing is left to repair."""
    key = NodeKey.generate(random.Random(3).randbytes)
    tag = bytes(8)
    first = SignedRecord.sign(key, tag, b"s", 1, 2000, b"v")
    own = NodeId((int.from_bytes(first.key, "big") ^ 1).to_bytes(20, "big"))
    table = filled_table(own, 100)
    storage = RecordStorage(tag, PUBLIC)
    storage.store(first, Realm.PUBLIC, b"abc", 0.0, 1000.0)
    plan = RepairPlan(own, {Overlay.PUBLIC_IPV4: table}, storage, PUBLIC)
    plan.lost(Overlay.PUBLIC_IPV4, table.closest(first.key, 5), 50.0, 0.5)
    storage.store(SignedRecord.sign(key, tag, b"s", 2, 2000, b"v"), Realm.PUBLIC, b"abc", 60.0, 1010.0)
    assert plan.next_due(120.0) is None
    assert len(plan) == 0
