"""LAN discovery on the virtual network: who finds whom, when, and who is forgotten."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from support.lan import Member, Stranger, announcement, key
from support.require import require_namespaces

from p2pnode.core.address import Address
from p2pnode.core.network import Interface
from p2pnode.lan_wire import encode_query, read_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def test_two_hosts_find_each_other_with_names_and_addresses() -> None:
    """Each is told of the other at once, of nobody else and never of itself."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2", "fd00::2", lan="x"), 2)
        bob.network.host.add_address("10.0.0.3")
        bob.addresses = (Address("10.0.0.3", 4747), Address("fd00::2", 4747))
        await alice.discovery.start()
        await bob.discovery.start()
        await asyncio.sleep(0.5)
        assert {peer.peer_id for peer in alice.found} == {bob.id}
        assert {peer.peer_id for peer in bob.found} == {alice.id}
        assert alice.found[0].name == "node 2"
        assert alice.found[0].addresses == (Address("10.0.0.3", 4747), Address("fd00::2", 4747))
        assert alice.found[0].source == Address("10.0.0.3", 5353)
        assert alice.found_at[0] < 0.2
        assert bob.found[0].addresses == (Address("10.0.0.1", 4747),)
        assert list(alice.discovery.peers()) == [bob.id]

    run_virtual(main)


def test_five_hosts_find_each_other_whenever_they_come() -> None:
    """Of five that come one after the other, in a network that loses a tenth, each finds the four others."""

    async def main(world: VirtualWorld) -> None:
        members = [Member(world.host(f"10.0.0.{i}"), i) for i in range(1, 6)]
        for member in members:
            await member.discovery.start()
            await asyncio.sleep(7)
        await asyncio.sleep(60)
        for member in members:
            assert {peer.peer_id for peer in member.found} == {m.id for m in members if m is not member}
            assert len(member.discovery.peers()) == 4

    run_virtual(main, loss=0.1, seed=3)


def test_late_comer_is_answered_within_the_delay_of_the_specification() -> None:
    """Whoever asks is answered within 20 to 120 ms, once, although several rounds of announcing are over."""

    async def main(world: VirtualWorld) -> None:
        alice = Member(world.host("10.0.0.1"), 1)
        await alice.discovery.start()
        await asyncio.sleep(30)
        stranger = await Stranger(world.host("10.0.0.2")).start()
        stranger.send(encode_query(key(9).peer_id))
        await asyncio.sleep(0.01)
        assert len(stranger.heard) == 2  # his own question, by both interfaces
        await asyncio.sleep(0.2)
        assert [source for _, source in stranger.heard[2:]] == [Address("10.0.0.1", 5353)]

    run_virtual(main)


def test_announcements_come_three_times_then_once_a_minute() -> None:
    """At 0, 1 and 3 s, then every 60 s give or take 6; questions only at the start."""

    async def main(world: VirtualWorld) -> None:
        stranger = await Stranger(world.host("10.0.0.2")).start()
        alice = Member(world.host("10.0.0.1"), 1)
        await alice.discovery.start()
        await asyncio.sleep(304)
        query_size = len(encode_query(alice.id))
        times = [e.time for e in world.trace if e.source.ip == "10.0.0.1" and e.size != query_size]
        assert times[:3] == [0.0, 1.0, 3.0]
        gaps = [later - earlier for earlier, later in pairwise(times[2:])]
        assert len(gaps) in (4, 5)
        assert all(54 <= gap <= 66 for gap in gaps)
        assert alice.discovery.statistics()["queries_out"] == 3
        announced = [read_untrusted(data) for data, _ in stranger.heard if len(data) != query_size]
        assert all(each is not None and each.peer_id == alice.id and each.ttl == 150 for each in announced)

    run_virtual(main)


