"""Dial-back: who becomes a server of the public realm, and who does not. The role alone, then whole networks."""

from __future__ import annotations

import asyncio

import pytest
from support.dht_network import PUBLIC, DhtNode, make_node, start_node, stop_all

from p2pnode.core.address import Address, Realm
from p2pnode.dht import DhtSettings
from p2pnode.dht.dialback import CONFIRM, Evidence, Role, judge
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PROVEN, SILENT, INCONCLUSIVE, NOBODY = Evidence.PROVEN, Evidence.SILENT, Evidence.INCONCLUSIVE, Evidence.NOBODY


@pytest.mark.parametrize(
    ("ip_known", "port_known", "own_interface", "expected"),
    [
        (False, False, False, PROVEN),
        (False, False, True, PROVEN),
        (True, False, True, PROVEN),
        (True, False, False, INCONCLUSIVE),
        (True, True, True, INCONCLUSIVE),
        (True, True, False, INCONCLUSIVE),
    ],
)
def test_what_an_arrival_proves(ip_known: bool, port_known: bool, own_interface: bool, expected: Evidence) -> None:
    """A stranger's IP proves; a stranger's port only where no NAT can stand between."""
    assert judge(ip_known=ip_known, port_known=port_known, own_interface=own_interface) is expected


@pytest.mark.parametrize(
    ("evidence", "serves"),
    [
        ([], False),
        ([NOBODY, NOBODY], False),
        ([SILENT], False),
        ([INCONCLUSIVE], False),
        ([PROVEN], True),
        ([SILENT, PROVEN], True),
        ([PROVEN, SILENT], True),
        ([PROVEN, SILENT, SILENT], False),
        ([PROVEN, SILENT, PROVEN, SILENT], True),
        ([PROVEN, NOBODY, NOBODY, NOBODY], True),
        ([PROVEN, INCONCLUSIVE, INCONCLUSIVE], True),
        ([PROVEN, SILENT, SILENT, PROVEN], True),
    ],
)
def test_role_follows_the_evidence(evidence: list[Evidence], serves: bool) -> None:
    """Server after one proof, client after two silences in a row; what shows nothing changes nothing."""
    role = Role(serves=False, interval=900.0)
    role.joined(0.0)
    for result in evidence:
        assert role.check_at < float("inf")
        role.checked(result, role.check_at)
    assert role.serves is serves


@pytest.mark.parametrize(
    ("evidence", "refuted"),
    [
        ([], False),
        ([NOBODY], False),
        ([SILENT], True),
        ([INCONCLUSIVE, NOBODY], True),
        ([SILENT, PROVEN], False),
        ([PROVEN, SILENT], False),
        ([PROVEN, SILENT, SILENT], True),
    ],
)
def test_unreachable_is_who_was_tried_in_vain(evidence: list[Evidence], refuted: bool) -> None:
    """Nobody to try says nothing; another address starts anew."""
    role = Role(serves=False, interval=900.0)
    role.joined(0.0)
    for result in evidence:
        role.checked(result, role.check_at)
    assert role.refuted is refuted
    role.addresses_changed(1000.0)
    assert not role.refuted


def test_role_checks_soon_then_rarely_and_at_once_when_addresses_change() -> None:
    """A client asks ever less often, a server each 15 minutes, after a silence within seconds."""
    role = Role(serves=False, interval=900.0)
    assert role.check_at == float("inf")
    role.joined(100.0)
    assert role.check_at == 101.0
    pauses = []
    for _ in range(6):
        before = role.check_at
        role.checked(SILENT, before)
        pauses.append(role.check_at - before)
    assert pauses == [10.0, 30.0, 120.0, 600.0, 600.0, 600.0]
    role.checked(PROVEN, 5000.0)
    assert (role.serves, role.check_at) == (True, 5900.0)
    role.checked(SILENT, 5900.0)
    assert (role.serves, role.check_at) == (True, 5900.0 + CONFIRM)
    role.addresses_changed(5901.0)
    assert (role.serves, role.check_at) == (False, 5902.0)


def test_a_bootstrap_node_serves_without_any_check() -> None:
    """Who is set to serve the public realm never asks, whatever happens."""
    role = Role(serves=True, interval=900.0)
    role.joined(0.0)
    role.checked(SILENT, 0.0)
    role.checked(SILENT, 0.0)
    role.addresses_changed(0.0)
    assert (role.serves, role.check_at) == (True, float("inf"))


class Filter:
    """What a NAT lets in to a node: from addresses it sent to, from their IPs, or from anywhere."""

    def __init__(self, node: DhtNode, kind: str) -> None:
        self.kind, self.node = kind, node
        self.sent: set[Address] = set()

    async def open(self, ip: str) -> None:
        socket = await self.node.network.open_udp(Address(ip, 4747), self._received)
        self.node.sockets.append(socket)
        send = self.node._send

        def noted(data: bytes, to: Address) -> None:
            self.sent.add(to)
            send(data, to)

        self.node.dht._engine._send_datagram = noted
        await self.node.dht.start()

    def _received(self, data: bytes, source: Address) -> None:
        allowed = {"full": True, "ip": source.ip in {to.ip for to in self.sent}, "port": source in self.sent}
        if allowed[self.kind]:
            self.node.dht.datagram_received(data, source)


