"""Streams: order, ends, resets, back-pressure, cancellation; and handshakes on bad wires."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.nat_peers import Impairment, Peer, bad_wire, make_peer

from p2pnode.nat import Connection, ConnectionClosedError, Stream, StreamFullError, StreamResetError
from p2pnode.nat.streams import INITIAL_CREDIT, NOWAIT_BUFFER, READ_WINDOW, SEND_BUFFER
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


async def pair(world: VirtualWorld, *, echo: bool = True) -> tuple[Peer, Peer, Connection, Connection]:
    alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2", echo=echo)
    connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
    return alice, bob, connection, await bob.first_incoming()


async def stream_pair(world: VirtualWorld) -> tuple[Stream, Stream, Connection]:
    """Return both ends of one stream; the opener's first."""
    _, _, connection, other = await pair(world, echo=False)
    arrived: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    other.on_stream = lambda _connection, _protocol, stream: arrived.set_result(stream)
    near = await connection.open_stream("test/1")
    far = await arrived
    assert far.protocol == "test/1"
    assert far.id == near.id
    return near, far, connection


def test_large_transfer_both_ways_keeps_every_byte() -> None:
    """Two MiB echoed over 20 ms: equal, and ended by FIN on both sides; nothing is kept afterwards."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, other = await pair(world)
        data = random.Random(1).randbytes(2 << 20)
        stream = await connection.open_stream("echo")

        async def send() -> None:
            await stream.write(data)
            stream.finish()

        sending = asyncio.ensure_future(send())
        assert await stream.readexactly(len(data)) == data
        assert await stream.read() == b""
        await sending
        await asyncio.sleep(0.1)
        assert connection._streams == other._streams == {}

    run_virtual(main, delay=0.01)


def test_slow_reader_holds_the_writer_back() -> None:
    """Who does not read gets 64 KiB; the writer then waits with 256 KiB unsent, and goes on as reading goes on."""

    async def main(world: VirtualWorld) -> None:
        near, far, _ = await stream_pair(world)
        total = 4 << 20
        writing = asyncio.ensure_future(near.write(bytes(total)))
        await asyncio.sleep(30)
        assert far._unread <= INITIAL_CREDIT
        assert not writing.done()
        assert near._waiting_bytes <= SEND_BUFFER + (64 << 10)
        received = 0
        most = 0
        while received < total:
            received += len(await far.read(1 << 16))
            most = max(most, far._unread)
            await asyncio.sleep(0.01)
        await writing
        assert most <= READ_WINDOW + (1 << 16)

    run_virtual(main, delay=0.005)


def test_sender_beyond_the_credit_ends_the_connection() -> None:
    """A peer that ignores credit is closed, however its program is written."""

    async def main(world: VirtualWorld) -> None:
        near, _, connection = await stream_pair(world)
        near._credit = 1 << 40
        near.write_nowait(bytes(INITIAL_CREDIT + 1))
        reason = await connection.wait_closed()
        assert (reason.origin, reason.reason) == ("remote", "beyond_credit")

    run_virtual(main)


def test_many_streams_wait_for_the_limit_and_all_work() -> None:
    """300 streams at once, 100 allowed at a time: open_stream waits; every one is served."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, _ = await pair(world)

        async def one(number: int) -> None:
            stream = await connection.open_stream("echo")
            await stream.write(b"%d" % number)
            stream.finish()
            assert await stream.read() == b"%d" % number
            assert await stream.read() == b""

        await asyncio.gather(*(one(number) for number in range(300)))
        assert connection._streams == {}

    run_virtual(main)


