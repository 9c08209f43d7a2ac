"""TCP streams between virtual hosts."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import TcpStream
from p2pnode.simulations.virtual import VirtualHost, VirtualNetwork, VirtualWorld, faults, run_virtual
from p2pnode.simulations.virtual.links import Bursts, LaneProfile, LinkProfile
from p2pnode.simulations.virtual.tcp_packet import TcpPacket


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


async def open_pair(a: VirtualNetwork, b: VirtualNetwork, ip: str) -> tuple[TcpStream, TcpStream]:
    """A connection from `a` to `b`, both ends."""
    accepted: asyncio.Queue[TcpStream] = asyncio.Queue()
    cancel = await b.run(b.listen_tcp(Address("::" if ":" in ip else "0.0.0.0", 80), accepted.put_nowait))
    stream = await a.run(a.connect_tcp(Address(ip, 80)))
    other = await accepted.get()
    cancel()
    return stream, other


async def transfer(a: VirtualNetwork, b: VirtualNetwork, ip: str, count: int, write_s: float = 600) -> float:
    """Send `count` bytes from `a` to `b`, check them, and return the virtual seconds that it took."""
    stream, other = await open_pair(a, b, ip)
    payload = random.Random(count).randbytes(count)
    began = a.host.world.loop.now()
    writing = asyncio.create_task(stream.write(payload))
    received = bytearray()
    async with asyncio.timeout(write_s):
        while len(received) < count:
            received += await other.read(65_536)
    await writing
    assert received == payload
    stream.close()
    other.close()
    return a.host.world.loop.now() - began


@pytest.mark.parametrize("loss", [0.01, 0.1])
def test_lost_packets_are_sent_again(loss: float) -> None:
    """Under loss all bytes come, in order, once; the accounts of packets add up; nothing is left behind."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
        seconds = await transfer(a, b, "198.51.100.2", 300_000)
        await asyncio.sleep(200)
        print(f"300 kB under {loss:.0%} loss: {seconds:.1f} s, {dict(world.tcp_counts)}")
        counts = world.tcp_counts
        assert counts["lost"] > 0
        assert counts["sent"] == counts["lost"] + counts["delivered"] + counts["no_socket"]
        assert not a.host.streams
        assert not b.host.streams

    run_virtual(main, delay=0.02, loss=loss)


def test_stream_fills_its_link_and_no_more() -> None:
    """2 MB over 10 Mbit/s with a queue of 64 KiB take little more than the line itself, though packets are dropped."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
        world.set_link(a, LinkProfile("dsl", up=LaneProfile(0.01, rate_bps=10e6, queue_bytes=65_536), mtu=1492))
        seconds = await transfer(a, b, "198.51.100.2", 2_000_000)
        line = 2_000_000 * (1492 / 1452) * 8 / 10e6
        print(f"2 MB: {seconds:.2f} s, the line alone {line:.2f} s, {dict(world.tcp_counts)}")
        assert line < seconds < 1.5 * line
        assert world.tcp_counts["queue_full"] > 0
        assert world.tcp_counts["too_big"] == 0  # the packets fit the link's MTU
        assert max(entry.size for entry in world.trace) == 1452

    run_virtual(main, delay=0.02)


def test_stream_over_ipv6_and_bursts() -> None:
    """IPv6 carries streams as well; bursts of loss in both directions delay them only."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("2001:db8::1"), world.host("2001:db8::2")
        bursts = LaneProfile(loss=Bursts(0.03, 4))
        world.set_link(a, LinkProfile("radio", up=bursts, down=bursts))
        assert await transfer(a, b, "2001:db8::2", 200_000) < 120
        assert max(entry.size for entry in world.trace) == 1440

    run_virtual(main, delay=0.02)


