"""Nodes behind routers that open ports: asked for, proven by others, published, renewed, given back. Virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.port_mapping import Town, believed, mapping_of, opening_kind, openings, published, town, until
from support.virtual_nat import router_of
from support.virtual_nodes import make_node

from p2pnode import Node, Session
from p2pnode.core.address import Address
from p2pnode.mapped_port import PortMappingStatus
from p2pnode.simulations.routers.kinds import PortProtocol, kind_named
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.faults import kill, move, resume, suspend
from p2pnode.simulations.virtual.router import Home, VirtualRouter

ONE_WAY_S = 0.04
PROTOCOLS: tuple[PortProtocol, ...] = ("nat-pmp", "pcp", "upnp")


async def reach(caller: Node, callee: Node) -> Session:
    session = await caller.connect(callee.peer_id)
    await session.ping()
    return session


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_a_stranger_dials_the_mapped_address(kind: str, protocol: PortProtocol) -> None:
    """Published only once nodes got through, within seconds; then even a peer behind a symmetric router is direct."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            router = there.router(kind, protocol)
            home = await there.move_in(router.host("192.168.1.2"))
            started = world.loop.time()
            while not openings(router):
                assert not mapping_of(home).believed
                await asyncio.sleep(0.1)
            assert await published(there.public[3], home) == ()
            address = await believed(home)
            seconds = world.loop.time() - started
            status = mapping_of(home)
            assert status.protocol == protocol
            assert address == openings(router)[0].external
            assert status.lifetime_left_s is not None
            assert status.lifetime_left_s > 3000
            await asyncio.sleep(3)
            assert await published(there.public[3], home) == (address,)
            assert home.status().role == "server"  # where it is seen is where it can be dialled
            stranger = await there.move_in(router_of(world, "symmetric", "12.0.0.1").host("192.168.1.2"))
            session = await reach(stranger, home)
            assert session.path == "direct", session.trace.steps
            assert session.remote == address
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"{protocol} at a {kind} router: believed {seconds:.1f} s after the start")
    assert seconds < 15


