"""Whole nodes in networks where no UDP passes, in virtual time: they join, are found and reached by TLS links."""

import asyncio
from dataclasses import replace

import pytest
from support.connect_proxy import ConnectProxy
from support.street import ONE_WAY_S, paths_after_calling_at_once, reach, street
from support.transfer import Receiver, send_file
from support.virtual_nodes import network_of

from p2pnode import SessionMoved, UdpBlockedError
from p2pnode.core.address import Address
from p2pnode.explaining import PathReason
from p2pnode.reachability import NatKind
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.faults import move
from p2pnode.simulations.virtual.router import Home, VirtualRouter

OTHERS = ["port-restricted", "symmetric", "udp-blocked"]
PAIRS = [("udp-blocked", other) for other in OTHERS] + [(other, "udp-blocked") for other in OTHERS[:2]]


@pytest.mark.parametrize(("caller", "callee"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_where_udp_is_blocked_peers_are_relayed_within_a_second(caller: str, callee: str) -> None:
    """By id alone, an echoed byte within 1.0 s at 80 ms round trip; both say relay, and why."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home_of(caller), await there.home_of(callee)
            for node, kind in ((a, caller), (b, callee)):
                assert (node.reaching.nat is NatKind.UDP_BLOCKED) is (kind == "udp-blocked")
            await asyncio.sleep(5)
            session, seconds = await reach(world, a, b)
            assert session.path == "relay", session.trace.steps
            other = b.session(a.peer_id)
            assert other is not None
            assert other.path == "relay"
            blocked = a if caller == "udp-blocked" else b
            reason = blocked.reaching.explain(session if blocked is a else other).reason
            assert reason is PathReason.RELAY_OUR_UDP_BLOCKED
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"{caller} -> {callee}: {seconds:.3f} s")
    assert seconds <= 1.0


def test_a_public_peer_is_reached_directly_by_tls() -> None:
    """Calling and called: no relay stands between, and it takes no second."""

    async def main(world: VirtualWorld) -> list[float]:
        async with street(world) as there:
            one, two = await there.home_of("udp-blocked"), await there.home_of("udp-blocked")
            await asyncio.sleep(5)
            public = there.public[5]
            times = []
            for a, b in ((one, public), (public, two)):
                session, seconds = await reach(world, a, b)
                assert session.path == "direct", session.trace.steps
                times.append(seconds)
            return times

    times = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"calls {times[0]:.3f} s, is called {times[1]:.3f} s")
    assert max(times) <= 1.0


def test_udp_passes_again_and_the_session_goes_on_without_losing_a_byte() -> None:
    """A file flows by a relay over TLS; the firewall goes away, and the same session carries the rest by UDP."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home_of("udp-blocked"), await there.home_of("symmetric")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            receiver = Receiver(world, b)
            content = world.rng.randbytes(2_000_000)
            sending = asyncio.ensure_future(send_file(session, content, pause=0.2))
            await asyncio.sleep(3)
            links = a.links.open_links()
            assert links
            firewall = there.routers[0].model
            firewall.kind = replace(firewall.kind, udp=True)
            began = world.loop.time()
            changed, noticed = a.links.changed, asyncio.Event()
            a.links.changed = lambda: (changed(), noticed.set())[0]
            async with asyncio.timeout(10):
                await noticed.wait()
            seconds = world.loop.time() - began
            assert not a.links.blocked
            async with asyncio.timeout(60):
                await receiver.done.wait()
            await sending
            assert receiver.has(content)
            assert receiver.gap < 5
            assert a.session(b.peer_id) is session
            assert a.reaching.nat is not NatKind.UDP_BLOCKED
            await asyncio.sleep(60)
            assert a.links.open_links() == []
            assert all(len(node.links.server.gate) == 0 for node in there.public)
            assert await session.ping() > 0
            return seconds

    print(f"noticed after {run_virtual(main, delay=ONE_WAY_S, keep_trace=False):.2f} s")


def test_a_link_that_dies_is_replaced_by_another() -> None:
    """The relay in use is killed: the session goes on through the spare, by another link."""

    async def main(world: VirtualWorld) -> float:
        async with street(world, tls_port=443) as there:
            a, b = await there.home_of("udp-blocked"), await there.home_of("tcp-443")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            receiver = Receiver(world, b)
            content = world.rng.randbytes(1_000_000)
            sending = asyncio.ensure_future(send_file(session, content, pause=0.3))
            await asyncio.sleep(3)
            relay = next(node for node in there.public if node.addresses()[0] == session.connection.remote)
            network_of(relay).host.silent = "dead"
            async with asyncio.timeout(120):
                await receiver.done.wait()
            await sending
            assert receiver.has(content)
            return receiver.gap

    gap = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"nothing came for {gap:.2f} s")
    assert gap <= 5


@pytest.mark.parametrize("way", ["calls", "is called"])
@pytest.mark.parametrize("other", ["public", "port-restricted", "tcp-443"])
def test_where_only_port_443_passes_bootstrap_nodes_relay(other: str, way: str) -> None:
    """They listen at 443 as well; every peer is met and relayed through them, also one that strangers can dial."""

    async def main(world: VirtualWorld) -> float:
        async with street(world, tls_port=443) as there:
            a = await there.home_of("tcp-443")
            b = there.public[5] if other == "public" else await there.home_of(other)
            assert set(a.links.open_links()) == {node.addresses()[0] for node in there.public[:3]}
            await asyncio.sleep(5)
            session, seconds = await reach(world, *((a, b) if way == "calls" else (b, a)))
            assert session.path == "relay", session.trace.steps
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"tcp-443 {way} {other}: {seconds:.3f} s")
    assert seconds <= 1.0


