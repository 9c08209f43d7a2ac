"""Application data right behind the client's proof: an echo in two round trips, under loss and refusal too."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.nat_peers import BareClient, Peer, bad_wire, make_peer

from p2pnode.core.errors import P2PTimeoutError, WrongKeyError
from p2pnode.core.keys import NodeKey
from p2pnode.nat import CloseCode, ConnectionClosedError, QuicSettings
from p2pnode.nat import connection as connections
from p2pnode.nat import proof as proofs
from p2pnode.nat.early import EARLY_BYTES, EarlyWrites
from p2pnode.nat.transport import events
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ROUND_TRIP_S = 0.08


def test_early_connect_and_echo_take_two_round_trips() -> None:
    """connect(early=True) returns after one round trip; the first echoed byte is there after two."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        began = world.loop.time()
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, early=True)
        assert (world.loop.time() - began) / ROUND_TRIP_S <= 1.01
        assert connection.peer == bob.key.peer_id
        stream = await connection.open_stream("echo")
        await stream.write(b"x")
        assert await stream.readexactly(1) == b"x"
        took = (world.loop.time() - began) / ROUND_TRIP_S
        print(f"connect and echo: {took:.2f} round trips")
        assert took <= 2.01
        await connection.wait_accepted()
        assert alice.endpoint.connections() == [connection]
        assert [c.peer for c in bob.incoming] == [alice.key.peer_id]

    run_virtual(main, delay=ROUND_TRIP_S / 2)


def test_early_connect_refuses_the_wrong_key() -> None:
    """Nothing of the application is sent to a server that is not the wanted one."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        wanted = NodeKey.generate(alice.network.token_bytes).peer_id
        with pytest.raises(WrongKeyError):
            await alice.endpoint.connect(wanted, bob.address, early=True)
        with pytest.raises(P2PTimeoutError):
            await alice.endpoint.connect(wanted, bob.address._replace(port=9), early=True, timeout=1)
        await asyncio.sleep(5)
        assert alice.endpoint.statistics().tracked == 0
        assert bob.endpoint.statistics().tracked == 0

    run_virtual(main)


def test_refused_proof_ends_the_early_stream_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not accept the proof hears no stream; the client's stream and wait_accepted raise."""
    real = proofs.make_proof
    monkeypatch.setattr("p2pnode.nat.handshake.make_proof", lambda key, facts: real(key, facts)[:-1] + b"!")

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, early=True)
        stream = await connection.open_stream("echo")
        await stream.write(b"x")
        with pytest.raises(ConnectionClosedError):
            await stream.read()
        with pytest.raises(ConnectionClosedError):
            await connection.wait_accepted()
        assert (await connection.wait_closed()).code == CloseCode.BAD_PROOF
        assert bob.incoming == []

    run_virtual(main, delay=ROUND_TRIP_S / 2)


def test_silence_after_the_proof_ends_an_early_connection() -> None:
    """A server that dies before it accepts: the client knows within proof_timeout_s."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, early=True)
        world.loss = 1.0
        stream = await connection.open_stream("echo")
        began = world.loop.time()
        with pytest.raises(ConnectionClosedError):
            await stream.readexactly(1)
        assert world.loop.time() - began <= 5.01
        assert connection.close_reason is not None
        assert connection.close_reason.code == CloseCode.PROOF_LATE
        bob.close()
        assert alice.endpoint.statistics().tracked == 0

    run_virtual(main, delay=ROUND_TRIP_S / 2)


def _overtake(peer: Peer) -> None:
    """From now on each further datagram leaves 5 ms before the one that was sent before it."""
    count = 0

    def impair(_data: bytes) -> list[float]:
        nonlocal count
        count += 1
        return [max(0.0, 0.05 - 0.005 * count)]

    peer.impair = impair


def test_data_that_overtakes_the_proof_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early data on three streams arrives before the proof: nothing is lost, nothing is processed early."""
    real, waited = connections.is_early, list[events.QuicEvent]()

    def is_early(event: events.QuicEvent) -> bool:
        if real(event):
            waited.append(event)
            return True
        return False

    monkeypatch.setattr(connections, "is_early", is_early)

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        attempt = asyncio.ensure_future(alice.endpoint.connect(bob.key.peer_id, bob.address, early=True))
        await asyncio.sleep(ROUND_TRIP_S * 0.75)
        _overtake(alice)
        connection = await attempt
        streams = [await connection.open_stream("echo") for _ in range(3)]
        for number, stream in enumerate(streams):
            await stream.write(bytes([number]) * 1000)
            await asyncio.sleep(0)
        given_up = await connection.open_stream("echo")
        given_up.reset(7)
        for number, stream in enumerate(streams):
            assert await stream.readexactly(1000) == bytes([number]) * 1000
        assert len(bob.incoming) == 1
        assert len(waited) >= 3
        assert bob.endpoint.statistics().dropped == {}

    run_virtual(main, delay=ROUND_TRIP_S / 2)


