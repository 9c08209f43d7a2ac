"""Windows that grow with the round trip, within what one peer may make us hold."""

from __future__ import annotations

import asyncio
import itertools

from support.nat_peers import Peer, make_peer

from p2pnode.nat import Connection, QuicSettings, Stream
from p2pnode.nat.shares import GROWTH, Shares
from p2pnode.nat.streams import MAX_READ_WINDOW, READ_WINDOW
from p2pnode.nat.transport import NARROW_WINDOW, WIDE_CONNECTIONS, WIDE_WINDOW
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

MIB = 1 << 20


class Owner:
    """A connection as one stream sees it, with a clock that the test moves."""

    def __init__(self, rtt_s: float) -> None:
        self.rtt_s: float | None = rtt_s
        self.last_used_at = 0.0
        self.now = 0.0
        self.shares = Shares()
        self.credits: dict[int, int] = {}

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None: ...

    def stream_unsent(self, _stream_id: int) -> int:
        return 0

    def stream_credit(self, stream_id: int, limit: int) -> None:
        self.credits[stream_id] = limit

    def stream_reset(self, stream_id: int, code: int, *, receiving: bool) -> None: ...
    def stream_done(self, stream_id: int) -> None: ...

    def stream_used(self) -> None:
        self.last_used_at = self.now


async def read_in_rounds(owner: Owner, stream: Stream, rounds: int, seconds: float) -> list[int]:
    """Take whatever the credit allows, once each `seconds`; return how much that was each time."""
    owner.credits.setdefault(stream.id, 1 << 16)
    received, sizes = 0, []
    for _ in range(rounds):
        owner.now += seconds
        size = owner.credits[stream.id] - received
        received += size
        stream.data_received_untrusted(bytes(size), False)
        while size:
            size -= len(await stream.read(1 << 16))
        sizes.append(owner.credits[stream.id] - received)
    return sizes


def test_a_window_grows_as_long_as_the_reader_keeps_up() -> None:
    """All that may be on its way arrives each round trip, and is read: the window doubles up to its most."""

    async def main() -> None:
        owner = Owner(0.04)
        sizes = await read_in_rounds(owner, Stream(owner, 4, "x"), 8, 0.04)
        print([size / MIB for size in sizes])
        assert sizes[-1] == MAX_READ_WINDOW

    asyncio.run(main())


def test_a_window_stays_where_it_holds_nobody_back() -> None:
    """A reader who takes three round trips for a window, and a path of a millisecond, get no more than the first."""

    async def main() -> None:
        for rtt_s, seconds in ((0.04, 0.12), (0.001, 0.001)):
            owner = Owner(rtt_s)
            sizes = await read_in_rounds(owner, Stream(owner, 4, "x"), 8, seconds)
            assert max(sizes) == READ_WINDOW
            assert owner.shares.growth == GROWTH

    asyncio.run(main())


def test_t3_windows_of_one_connection_are_bounded_together() -> None:
    """A peer whose 100 streams are all read fast: what it may send unread stays within the bound; ended streams give
    back what they had."""

    async def main() -> None:
        owner = Owner(0.04)
        streams = [Stream(owner, 4 * number, "x") for number in range(100)]
        for stream in streams:
            await read_in_rounds(owner, stream, 6, 0.04)
        total = sum(stream._window for stream in streams)
        print(f"{total / MIB:.0f} MiB for 100 streams")
        assert total <= 100 * READ_WINDOW + GROWTH
        for stream in streams:
            stream.finish()
            stream.data_received_untrusted(b"", True)
        assert owner.shares.growth == GROWTH
        for stream in streams:
            stream.connection_closed(None)  # type: ignore[arg-type]
        assert owner.shares.growth == GROWTH

    asyncio.run(main())


async def pair(world: VirtualWorld) -> tuple[Peer, Connection, Connection]:
    alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2", echo=False)
    connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
    return bob, connection, await bob.first_incoming()


def test_500_megabits_at_40_ms() -> None:
    """One stream over a wire of 40 ms round trip that is as wide as anybody wants: no window stands in its way."""

    async def main(world: VirtualWorld) -> None:
        _, connection, other = await pair(world)
        arrived: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        other.on_stream = lambda _connection, _protocol, stream: arrived.set_result(stream)
        near = await connection.open_stream("test/1")

        async def send() -> None:
            for _ in range(24 * 16):
                await near.write(bytes(1 << 16))
            near.finish()

        sending = asyncio.ensure_future(send())
        far = await arrived
        marks, total = [(world.loop.time(), 0)], 0
        while data := await far.read(1 << 20):
            total += len(data)
            marks.append((world.loop.time(), total))
        await sending
        far.finish()
        began, before = next(mark for mark in marks if mark[1] >= total / 2)
        rate = (total - before) * 8 / (marks[-1][0] - began) / 1e6
        print(f"{rate:.0f} Mbit/s in the second half, {total * 8 / marks[-1][0] / 1e6:.0f} with slow start")
        assert total == 24 * MIB
        assert rate > 500
        await asyncio.sleep(1)
        assert other.shares.growth == GROWTH

    run_virtual(main, delay=0.02)


def test_beyond_some_connections_new_ones_may_make_us_hold_less() -> None:
    """The first 64 have wide windows, the 65th and later ones narrow ones: 2.4 GiB in all at worst, never 8."""

    async def main(world: VirtualWorld) -> None:
        settings = QuicSettings(retry_above=256)
        alice = await make_peer(world, "10.0.0.1")
        bob = await make_peer(world, "10.0.0.2", echo=False, settings=settings)
        for _ in itertools.repeat(None, WIDE_CONNECTIONS + 2):
            await alice.endpoint.connect(bob.key.peer_id, bob.address)
        windows = [c.transport._quic.configuration.max_data for c in bob.incoming]
        assert windows == [WIDE_WINDOW] * WIDE_CONNECTIONS + [NARROW_WINDOW] * 2
        alice.endpoint.close()
        bob.endpoint.close()

    run_virtual(main, delay=0.001)
