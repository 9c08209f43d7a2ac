"""Whole nodes, unmodified, through faults: suspended, killed and restarted, moved, partitioned, on real-world links."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.virtual_nodes import lan_of, make_node, network_of

from p2pnode import Node, P2PError, PeerNotFoundError, PeerOfflineError
from p2pnode.core.address import Address
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, faults, run_virtual
from p2pnode.simulations.virtual.presets import CORE, LINKS, REGIONS
from p2pnode.simulations.virtual.router import Home


async def start(network: VirtualNetwork, number: int, through: Sequence[Node] = (), **settings: Any) -> Node:
    """A node started inside its process."""
    node = make_node(network, number, through=list(through), **settings)
    await network.run(node.start())
    return node


async def reach(caller: Node, callee: Node, seconds: float = 120.0) -> float:
    """Let `caller` try until it has a session over which an echo comes back; return how long that took."""
    network = network_of(caller)
    began = network.monotonic()
    while True:
        try:
            session = await network.run(caller.connect(callee.peer_id))
            await network.run(session.ping(3.0))
        except P2PError:
            assert network.monotonic() - began < seconds, f"not reached within {seconds} s"
            await asyncio.sleep(1)
        else:
            return network.monotonic() - began


@pytest.mark.parametrize("seed", range(3))
def test_suspended_ten_minutes_and_resumed(seed: int) -> None:
    """A laptop wakes after ten minutes: it reaches its peer, its peer reaches it, and it is found as online."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 6) as nodes:
            alice, bob = nodes[1], nodes[2]
            before = await network_of(alice).run(alice.connect(bob.peer_id))
            faults.suspend(network_of(bob))
            await asyncio.sleep(600)
            assert before.closed  # alice has noticed
            clock = network_of(bob).monotonic()
            faults.resume(network_of(bob))
            own = await reach(bob, alice)
            assert network_of(bob).monotonic() - clock < 130
            other = await reach(alice, bob)
            print(f"seed {seed}: the one that slept reached its peer after {own:.2f} s, the other after {other:.2f} s")
            assert own < 20
            assert other < 20
            assert (await network_of(nodes[3]).run(nodes[3].find(bob.peer_id))).online

    run_virtual(main, seed=seed, delay=lambda rng: rng.uniform(0.02, 0.05))


@pytest.mark.long
@pytest.mark.parametrize("hours", [1, 8])
def test_suspended_over_night(hours: int) -> None:
    """After hours its presence has expired; within seconds of waking it has published anew and is found."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 6) as nodes:
            alice, bob = nodes[1], nodes[2]
            await asyncio.sleep(60)
            faults.suspend(network_of(bob))
            await asyncio.sleep(hours * 3600)
            with pytest.raises(PeerNotFoundError):
                await network_of(alice).run(alice.find(bob.peer_id))
            faults.resume(network_of(bob))
            print(f"after {hours} h: reached a peer after {await reach(bob, alice):.2f} s")
            seconds = await reach(nodes[3], bob)
            print(f"after {hours} h: found and reached after {seconds:.2f} s")
            assert seconds < 15

    run_virtual(main, until=None, delay=lambda rng: rng.uniform(0.02, 0.05), keep_trace=False)


def test_killed_and_restarted_with_its_state_file(tmp_path: Path) -> None:
    """No goodbye: still found as online at first; back with the same key and file, without a bootstrap address."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 5) as nodes:
            alice = nodes[1]
            network = world.host("10.0.0.77")
            bob = await start(network, 77, nodes[:1], state_path=tmp_path / "state")
            session = await network_of(alice).run(alice.connect(bob.peer_id))
            await asyncio.sleep(150)  # its state is saved every two minutes
            saved = (tmp_path / "state").read_bytes()
            await faults.kill(network)
            await asyncio.sleep(60)
            assert (tmp_path / "state").read_bytes() == saved
            assert session.closed
            assert (await network_of(nodes[3]).run(nodes[3].find(bob.peer_id))).online  # nobody said goodbye
            missed = await network_of(alice).run(alice.find(bob.peer_id))  # but its session with alice broke
            assert (missed.online, missed.evidence) == (False, "session_lost")
            with pytest.raises(P2PError):
                await network_of(alice).run(alice.connect(bob.peer_id))
            again = await start(network.network(), 77, state_path=tmp_path / "state")
            assert again.peer_id == bob.peer_id
            print(f"reached again after {await reach(alice, again):.2f} s")
            found = await network_of(nodes[3]).run(nodes[3].find(bob.peer_id))
            assert found.online
            assert found.age_s < 100
            await network_of(again).run(again.stop())

    run_virtual(main)