def test_partition_stalls_a_stream_and_breaks_it_after_a_quarter_of_an_hour() -> None:
    """A minute of partition costs waiting; one without end costs the connection after fifteen retransmissions."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
        stream, other = await open_pair(a, b, "198.51.100.2")
        heal = faults.partition(world, [a], [b])
        await stream.write(b"hello")
        await asyncio.sleep(60)
        heal()
        assert await other.read(10) == b"hello"
        assert 60 < a.monotonic() < 130
        await asyncio.sleep(60)
        faults.block(world, [b], [a])  # one way only
        cut_at = a.monotonic()
        await stream.write(b"again")
        assert await other.read(10) == b"again"
        with pytest.raises(TimeoutError):
            await stream.read(1)
        print(f"broken after {a.monotonic() - cut_at:.0f} s")
        assert 600 < a.monotonic() - cut_at < 1000

    run_virtual(main, delay=0.02)


def test_streams_of_suspended_moved_and_killed_hosts() -> None:
    """A lid closed for five minutes is survived; a new address is not; the host of a dead process answers RST."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
        stream, other = await open_pair(a, b, "198.51.100.2")
        faults.suspend(b)
        await stream.write(b"while you slept")
        await asyncio.sleep(300)
        faults.resume(b)
        assert await b.run(other.read(100)) == b"while you slept"
        await b.run(other.write(b"thanks"))
        assert await stream.read(100) == b"thanks"
        await faults.kill(b)
        await stream.write(b"anybody?")
        with pytest.raises(ConnectionResetError):
            await stream.read(1)
        assert not b.host.streams
        again = b.network()
        stream, other = await open_pair(a, again, "198.51.100.2")
        faults.move(a, "198.51.100.7")
        await stream.write(b"from elsewhere")
        with pytest.raises(TimeoutError):
            await stream.read(1)

    run_virtual(main, delay=0.02)


class Forwarder(VirtualHost):
    """A router that puts its own address in place of the sender's, one connection at a time, until it forgets."""

    inside: Address | None = None
    seen: int = 0

    def deliver_tcp(self, packet: TcpPacket, source: Address, to: Address) -> None:
        self.seen += 1
        if to.ip == "203.0.113.1":
            if self.inside is None:
                self.world.tcp_counts["nat_filtered"] += 1
                return
            to = self.inside
        else:
            self.inside = source
            source = Address("203.0.113.1", 40_000)
        self.world.tcp_counts["forwarded"] += 1
        self.world.carry_tcp(packet, source, to, self, self.next_hop(to.ip))


def test_stream_crosses_a_router_packet_by_packet() -> None:
    """The other side sees the router's address; when the mapping is lost the connection dies, a new one works."""

    async def main(world: VirtualWorld) -> None:
        router = Forwarder(world, "router")
        router.add_address("203.0.113.1")
        router.add_address("192.168.0.1", lan="home")
        inside, outside = world.host("192.168.0.2", lan="home"), world.host("198.51.100.2")
        inside.host.gateway = router
        stream, other = await open_pair(inside, outside, "198.51.100.2")
        assert other.remote == Address("203.0.113.1", 40_000)
        await stream.write(b"hi")
        assert await other.read(10) == b"hi"
        await other.write(b"ho")
        assert await stream.read(10) == b"ho"
        await asyncio.sleep(1)
        router.inside = None
        await other.write(b"lost")
        with pytest.raises(TimeoutError):
            await other.read(10)
        counts = world.tcp_counts
        assert counts["nat_filtered"] == 16
        assert counts["sent"] == counts["delivered"] + counts["forwarded"] + counts["nat_filtered"]
        assert router.seen == counts["forwarded"] + counts["nat_filtered"]

    run_virtual(main, delay=0.02)


def test_chosen_ports_and_closing() -> None:
    """Two connections have two ports; data that comes after closing is answered by RST; half a connection ends."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
        streams: list[TcpStream] = []
        await b.listen_tcp(Address("198.51.100.2", 80), streams.append)
        one = await a.connect_tcp(Address("198.51.100.2", 80))
        two = await a.connect_tcp(Address("198.51.100.2", 80))
        await asyncio.sleep(1)
        assert streams[0].remote != streams[1].remote
        one.close()
        assert await streams[0].read(1) == b""
        await asyncio.sleep(59)
        assert len(a.host.streams) == 2
        await asyncio.sleep(2)  # FIN-WAIT-2 has ended; the peer has never closed
        assert len(a.host.streams) == 1
        with pytest.raises(OSError, match="Broken pipe"):
            await one.write(b"x")
        await streams[1].write(b"x" * 1000)
        two.close()
        assert await two.read(10) == b""
        connecting = asyncio.create_task(a.connect_tcp(Address("198.51.100.77", 80)))
        await asyncio.sleep(1)
        connecting.cancel()
        await asyncio.sleep(200)
        assert not a.host.streams

    run_virtual(main, delay=0.02)
