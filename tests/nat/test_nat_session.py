"""The session handshake and what a connection offers, on the virtual network."""

from __future__ import annotations

import asyncio

import pytest
from support.nat_peers import TAG, BareClient, make_peer

from p2pnode.core.address import Address
from p2pnode.core.errors import P2PTimeoutError, RefusedError, WrongKeyError, WrongNetworkError
from p2pnode.core.keys import NodeKey
from p2pnode.nat import MAX_DATAGRAM_BYTES, CloseCode, Connection, ConnectionClosedError, QuicEndpoint, QuicSettings
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ROUND_TRIP_S = 0.1


def pending_timers(world: VirtualWorld) -> int:
    return len(world.loop.pending_timers())  # type: ignore[attr-defined]


def test_connect_proves_both_sides_in_two_round_trips() -> None:
    """Both sides know each other's key, and connect() returns after two round trips."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        began = world.loop.time()
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        took = (world.loop.time() - began) / ROUND_TRIP_S
        print(f"connect() took {took:.2f} round trips")
        assert took <= 2.01
        assert connection.peer == bob.key.peer_id
        assert connection.initiator
        assert [c.peer for c in bob.incoming] == [alice.key.peer_id]
        assert not bob.incoming[0].initiator
        assert bob.incoming[0].remote == alice.address
        assert connection.rtt_s == pytest.approx(ROUND_TRIP_S, rel=0.1)

    run_virtual(main, delay=ROUND_TRIP_S / 2)


def test_wrong_key_is_refused_by_name() -> None:
    """Who connects to another's address is told who answered; the server never sees a connection."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        wanted = NodeKey.generate(alice.network.token_bytes).peer_id
        with pytest.raises(WrongKeyError) as caught:
            await alice.endpoint.connect(wanted, bob.address)
        assert caught.value.facts["answered"] == str(bob.key.peer_id)
        assert caught.value.facts["expected"] == str(wanted)
        assert str(bob.key.peer_id) in caught.value.message
        await asyncio.sleep(1)
        assert bob.incoming == []
        assert bob.endpoint.statistics().failed == {"remote": 1}
        assert alice.endpoint.statistics().tracked == 0

    run_virtual(main, delay=0.01)


def test_connect_to_nobody_times_out_and_leaves_nothing() -> None:
    """A silent address gives P2PTimeoutError after the time the caller allowed, and no timer stays."""

    async def main(world: VirtualWorld) -> None:
        alice = await make_peer(world, "10.0.0.1")
        key = NodeKey.generate(alice.network.token_bytes).peer_id
        began = world.loop.time()
        with pytest.raises(P2PTimeoutError):
            await alice.endpoint.connect(key, Address("10.0.0.9", 1), timeout=2)
        assert world.loop.time() - began == pytest.approx(2, abs=0.01)
        assert alice.endpoint.statistics().tracked == 0
        await asyncio.sleep(0.1)
        assert pending_timers(world) == 0

    run_virtual(main)


def test_cancelled_connect_leaves_nothing() -> None:
    """At whatever moment connect() is cancelled, neither side keeps a connection or a timer."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        for tenths in range(25):
            task = asyncio.ensure_future(alice.endpoint.connect(bob.key.peer_id, bob.address))
            await asyncio.sleep(tenths * 0.01)
            if task.done():
                (await task).close()
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.sleep(12)
            assert alice.endpoint.statistics().tracked == 0, tenths
            assert bob.endpoint.statistics().tracked == 0, tenths
            assert bob.endpoint.statistics().unproven == 0
        assert pending_timers(world) == 0

    run_virtual(main, delay=0.05)


def test_other_network_is_refused() -> None:
    """A node of another network id answers, and is told from a timeout."""

    async def main(world: VirtualWorld) -> None:
        alice = await make_peer(world, "10.0.0.1")
        bob = await make_peer(world, "10.0.0.2", tag=b"otherone")
        with pytest.raises(WrongNetworkError, match="another network"):
            await alice.endpoint.connect(bob.key.peer_id, bob.address)
        assert bob.incoming == []

    run_virtual(main)


def test_client_without_proof_is_closed_after_five_seconds() -> None:
    """A client that finishes TLS and proves nothing is closed at 5 s with PROOF_LATE."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.connect()
        await asyncio.sleep(4.9)
        assert client.handshake_done
        assert client.ended is None
        assert len(client.nonce) == 33
        await asyncio.sleep(0.2)
        assert client.ended is not None
        assert client.ended.error_code == CloseCode.PROOF_LATE
        assert bob.endpoint.statistics().tracked == 0
        assert bob.incoming == []

    run_virtual(main)


