"""TCP streams of the virtual world: packets that cross links and routers, get lost and are sent again.

As Linux does it by default, in short: handshake, cumulative acknowledgements, NewReno (RFC 6582) with an initial window
of ten packets (RFC 6928), retransmission time-outs (RFC 6298, at least 0.2 s), a connection attempt given up after
127 s, a connection after fifteen time-outs (about 15 minutes), RST for what nobody waits for. How it differs: no SACK,
no delayed acknowledgements, no Nagle, no TIME-WAIT, no simultaneous open; sequence numbers begin at 0.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.simulations.virtual.tcp_packet import TcpPacket

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost
    from p2pnode.simulations.virtual.processes import Process

__all__ = ["VirtualTcpStream", "connect"]

# Linux defaults: net.ipv4.tcp_syn_retries, tcp_synack_retries, tcp_retries2, tcp_fin_timeout; TCP_RTO_MIN and _MAX.
SYN_RETRIES = 6
SYN_ACK_RETRIES = 5
RETRIES = 15
FIN_TIMEOUT_S = 60.0
RTO_MIN_S, RTO_FIRST_S, RTO_MAX_S = 0.2, 1.0, 120.0
INITIAL_WINDOW_PACKETS = 10
DUPLICATES_OF_A_LOSS = 3  # RFC 5681, section 3.2 "Fast Retransmit/Fast Recovery"
# Bytes that wait on each side: at the sender until acknowledged, at the receiver until read.
BUFFER_BYTES = 256 * 1024


@dataclass(slots=True)
class _Sent:
    """A packet that is not acknowledged yet."""

    seq: int
    data: bytes
    fin: bool
    sent_at: float
    again: bool = False

    @property
    def end(self) -> int:
        return self.seq + len(self.data) + self.fin


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
        self._opened = False
        self._error: OSError | None = None
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        # Sending
        self._mss = host.mss(local.is_ipv6)
        self._unsent = bytearray()
        self._flight: deque[_Sent] = deque()
        self._next = 0  # place of the next new byte
        self._acked = 0
        self._window = 0  # what the other side can take
        self._congestion = 0.0
        self._threshold = float("inf")
        self._duplicates = 0
        self._recover_to: int | None = None
        self._closed = False
        self._fin_sent = False
        self._tries = 0
        self._rto_s = RTO_FIRST_S
        self._smooth_s: float | None = None
        self._spread_s = 0.0
        # Receiving
        self._inbox = bytearray()
        self._expected = 0
        self._early: dict[int, tuple[bytes, bool]] = {}
        self._told = BUFFER_BYTES  # the window that we told last
        self._ended = False
        host.streams[local, remote] = self

    # What programs call

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, b"" at the end. Raise OSError when the connection broke."""
        await self._until(lambda: bool(self._inbox) or self._ended or self._closed)
        data = bytes(self._inbox[:limit])
        del self._inbox[:limit]
        if self._told < BUFFER_BYTES // 2 <= self._room():
            self._acknowledge()
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other side is slow. Raise OSError."""
        view = memoryview(data)
        while view:
            await self._until(lambda: self._waiting() < BUFFER_BYTES or self._closed)
            if self._closed:
                raise _os_error(errno.EPIPE)
            room = BUFFER_BYTES - self._waiting()
            self._unsent += view[:room]
            view = view[room:]
            self._push()

    def close(self) -> None:
        """Close both directions; the other side reads what was sent, then the end."""
        if not self._closed:
            self._closed = True
            if self._opened and self._error is None:
                self._push()
            else:
                self._forget()
            self._changed.set()

    # What the host calls

    def begin(self) -> None:
        """Send SYN, or SYN and ACK on the side that listened, and wait for the answer."""
        self._send(TcpPacket(syn=True, ack=self._accepted is not None, mss=self._mss, window=self._told))
        self._set_timer(self._rto_s)

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
        elif not self._opened and self._accepted is None:
            pass  # neither SYN nor for an open connection: of an earlier one
        else:
            if not self._opened:
                self._open(packet.window)
            self._take_ack(packet)
            if packet.data or packet.fin:
                self._take_data(packet)
        self._changed.set()

    def vanish(self) -> None:
        """The process is gone; nothing is said."""
        self._error = self._error or _os_error(errno.ECONNABORTED)
        self._forget()

    # Opening

    def _shake(self, packet: TcpPacket) -> None:
        if packet.mss:
            self._mss = min(self._mss, packet.mss)
        if self._accepted is not None and not self._opened:
            self.begin()
        elif self._accepted is not None or packet.ack:
            if not self._opened:
                self._open(packet.window)
            self._acknowledge()  # again when the first one was lost

    def _open(self, window: int) -> None:
        self._opened = True
        self._window = window
        self._congestion = float(INITIAL_WINDOW_PACKETS * self._mss)
        self._tries = 0
        self._set_timer(None)
        if self._accepted is not None:
            self._accepted(self)

    # Sending

    def _waiting(self) -> int:
        return len(self._unsent) + self._next - self._acked

    def _push(self) -> None:
        """Send what the windows allow."""
        limit = min(self._congestion, self._window)
        while self._unsent and self._next - self._acked < limit:
            self._send_new(bytes(self._unsent[: self._mss]))
        if self._closed and not self._unsent and not self._fin_sent:
            self._fin_sent = True
            self._send_new(b"", fin=True)
        if self._timer is None and (self._flight or self._unsent):
            self._set_timer(self._rto_s)

    def _send_new(self, data: bytes, *, fin: bool = False) -> None:
        del self._unsent[: len(data)]
        sent = _Sent(self._next, data, fin, self._loop.now())
        self._next = sent.end
        self._flight.append(sent)
        self._send_data(sent)

    def _send_data(self, sent: _Sent) -> None:
        self._send(TcpPacket(ack=True, seq=sent.seq, data=sent.data, fin=sent.fin))

    def _send_again(self) -> None:
        sent = self._flight[0]
        sent.again = True
        sent.sent_at = self._loop.now()
        self._send_data(sent)

    def _acknowledge(self) -> None:
        self._send(TcpPacket(ack=True, seq=self._next))

    def _send(self, packet: TcpPacket) -> None:
        if not packet.syn:
            self._told = self._room()
            packet = packet._replace(acked=self._expected, window=self._told)
        self._host.send_tcp(packet, self.local, self.remote)

    def _take_ack(self, packet: TcpPacket) -> None:
        grown = packet.window > self._window
        self._window = packet.window
        if packet.acked > self._acked:
            self._advance(packet.acked)
        elif packet.acked == self._acked and self._flight and not packet.data and not packet.fin and not grown:
            self._duplicates += 1
            if self._duplicates == DUPLICATES_OF_A_LOSS and self._recover_to is None:
                self._threshold = max((self._next - self._acked) / 2, 2.0 * self._mss)
                self._congestion = self._threshold
                self._recover_to = self._next
                self._send_again()
        if self._fin_sent and not self._flight and self._acked == self._next:
            self._half_over()
        elif self._error is None:
            self._push()

    def _advance(self, acked: int) -> None:
        newest = None
        while self._flight and self._flight[0].end <= acked:
            newest = self._flight.popleft()
        if newest is not None and not newest.again:  # RFC 6298, section 3: Karn's algorithm
            self._measure(self._loop.now() - newest.sent_at)
        grown = acked - self._acked
        self._acked = acked
        self._duplicates = 0
        self._tries = 0
        if self._recover_to is not None and acked < self._recover_to and self._flight:
            self._send_again()  # RFC 6582: a partial acknowledgement says that the next one is lost, too
        elif self._recover_to is not None:
            self._recover_to = None
        elif self._congestion < self._threshold:
            self._congestion += grown
        else:
            self._congestion += self._mss * grown / self._congestion
        self._set_timer(self._rto_s if self._flight or self._unsent else None)

    def _measure(self, trip_s: float) -> None:
        """RFC 6298, section 2 "The Basic Algorithm"."""
        if self._smooth_s is None:
            self._smooth_s, self._spread_s = trip_s, trip_s / 2
        else:
            self._spread_s += (abs(self._smooth_s - trip_s) - self._spread_s) / 4
            self._smooth_s += (trip_s - self._smooth_s) / 8
        self._rto_s = min(RTO_MAX_S, self._smooth_s + max(RTO_MIN_S, 4 * self._spread_s))

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            # In the clock and the context of the process, whoever calls.
            self._timer = self.process.context.copy().run(self._loop.call_later, seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._tries += 1
        if self._tries > (RETRIES if self._opened else SYN_ACK_RETRIES if self._accepted else SYN_RETRIES):
            self._break(errno.ETIMEDOUT)
            return
        wait_s = min(RTO_MAX_S, self._rto_s * 2**self._tries)
        if not self._opened:
            self.begin()
        elif self._flight:
            self._threshold = max((self._next - self._acked) / 2, 2.0 * self._mss)
            self._congestion = float(self._mss)
            self._recover_to = self._next
            self._send_again()
        elif self._unsent:
            self._send_new(bytes(self._unsent[:1]))  # the window is shut: ask whether it still is
        else:
            return
        self._set_timer(wait_s)

    # Receiving

    def _room(self) -> int:
        return max(0, BUFFER_BYTES - len(self._inbox))

    def _take_data(self, packet: TcpPacket) -> None:
        if self._closed and packet.data and packet.seq + len(packet.data) > self._expected:
            self._send(TcpPacket(rst=True, seq=self._next))
            self._break(errno.ECONNRESET)
            return
        self._early[packet.seq] = (packet.data, packet.fin)
        while (found := next((seq for seq in self._early if seq <= self._expected), None)) is not None:
            data, fin = self._early.pop(found)
            fresh = data[self._expected - found :]
            self._inbox += fresh
            self._expected += len(fresh)
            if fin and not self._ended and found + len(data) == self._expected:
                self._expected += 1
                self._ended = True
        self._acknowledge()
        if self._ended and self._fin_sent and not self._flight:
            self._forget()

    # Ending

    def _half_over(self) -> None:
        """The other side has read our end."""
        if self._ended:
            self._forget()
        elif self._timer is None:
            self._timer = self.process.context.copy().run(self._loop.call_later, FIN_TIMEOUT_S, self._forget)

    def _break(self, code: int) -> None:
        if self._error is None and not (self._closed and self._fin_sent):
            self._error = _os_error(code)
        self._forget()
        self._changed.set()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flight.clear()
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


async def connect(host: VirtualHost, process: Process, to: Address) -> VirtualTcpStream:
    """Connect from `host`: one round trip. Raise OSError (ENETUNREACH, ECONNREFUSED, ETIMEDOUT)."""
    route = host.route(to, "::" if to.is_ipv6 else "0.0.0.0")
    if route is None:
        raise _os_error(errno.ENETUNREACH)
    stream = VirtualTcpStream(host, process, host.free_tcp_address(route[0]), to)
    stream.begin()
    await stream.wait_open()
    return stream


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
