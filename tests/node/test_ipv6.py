"""IPv6: firewalls on both sides are punched; hosts that have IPv6 alone reach IPv4 ones through NAT64."""

import asyncio
from dataclasses import replace

import pytest
from support.street import ONE_WAY_S, Street, reach, street
from support.virtual_nodes import make_node

from p2pnode import Address, Node
from p2pnode.addresses import dial_order
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import VirtualRouter

BOTH = (Address("0.0.0.0", 4747), Address("::", 4747))
NAT64 = replace(kind_named("ipv6-firewall"), name="nat64", nat64="64:ff9b::/96", ports="random")


async def start(there: Street, network: VirtualNetwork) -> Node:
    node = make_node(network, 20 + len(there.homes), through=there.public[:3], listen=BOTH)
    await node.start()
    there.homes.append(node)
    return node


async def behind_nat64(there: Street, number: int) -> Node:
    """A host that has IPv6 alone, in a network with NAT64 and DNS64, as of many phones."""
    router = VirtualRouter(there.world, NAT64, f"11.{number}.0.1", inside6=f"2a00:{number}::1", name=f"nat64-{number}")
    there.routers.append(router)
    there.world.names["ipv4only.arpa"] = ["192.0.0.170", "64:ff9b::c000:aa"]
    return await start(there, router.host(f"2a00:{number}::2"))


@pytest.mark.parametrize("other", ["public", "port-restricted", "symmetric", "nat64"])
@pytest.mark.parametrize("calls", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["calls", "is-called"])
def test_a_host_with_ipv6_alone_reaches_ipv4_ones(other: str, calls: bool) -> None:
    """All other nodes have IPv4 alone: it joins through them, is found by id, and punches like any home."""

    async def main(world: VirtualWorld) -> tuple[float, str]:
        async with street(world) as there:
            one = await behind_nat64(there, 90)
            if other == "public":
                two = there.public[4]
            else:
                two = await (behind_nat64(there, 91) if other == "nat64" else there.home(other))
            await asyncio.sleep(15)
            assert one.reaching.seen_as()[0].startswith("11.90.0.1")
            a, b = (one, two) if calls else (two, one)
            session, seconds = await reach(world, a, b)
            return seconds, session.path

    seconds, path = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"nat64 with {other}: {path}, {seconds:.3f} s")
    expected = {"public": ("direct",), "symmetric": ("relay", "punched")}.get(other, ("punched",))
    assert path in expected
    assert seconds <= 1.0


def test_without_nat64_ipv6_alone_is_alone_among_ipv4() -> None:
    """Nothing is guessed: where DNS tells no prefix, no packet goes to one."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            world.names.clear()
            kind = replace(NAT64, nat64="")
            router = VirtualRouter(world, kind, "11.92.0.1", inside6="2a00:92::1")
            node = await start(there, router.host("2a00:92::2"))
            assert node.mux.nat64 is None
            assert not node.dht.realms()

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_ipv4_that_comes_back_is_used_as_it_is() -> None:
    """The host moves to a network with IPv4: nothing is translated any more, and it is reached there."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            one, two = await behind_nat64(there, 90), await there.home("port-restricted")
            await asyncio.sleep(5)
            session, _ = await reach(world, one, two)
            assert one.mux.nat64 is not None
            await there.home("port-restricted")
            router = there.routers[-1]
            host = one.network.host  # type: ignore[attr-defined]
            host.gateway = None
            host.replace_addresses([router.next_inside_ip()], lan=router.lan)
            host.gateway = router
            assert await session.ping() < 2
            assert one.mux.nat64 is None
            assert one.session(two.peer_id) is session

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_firewalls_on_both_sides_are_punched() -> None:
    """No IPv4 anywhere: rendezvous nodes are met by IPv6, nothing is translated, both firewalls open at once."""

    async def main(world: VirtualWorld) -> float:
        nodes: list[Node] = []
        try:
            for number in range(7):
                role = "bootstrap" if number < 3 else "peer"
                network = world.host(f"2a01:{number}::1")
                nodes.append(make_node(network, number, through=nodes[:1], role=role, listen=BOTH))
                await nodes[-1].start()
            await asyncio.sleep(10)
            for number in (1, 2):
                router = VirtualRouter(
                    world, kind_named("ipv6-firewall"), f"11.{number}.0.1", inside6=f"2a02:{number}::1"
                )
                nodes.append(make_node(router.host(f"2a02:{number}::2"), 20 + number, through=nodes[:3], listen=BOTH))
                await nodes[-1].start()
            await asyncio.sleep(15)
            a, b = nodes[-2:]
            assert a.reaching.rendezvous
            assert b.reaching.rendezvous
            session, seconds = await reach(world, a, b)
            assert session.path == "punched", session.trace.steps
            assert session.remote == Address("2a02:2::2", 4747)
            assert a.reaching.explain(session).reason.value == "punched_firewalls"
            return seconds
        finally:
            for node in nodes:
                await node.stop()

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"{seconds:.3f} s")
    assert seconds <= 0.6


def test_families_take_turns_in_the_order_of_dialling() -> None:
    """IPv6 first, then one of each by turns, within each realm; the nearest realm before others (RFC 8305)."""
    texts = ["9.0.0.1", "192.168.1.2", "9.0.0.2", "2a00::1", "9.0.0.3", "2a00::2", "127.0.0.1", "fd00::1"]
    ordered = dial_order(Address(text, 1) for text in texts)
    assert [address.ip for address in ordered] == [
        "127.0.0.1", "fd00::1", "192.168.1.2", "2a00::1", "9.0.0.1", "2a00::2", "9.0.0.2", "9.0.0.3"
    ]  # fmt: skip
    assert dial_order([]) == []