def test_too_much_before_the_proof_is_closed() -> None:
    """A client that sends 16 KiB without a proof is closed at once with TOO_MUCH; nothing of it is processed."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.connect()
        await asyncio.sleep(0.1)
        for _ in range(20):
            if client.ended is not None:
                break
            client.quic.send_datagram_frame(bytes(1000))
            client.flush()
            await asyncio.sleep(0.01)
        assert client.ended is not None
        assert client.ended.error_code == CloseCode.TOO_MUCH
        assert bob.endpoint.statistics().failed == {"too much before the proof": 1}
        assert bob.endpoint.statistics().tracked == 0

    run_virtual(main)


@pytest.mark.parametrize("stream_id", [2, 6])
def test_unidirectional_stream_before_the_proof_ends_the_connection(stream_id: int) -> None:
    """There are no such streams, and nobody unproven is told more."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.connect()
        await asyncio.sleep(0.1)
        client.write(b"\x04echohello", stream_id=stream_id)
        await asyncio.sleep(0.1)
        assert client.ended is not None
        assert client.ended.error_code == CloseCode.BAD_PROOF
        assert bob.incoming == []

    run_virtual(main)


def test_datagrams_arrive_and_long_ones_are_refused() -> None:
    """Datagrams go both ways, those before on_datagram is set wait (32 at most)."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        other = await bob.first_incoming()
        for number in range(40):
            connection.send_datagram(bytes([number]) * MAX_DATAGRAM_BYTES)
            await asyncio.sleep(0.01)
        seen: list[bytes] = []
        other.on_datagram = seen.append
        assert [data[0] for data in seen] == list(range(32))
        connection.send_datagram(b"now")
        await asyncio.sleep(0.1)
        assert seen[-1] == b"now"
        with pytest.raises(ValueError, match="1100"):
            connection.send_datagram(bytes(MAX_DATAGRAM_BYTES + 1))
        assert bob.endpoint.statistics().dropped["datagram_unread"] == 8

    run_virtual(main)


def test_ping_measures_the_round_trip() -> None:
    """A ping is answered by the other side's connection at once, not when QUIC acknowledges."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        used = connection.last_used_at
        assert await connection.ping() == pytest.approx(0.04, abs=0.001)
        assert await (await bob.first_incoming()).ping() == pytest.approx(0.04, abs=0.001)
        assert connection.last_used_at == used  # keeping alive is no use
        world.loss = 1.0
        with pytest.raises(P2PTimeoutError):
            await connection.ping(timeout=1)
        assert connection._pings == {}

    run_virtual(main, delay=0.02)


def test_idle_connection_stays_open_by_keep_alives() -> None:
    """Ten minutes without traffic: one PING exchange per 20 s, and the connection still works."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        await asyncio.sleep(1)
        before = len(world.trace)
        await asyncio.sleep(600)
        datagrams = len(world.trace) - before
        print(f"{datagrams} datagrams in 600 idle seconds")
        assert not connection.closed
        assert datagrams <= 4 * 600 / 20
        assert await connection.ping() < 0.1

    run_virtual(main)


def test_dead_peer_is_noticed_within_about_five_seconds() -> None:
    """Something sent into silence: closed as lost within 6 s, waiting readers are told, no timer stays."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        stream = await connection.open_stream("echo")
        await stream.write(b"x")
        assert await stream.readexactly(1) == b"x"
        reading = asyncio.ensure_future(stream.read())
        world.loss = 1.0
        began = world.loop.time()
        await stream.write(b"y")
        reason = await connection.wait_closed()
        took = world.loop.time() - began
        print(f"death noticed after {took:.2f} s")
        assert reason.origin == "lost"
        assert took < 6
        with pytest.raises(ConnectionClosedError):
            await reading
        with pytest.raises(ConnectionClosedError):
            await connection.open_stream("echo")
        bob.close()
        await asyncio.sleep(0)
        assert pending_timers(world) == 0

    run_virtual(main, delay=0.02)