def test_any_node_that_listens_at_port_443_is_used_where_nothing_else_passes() -> None:
    """Not only bootstrap nodes, whose lines name the port: who joins hears of others, and tries it there as well."""

    async def main(world: VirtualWorld) -> None:
        async with street(world, tls_port=443) as there:
            server = await there.start(world.host("9.77.0.1"), tcp=(Address("9.77.0.1", 443),))
            await asyncio.sleep(30)
            a = await there.home_of("tcp-443")
            await asyncio.sleep(30)
            assert server.addresses()[0] in a.links.open_links()

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_links_go_through_the_proxy() -> None:
    """Nothing passes the firewall but what the proxy dials; user and password are shown, NO_PROXY exempts."""

    async def main(world: VirtualWorld) -> None:
        async with street(world, tls_port=443) as there:
            proxy = await ConnectProxy.open(world.host("9.200.0.1"), "alice:secret word")
            home = Home.build(world, replace(kind_named("tcp-443"), tcp_ports=(3128,)), "11.9.0.1", "11.9.0.2")
            settings = {"proxy": "http://alice:secret%20word@9.200.0.1:3128"}
            a = await there.start(home.host(), **settings)
            assert a.reaching.nat is NatKind.UDP_BLOCKED
            first = [f"9.{n}.0.1:443" for n in range(3)]
            assert sorted(proxy.tunnels[:3]) == first
            assert all(tunnel.endswith(":443") for tunnel in proxy.tunnels)  # other nodes may listen there as well
            assert set(a.links.open_links()) == {node.addresses()[0] for node in there.public[:3]}
            await asyncio.sleep(5)
            b = await there.home_of("port-restricted")
            session, seconds = await reach(world, b, a)
            assert session.path == "relay"
            assert seconds <= 1.0
            wrong = await there.start(home.host(), proxy="http://alice:wrong@9.200.0.1:3128")
            assert not wrong.dht.in_touch()
            with pytest.raises(UdpBlockedError, match="HTTPS_PROXY"):
                await wrong.connect(b.peer_id)
            exempt = await there.start(home.host(), **settings, no_proxy="example.org,9.0.0.1,9.1.0.1,9.2.0.1")
            assert not exempt.dht.in_touch()

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_members_of_a_private_network_seal_inside_their_links() -> None:
    """A TLS terminator on the way, or a stranger's node, reads nothing; the members meet all the same."""

    async def main(world: VirtualWorld) -> None:
        secret = {"network_id": "club", "network_secret": "correct horse battery"}
        async with street(world, **secret) as there:
            a, b = await there.home_of("udp-blocked"), await there.home_of("udp-blocked")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            assert session.path == "relay"
            stranger = await there.start(Home.build(world, "udp-blocked", "11.8.0.1").host(), network_secret="")
            assert not stranger.dht.in_touch()

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_a_laptop_carried_into_a_network_without_udp_goes_on_by_tls() -> None:
    """And back: the same session."""

    async def main(world: VirtualWorld) -> list[float]:
        async with street(world) as there:
            a, b = await there.home_of("port-restricted"), await there.home_of("port-restricted")
            await asyncio.sleep(10)
            session, _ = await reach(world, a, b)
            assert session.path == "punched"
            await asyncio.sleep(5)
            open_home = network_of(a).host.gateway
            blocked = Home.build(world, "udp-blocked", "11.99.0.1").router
            gaps = []
            for number, router in enumerate((blocked, open_home)):
                assert isinstance(router, VirtualRouter)
                began = world.loop.time()
                move(network_of(a), f"192.168.1.{50 + number}", lan=router.lan, gateway=router)
                await session.ping(timeout=60)
                gaps.append(world.loop.time() - began)
                assert a.links.blocked is (router is blocked)
                await asyncio.sleep(60)
                assert a.session(b.peer_id) is session
                assert session.path == ("relay" if router is blocked else "punched")
            return gaps

    gaps = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"without UDP after {gaps[0]:.2f} s, with it again after {gaps[1]:.2f} s")
    assert max(gaps) <= 5