def test_goodbye_is_said_and_believed() -> None:
    """Whoever stops says goodbye and is forgotten at once; nothing is sent or heard afterwards."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2)
        await alice.discovery.start()
        await bob.discovery.start()
        await asyncio.sleep(5)
        await bob.discovery.stop()
        await bob.discovery.stop()
        sent = len(world.trace)
        found = len(bob.found)
        await asyncio.sleep(0.1)
        assert alice.discovery.peers() == {}
        await asyncio.sleep(200)
        assert all(entry.source.ip != "10.0.0.2" for entry in world.trace[sent:])
        assert len(bob.found) == found
        await bob.discovery.start()
        await asyncio.sleep(1)
        assert list(alice.discovery.peers()) == [bob.id]

    run_virtual(main)


def test_goodbye_from_elsewhere_is_not_believed() -> None:
    """A goodbye counts only from where the node announced itself last."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2)
        liar = await Stranger(world.host("10.0.0.3")).start()
        await alice.discovery.start()
        await bob.discovery.start()
        await asyncio.sleep(5)
        liar.send(announcement(2, ttl=0))
        await asyncio.sleep(0.1)
        assert list(alice.discovery.peers()) == [bob.id]

    run_virtual(main)


def test_silent_peer_is_forgotten_when_its_time_is_over() -> None:
    """A host that vanishes without goodbye is forgotten 150 s after its last word."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2)
        await alice.discovery.start()
        await bob.discovery.start()
        await asyncio.sleep(5)
        bob.network.host.up = False
        await asyncio.sleep(120)
        assert list(alice.discovery.peers()) == [bob.id]
        await asyncio.sleep(150)
        assert alice.discovery.peers() == {}

    run_virtual(main)


def test_peer_is_reported_again_when_it_moves_and_now_and_then() -> None:
    """A changed address is reported at once; the same announcement only after a while: questions get lost."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2)
        await alice.discovery.start()
        await bob.discovery.start()
        await asyncio.sleep(30)
        assert len(alice.found) == 2  # at 0 and 3 s, not at 1 s
        bob.network.host.add_address("10.0.0.9")
        bob.addresses = (Address("10.0.0.9", 4747),)
        bob.discovery.refresh()
        await asyncio.sleep(0.1)
        assert alice.found[-1].addresses == (Address("10.0.0.9", 4747),)
        count = len(alice.found)
        await asyncio.sleep(130)
        assert count + 2 <= len(alice.found) <= count + 4

    run_virtual(main)


def test_networks_do_not_mix() -> None:
    """Nodes of another network id are not reported, and counted."""

    async def main(world: VirtualWorld) -> None:
        alice, other = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2, tag=bytes(8))
        await alice.discovery.start()
        await other.discovery.start()
        await asyncio.sleep(5)
        assert not alice.found
        assert not other.found
        assert alice.discovery.statistics()["dropped_other_network"] >= 3

    run_virtual(main)


def test_several_nodes_on_one_machine_find_each_other_by_lan_address() -> None:
    """Three nodes of one host share port 5353 and find each other, each under its own port."""

    async def main(world: VirtualWorld) -> None:
        first = world.host("10.0.0.1")
        networks = [first, first.network(), first.network()]
        members = [
            Member(network, i, addresses=(Address("10.0.0.1", 4747 + i),)) for i, network in enumerate(networks, 1)
        ]
        for member in members:
            await member.discovery.start()
        await asyncio.sleep(5)
        for member in members:
            ports = {peer.peer_id: peer.addresses for peer in member.found}
            assert ports == {m.id: m.addresses for m in members if m is not member}

    run_virtual(main)


def test_machine_with_loopback_alone_announces_loopback() -> None:
    """With no other interface the nodes of a machine find each other at 127.0.0.1."""

    async def main(world: VirtualWorld) -> None:
        host = world.host()
        assert host.interfaces() == [Interface("lo", ("127.0.0.1", "::1"))]
        one = Member(host, 1, addresses=(Address("127.0.0.1", 4747), Address("::1", 4747)))
        two = Member(host.network(), 2, addresses=(Address("127.0.0.1", 4748),))
        await one.discovery.start()
        await two.discovery.start()
        await asyncio.sleep(5)
        assert two.found[0].addresses == (Address("127.0.0.1", 4747), Address("::1", 4747))
        assert one.found[0].addresses == (Address("127.0.0.1", 4748),)

    run_virtual(main)