async def behind(world: VirtualWorld, kind: str, bootstrap: list[DhtNode], *, own_ip: bool = False) -> DhtNode:
    """Return a joined node behind a filter; `own_ip`: its public address is its interface's, a firewall's case."""
    node = make_node(world, "5.9.0.1", settings=DhtSettings())
    if not own_ip:
        interfaces = node.network.interfaces
        node.network.interfaces = lambda: interfaces()[:1]  # type: ignore[method-assign]
    await Filter(node, kind).open("5.9.0.1")
    await node.dht.bootstrap([other.contact for other in bootstrap])
    return node


@pytest.mark.parametrize("servers", [1, 2, 6])
def test_a_public_node_serves_a_second_after_joining(servers: int) -> None:
    """Also where it knows all others from joining, or only one; they take it into their tables."""

    async def main(world: VirtualWorld) -> None:
        first = await start_node(world, "5.0.0.1")
        others = [await start_node(world, f"5.0.{i}.1", PUBLIC, [first]) for i in range(1, servers)]
        node = await start_node(world, "5.7.0.1", DhtSettings(), [first])
        said: list[tuple[Realm, bool]] = []
        node.dht.on_serving = lambda realm, serves: said.append((realm, serves))
        assert Realm.PUBLIC not in node.dht.serving
        await asyncio.sleep(2)
        assert node.dht.serving == frozenset(Realm)
        assert said == [(Realm.PUBLIC, True)]
        assert all(node.contact in n.dht.known_contacts() for n in (first, *others))
        assert await node.dht.dial_back()
        await stop_all([first, *others, node])

    run_virtual(main, delay=0.04)


@pytest.mark.parametrize(
    ("kind", "own_ip", "late_server", "serves"),
    [
        ("port", False, False, False),
        ("port", False, True, False),
        ("port", True, True, False),
        ("ip", False, False, False),
        ("ip", False, True, False),
        ("full", False, False, False),
        ("full", False, True, True),
        ("full", True, False, True),
    ],
)
def test_who_serves_behind_a_nat(kind: str, own_ip: bool, late_server: bool, serves: bool) -> None:
    """Filters by port or IP: never. Full cone: once a node dials that it never sent to. Ten minutes of checks."""

    async def main(world: VirtualWorld) -> None:
        first = await start_node(world, "5.0.0.1")
        nodes = [first, *[await start_node(world, f"5.0.{i}.1", PUBLIC, [first]) for i in (1, 2)]]
        node = await behind(world, kind, nodes, own_ip=own_ip)
        if late_server:
            nodes += [await start_node(world, f"5.1.{i}.1", PUBLIC, nodes[:3]) for i in range(6)]
        ever = False
        for _ in range(60):
            await asyncio.sleep(10)
            ever |= Realm.PUBLIC in node.dht.serving
        assert ever is serves
        await stop_all([*nodes, node])

    # The dialler is drawn at random; within ten minutes a stranger is drawn in three of five worlds, this is one.
    run_virtual(main, seed=2, delay=0.04)


def test_a_server_that_can_no_longer_be_reached_becomes_a_client() -> None:
    """The filter closes: within one interval and a confirmation it stops serving, and leaves others' tables."""

    async def main(world: VirtualWorld) -> None:
        nodes = [await start_node(world, "5.0.0.1")]
        nodes += [await start_node(world, f"5.0.{i}.1", PUBLIC, nodes) for i in (1, 2)]
        node = make_node(world, "5.9.0.1", settings=DhtSettings(dial_back_interval=60))
        wall = Filter(node, "full")
        await wall.open("5.9.0.1")
        await node.dht.bootstrap([nodes[0].contact])
        await asyncio.sleep(3)
        assert Realm.PUBLIC in node.dht.serving
        wall.kind = "port"
        await asyncio.sleep(90)
        assert Realm.PUBLIC not in node.dht.serving
        assert node.dht.serving == {Realm.LOOPBACK, Realm.PRIVATE}
        wall.kind = "full"
        node.dht.addresses_changed()
        await asyncio.sleep(3)
        assert Realm.PUBLIC in node.dht.serving
        await stop_all([*nodes, node])

    run_virtual(main, delay=0.04)


def test_another_use_of_the_socket_counts_as_having_sent() -> None:
    """`has_sent_to` makes an IP known that only STUN or QUIC were sent to."""

    async def main(world: VirtualWorld) -> None:
        first = await start_node(world, "5.0.0.1")
        other = await start_node(world, "5.0.1.1", PUBLIC, [first])
        node = make_node(world, "5.9.0.1", settings=DhtSettings(dial_back=False))
        interfaces = node.network.interfaces
        node.network.interfaces = lambda: interfaces()[:1]  # type: ignore[method-assign]
        await Filter(node, "full").open("5.9.0.1")
        await node.dht.ping(first.contact)
        node.dht.has_sent_to = lambda ip: ip == other.address.ip
        assert not await node.dht.dial_back(timeout=1)
        node.dht.has_sent_to = None
        assert await node.dht.dial_back(timeout=1)
        assert node.dht.statistics().datagrams_in["dial_back"] == 2
        await stop_all([first, other, node])

    run_virtual(main, delay=0.04)