@pytest.mark.parametrize("protocol", ["nat-pmp", "pcp", pytest.param("upnp", marks=pytest.mark.slow)])
def test_it_is_renewed_and_given_back(protocol: PortProtocol) -> None:
    """After its lifetime the port is still ours; when the node leaves it is closed within the time of leaving."""

    async def main(world: VirtualWorld) -> None:
        async with town(world) as there:
            router = there.router("port-restricted", protocol, mapping_lease_max_s=300)
            home = await there.move_in(router.host("192.168.1.2"))
            address = await believed(home)
            await asyncio.sleep(4500 if protocol == "upnp" else 700)
            assert await believed(home, 1) == address
            assert [each.external for each in openings(router)] == [address]
            there.homes.remove(home)
            started = world.loop.time()
            await home.stop()
            assert openings(router) == []
            assert world.loop.time() - started < 2

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=7200)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_restarted_router_is_asked_again(protocol: PortProtocol) -> None:
    """PCP and NAT-PMP announce it: the port is open again within seconds. With UPnP others see us at another port."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            router = there.router("port-restricted", protocol)
            home = await there.move_in(router.host("192.168.1.2"))
            await believed(home)
            await asyncio.sleep(100)
            router.reboot(down_s=20)
            await asyncio.sleep(20)
            seconds = await until(lambda: bool(openings(router)) and mapping_of(home).believed, 2000)
            await asyncio.sleep(10)
            stranger = await there.move_in(router_of(world, "symmetric", "12.0.0.1").host("192.168.1.2"))
            assert (await reach(stranger, home)).path == "direct"
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"{protocol}: open and proven again {seconds:.1f} s after the router was back")
    assert seconds < (60 if protocol == "upnp" else 15)


@pytest.mark.parametrize(
    ("kind", "protocol"), [("address-restricted", "pcp"), ("port-restricted", "nat-pmp"), ("symmetric", "upnp")]
)
def test_a_router_that_lies_is_never_believed(kind: str, protocol: PortProtocol) -> None:
    """It grants and lets nobody in: nothing is published, the status says why, and punching goes on working."""

    async def main(world: VirtualWorld) -> PortMappingStatus:
        async with town(world) as there:
            router = there.router(kind, protocol)
            router.model.openings.at = lambda *_: None  # type: ignore[method-assign]
            router.model.openings.of = lambda *_: None  # type: ignore[method-assign]
            home = await there.move_in(router.host("192.168.1.2"))
            for _ in range(5):
                await asyncio.sleep(30)
                assert not mapping_of(home).believed
                assert await published(there.public[3], home) == ()
            assert (await reach(there.public[4], home)).path == "direct"  # it dials back the public caller
            return mapping_of(home)

    status = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    assert (status.state, status.protocol) == ("unproven", protocol)
    print(f"{protocol} at a {kind} router: {status.reason}")


@pytest.mark.parametrize("protocol", ["pcp", "upnp"])
def test_two_nodes_behind_one_router_get_a_port_each(protocol: PortProtocol) -> None:
    """Both listen on 4747; each is dialled at its own outside port, and they meet each other on the LAN."""

    async def main(world: VirtualWorld) -> None:
        async with town(world) as there:
            router = there.router("port-restricted", protocol)
            first = await there.move_in(router.host("192.168.1.2"))
            second = await there.move_in(router.host("192.168.1.3"))
            addresses = [await believed(first), await believed(second)]
            assert len(set(addresses)) == 2
            await asyncio.sleep(5)
            stranger = await there.move_in(router_of(world, "symmetric", "12.0.0.1").host("192.168.1.2"))
            assert [(await reach(stranger, each)).remote for each in (first, second)] == addresses
            assert (await reach(first, second)).path == "lan"

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_a_silent_gateway_costs_few_packets_and_no_time() -> None:
    """Eight in the first minute, 16 in an hour; the node is ready as soon as one without port mapping."""

    async def main(world: VirtualWorld) -> list[float]:
        async with town(world) as there:
            asked: list[float] = []
            router = there.router("port-restricted")
            times = []
            for portmap in (False, True):
                started = world.loop.time()
                home = await there.move_in(router.host(f"192.168.1.{2 + portmap}"), portmap=portmap)
                times.append(world.loop.time() - started)
            deliver, inside = router.deliver, (router.inside, "239.255.255.250")

            def counted(data: bytes, source: Address, to: Address, group: str | None) -> None:
                if to.ip in inside:
                    asked.append(world.loop.time())
                deliver(data, source, to, group)

            router.deliver = counted  # type: ignore[method-assign]
            started = world.loop.time()
            await asyncio.sleep(60)
            assert mapping_of(home).state == "silent"
            assert mapping_of(there.homes[0]).state == "off"
            assert len(asked) <= 8
            await asyncio.sleep(3540)
            print(f"a silent gateway: {len(asked)} datagrams in an hour; ready after {times}")
            assert len(asked) <= 16
            return times

    without, with_it = run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=4000)
    assert with_it <= without + 0.05


def test_behind_two_routers_the_inner_ones_word_is_not_believed() -> None:
    """The home's router grants a port of 100.64.0.0/10; kept, never published, and the status says why."""

    async def main(world: VirtualWorld) -> PortMappingStatus:
        async with town(world) as there:
            carrier = VirtualRouter(world, kind_named("port-restricted"), "11.0.0.9", inside="100.64.0.1")
            kind = opening_kind("port-restricted", "pcp")
            router = VirtualRouter(world, kind, carrier.next_inside_ip(), behind=carrier)
            home = await there.move_in(router.host("192.168.1.2"))
            await asyncio.sleep(120)
            assert openings(router)
            assert await published(there.public[3], home) == ()
            return mapping_of(home)

    status = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    assert status.state == "unproven"
    assert status.external is not None
    assert status.external.startswith("100.64.")
    assert "behind another one" in status.reason