def test_more_than_the_early_budget_waits_for_the_acceptance() -> None:
    """100 KB written at once: 4 KiB go early, streams opened meanwhile wait, everything arrives in order."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, early=True)
        data = random.Random(1).randbytes(100_000)
        one = await connection.open_stream("echo")
        await one.write(data[:3000])
        writing = asyncio.ensure_future(one.write(data[3000:]))
        opening = asyncio.ensure_future(connection.open_stream("echo"))
        await asyncio.sleep(ROUND_TRIP_S / 2)
        assert not opening.done()
        two = await opening
        await two.write(b"second")
        assert await one.readexactly(len(data)) == data
        assert await two.readexactly(6) == b"second"
        await writing

    run_virtual(main, delay=ROUND_TRIP_S / 2)


@pytest.mark.parametrize("seed", range(4))
def test_early_connects_over_a_bad_wire(seed: int) -> None:
    """25 early connects and echoes with 10 % lost, repeated and late: all succeed."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        alice.impair, bob.impair = bad_wire(seed), bad_wire(seed + 100)
        for number in range(25):
            connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, early=True)
            stream = await connection.open_stream("echo")
            await stream.write(b"%02d" % number)
            assert await stream.readexactly(2) == b"%02d" % number
            await connection.wait_accepted()
            connection.close()

    run_virtual(main, delay=ROUND_TRIP_S / 2, seed=seed)


def test_unproven_streams_are_not_heard_and_bounded() -> None:
    """A client that never proves itself fills streams: no stream opens, 16 KiB end the connection."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.connect()
        await asyncio.sleep(0.1)
        for number in range(20):
            if client.ended is None:
                client.write(b"\x04echo" + bytes(1000), stream_id=4 + 4 * number)
                await asyncio.sleep(0.01)
        assert client.ended is not None
        assert client.ended.error_code == CloseCode.TOO_MUCH
        assert bob.incoming == []
        assert bob.endpoint.statistics().tracked == 0

    run_virtual(main)


def test_early_writes_hold_what_is_beyond_the_budget() -> None:
    """Once something is held all that follows is; a reset forgets; release gives it back in order."""
    early = EarlyWrites()
    assert early.admit(4, bytes(1000), False)
    assert not early.admit(4, bytes(EARLY_BYTES), False)
    assert not early.admit(8, b"x", True)
    assert early.full
    assert (early.unsent(4), early.unsent(8)) == (EARLY_BYTES, 1)
    early.forget(4)
    assert early.release() == [(8, b"x", True)]
    assert early.admit(4, bytes(10**6), False)
    assert not early.full


def test_keep_alive_is_set_per_connection() -> None:
    """A connection with an interval of 5 s pings four times as often as the default; bad values are refused."""

    async def main(world: VirtualWorld) -> None:
        alice = await make_peer(world, "10.0.0.1")
        bob = await make_peer(world, "10.0.0.2", settings=QuicSettings(keep_alive_s=29))
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        await asyncio.sleep(1)
        assert connection.keep_alive_s == 20
        counts = []
        for seconds in (20, 5):
            connection.keep_alive_s = seconds
            before = len(alice.sent)
            await asyncio.sleep(200)
            counts.append(len(alice.sent) - before)
        print(f"datagrams in 200 s: {counts}")
        assert counts[0] <= 20
        assert 40 <= counts[1] <= 80
        with pytest.raises(ValueError, match="keep-alive"):
            connection.keep_alive_s = 31

    run_virtual(main)