def test_moved_to_another_lan() -> None:
    """A node carried to another network with a public way out says where it is; old and new peers reach it there."""

    async def main(world: VirtualWorld) -> None:
        nodes: list[Node] = []
        for i in range(6):
            network = world.host(f"5.0.{i}.1")
            nodes.append(await start(network, i, nodes[:1], role="bootstrap" if i < 2 else "peer"))
        alice, bob = nodes[4], nodes[5]
        await network_of(alice).run(alice.connect(bob.peer_id))
        faults.move(network_of(bob), "6.6.6.6")
        await asyncio.sleep(30)
        found = await network_of(nodes[3]).run(nodes[3].find(bob.peer_id))
        assert [address.ip for address in found.addresses] == ["6.6.6.6"]
        print(f"reached at the new address after {await reach(alice, bob):.2f} s")
        print(f"by one that it had never met after {await reach(nodes[3], bob):.2f} s")
        for node in nodes:
            await network_of(node).run(node.stop())

    run_virtual(main, delay=lambda rng: rng.uniform(0.02, 0.05))


def test_moved_between_two_private_networks() -> None:
    """Carried from one LAN to another, a node finds the peers of the new one by LAN discovery."""

    async def main(world: VirtualWorld) -> None:
        home = [await start(world.host(f"192.168.1.{i + 1}", lan="home"), i, lan=True) for i in range(3)]
        cafe = [await start(world.host(f"192.168.1.{i + 1}", lan="cafe"), 10 + i, lan=True) for i in range(3)]
        laptop = home[2]
        await reach(laptop, home[0])
        faults.move(network_of(laptop), "192.168.1.77", lan="cafe")
        await asyncio.sleep(30)
        print(f"reached the one at the new place after {await reach(laptop, cafe[1]):.2f} s")
        print(f"and was reached after {await reach(cafe[0], laptop):.2f} s")
        with pytest.raises(P2PError):
            await network_of(laptop).run(laptop.connect(home[0].peer_id))
        for node in (*home, *cafe):
            await network_of(node).run(node.stop())

    run_virtual(main)


@pytest.mark.parametrize("seed", range(3))
def test_partition_of_five_minutes_and_healing(seed: int) -> None:
    """Within each half nodes are found; across not reached; two minutes after healing every pair finds each other."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 12) as nodes:
            await asyncio.sleep(120)
            halves = nodes[:6], nodes[6:]
            heal = faults.partition(world, *([network_of(node) for node in half] for half in halves))
            await asyncio.sleep(300)
            for half in halves:
                assert (await network_of(half[0]).run(half[0].find(half[-1].peer_id))).online
            with pytest.raises(P2PError):
                await network_of(nodes[0]).run(nodes[0].connect(nodes[-1].peer_id))
            heal()
            await asyncio.sleep(120)
            lost = 0
            for one in nodes:
                for other in nodes:
                    if one is not other:
                        try:
                            lost += not (await network_of(one).run(one.find(other.peer_id))).online
                        except (PeerNotFoundError, PeerOfflineError):
                            lost += 1
            print(f"seed {seed}: {lost} of 132 finds failed after healing")
            assert lost == 0
            assert await reach(nodes[0], nodes[-1]) < 10

    run_virtual(main, seed=seed, keep_trace=False)


def test_one_way_block_is_survived() -> None:
    """When only one direction between two peers is lost, both still find each other, and connect once it is gone."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 5) as nodes:
            alice, bob = nodes[1], nodes[2]
            heal = faults.block(world, [network_of(alice)], [network_of(bob)])
            for one, other in ((alice, bob), (bob, alice)):
                assert (await network_of(one).run(one.find(other.peer_id))).online
                with pytest.raises(P2PError):
                    await network_of(one).run(one.connect(other.peer_id))
            heal()
            assert await reach(alice, bob) < 10

    run_virtual(main)