def test_another_network_means_another_gateway() -> None:
    """The laptop moves: what the old router gave is forgotten at once, the new router is asked and proven."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            old = there.router("port-restricted", "nat-pmp")
            new = VirtualRouter(world, opening_kind("port-restricted", "pcp"), "11.9.0.1", inside="192.168.7.1")
            network = old.host("192.168.1.2")
            home = await there.move_in(network)
            first = await believed(home)
            move(network, "192.168.7.2", lan=new.lan, gateway=new)
            await asyncio.sleep(0.2)
            assert first not in home.addresses()
            seconds = await until(lambda: mapping_of(home).believed)
            await asyncio.sleep(5)
            assert await published(there.public[3], home) == (openings(new)[0].external,)
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"moved: the new router's port is proven {seconds:.1f} s later")
    assert seconds < 15


def test_after_a_sleep_the_port_is_asked_for_again() -> None:
    """The machine slept for longer than the lifetime; its own clock stood still. The port is back within a minute."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            router = there.router("port-restricted", "pcp")
            network = router.host("192.168.1.2")
            home = make_node(network, 40, through=there.public[:3])
            await network.run(home.start())
            await believed(home)
            await asyncio.sleep(30)
            suspend(network)
            await asyncio.sleep(7300)
            assert not openings(router)
            resume(network)
            seconds = await until(lambda: bool(openings(router)), 60)
            await asyncio.sleep(5)
            assert mapping_of(home).believed
            await network.run(home.stop())
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=9000)
    print(f"awake: the port is open again after {seconds:.1f} s")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_a_crash_the_next_run_has_the_port(protocol: PortProtocol) -> None:
    """PCP lets only who knows the nonce renew: it comes from the node's key, so the next run knows it. What was left
    open is closed first, or nobody could tell what comes in without it."""

    async def main(world: VirtualWorld) -> None:
        async with town(world) as there:
            router = there.router("port-restricted", protocol)
            network = router.host("192.168.1.2")
            home = make_node(network, 40, through=there.public[:3])
            await network.run(home.start())
            await believed(home)
            await kill(network)
            assert openings(router)
            again = make_node(network.network(), 40, through=there.public[:3])
            there.homes.append(again)
            await again.start()
            await believed(again)
            assert len(openings(router)) == 1

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_ipv6_opens_a_pinhole() -> None:
    """Behind a stateful firewall: found to be closed, asked for, and then dialled by strangers."""

    async def main(world: VirtualWorld) -> float:
        there, six = Town(world), Address("::", 4747)
        try:
            for number in range(5):
                network = world.host(f"2a00:{number}::1")
                node = make_node(network, number, through=there.public[:1], role="bootstrap", listen=(six,))
                await node.start()
                there.public.append(node)
            kind = replace(kind_named("ipv6-firewall"), port_mapping=frozenset(("pcp",)))
            lived = Home.build(world, kind, "11.5.0.1", prefix6="2a01:5::/64")
            home = make_node(lived.host(), 80, through=there.public[:2], listen=(six,))
            there.homes.append(home)
            await home.start()
            assert lived.router is not None
            seconds = await until(lambda: mapping_of(home).believed, 60)
            (opening,) = openings(lived.router)
            assert opening.internal == opening.external
            assert opening.external in home.addresses()
            await asyncio.sleep(5)
            caller = make_node(world.host("2a00:77::1"), 90, through=there.public[:2], listen=(six,))
            there.homes.append(caller)
            await caller.start()
            assert (await reach(caller, home)).path == "direct"
            return seconds
        finally:
            for node in [*there.homes, *there.public]:
                await node.stop()

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"IPv6: the pinhole is proven {seconds:.1f} s after the start")
