"""TCP streams of the virtual world: packets that cross links and routers, get lost and are sent again.

As Linux does it by default, in short: handshake, acknowledgements with selective ones, a connection attempt given up
after 127 s, a connection after fifteen time-outs (about 15 minutes), RST for what nobody waits for; `tcp_sender.py`
decides what is sent when. How it differs: no delayed acknowledgements, no Nagle, no TIME-WAIT;
sequence numbers begin at 0.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.simulations.virtual.tcp_packet import TcpPacket
from p2pnode.simulations.virtual.tcp_sender import BUFFER_BYTES, TcpSender

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost
    from p2pnode.simulations.virtual.processes import Process

__all__ = ["VirtualTcpStream", "connect"]

# Linux defaults: net.ipv4.tcp_syn_retries, tcp_synack_retries, tcp_retries2, tcp_fin_timeout.
SYN_RETRIES = 6
SYN_ACK_RETRIES = 5
RETRIES = 15
FIN_TIMEOUT_S = 60.0
HELD_RANGES = 3  # RFC 2018, section 3: what fits beside a timestamp


class VirtualTcpStream:
    """One end of a connection."""

    def __init__(
        self,
        host: VirtualHost,
        process: Process,
        local: Address,
        remote: Address,
        *,
        accepted: Callable[[VirtualTcpStream], None] | None = None,
    ) -> None:
        """`accepted`: called when the handshake is done, on the side that listened; None on the side that connects."""
        self.local = local
        self.remote = remote
        self.process = process
        self._host = host
        self._loop = host.world.loop
        self._accepted = accepted
        self._began_at = 0.0
        self._opened = False
        self._crossed = False
        self._closed = False
        self._over = False
        self._error: OSError | None = None
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sender = TcpSender(host.mss(local.is_ipv6))
        self._inbox = bytearray()
        self._expected = 0
        self._early: dict[int, tuple[bytes, bool]] = {}
        self._held: list[tuple[int, int]] = []  # ranges in `_early`, the latest first
        self._told = BUFFER_BYTES  # the window that we told last
        self._ended = False
        host.streams[local, remote] = self

    # What programs call

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, b"" at the end. Raise OSError when the connection broke."""
        await self._until(lambda: bool(self._inbox) or self._ended or self._closed)
        data = bytes(self._inbox[:limit])
        del self._inbox[:limit]
        if self._told < BUFFER_BYTES // 2 <= self._room() and not self._over:
            self._acknowledge()
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other side is slow. Raise OSError."""
        view = memoryview(data)
        while view:
            await self._until(lambda: self._sender.waiting < BUFFER_BYTES or self._closed)
            if self._closed:
                raise _os_error(errno.EPIPE)
            room = BUFFER_BYTES - self._sender.waiting
            self._sender.write(view[:room])
            view = view[room:]
            self._push()

    def close(self) -> None:
        """Close both directions; the other side reads what was sent, then the end."""
        if not self._closed:
            self._closed = True
            if self._opened and not self._over:
                self._push()
            else:
                self._forget()
            self._changed.set()

    # What the host calls

    def begin(self) -> None:
        """Send SYN, or SYN and ACK on the side that listened, and wait for the answer."""
        self._began_at = self._loop.now()
        self._send_syn()
        self._set_timer(self._sender.backed_off_s())

    async def wait_open(self) -> None:
        """Return once the handshake is done. Raise OSError."""
        try:
            await self._until(lambda: self._opened)
        except asyncio.CancelledError:
            self._forget()
            raise

    def arrive(self, packet: TcpPacket) -> None:
        """Take a packet of this connection."""
        if packet.rst:
            self._break(errno.ECONNRESET if self._opened else errno.ECONNREFUSED)
        elif packet.syn:
            self._shake(packet)
        elif self._opened or self._accepted is not None or self._crossed:
            if not self._opened:
                self._open(packet)
            self._sender.acknowledged(self._loop.now(), packet.acked, packet.window, packet.held)
            if packet.data or packet.fin:
                self._take_data(packet)
            if not self._over:
                self._push()
        self._changed.set()

    def vanish(self) -> None:
        """The process is gone; nothing is said."""
        self._error = self._error or _os_error(errno.ECONNABORTED)
        self._forget()

    # Opening

    def _send_syn(self) -> None:
        answers = self._accepted is not None or self._crossed
        self._send(TcpPacket(syn=True, ack=answers, mss=self._sender.mss, window=self._told))

    def _shake(self, packet: TcpPacket) -> None:
        self._sender.mss = min(self._sender.mss, packet.mss or self._sender.mss)
        if self._accepted is not None and not self._opened:
            self.begin() if self._timer is None else self._send_syn()
        elif self._accepted is None and not packet.ack and not self._opened:
            # Simultaneous open (RFC 9293, section 3.5, figure 7): both have sent SYN, both answer it.
            self._crossed = True
            self._send_syn()
        elif self._accepted is not None or packet.ack:
            if not self._opened:
                self._open(packet)
            self._acknowledge()  # again when the first one was lost

    def _open(self, packet: TcpPacket) -> None:
        self._opened = True
        clear = self._sender.tries == 0
        trip_s = self._loop.now() - self._began_at if clear else None
        self._sender.opened(packet.window, self._sender.mss, trip_s)
        self._set_timer(None)
        if self._accepted is not None:
            self._accepted(self)

    # Sending

    def _push(self) -> None:
        """Send what the windows allow, and wait for an acknowledgement when there is one to come."""
        for sent in self._sender.may_send(self._loop.now(), closing=self._closed):
            self._send(TcpPacket(ack=True, seq=sent.seq, data=sent.data, fin=sent.fin))
        if self._sender.fin_sent and self._sender.all_acknowledged:
            self._half_over()
        else:
            self._set_timer(self._sender.timeout_s())

    def _acknowledge(self) -> None:
        self._send(TcpPacket(ack=True, seq=self._sender.next))

    def _send(self, packet: TcpPacket) -> None:
        if not packet.syn:
            self._told = self._room()
            held = tuple(self._held[:HELD_RANGES])
            packet = packet._replace(acked=self._expected, window=self._told, held=held)
        self._host.send_tcp(packet, self.local, self.remote)

    def _set_timer(self, seconds: float | None, then: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            # In the clock and the context of the process, whoever calls.
            context = self.process.context.copy()
            self._timer = context.run(self._loop.call_later, seconds, then or self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._sender.timed_out()
        if self._sender.tries > (RETRIES if self._opened else SYN_ACK_RETRIES if self._accepted else SYN_RETRIES):
            self._break(errno.ETIMEDOUT)
        elif self._opened:
            self._push()
        else:
            self._send_syn()
            self._set_timer(self._sender.backed_off_s())

    # Receiving

    def _room(self) -> int:
        return max(0, BUFFER_BYTES - len(self._inbox))

    def _take_data(self, packet: TcpPacket) -> None:
        end = packet.seq + len(packet.data)
        if self._closed and packet.data and end > self._expected:
            self._send(TcpPacket(rst=True, seq=self._sender.next))
            self._break(errno.ECONNRESET)
            return
        if end + packet.fin > self._expected:
            self._early[packet.seq] = (packet.data, packet.fin)
            self._hold(packet.seq, end + packet.fin)
        while (found := next((seq for seq in self._early if seq <= self._expected), None)) is not None:
            data, fin = self._early.pop(found)
            fresh = data[self._expected - found :]
            self._inbox += fresh
            self._expected += len(fresh)
            if fin and not self._ended and found + len(data) == self._expected:
                self._expected += 1
                self._ended = True
        self._held = [(first, last) for first, last in self._held if last > self._expected]
        self._acknowledge()

    def _hold(self, first: int, last: int) -> None:
        apart = []
        for other in self._held:
            if other[1] < first or last < other[0]:
                apart.append(other)
            else:
                first, last = min(first, other[0]), max(last, other[1])
        self._held = [(first, last), *apart]

    # Ending

    def _half_over(self) -> None:
        """The other side has read our end."""
        if self._ended:
            self._forget()
        elif not self._over:
            self._set_timer(FIN_TIMEOUT_S, self._forget)

    def _break(self, code: int) -> None:
        if self._error is None and not (self._closed and self._sender.fin_sent):
            self._error = _os_error(code)
        self._forget()
        self._changed.set()

    def _forget(self) -> None:
        self._over = True
        self._set_timer(None)
        self._sender.clear()
        if self._host.streams.get((self.local, self.remote)) is self:
            del self._host.streams[self.local, self.remote]

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if condition():
                return
            self._changed.clear()
            await self._changed.wait()


async def connect(host: VirtualHost, process: Process, to: Address, local_port: int = 0) -> VirtualTcpStream:
    """Connect from `host`: one round trip. Raise OSError (ENETUNREACH, ECONNREFUSED, ETIMEDOUT, EADDRNOTAVAIL)."""
    route = host.route(to, "::" if to.is_ipv6 else "0.0.0.0")
    if route is None:
        raise _os_error(errno.ENETUNREACH)
    local = Address(route[0], local_port) if local_port else host.free_tcp_address(route[0])
    if (local, to) in host.streams:
        raise _os_error(errno.EADDRNOTAVAIL)
    stream = VirtualTcpStream(host, process, local, to)
    stream.begin()
    await stream.wait_open()
    return stream


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