def test_restarted_peer_is_noticed() -> None:
    """A peer that lost its state answers nothing to old connection ids; the 5 s rule ends the connection."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        await asyncio.sleep(0.5)
        world.loss = 1.0  # a crash says nothing
        bob.endpoint.close()
        await asyncio.sleep(0.1)
        world.loss = 0.0
        restarted = QuicEndpoint(key=bob.key, network=bob.network, send=bob.mux.send, network_tag=TAG)
        bob.mux.on("quic", restarted.datagram_received)
        began = world.loop.time()
        with pytest.raises(ConnectionClosedError):
            await connection.ping(timeout=30)
        assert world.loop.time() - began < 6
        assert restarted.statistics().dropped["unknown_connection"] >= 1

    run_virtual(main)


def test_close_tells_the_other_side_why() -> None:
    """Code and reason arrive within half a round trip; both sides forget the connection."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        other = await bob.first_incoming()
        told: list[str] = []
        other.on_closed.append(lambda reason: told.append(str(reason)))
        connection.close(0x21, "enough")
        began = world.loop.time()
        reason = await other.wait_closed()
        assert (reason.code, reason.reason, reason.origin) == (0x21, "enough", "remote")
        assert world.loop.time() - began == pytest.approx(0.03, abs=0.001)
        assert told == ["enough"]
        other.on_closed.append(lambda reason: told.append(f"late: {reason}"))
        await asyncio.sleep(0)
        assert told == ["enough", "late: enough"]
        assert (await connection.wait_closed()).origin == "local"
        await asyncio.sleep(4)
        assert alice.endpoint.statistics().tracked == bob.endpoint.statistics().tracked == 0
        assert pending_timers(world) == 0

    run_virtual(main, delay=0.03)


def test_endpoint_close_leaves_no_timer() -> None:
    """Closing the endpoint ends open, unproven and connecting ones at once."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        await alice.endpoint.connect(bob.key.peer_id, bob.address)
        other = await bob.first_incoming()
        attempt = asyncio.ensure_future(alice.endpoint.connect(bob.key.peer_id, Address("10.0.0.7", 7)))
        client = await BareClient.open(world, "10.0.0.3", bob)
        client.connect()
        await asyncio.sleep(0.1)
        alice.endpoint.close()
        with pytest.raises(ConnectionClosedError):
            await attempt
        assert (await other.wait_closed()).code == CloseCode.GOING_AWAY
        bob.endpoint.close()
        assert bob.endpoint.statistics().tracked == 0
        with pytest.raises(ConnectionClosedError):
            await alice.endpoint.connect(bob.key.peer_id, bob.address)
        await asyncio.sleep(0.1)
        assert pending_timers(world) == 0

    run_virtual(main)


def test_simultaneous_connects_give_two_working_connections() -> None:
    """Both call connect() at the same moment: each gets one; which one stays is the node's choice."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        one, two = await asyncio.gather(
            alice.endpoint.connect(bob.key.peer_id, bob.address),
            bob.endpoint.connect(alice.key.peer_id, alice.address),
        )
        for connection in (one, two):
            stream = await connection.open_stream("echo")
            await stream.write(b"hello")
            assert await stream.readexactly(5) == b"hello"
        assert len(alice.incoming) == len(bob.incoming) == 1

    run_virtual(main)


def test_failing_callback_does_not_harm_the_connection() -> None:
    """What an application's callback raises goes to the loop's handler."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        other = await bob.first_incoming()
        errors: list[str] = []
        world.loop.set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))

        def fail(_connection: Connection, _protocol: str, _stream: object) -> None:
            raise ZeroDivisionError("the application's")

        other.on_stream = fail
        await (await connection.open_stream("x")).write(b"1")
        await asyncio.sleep(0.1)
        assert errors == ["the application's"]
        assert await connection.ping() < 1

    run_virtual(main)


def test_incoming_beyond_the_limit_are_refused() -> None:
    """Above max_connections an incoming one is closed with TOO_MANY, which connect() reports as RefusedError."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2", settings=QuicSettings(max_connections=1))
        first, second = await make_peer(world, "10.0.0.3"), await make_peer(world, "10.0.0.4")
        await first.endpoint.connect(bob.key.peer_id, bob.address)
        # the server accepts, then closes: the client sees one or the other first
        try:
            connection = await second.endpoint.connect(bob.key.peer_id, bob.address)
        except RefusedError:
            pass
        else:
            assert (await connection.wait_closed()).code == CloseCode.TOO_MANY
        assert len(bob.incoming) == 1

    run_virtual(main)


def test_settings_are_checked() -> None:
    """Impossible tunables are refused at construction."""
    with pytest.raises(ValueError, match="keep_alive_s"):
        QuicSettings(keep_alive_s=0)
    with pytest.raises(ValueError, match="retry_above"):
        QuicSettings(retry_above=10, max_unproven=5)
