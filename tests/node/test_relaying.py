"""Whole nodes that no plain punch joins, in virtual time: met through rendezvous nodes, relayed by public nodes."""

import asyncio

import pytest
from support.offer_vectors import ALICE, BOB
from support.street import ONE_WAY_S, reach, street
from support.transfer import Receiver, send_file

from p2pnode import BothNatsRandomError, SessionMoved
from p2pnode.core.address import Address
from p2pnode.dht import KnownContact
from p2pnode.relaying import RelayFlow
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.faults import block

PAIRS = [("symmetric", "symmetric"), ("symmetric", "port-restricted"), ("port-restricted", "symmetric")]


@pytest.mark.parametrize(("caller", "callee"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_pairs_that_need_guessing_are_relayed_within_a_second(caller: str, callee: str) -> None:
    """By id alone, an echoed byte within 1.0 s at 80 ms round trip; both sides say relay, and why."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home(caller), await there.home(callee)
            await asyncio.sleep(5)
            session, seconds = await reach(world, a, b)
            assert session.path == "relay", session.trace.steps
            other = b.session(a.peer_id)
            assert other is not None
            assert other.path == "relay"
            for node, each in ((a, session), (b, other)):
                assert "symmetric NAT" in node.reaching.explain(each).text
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"{caller} -> {callee}: {seconds:.3f} s")
    assert seconds <= 1.0


def test_two_random_routers_stay_relayed_with_a_spare() -> None:
    """The flows are renewed while they are used, and given up afterwards."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            await asyncio.sleep(250)
            assert await session.ping() > 0
            for one, other in ((a, b), (b, a)):
                spares = one.session(other.peer_id).connection.spare_paths  # type: ignore[union-attr]
                assert [path.kind for path in spares] == ["relay"]
            served = [node.reaching.pathways.relaying.statistics() for node in there.public]
            assert sum(each.pairs for each in served) == 2
            session.close()
            await asyncio.sleep(130)
            assert a.reaching.pathways.relaying.flows() == b.reaching.pathways.relaying.flows() == []
            assert all(node.reaching.pathways.relaying.statistics().flows == 0 for node in there.public)

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


@pytest.mark.parametrize("writer", ["caller", "callee"])
def test_relayed_session_moves_to_the_guessed_port_without_loss(writer: str) -> None:
    """A file that flows while the port is guessed arrives whole, in the session that began through the relay."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("symmetric"), await there.home("port-restricted")
            await asyncio.sleep(5)
            began = world.loop.time()
            session, _ = await reach(world, a, b)
            assert session.path == "relay"
            other = b.session(a.peer_id)
            assert other is not None
            source, sink = (session, b) if writer == "caller" else (other, a)
            receiver = Receiver(world, sink)
            content = world.rng.randbytes(2_000_000)
            sending = asyncio.ensure_future(send_file(source, content, pause=0.05))
            moved = asyncio.Event()
            a.subscribe(lambda event: moved.set() if isinstance(event, SessionMoved) else None)
            async with asyncio.timeout(30):
                await moved.wait()
                seconds = world.loop.time() - began
                await receiver.done.wait()
            await sending
            assert receiver.has(content)
            assert receiver.gap < 1
            await asyncio.sleep(30)
            assert session.path == other.path == "punched"
            assert a.session(b.peer_id) is session
            assert any(step.step.startswith("move ") for step in session.trace.steps)
            return seconds

    print(f"direct after {run_virtual(main, delay=ONE_WAY_S, keep_trace=False):.2f} s")


def test_a_relayed_burst_leaves_together() -> None:
    """Each datagram in its own frame, all by one call, counted; none once the flow is closed."""
    sent: list[tuple[list[bytes], Address]] = []
    relay = KnownContact(BOB.peer_id, BOB.peer_id.node_id, Address("9.2.0.1", 9))
    flow = RelayFlow(
        relay, ALICE.peer_id, 0x0102, lambda *_: None, lambda some, to: sent.append((list(some), to)), calls=True
    )
    flow.path.send_many([b"one", b"two"])
    flow.closed = True
    flow.path.send_many([b"three"])
    assert sent == [([b"\x0b\x01\x02one", b"\x0b\x01\x02two"], relay.address)]
    assert flow.bytes_sent == 6


def test_without_relays_the_refusal_says_why() -> None:
    """The public nodes relay nothing: two random routers cannot be joined, and the sentence says so."""

    async def main(world: VirtualWorld) -> None:
        async with street(world, relay=False) as there:
            a, b = await there.home("symmetric"), await there.home("symmetric")
            await asyncio.sleep(5)
            with pytest.raises(BothNatsRandomError, match="symmetric NAT"):
                await a.connect(b.peer_id)
            assert a.reaching.pathways.relaying.flows() == []

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_punched_session_survives_on_a_relay_when_its_path_dies() -> None:
    """Within 5 s the same session goes on through a relay, with every byte; it goes back when the way is open again."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("port-restricted"), await there.home("port-restricted")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            assert session.path == "punched"
            assert session.connection.known_paths == [session.connection.path]
            receiver = Receiver(world, b)
            content = world.rng.randbytes(2_000_000)
            sending = asyncio.ensure_future(send_file(session, content, pause=0.03))
            await receiver.reached(500_000)
            heals = [block(world, [one], [other]) for one, other in (there.routers, there.routers[::-1])]
            async with asyncio.timeout(60):
                await receiver.done.wait()
            await sending
            assert receiver.has(content)
            assert session.path == "relay"
            for heal in heals:
                heal()
            await asyncio.sleep(90)
            assert session.path == "punched"
            assert a.session(b.peer_id) is session
            return receiver.gap

    gap = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"longest time without a byte {gap:.2f} s")
    assert gap <= 5
