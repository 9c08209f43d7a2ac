"""TCP streams between virtual hosts."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import TcpStream
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

GROUP = Address("224.0.0.251", 5353)


def echo_server(tasks: list[asyncio.Task[None]]) -> Callable[[TcpStream], None]:
    """Return a handler that echoes until the end."""

    async def echo(stream: TcpStream) -> None:
        while data := await stream.read(100_000):
            await stream.write(data)
        stream.close()

    return lambda stream: tasks.append(asyncio.create_task(echo(stream)))


def test_tcp_keeps_order_under_jitter_and_ends() -> None:
    """A megabyte comes back whole and in order although each chunk has another delay; then the end."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        tasks: list[asyncio.Task[None]] = []
        await b.listen_tcp(Address("0.0.0.0", 80), echo_server(tasks))
        stream = await a.connect_tcp(Address("10.0.0.2", 80))
        payload = random.Random(1).randbytes(1_000_000)
        writing = asyncio.create_task(stream.write(payload))
        received = bytearray()
        while len(received) < len(payload):
            received += await stream.read(65_536)
        await writing
        assert bytes(received) == payload
        stream.close()
        await asyncio.gather(*tasks)
        assert await stream.read(10) == b""

    run_virtual(main, delay=lambda rng: rng.uniform(0.01, 0.1))


def test_tcp_refusals_and_breaks() -> None:
    """No listener, no route, nobody there, a taken port, a vanished peer: each its OSError, in its time."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        streams: list[TcpStream] = []

        async def fails(to: Address) -> tuple[int | None, float]:
            started = a.monotonic()
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is returned
                await a.connect_tcp(to)
            return caught.value.errno, round(a.monotonic() - started, 6)

        assert await fails(Address("10.0.0.2", 80)) == (errno.ECONNREFUSED, 0.1)
        assert await fails(Address("203.0.113.1", 80)) == (errno.ENETUNREACH, 0.0)
        cancel = await b.listen_tcp(Address("0.0.0.0", 80), streams.append)
        with pytest.raises(OSError, match="in use"):
            await b.network().listen_tcp(Address("10.0.0.2", 80), streams.append)
        stream = await a.connect_tcp(Address("10.0.0.2", 80))
        await asyncio.sleep(0.05)  # the last packet of the handshake
        streams[0].close()
        assert await stream.read(1) == b""
        await stream.write(b"into the void")
        await asyncio.sleep(0.2)
        with pytest.raises(ConnectionResetError):
            await stream.write(b"again")
        stream = await a.connect_tcp(Address("10.0.0.2", 80))
        b.host.up = False
        await stream.write(b"x")
        with pytest.raises(TimeoutError):
            await stream.read(1)
        assert await fails(Address("10.0.0.2", 80)) == (errno.ETIMEDOUT, 127.0)
        cancel()
        cancel()

    run_virtual(main, delay=0.05)


def test_tcp_writer_waits_for_a_slow_reader() -> None:
    """`write` returns only as fast as the other side reads, beyond the window."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        streams: list[TcpStream] = []
        await b.listen_tcp(Address("0.0.0.0", 80), streams.append)
        stream = await a.connect_tcp(Address("10.0.0.2", 80))
        writing = asyncio.create_task(stream.write(bytes(600_000)))
        await asyncio.sleep(100)
        assert not writing.done()
        total = 0
        while total < 600_000:
            total += len(await streams[0].read(1_000_000))
        await writing

    run_virtual(main)