def test_nodes_on_every_kind_of_link_in_every_region() -> None:
    """A small world of hosts with real links and distances: all join, are found and connect; the slow ones slower."""

    async def main(world: VirtualWorld) -> None:
        world.set_regions(CORE)
        nodes: list[Node] = []
        for i, kind in enumerate(["datacenter", *LINKS]):
            network = world.host(f"5.{i}.0.1")
            network.host.region = REGIONS[i % len(REGIONS)]
            world.set_link(network, LINKS[kind])
            role = "bootstrap" if i == 0 else "peer"
            nodes.append(await start(network, i, nodes[:1], role=role, listen=(Address("0.0.0.0", 4747),)))
        await asyncio.sleep(30)
        for node, kind in zip(nodes[2:], list(LINKS)[1:], strict=True):
            there, back = await reach(nodes[1], node), await reach(node, nodes[1])
            print(f"{kind}: called after {there:.2f} s, calling {back:.2f} s, status {node.status().nat}")
            assert there < 20
        print(dict(world.counts))
        for node in nodes:
            await network_of(node).run(node.stop())

    run_virtual(main, delay=0.02)


def test_moved_from_home_to_home_behind_routers() -> None:
    """A laptop leaves a home for one behind carrier-grade NAT: old and new peers reach it there."""

    async def main(world: VirtualWorld) -> None:
        nodes: list[Node] = []
        for i in range(8):
            role = "bootstrap" if i < 5 else "peer"
            nodes.append(await start(world.host(f"5.{i}.0.1"), i, nodes[:2], role=role))
        kinds = ("port-restricted", "cgnat", "fullcone")
        homes = [Home.build(world, kind, f"7.{i}.0.1", f"7.{i}.0.2") for i, kind in enumerate(kinds)]
        laptop = await start(homes[0].host(), 20, nodes[:2])
        friend = await start(homes[2].host(), 21, nodes[:2])
        await asyncio.sleep(60)
        print(f"at home reached by the friend after {await reach(friend, laptop):.2f} s")
        router = homes[1].router
        assert router is not None
        faults.move(network_of(laptop), router.next_inside_ip(), lan=router.lan, gateway=router)
        first = await reach(friend, laptop)
        await asyncio.sleep(60)
        print(f"behind the carrier reached by the friend after {first:.2f} s")
        print(f"by one that it had never met after {await reach(nodes[6], laptop):.2f} s")
        assert first < 60
        for node in (*nodes, laptop, friend):
            await network_of(node).run(node.stop())

    run_virtual(main, delay=lambda rng: rng.uniform(0.02, 0.05), keep_trace=False)


def test_laptop_behind_a_router_sleeps_for_an_hour() -> None:
    """Its mappings have ended and its presence has expired when it wakes; within seconds it is reached again."""

    async def main(world: VirtualWorld) -> None:
        nodes = []
        for i in range(8):
            role = "bootstrap" if i < 5 else "peer"
            nodes.append(await start(world.host(f"5.{i}.0.1"), i, nodes[:2], role=role))
        home = Home.build(world, "port-restricted", "7.0.0.1")
        laptop = await start(home.host(), 20, nodes[:2])
        await asyncio.sleep(60)
        await reach(nodes[6], laptop)
        faults.suspend(network_of(laptop))
        await asyncio.sleep(3600)
        assert home.router is not None
        assert home.router.mappings == 0
        faults.resume(network_of(laptop))
        seconds = await reach(nodes[7], laptop)
        print(f"after an hour reached again {seconds:.2f} s after waking")
        assert seconds < 60

    run_virtual(main, until=None, delay=lambda rng: rng.uniform(0.02, 0.05), keep_trace=False)
