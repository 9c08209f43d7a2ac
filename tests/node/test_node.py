"""Whole nodes, unmodified, in virtual time."""

import asyncio
from pathlib import Path

import pytest
from support.virtual_nodes import lan_of, make_node, spec_of

from p2pnode import (
    Address,
    NodeEvent,
    P2PError,
    PeerNotFoundError,
    PeerOfflineError,
    PeerSpec,
    PortInUseError,
    Session,
    SessionOpened,
    Stream,
    WrongKeyError,
)
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ONE_WAY_S = 0.05


def test_peers_find_and_reach_each_other_by_id() -> None:
    """One bootstrap node, two peers that know only its address; a byte comes back over a proven session."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as (_, alice, bob):
            found = await alice.find(bob.peer_id)
            assert found.online
            assert found.addresses == bob.addresses()
            assert (found.name, found.user) == ("node2", bob.user_id)
            session = await alice.connect(bob.peer_id)
            assert (session.peer, session.path) == (bob.peer_id, "lan")
            assert await session.ping() > 0
            assert bob.session(alice.peer_id) is not None

    run_virtual(main)


def test_a_start_that_is_given_up_leaves_no_task_behind() -> None:
    """Nobody would hold it: it would wait until the collector found it, and say so on the user's screen."""

    async def main(world: VirtualWorld) -> None:
        nobody = PeerSpec("10.0.0.9:4747", hosts=(("10.0.0.9", 4747),))
        node = make_node(world.host("10.0.0.1"), 0, bootstrap=(nobody,))
        before = asyncio.all_tasks()
        starting = asyncio.ensure_future(node.start())
        await asyncio.sleep(1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await node.stop()
        assert asyncio.all_tasks() == before

    run_virtual(main)


def test_connect_costs_three_round_trips_after_the_lookup() -> None:
    """From the end of the lookup to an echoed byte: at most three round trips, and no timer in between."""

    async def main(world: VirtualWorld) -> float:
        async with lan_of(world, 3) as (_, alice, bob):
            started = world.loop.time()
            found = await alice.find(bob.peer_id)
            session = await alice.connect(bob.peer_id, addresses=found.addresses)
            looked_up = started + found.seconds
            await session.ping()
            return (world.loop.time() - looked_up) / (2 * ONE_WAY_S)

    round_trips = run_virtual(main, delay=ONE_WAY_S)
    print(f"connect and echo: {round_trips:.2f} round trips")
    assert round_trips <= 3.05


def test_simultaneous_connects_end_in_one_session() -> None:
    """Both dial at the same moment; after the dust has settled, both hold the same single connection."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as (_, alice, bob):
            one, other = await asyncio.gather(alice.connect(bob.peer_id), bob.connect(alice.peer_id))
            assert await one.ping(1.0) > 0  # whichever it is, it is served
            assert await other.ping(1.0) > 0
            await asyncio.sleep(5)
            a, b = alice.session(bob.peer_id), bob.session(alice.peer_id)
            assert a is not None
            assert b is not None
            assert a.initiator != b.initiator
            assert await a.ping() > 0
            assert await b.ping() > 0
            assert len(alice.sessions()) == len(bob.sessions()) == 1
            assert (one.peer, other.peer) == (bob.peer_id, alice.peer_id)

    for seed in range(30):
        run_virtual(main, seed=seed, delay=lambda rng: rng.uniform(0.02, 0.08))


def test_concurrent_connects_of_one_node_share_an_attempt() -> None:
    """Ten callers, one session; the peer sees one as well."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as (_, alice, bob):
            opened: list[NodeEvent] = []
            bob.subscribe(lambda e: opened.append(e) if isinstance(e, SessionOpened) else None)
            sessions = await asyncio.gather(*(alice.connect(bob.peer_id) for _ in range(10)))
            assert len(set(sessions)) == 1
            await asyncio.sleep(1)
            assert len(opened) == 1

    run_virtual(main)


def test_idle_session_closes_and_reopens_when_used() -> None:
    """Without application traffic it is gone on both sides after the time-out; the next connect opens a new one."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3, idle_timeout=60.0) as (_, alice, bob):
            first = await alice.connect(bob.peer_id)
            await asyncio.sleep(50)
            await first.ping()
            await asyncio.sleep(50)
            assert not first.closed
            await asyncio.sleep(30)
            assert first.closed
            assert alice.sessions() == []
            assert bob.sessions() == []
            second = await alice.connect(bob.peer_id)
            assert second is not first
            assert await second.ping() > 0

    run_virtual(main)


def test_clean_exit_unpublishes() -> None:
    """A peer that said goodbye is found as offline, with the age of the goodbye, and is not dialled."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 4) as (_, alice, bob, _carol):
            await bob.stop()
            await asyncio.sleep(10)
            found = await alice.find(bob.peer_id)
            assert not found.online
            assert 9 < found.age_s < 13
            with pytest.raises(PeerOfflineError, match="said goodbye"):
                await alice.connect(bob.peer_id)

    run_virtual(main)


def test_presence_expires_when_a_peer_vanishes() -> None:
    """A peer that dies without goodbye is no longer found 15 minutes later, and the 5 that clocks may differ."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 4) as (_, alice, bob, _carol):
            bob.network.host.up = False
            assert (await alice.find(bob.peer_id)).online
            await asyncio.sleep(20 * 60 + 1)
            with pytest.raises(PeerNotFoundError):
                await alice.find(bob.peer_id)
            bob.network.host.up = True

    run_virtual(main)


def test_presence_is_refreshed() -> None:
    """After an hour a peer is still found, with evidence not older than the refresh."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as (_, alice, bob):
            await asyncio.sleep(3600)
            found = await alice.find(bob.peer_id)
            assert found.online
            assert found.age_s <= 310

    run_virtual(main, until=8000)


def test_unknown_peer_is_not_found() -> None:
    """One sentence with the stable code."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 2) as (_, alice):
            stranger = make_node(world.host("10.0.0.99"), 99)
            with pytest.raises(PeerNotFoundError, match="Nobody in the network knows"):
                await alice.connect(stranger.peer_id)

    run_virtual(main)


def test_a_users_devices_are_found() -> None:
    """The account's device record leads to the node, which names the account back."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as (_, alice, bob):
            await asyncio.sleep(1)
            assert await alice.find_user(bob.user_id) == (bob.peer_id,)

    run_virtual(main)


def test_streams_reach_the_handler_of_their_protocol() -> None:
    """An application's protocol is served; an unknown one is refused without ending the session."""

    async def upper(session: Session, stream: Stream) -> None:
        await stream.write((await stream.read(100)).upper())
        stream.finish()

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as (_, alice, bob):
            bob.handle("test/upper/1", upper)
            session = await alice.connect(bob.peer_id)
            stream = await session.open_stream("test/upper/1")
            await stream.write(b"quiet")
            assert await stream.readexactly(5) == b"QUIET"
            unknown = await session.open_stream("test/unknown/1")
            await unknown.write(b"?")
            with pytest.raises((P2PError, EOFError)):
                await unknown.readexactly(1)
            assert await session.ping() > 0

    run_virtual(main)


def test_whoever_joins_through_localhost_is_found_on_the_lan() -> None:
    """One machine with two nodes, the second joined through the first's loopback address; a third on the LAN."""

    async def main(world: VirtualWorld) -> None:
        machine = world.host("10.0.0.1")
        anna = make_node(machine, 1)
        await anna.start()
        local = PeerSpec("?", peer=anna.peer_id, hosts=(("127.0.0.1", 4747),))
        cora = make_node(machine.network(), 2, bootstrap=(local,), listen_explicit=False)
        await cora.start()
        bert = make_node(world.host("10.0.0.2"), 3, through=[anna])
        await bert.start()
        assert (await bert.connect(cora.peer_id)).peer == cora.peer_id
        assert (await cora.find(bert.peer_id)).online
        for node in (bert, cora, anna):
            await node.stop()

    run_virtual(main)


def test_hello_to_oneself_says_so() -> None:
    """`ping` without a port asks our own listening port, here at our own address."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 2) as (boot, alice):
            assert (await alice.hello("10.0.0.1", 4747)).peer_id == boot.peer_id
            with pytest.raises(P2PError, match="this node itself"):
                await alice.hello("10.0.0.2", 4747)

    run_virtual(main)


def test_a_lone_node_says_what_it_waits_for() -> None:
    """This computer only (two ways), or nobody there."""

    async def main(world: VirtualWorld) -> list[str]:
        sentences = []
        for network, listen in (
            (world.host(), Address("0.0.0.0", 1)),
            (world.host("10.0.0.1"), Address("127.0.0.1", 1)),
            (world.host("10.0.0.2"), Address("0.0.0.0", 1)),
        ):
            node = make_node(network, 1, listen=(listen,))
            sentences.append((await node.start()).waiting_sentence())
            await node.stop()
        return sentences

    none, machine, lan = run_virtual(main)
    assert "on this computer only" in none
    assert "on this computer only" in machine
    assert "on another machine type: p2pnode join --bootstrap" in lan


def test_warm_start_needs_no_bootstrap_node(tmp_path: Path) -> None:
    """A node that knew others joins through them when its bootstrap node is dead."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 4) as (boot, alice, bob, _carol):
            network = world.host("10.0.0.50")
            path = tmp_path / "state.msgpack"
            first = make_node(network, 50, through=[boot], state_path=path)
            await first.start()
            await first.stop()
            await boot.stop()
            again = make_node(network, 50, state_path=path)
            ready = await again.start()
            assert not ready.alone
            assert ready.seconds < 2
            assert (await again.connect(bob.peer_id)).peer == bob.peer_id
            assert (await alice.connect(again.peer_id)).peer == again.peer_id
            await again.stop()

    run_virtual(main)


def test_bootstrap_address_with_another_key_is_refused_by_name() -> None:
    """Somebody else answers there: the error says so, and who."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 2) as (boot, alice):
            address = boot.addresses()[0]
            spec = PeerSpec("?", peer=alice.peer_id, hosts=((address.ip, address.port),))
            wrong = make_node(world.host("10.0.0.77"), 77, bootstrap=(spec,))
            with pytest.raises(WrongKeyError, match=str(boot.peer_id)):
                await wrong.start()
            await wrong.stop()

    run_virtual(main)


def test_dead_bootstrap_node_does_not_hold_up_the_living() -> None:
    """One of two bootstrap nodes is silent; joining takes as long as through the living one."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 2) as (boot, alice):
            silent = PeerSpec("?", peer=alice.peer_id, hosts=(("10.9.9.9", 4747),))
            node = make_node(world.host("10.0.0.77"), 77, bootstrap=(silent, spec_of(boot)))
            ready = await node.start()
            assert not ready.alone
            assert ready.seconds < 1
            await node.stop()

    run_virtual(main, delay=0.02)


def test_node_alone_says_so_and_joins_later() -> None:
    """Without anybody it is ready and alone; once its bootstrap node comes, it joins by itself."""

    async def main(world: VirtualWorld) -> None:
        boot = make_node(world.host("10.0.0.1"), 1)
        spec = PeerSpec("?", peer=boot.peer_id, hosts=(("10.0.0.1", 4747),))
        early = make_node(world.host("10.0.0.2"), 2, bootstrap=(spec,))
        ready = await early.start()
        assert ready.alone
        assert ready.seconds < 3
        await boot.start()
        await asyncio.sleep(70)
        assert early.dht.realms()
        assert (await boot.connect(early.peer_id)).peer == early.peer_id
        await early.stop()
        await boot.stop()

    run_virtual(main)


def test_taken_port_gives_way_only_when_it_is_the_default() -> None:
    """Two nodes on one host: the default port moves, an explicit one is an error."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")
        first = make_node(network, 1)
        await first.start()
        second = make_node(network.network(), 2, listen_explicit=False)
        await second.start()
        assert second.addresses()[0].port != 4747
        third = make_node(network.network(), 3)
        with pytest.raises(PortInUseError):
            await third.start()
        for node in (first, second, third):
            await node.stop()

    run_virtual(main)


def test_presence_follows_a_changed_address() -> None:
    """A host that moved is found at its new address within seconds."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 4) as (_, alice, bob, _carol):
            bob.network.host.add_address("10.0.0.200")
            bob.network.host.remove_address("10.0.0.3")
            await asyncio.sleep(15)
            found = await alice.find(bob.peer_id)
            assert [a.ip for a in found.addresses] == ["10.0.0.200"]

    run_virtual(main)


@pytest.mark.long
def test_fifty_nodes_find_each_other_and_repeat_exactly() -> None:
    """Fifty nodes in one process; each finds its neighbour; the same seed gives the same result."""

    async def main(world: VirtualWorld) -> list[tuple[int, float]]:
        async with lan_of(world, 50) as nodes:
            await asyncio.sleep(30)  # the network has just grown: records move to nearer holders
            results = [await node.find(nodes[(i + 7) % 50].peer_id) for i, node in enumerate(nodes)]
            assert all(r.online for r in results)
            return [(r.hops, round(r.seconds, 6)) for r in results]

    first = run_virtual(main, seed=3, delay=lambda rng: rng.uniform(0.01, 0.05), keep_trace=False)
    assert first == run_virtual(main, seed=3, delay=lambda rng: rng.uniform(0.01, 0.05), keep_trace=False)
