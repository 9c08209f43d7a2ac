"""Bursts on real sockets, on loopback: few calls where the kernel can, and the same datagrams where it cannot."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket
from p2pnode.core.real_network import RealNetwork
from p2pnode.core.real_udp import UdpSocket, segment_size
from p2pnode.core.sealed_network import SealedNetwork
from p2pnode.core.segments import split_untrusted

LOCAL, LOCAL6 = Address("127.0.0.1", 0), Address("::1", 0)
# Sizes that change in every way: equal runs, a shorter end, a longer one after it, empty ones, a jumbo.
SIZES = [1200] * 130 + [700] + [1200] * 3 + [1300] * 2 + [0, 0, 1, 1, 20_000, 1200, 1199, 1200]
BURST = [bytes([number % 256]) * size for number, size in enumerate(SIZES)]


class Counting(socket.socket):
    """Counts calls; `refuse` is the number of the error that sending together meets."""

    refuse: int | None = None
    together = 0
    alone = 0

    def sendmsg(self, *args: Any) -> int:
        self.together += 1
        if self.refuse is not None:
            raise OSError(self.refuse, "refused")
        return super().sendmsg(*args)

    def sendto(self, *args: Any) -> int:  # type: ignore[override]
        self.alone += 1
        return super().sendto(*args)


class Receiver:
    """Takes datagrams either way and keeps them in order."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.buffers = 0
        self.sources: set[Address] = set()
        self._changed = asyncio.Event()

    def one(self, data: bytes, source: Address) -> None:
        self.datagrams.append(data)
        self.sources.add(source)
        self._changed.set()

    def many(self, buffer: bytes, size: int, source: Address) -> None:
        self.buffers += 1
        for data in split_untrusted(buffer, size):
            self.one(data, source)

    async def wait(self, count: int) -> None:
        while len(self.datagrams) < count:
            self._changed.clear()
            await self._changed.wait()


def run(main: Callable[[], Any], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main(), 10))


def counting(refuse: int | None = None) -> tuple[Counting, UdpSocket]:
    sock = Counting(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    sock.refuse = refuse
    return sock, UdpSocket(sock, lambda _data, _source: None)


async def send(sender: DatagramSocket, receiver: Receiver, to: Address) -> None:
    sender.send_many(BURST, to)
    await receiver.wait(len(BURST))
    assert receiver.datagrams == BURST
    assert sender.dropped == 0
    assert {source.port for source in receiver.sources} == {sender.local.port}


@pytest.mark.parametrize("local", [LOCAL, LOCAL6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_burst_of_any_sizes_arrives_as_it_left(local: Address, together: bool, loop: str) -> None:
    """Sizes that change within a burst: every datagram arrives whole, once, in order; also at a plain receiver."""

    async def main() -> None:
        network, receiver = RealNetwork(), Receiver()
        target = await network.open_udp(local, receiver.one, receiver.many if together else None)
        sender = await network.open_udp(local, lambda _data, _source: None)
        await send(sender, receiver, target.local)
        print("buffers:", receiver.buffers)
        assert receiver.buffers == 0 or together
        sender.close()
        target.close()
        sender.send_many(BURST, target.local)  # after the close: nothing, and no error

    run(main, pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None)


def test_a_burst_costs_few_calls() -> None:
    """Where the kernel takes segments, 130 datagrams of 1,200 bytes leave by three calls, and come by as few."""

    async def main() -> None:
        receiver = Receiver()
        target = await RealNetwork().open_udp(LOCAL, receiver.one, receiver.many)
        sock, sender = counting()
        if not sender._sends_segments:
            pytest.skip("this kernel has no UDP_SEGMENT")
        sender.send_many(BURST[:130], target.local)
        await receiver.wait(130)
        assert (sock.together, sock.alone) == (3, 0)
        assert receiver.buffers <= 3
        sender.close()
        target.close()

    run(main)


@pytest.mark.parametrize(
    ("number", "for_good"),
    [(errno.EIO, True), (errno.EOPNOTSUPP, True), (errno.EMSGSIZE, False), (errno.EINVAL, False)],
)
def test_what_cannot_leave_together_leaves_alone(number: int, for_good: bool) -> None:
    """EIO (a device without checksum offload) ends sending together; EMSGSIZE (this path) only this once. Nothing is
    lost, repeated or reordered."""

    async def main() -> None:
        receiver = Receiver()
        target = await RealNetwork().open_udp(LOCAL, receiver.one, receiver.many)
        sock, sender = counting(number)
        sender._sends_segments = True
        await send(sender, receiver, target.local)
        tried = sock.together
        assert tried == 1 if for_good else tried > 1
        receiver.datagrams.clear()
        await send(sender, receiver, target.local)
        assert sock.together == (tried if for_good else 2 * tried)
        sender.close()
        target.close()

    run(main)


def test_a_full_buffer_drops_the_group_and_counts_it() -> None:
    """EAGAIN: now or never, as for a single datagram; never an exception."""

    async def main() -> None:
        sock, sender = counting(errno.EAGAIN)
        sender._sends_segments = True
        sender.send_many([bytes(1200)] * 60, Address("127.0.0.1", 9))
        assert sender.dropped == 60
        assert sock.alone == 0
        sender.close()

    run(main)


def test_wrong_family_counts_every_datagram() -> None:
    async def main() -> None:
        sender = await RealNetwork().open_udp(LOCAL, lambda _data, _source: None)
        sender.send_many(BURST[:9], Address("::1", 9))
        assert sender.dropped == 9
        sender.close()

    run(main)


def test_sealed_bursts_arrive_sealed_and_in_order() -> None:
    """In a private network each datagram of a burst is sealed; together they come and go all the same."""

    async def main() -> None:
        one, other = (SealedNetwork(RealNetwork(), bytes(32)) for _ in range(2))
        receiver, stranger = Receiver(), Receiver()
        target = await one.open_udp(LOCAL, receiver.one, receiver.many)
        outside = await RealNetwork().open_udp(LOCAL, stranger.one, stranger.many)
        sender = await other.open_udp(LOCAL, lambda _data, _source: None)
        burst = [b"@" + data for data in BURST]
        sender.send_many(burst, target.local)
        sender.send_many(burst, outside.local)
        await receiver.wait(len(burst))
        await stranger.wait(len(burst))
        assert receiver.datagrams == burst
        assert not {data[:20] for data in burst} & {data[:20] for data in stranger.datagrams}
        outside.send_many([bytes(1200)] * 3, target.local)
        sender.send(b"last", target.local)
        await receiver.wait(len(burst) + 1)
        assert one.foreign == 3
        for each in (target, outside, sender):
            each.close()

    run(main)


def test_segment_size_of_ancillary_data() -> None:
    """Only UDP_GRO's whole number counts; anything else that the kernel may add means a single datagram."""
    assert segment_size([(17, 104, (1200).to_bytes(4, "little"))]) in (1200, 1200 << 24 & 0xFFFFFFFF)
    assert segment_size([]) == segment_size([(17, 104, b"\1")]) == segment_size([(1, 104, bytes(4))]) == 0