def test_streams_of_the_server_side_work_too() -> None:
    """The side that was connected to opens streams as well, before on_stream is set there."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, other = await pair(world)
        stream = await other.open_stream("from-server")
        await stream.write(b"hello")
        await asyncio.sleep(0.1)
        seen: list[tuple[str, Stream]] = []
        connection.on_stream = lambda _c, protocol, s: seen.append((protocol, s))
        assert seen[0][0] == "from-server"
        assert await seen[0][1].read() == b"hello"

    run_virtual(main)


def test_half_close_still_reads() -> None:
    """After finish() the other direction stays open; writing more is an error."""

    async def main(world: VirtualWorld) -> None:
        near, far, _ = await stream_pair(world)
        near.write_nowait(b"question")
        near.finish()
        near.finish()
        assert await far.readexactly(8) == b"question"
        assert await far.read() == b""
        await far.write(b"answer")
        assert await near.readexactly(6) == b"answer"
        with pytest.raises(ConnectionClosedError):
            near.write_nowait(b"more")
        far.finish()
        with pytest.raises(asyncio.IncompleteReadError):
            await near.readexactly(1)

    run_virtual(main)


def test_reset_reaches_reader_and_writer_of_the_other_side() -> None:
    """A reset stream fails both directions at the other side with its code; the connection goes on."""

    async def main(world: VirtualWorld) -> None:
        near, far, connection = await stream_pair(world)
        reading = asyncio.ensure_future(far.read())
        writing = asyncio.ensure_future(far.write(bytes(1 << 20)))
        await asyncio.sleep(0.1)
        near.reset(7)
        for task in (reading, writing):
            with pytest.raises(StreamResetError) as caught:
                await task
            assert caught.value.facts["reset_code"] == 7
        with pytest.raises(StreamResetError):
            await near.read()
        with pytest.raises(StreamResetError):
            await near.write(b"x")
        near.reset(7)
        await asyncio.sleep(0.5)
        assert connection._streams == {}
        assert await connection.ping() < 1

    run_virtual(main)


def test_cancelled_waits_lose_nothing() -> None:
    """A read or readexactly that is cancelled leaves its bytes for the next one."""

    async def main(world: VirtualWorld) -> None:
        near, far, _ = await stream_pair(world)
        for reader in (far.read(), far.readexactly(10)):
            task = asyncio.ensure_future(reader)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        task2 = asyncio.ensure_future(far.readexactly(10))
        near.write_nowait(b"01234")
        await asyncio.sleep(0.1)
        task2.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task2
        near.write_nowait(b"56789")
        assert await far.readexactly(10) == b"0123456789"
        assert far._readers == set()

    run_virtual(main)


def test_write_nowait_has_a_limit() -> None:
    """Queueing without waiting ends at 4 MiB, with an error that names the cause."""

    async def main(world: VirtualWorld) -> None:
        near, _, _ = await stream_pair(world)
        for _ in range(NOWAIT_BUFFER // (1 << 20)):
            near.write_nowait(bytes(1 << 20))
        with pytest.raises(StreamFullError):
            near.write_nowait(bytes(1 << 20))

    run_virtual(main)


def test_bad_protocol_name_is_refused_locally() -> None:
    """Names are 1 to 64 printable ASCII characters."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, _ = await pair(world)
        for name in ("", "a b", "x" * 65, "é", "a\n"):
            with pytest.raises(ValueError, match="protocol name"):
                await connection.open_stream(name)

    run_virtual(main)


@pytest.mark.parametrize("lost", range(10))
def test_loss_of_each_handshake_datagram_is_survived(lost: int) -> None:
    """Whichever of the first datagrams of either side is lost, connect() still succeeds within 5 s."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        victim, number = (alice, lost // 2) if lost % 2 == 0 else (bob, lost // 2)
        counter = iter(range(1000))
        victim.impair = lambda _data: [] if next(counter) == number else [0.0]
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        stream = await connection.open_stream("echo")
        await stream.write(b"hello")
        assert await stream.readexactly(5) == b"hello"
        assert (await bob.first_incoming()).peer == alice.key.peer_id

    run_virtual(main, delay=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_bad_wire_handshake_and_echo(seed: int) -> None:
    """10 % lost, 10 % repeated, 10 % late: handshake and 64 KiB echo succeed."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        wires: tuple[Impairment, Impairment] = (bad_wire(seed), bad_wire(seed + 1000))
        alice.impair, bob.impair = wires
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address, timeout=15)
        data = random.Random(seed).randbytes(1 << 16)
        stream = await connection.open_stream("echo")
        writing = asyncio.ensure_future(stream.write(data))
        assert await stream.readexactly(len(data)) == data
        await writing
        assert not connection.closed

    print("seed", seed)
    run_virtual(main, delay=0.02, seed=seed)
