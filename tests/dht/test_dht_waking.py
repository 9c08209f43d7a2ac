"""The network was away: a suspended laptop, a cable out for minutes, another address. Contacts become doubtful, not
dead, and the first lookup afterwards works at once."""

from __future__ import annotations

import asyncio

from support.dht_network import PUBLIC, DhtNode, make_network, make_node, stop_all
from support.dht_records import records_of

from p2pnode.core.address import Realm
from p2pnode.dht import DhtSettings
from p2pnode.dht.overlay import Overlay
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.faults import move, resume, suspend

AWAY_S = 1800.0


async def laptop(world: VirtualWorld, nodes: list[DhtNode], settings: DhtSettings = PUBLIC) -> DhtNode:
    """A node whose life is inside its process, so that its lid can be closed."""
    node = make_node(world, "5.200.0.1", settings=settings)
    await node.network.run(node.open("0.0.0.0"))
    await node.network.run(node.dht.bootstrap([nodes[0].contact]))
    return node


async def reads_at_once(world: VirtualWorld, node: DhtNode, author: DhtNode) -> float:
    """Return how long the read took, in seconds."""
    began = world.loop.time()
    result = await node.network.run(node.dht.get(author.key.public_raw, b"mail/0", fast=True))
    assert result.record is not None
    return world.loop.time() - began


def test_a_laptop_that_slept_half_an_hour_reads_at_once() -> None:
    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 40)
        node = await laptop(world, nodes)
        await asyncio.sleep(60)
        known = len(node.dht._members.tables[Overlay.PUBLIC_IPV4])
        suspend(node.network)
        await asyncio.sleep(AWAY_S)
        await nodes[3].dht.put(records_of(nodes[3], 1)[0], realms=[Realm.PUBLIC])
        resume(node.network)
        seconds = await reads_at_once(world, node, nodes[3])
        print(f"read {seconds:.2f} s after waking; {known} contacts before")
        assert seconds < 1.0
        assert len(node.dht._members.tables[Overlay.PUBLIC_IPV4]) >= 0.9 * known
        await stop_all([*nodes, node])

    run_virtual(main, delay=0.04)


def test_contacts_stay_while_our_own_cable_is_out() -> None:
    """Ten minutes of silence from everybody: it is we who are cut off. Afterwards a read works at once."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 40)
        node = await laptop(world, nodes)
        await asyncio.sleep(60)
        known = len(node.dht._members.tables[Overlay.PUBLIC_IPV4])
        node.network.host.up = False
        failed = 0
        for _ in range(20):  # the user goes on trying
            await asyncio.sleep(30)
            failed += (await node.network.run(node.dht.get(nodes[5].key.public_raw, b"mail/0"))).record is None
        assert failed == 20
        node.network.host.up = True
        await nodes[3].dht.put(records_of(nodes[3], 1)[0], realms=[Realm.PUBLIC])
        kept = len(node.dht._members.tables[Overlay.PUBLIC_IPV4])
        seconds = await reads_at_once(world, node, nodes[3])
        print(f"kept {kept} of {known} contacts; read {seconds:.2f} s after the cable was back")
        assert kept >= 1
        assert seconds < 1.0
        await stop_all([*nodes, node])

    run_virtual(main, delay=0.04)


def test_a_node_that_moved_is_found_at_its_new_address_only() -> None:
    """Its own table still serves; others learn the new address with the next message, or find the old one silent."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 40)
        node = await laptop(world, nodes)
        await nodes[3].dht.put(records_of(nodes[3], 1)[0], realms=[Realm.PUBLIC])
        await asyncio.sleep(60)
        move(node.network, "5.201.0.1")
        node.dht.addresses_changed()
        seconds = await reads_at_once(world, node, nodes[3])
        assert seconds < 1.0
        await node.network.run(node.dht.lookup(node.key.node_id, realm=Realm.PUBLIC))
        await asyncio.sleep(1800)  # who did not hear of it finds the old address silent
        places = {
            contact.address.ip
            for other in nodes
            for contact in other.dht._members.tables[Overlay.PUBLIC_IPV4]
            if contact.id == node.key.node_id
        }
        assert places == {"5.201.0.1"}
        await stop_all([*nodes, node])

    run_virtual(main, delay=0.04)


def test_a_search_goes_on_from_farther_contacts_when_all_of_the_nearest_are_dead() -> None:
    """The twelve nearest to the key die, all that the reader would begin with: it finds the living ones behind them."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 60, DhtSettings(serve=frozenset(Realm), ksize=8))
        await asyncio.sleep(60)
        record = records_of(nodes[3], 1)[0]
        goal = int.from_bytes(record.key, "big")
        others = [node for node in nodes if node not in (nodes[3], nodes[4])]
        others.sort(key=lambda node: int.from_bytes(node.key.node_id, "big") ^ goal)
        for node in others[:12]:
            node.network.host.up = False
        stored = await nodes[3].dht.put(record, realms=[Realm.PUBLIC])
        assert stored.stored >= 8
        assert (await nodes[4].dht.get(record.public_key, record.salt)).record == record
        await stop_all(nodes)

    run_virtual(main, delay=0.04)
