"""IPv4 and IPv6 side by side: two tables, lookups and stores over both, and how a node of both finds the second."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.dht_network import PUBLIC, DhtNode, make_node, stop_all

from p2pnode.core.address import Realm
from p2pnode.dht import DhtSettings
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import SignedRecord
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

IPV4, IPV6 = Overlay.PUBLIC_IPV4, Overlay.PUBLIC_IPV6


async def start(
    world: VirtualWorld, *ips: str, through: Sequence[DhtNode] = (), settings: DhtSettings = PUBLIC
) -> DhtNode:
    """Return a node with these addresses; `through`: nodes known by their first address."""
    node = make_node(world, *ips, settings=settings)
    node.dht.use_families({":" in ip for ip in ips})
    await node.open(*ips)
    await node.dht.bootstrap([other.contact for other in through])
    return node


async def mixed(world: VirtualWorld) -> tuple[list[DhtNode], list[DhtNode], list[DhtNode]]:
    """Return ten nodes with IPv4, ten with IPv6, ten with both; these know a node with IPv4 to begin with, and one of
    them is the only thing that the IPv6 nodes know."""
    first = await start(world, "5.0.0.1", "2a00:0:1::1")
    first_by_ipv6 = await start(world, "2a00:0:2::1")
    await first.dht.bootstrap([first_by_ipv6.contact])
    four = [await start(world, f"5.1.{i}.1", through=[first]) for i in range(10)]
    six = [first_by_ipv6, *[await start(world, f"2a00:1:{i + 1}::1", through=[first_by_ipv6]) for i in range(9)]]
    both = [first, *[await start(world, f"5.2.{i}.1", f"2a00:2:{i + 1}::1", through=[first]) for i in range(9)]]
    await asyncio.sleep(60)
    return four, six, both


def record_of(node: DhtNode, value: bytes = b"here") -> SignedRecord:
    wall = int(node.network.wall())
    return SignedRecord.sign(node.key, node.dht.network_tag, b"s", wall * 1000, wall + 900, value)


def test_tables_are_separate_and_a_node_of_both_families_joins_both() -> None:
    """It was given one IPv4 address; the other network it finds by what IPv4 nodes of both families tell it."""

    async def main(world: VirtualWorld) -> None:
        four, six, both = await mixed(world)
        for node in (*four, *six, *both):
            contacts = node.dht._members.tables
            assert all(not contact.address.is_ipv6 for contact in contacts[IPV4])
            assert all(contact.address.is_ipv6 for contact in contacts[IPV6])
        for node in four:
            assert len(node.dht._members.tables[IPV6]) == 0
            assert node.dht.statistics().ignored_contacts == 0
        for node in six:
            assert len(node.dht._members.tables[IPV4]) == 0
        for node in both:
            counts = node.dht.statistics().contacts
            assert counts[IPV4] >= 15
            assert counts[IPV6] >= 15
        await stop_all([*four, *six, *both])

    run_virtual(main, delay=0.04)


def test_lookups_and_stores_go_over_both_families() -> None:
    """What a node of both writes is found by all; what a node of one writes, by those of it and of both."""

    async def main(world: VirtualWorld) -> None:
        four, six, both = await mixed(world)
        for author in (both[3], four[3], six[3]):
            result = await author.dht.put(record_of(author), realms=[Realm.PUBLIC])
            assert result.stored >= 18
        for reader in (four[5], six[5], both[5]):
            assert (await reader.dht.get(both[3].key.public_raw, b"s")).record is not None
        for reader in (four[6], both[6]):
            assert (await reader.dht.get(four[3].key.public_raw, b"s")).record is not None
        for reader in (six[6], both[6]):
            assert (await reader.dht.get(six[3].key.public_raw, b"s")).record is not None
        near = await both[0].dht.lookup(both[4].key.node_id, realm=Realm.PUBLIC)
        assert {contact.address.is_ipv6 for contact in near} == {False, True}
        await stop_all([*four, *six, *both])

    run_virtual(main, delay=0.04)


def test_who_can_be_reached_by_one_family_serves_in_that() -> None:
    """Dial-back judges each family by itself: IPv6 lets strangers in, IPv4 does not."""

    async def main(world: VirtualWorld) -> None:
        four, six, both = await mixed(world)
        node = make_node(world, "5.9.0.1", "2a00:9::1", settings=DhtSettings())
        receive, heard = node.dht.datagram_received, set()

        def filtered(data: bytes, source: object) -> None:
            if source.is_ipv6 or source in heard:  # type: ignore[attr-defined]
                receive(data, source)  # type: ignore[arg-type]

        node.dht.datagram_received = filtered  # type: ignore[method-assign,assignment]
        send = node._send
        node.dht._engine._send_datagram = lambda data, to: (heard.add(to), send(data, to))
        await node.open("5.9.0.1", "2a00:9::1")
        await node.dht.bootstrap([both[0].contact])
        await asyncio.sleep(60)
        assert not node.dht.reached(Realm.PUBLIC, is_ipv6=False)
        assert node.dht.reached(Realm.PUBLIC, is_ipv6=True)
        assert node.dht.unreachable(is_ipv6=False)
        assert any(node.key.node_id == contact.id for contact in six[2].dht._members.tables[IPV6])
        assert all(node.key.node_id != contact.id for other in both for contact in other.dht._members.tables[IPV4])
        await stop_all([*four, *six, *both, node])

    run_virtual(main, delay=0.04)


@pytest.mark.slow
def test_guest_finds_out_that_strangers_reach_it_and_is_in_nobodys_table() -> None:
    async def main(world: VirtualWorld) -> None:
        others = [await start(world, "5.1.0.1")]
        others += [await start(world, f"5.2.{i}.1", through=others) for i in range(9)]
        guest = await start(world, "5.9.0.1", through=others[:1], settings=DhtSettings(serve=frozenset(), guest=True))
        resident = await start(world, "5.9.1.1", through=others[:1], settings=DhtSettings())
        await asyncio.sleep(60)
        tables = {contact.id for other in others for contact in other.dht._members.tables[IPV4]}
        assert guest.dht.reached(Realm.PUBLIC, is_ipv6=False)
        assert not guest.dht.serving
        assert guest.key.node_id not in tables
        assert resident.dht.reached(Realm.PUBLIC, is_ipv6=False)
        assert resident.key.node_id in tables
        await stop_all([*others, guest, resident])

    run_virtual(main, delay=0.04)