def test_tls_leaves_a_simulation_the_same_in_every_run() -> None:
    """OpenSSL draws its own randomness; not a packet's time or size shows it."""

    async def main(world: VirtualWorld) -> str:
        async with street(world) as there:
            a, b = await there.home_of("udp-blocked"), await there.home_of("udp-blocked")
            await reach(world, a, b)
        return world.trace_hash()

    runs = [run_virtual(main, delay=ONE_WAY_S, keep_trace=False, hash_trace=True, seed=5) for _ in range(2)]
    assert runs[0] == runs[1]


TCP_PAIRS = [("udp-blocked", "udp-blocked"), ("udp-blocked", "port-restricted"), ("port-restricted", "udp-blocked")]


@pytest.mark.parametrize(("caller", "callee"), TCP_PAIRS, ids=[f"{a}-{b}" for a, b in TCP_PAIRS])
def test_tcp_is_punched_where_routers_keep_ports(caller: str, callee: str) -> None:
    """The relayed session gets a direct path within 3 s of the call, both sides say so, and the relay is not used. No
    UDP is wasted on the address to which the punch goes, or little would be left of what it may draw (C1)."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home_of(caller), await there.home_of(callee)
            await asyncio.sleep(5)
            began = world.loop.time()
            moved = asyncio.Event()
            a.subscribe(lambda event: moved.set() if isinstance(event, SessionMoved) else None)
            session, _ = await reach(world, a, b)
            async with asyncio.timeout(5):
                while session.path != "punched":
                    moved.clear()
                    await moved.wait()
            seconds = world.loop.time() - began
            await asyncio.sleep(10)
            await session.ping()  # who was called follows
            assert await session.ping() < 0.1
            other = b.session(a.peer_id)
            assert other is not None
            assert session.path == other.path == "punched"
            for node, one in ((a, session), (b, other)):
                assert node.reaching.explain(one).reason is PathReason.PUNCHED_TCP
            sent = [each for each in world.trace if each.source.ip.startswith("192.168.")]
            drawn = {each.kind for each in sent if each.destination.ip in ("11.20.0.1", "11.21.0.1")}
            assert drawn == {"tcp"}
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S)
    print(f"{caller} -> {callee}: direct by TCP after {seconds:.2f} s")
    assert seconds <= 3.0


@pytest.mark.parametrize("seed", range(1, 4))
def test_two_who_call_each_other_at_once_agree_on_one_tcp_punch(seed: int) -> None:
    """Both relayed sessions ask for a punch, one of them gives way to the other: there is one link, of the one left."""
    assert paths_after_calling_at_once("udp-blocked", seed) == ["punched", "punched"]
