"""Priorities of streams, and key updates."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.nat_peers import Peer, bad_wire, make_peer

from p2pnode.nat import Connection, Priority, QuicSettings, Stream
from p2pnode.nat.shares import Shares
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


async def pair(
    world: VirtualWorld, settings: QuicSettings | None = None, *, echo: bool = False
) -> tuple[Peer, Peer, Connection, Connection]:
    alice = await make_peer(world, "10.0.0.1", settings=settings)
    bob = await make_peer(world, "10.0.0.2", settings=settings, echo=echo)
    connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
    return alice, bob, connection, await bob.first_incoming()


class Readers:
    """Reads every incoming stream to its end and notes when how much had come."""

    def __init__(self, world: VirtualWorld, connection: Connection) -> None:
        self._world = world
        self.came: dict[str, list[tuple[float, int]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        connection.on_stream = self._begin

    def _begin(self, _connection: Connection, name: str, stream: Stream) -> None:
        self._tasks.add(asyncio.ensure_future(self._read(name, stream)))

    async def _read(self, name: str, stream: Stream) -> None:
        marks = self.came[name] = [(0.0, 0)]
        while data := await stream.read():
            marks.append((self._world.loop.time(), marks[-1][1] + len(data)))

    def by(self, name: str, at: float) -> int:
        """Bytes of a stream that had come by a moment."""
        return max((size for when, size in self.came.get(name, ()) if when <= at), default=0)


@pytest.mark.parametrize("priority", [Priority.BACKGROUND, Priority.NORMAL])
def test_a_background_transfer_makes_way(priority: Priority) -> None:
    """Where the path is what is scarce, an ordinary transfer beside one in the background gets nearly all of it, and
    beside its like half."""

    async def main(world: VirtualWorld) -> None:
        alice, _, connection, other = await pair(world)
        alice.impair = bad_wire(1, loss=0.01, repeat=0, late=0)  # so that congestion control holds back, no window
        readers = Readers(world, other)
        first = await connection.open_stream("first", priority)
        size = 768 << 10

        async def send(stream: Stream) -> None:
            await stream.write(bytes(size))
            stream.finish()

        tasks = [asyncio.ensure_future(send(first))]
        second = await connection.open_stream("second")
        tasks.append(asyncio.ensure_future(send(second)))
        sent: list[tuple[int, int]] = []
        for _ in range(1500):
            await asyncio.sleep(0.01)
            sent.append((first._sent, second._sent))
        # From where the second has credit enough to go on, to where its last byte is handed over.
        flowing = [mark for mark in sent if 320 << 10 < mark[1] < size]
        meanwhile, beside = (flowing[-1][side] - flowing[0][side] for side in (0, 1))
        print(f"{priority.name}: {meanwhile >> 10} KiB of the first left while {beside >> 10} of the second did")
        assert (meanwhile < beside / 8) == (priority is Priority.BACKGROUND)
        await asyncio.gather(*tasks)
        await asyncio.sleep(3)
        assert readers.by("first", world.loop.time()) == readers.by("second", world.loop.time()) == size

    run_virtual(main, delay=0.02)


def test_a_message_does_not_wait_behind_a_transfer() -> None:
    """With 2 MiB under way on another stream of the same level, a message takes little more than its one way."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, other = await pair(world)
        readers = Readers(world, other)
        bulk = await connection.open_stream("bulk")
        sending = asyncio.ensure_future(bulk.write(bytes(4 << 20)))
        await asyncio.sleep(0.3)
        chat = await connection.open_stream("chat", Priority.URGENT)
        began = world.loop.time()
        await chat.write(b"hello")
        await asyncio.sleep(0.1)
        took = readers.came["chat"][1][0] - began
        print(f"{took * 1000:.0f} ms")
        assert took < 0.045, "one way is 20 ms, and a full path may send again after a round trip at the latest"
        await sending

    run_virtual(main, delay=0.02)


def test_a_blocked_urgent_stream_holds_nobody_back() -> None:
    """Its reader gives no credit: what is less urgent goes on."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, other = await pair(world)
        arrived: list[Stream] = []
        other.on_stream = lambda _connection, _name, stream: arrived.append(stream)
        stuck = await connection.open_stream("stuck", Priority.URGENT)
        sending = asyncio.ensure_future(stuck.write(bytes(1 << 20)))
        await asyncio.sleep(1)
        behind = await connection.open_stream("behind")
        behind.priority = Priority.BACKGROUND
        assert behind.priority is Priority.BACKGROUND
        await behind.write(b"x" * 1000)
        await asyncio.sleep(1)
        assert not sending.done()
        assert await arrived[1].readexactly(1000) == b"x" * 1000
        stuck.reset()
        with pytest.raises(Exception, match="given up"):
            await sending

    run_virtual(main, delay=0.02)


def test_levels_forget_streams_that_are_done() -> None:
    """Nothing of a hundred ended streams stays behind."""

    async def main(world: VirtualWorld) -> None:
        _, _, connection, other = await pair(world, echo=True)
        for number in range(100):
            stream = await connection.open_stream("echo", Priority(number % 3))
            await stream.write(b"x")
            stream.finish()
            assert await stream.readexactly(1) == b"x"
            assert await stream.read() == b""
        await asyncio.sleep(1)
        for side in (connection, other):
            shares: Shares = side.shares
            assert list(shares.in_turn()) == []
            assert shares._levels == {}

    run_virtual(main, delay=0.001)


def test_keys_change_and_no_byte_is_lost() -> None:
    """Keys that change every 50 packets, on both sides, while a MiB goes there and back."""

    async def main(world: VirtualWorld) -> None:
        settings = QuicSettings(key_update_packets=50)
        _, _, connection, other = await pair(world, settings, echo=True)
        phases: set[tuple[int | None, int | None]] = set()
        data = random.Random(4).randbytes(1 << 20)
        stream = await connection.open_stream("echo")

        async def send() -> None:
            for start in range(0, len(data), 1 << 14):
                await stream.write(data[start : start + (1 << 14)])
                phases.add((connection.transport.key_phase, other.transport.key_phase))
                await asyncio.sleep(0.01)
            stream.finish()

        sending = asyncio.ensure_future(send())
        assert await stream.readexactly(len(data)) == data
        await sending
        print("key phases seen", sorted(phases, key=str))
        assert {0, 1} <= {phase for pair in phases for phase in pair}
        assert not connection.closed
        assert not other.closed

    run_virtual(main, delay=0.01)
