"""The machine's UDP sockets on asyncio (selector loops, uvloop; Windows' proactor loop with a slower receive path).

Read with `add_reader` in bursts: measured the fastest plain receive path, and asyncio's own datagram transport costs
one loop turn per datagram. On Linux, bursts leave and arrive by one call for up to 64 datagrams (`core/segments.py`),
where the kernel can; elsewhere, and where a device cannot (EIO: no checksum offload), silently one by one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import Sequence

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramHandler, SegmentsHandler
from p2pnode.core.segments import groups

__all__ = ["BURST_DATAGRAMS", "UdpSocket", "address_of"]

# Chosen by us.
BURST_DATAGRAMS = 64  # calls per wake-up, so that one busy socket does not starve the rest of the loop
BURST_BYTES = 256 << 10  # about a millisecond of QUIC's work, after which it acknowledges
_DATAGRAM_MAX = 65_535
# Linux' numbers, which the socket module leaves out (uapi/linux/udp.h).
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SEGMENT_SIZE = struct.Struct("@H")
_GRO_SIZE = struct.Struct("@i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_GRO_SIZE.size) if hasattr(socket, "CMSG_SPACE") else 0
# The device or the route cannot take segments of this size together: each alone may pass, or be cut by IP.
_NOT_TOGETHER = (errno.EINVAL, errno.EMSGSIZE)
_NEVER_TOGETHER = (errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT)


class UdpSocket:
    """A bound UDP socket, read in bursts."""

    def __init__(self, sock: socket.socket, handler: DatagramHandler, many: SegmentsHandler | None = None) -> None:
        self._sock = sock
        self._handler = handler
        self._many = many
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._sends_segments = _set(sock, _UDP_SEGMENT, 0)
        self.dropped = 0
        self.local = address_of(sock.getsockname())
        read = self._read_segments if many is not None and _set(sock, _UDP_GRO, 1) else self._read_burst
        try:
            self._loop.add_reader(sock, read)
        except NotImplementedError:
            self._task = self._loop.create_task(self._read_forever())

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, now or never."""
        if self._closed:
            return
        if to.is_ipv6 != self._is_ipv6:
            self.dropped += 1
            return
        for _attempt in range(2):
            try:
                self._sock.sendto(data, (to.ip, to.port))
            except (ConnectionRefusedError, ConnectionResetError):
                continue  # an ICMP error of an earlier datagram, reported here and cleared; this one was not sent
            except (OSError, OverflowError, UnicodeError):
                break
            return
        self.dropped += 1

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send datagrams in order, each now or never, by as few calls as the system allows."""
        if not self._sends_segments or len(datagrams) == 1 or to.is_ipv6 != self._is_ipv6:
            for data in datagrams:
                self.send(data, to)
            return
        for first, end in groups(datagrams):
            if self._closed:
                return
            if end - first == 1 or not (self._sends_segments and self._send_group(datagrams[first:end], to)):
                for data in datagrams[first:end]:
                    self.send(data, to)

    def _send_group(self, group: Sequence[bytes], to: Address) -> bool:
        """Send by one call; False: they are to be sent one by one."""
        ancillary = [(_SOL_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(len(group[0])))]
        for _attempt in range(2):
            try:
                self._sock.sendmsg(group, ancillary, 0, (to.ip, to.port))
            except (ConnectionRefusedError, ConnectionResetError):
                continue
            except (OSError, OverflowError, UnicodeError) as exc:
                number = exc.errno if isinstance(exc, OSError) else None
                if number in _NEVER_TOGETHER:
                    self._sends_segments = False
                if number in _NEVER_TOGETHER or number in _NOT_TOGETHER:
                    return False
                break
            return True
        self.dropped += len(group)
        return True

    def close(self) -> None:
        """Close at once; no handler call follows."""
        if self._closed:
            return
        self._closed = True
        if self._task is None:
            self._loop.remove_reader(self._sock)
        else:
            self._task.cancel()
        self._sock.close()

    def _read_burst(self) -> None:
        for _count in range(BURST_DATAGRAMS):
            try:
                data, source = self._sock.recvfrom(_DATAGRAM_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # ICMP errors of earlier sends (ECONNREFUSED, EHOSTUNREACH): UDP promises nothing anyway
            self._handler(data, self._source(source))
            if self._closed:  # by the handler
                return

    def _read_segments(self) -> None:
        left = BURST_BYTES
        for _count in range(BURST_DATAGRAMS):
            try:
                data, ancillary, _flags, source = self._sock.recvmsg(_DATAGRAM_MAX, _ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # as above
            size = segment_size(ancillary) if ancillary else 0
            if 0 < size < len(data) and self._many is not None:
                self._many(data, size, self._source(source))
            else:
                self._handler(data, self._source(source))
            left -= len(data)
            if left <= 0 or self._closed:
                return

    async def _read_forever(self) -> None:
        while not self._closed:
            try:
                data, source = await self._loop.sock_recvfrom(self._sock, _DATAGRAM_MAX)
            except OSError:
                await asyncio.sleep(0)  # ICMP errors, as above; a socket that only fails must not stop the loop
                continue
            self._handler(data, self._source(source))

    def _source(self, source: tuple[str, int] | tuple[str, int, int, int]) -> Address:
        # Canonicalising is cached but not free; IPv4 text from the kernel is canonical already, and two fields.
        return address_of(source) if self._is_ipv6 else tuple.__new__(Address, source)


def segment_size(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the size of each datagram in what `recvmsg` gave; 0 when it is only one."""
    for level, kind, data in ancillary:
        if level == _SOL_UDP and kind == _UDP_GRO and len(data) >= _GRO_SIZE.size:
            return int(_GRO_SIZE.unpack_from(data)[0])
    return 0


def address_of(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """Return the canonical address of what the socket module gives; it writes the zone of link-local ones itself."""
    return Address.of(sockaddr[0], sockaddr[1])


def _set(sock: socket.socket, option: int, value: int) -> bool:
    """Whether the system knows a UDP option of Linux's."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(_SOL_UDP, option, value)
    except OSError:
        return False
    return True