@pytest.mark.parametrize(
    ("ip", "believed"),
    [
        ("10.9.9.9", True),
        ("100.64.1.1", True),
        ("203.0.113.77", True),  # the network of one of our own addresses
        ("198.51.100.3", False),  # a stranger's public address: he shall not be knocked at
        ("8.8.8.8", False),
        ("127.0.0.1", False),  # said by another machine
        ("::1", False),
        ("fe80::1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_announced_addresses_are_believed_by_scope(ip: str, believed: bool) -> None:
    """Only addresses that can be on the local network are reported; an announcement with none of them is dropped."""

    async def main(world: VirtualWorld) -> None:
        alice = Member(world.host("10.0.0.1", "203.0.113.5"), 1)
        stranger = await Stranger(world.host("10.0.0.2")).start()
        await alice.discovery.start()
        stranger.send(announcement(7, ip))
        await asyncio.sleep(0.1)
        assert [peer.addresses for peer in alice.found] == ([(Address.of(ip, 4747),)] if believed else [])
        assert alice.discovery.statistics().get("dropped_bad_scope", 0) == (not believed)

    run_virtual(main)


def test_node_without_addresses_asks_but_does_not_announce() -> None:
    """As long as there is nothing to dial, only questions are sent; others are found all the same."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = Member(world.host("10.0.0.1"), 1), Member(world.host("10.0.0.2"), 2)
        await bob.discovery.start()
        await asyncio.sleep(10)
        alice.addresses = ()
        await alice.discovery.start()
        await asyncio.sleep(30)
        assert {peer.peer_id for peer in alice.found} == {bob.id}
        assert not bob.found

    run_virtual(main)


def test_new_interface_is_joined_on_refresh() -> None:
    """A node that started offline finds its neighbours once it has an address and is refreshed."""

    async def main(world: VirtualWorld) -> None:
        bob, alice = Member(world.host("10.0.0.2"), 2), Member(world.host(), 1)
        await bob.discovery.start()
        await alice.discovery.start()
        await asyncio.sleep(10)
        assert not alice.found
        alice.network.host.add_address("10.0.0.1")
        alice.addresses = (Address("10.0.0.1", 4747),)
        alice.discovery.refresh()
        await asyncio.sleep(0.5)
        assert [peer.peer_id for peer in alice.found] == [bob.id]
        assert [peer.peer_id for peer in bob.found] == [alice.id]

    run_virtual(main)


@pytest.mark.long
def test_hundred_nodes_find_each_other_without_a_storm() -> None:
    """A hundred that start together all find each other within two minutes; nobody sends more than 20 datagrams."""

    async def main(world: VirtualWorld) -> Counter[str]:
        members = [Member(world.host(f"10.0.0.{i}"), i) for i in range(1, 101)]
        for member in members:
            await member.discovery.start()
        await asyncio.sleep(120)
        assert all(len(member.discovery.peers()) == 99 for member in members)
        return Counter(entry.source.ip for entry in world.trace if entry.source.ip != "127.0.0.1")

    sent = run_virtual(main, keep_trace=True)
    assert max(sent.values()) <= 20


REAL_SCRIPT = """
import asyncio, random
from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.real_network import RealNetwork
from p2pnode.lan import LanDiscovery

async def main():
    found = asyncio.Queue()
    nodes = []
    for number in (1, 2):
        peer_id = NodeKey.generate(random.Random(f"lan key {number}").randbytes).peer_id
        own = [Address("127.0.0.1", 4746 + number)]
        nodes.append(LanDiscovery(network=RealNetwork(), peer_id=peer_id, network_tag=bytes(8),
                                  on_found=found.put_nowait, addresses=lambda own=own: own))
    for node in nodes:
        await node.start()
    async with asyncio.timeout(5):
        seen = {}
        while len(seen) < 2:
            peer = await found.get()
            seen[str(peer.peer_id)] = peer.addresses[0]
    for node in nodes:
        await node.stop()
    for peer_id in sorted(seen, key=seen.get):
        print(peer_id, seen[peer_id])

asyncio.run(main())
"""


@pytest.mark.namespace
@pytest.mark.slow
def test_two_real_nodes_find_each_other_by_real_multicast() -> None:
    """Real sockets in a namespace with loopback alone: both are found at 127.0.0.1, each under its port."""
    command = require_namespaces()
    script = 'ip link set lo up multicast on && exec "$0" -c "$1"'
    done = subprocess.run(
        [*command, "sh", "-c", script, sys.executable, REAL_SCRIPT], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    expected = [f"{key(number).peer_id} 127.0.0.1:{4746 + number}" for number in (1, 2)]
    assert done.stdout.splitlines() == expected
