"""A wire of some milliseconds and some loss between two network namespaces, fast enough for bulk. Needs root.

Many kernels have no netem, and the laboratory's wire carries packet by packet. This one uses TUN devices with virtio
headers, so the kernel hands over up to 64 KiB that it has not cut yet (TSO, USO: linux/virtio_net.h), and takes them
back so. Loss still falls on each packet that would have been on a real wire: what remains of a burst goes on in pieces.
IPv4 only, no options; a process of its own forwards.

    long_wire.py FD FD DELAY_S LOSS      the forwarding process, between two TUN descriptors
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pnode.simulations.netns.spaces import Space

__all__ = ["ENDS", "cut", "long_wire"]

ENDS = ("203.0.113.1", "203.0.113.2")
MTU = 1500
# linux/if_tun.h, linux/virtio_net.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_CSUM, _TSO4, _USO4, _USO6 = 0x01, 0x02, 0x20, 0x40
_NEEDS_CSUM = 1
_NONE, _TCPV4, _UDP_L4 = 0, 1, 5
_HEADER = struct.Struct("<BBHHHH")  # flags, kind, header length, segment size, checksum start, its offset
_IP_BYTES, _UDP_BYTES = 20, 8
_TCP, _UDP = 6, 17
_FIN_PSH, _CWR = 0x09, 0x80


@contextmanager
def long_wire(rtt_s: float, loss: float) -> Iterator[tuple[Space, Space]]:
    """Yield two namespaces with the addresses of `ENDS`. `loss`: share of packets, each way."""
    spaces = Space(), Space()
    fds = [_tun(space) for space in spaces]
    for space, ip in zip(spaces, ENDS, strict=True):
        space.ip(f"link set wire0 mtu {MTU} txqueuelen 10000 up", f"addr add {ip}/24 dev wire0")
    numbers = [str(fd) for fd in fds]
    process = subprocess.Popen([sys.executable, str(Path(__file__)), *numbers, str(rtt_s / 2), str(loss)], pass_fds=fds)
    try:
        yield spaces
    finally:
        process.kill()
        process.wait()
        for fd in fds:
            os.close(fd)
        for space in spaces:
            space.close()


def _tun(space: Space) -> int:
    def make() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", b"wire0", _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        for offload in (_CSUM | _TSO4 | _USO4 | _USO6, _CSUM | _TSO4):  # USO: Linux 6.2
            try:
                fcntl.ioctl(fd, _TUNSETOFFLOAD, offload)
            except OSError:
                continue
            break
        return fd

    return space.run(make)


def cut(data: bytes, lost: list[bool]) -> list[bytes]:
    """Return what is left of an uncut burst (virtio header first) when some of its packets are lost."""
    flags, kind, head, size, start, offset = _HEADER.unpack_from(data)
    header_bytes = _HEADER.size + (_IP_BYTES + (_UDP_BYTES if kind == _UDP_L4 else (data[_HEADER.size + 32] >> 4) * 4))
    headers, payload = data[_HEADER.size : header_bytes], data[header_bytes:]
    left, first = [], 0
    while first < len(lost):
        if lost[first]:
            first += 1
            continue
        end = first
        while end < len(lost) and not lost[end]:
            end += 1
        part = payload[first * size : end * size]
        new = _fitted(headers, part, first * size, is_last=end == len(lost), is_first=first == 0, tcp=kind == _TCPV4)
        several = end - first > 1
        virtio = _HEADER.pack(flags, kind if several else _NONE, head, size if several else 0, start, offset)
        left.append(virtio + new + part)
        first = end
    return left


def _fitted(headers: bytes, part: bytes, offset: int, *, is_last: bool, is_first: bool, tcp: bool) -> bytes:
    """Return the IP and TCP or UDP headers of a part of a burst, its checksum to be finished by the kernel."""
    new = bytearray(headers)
    transport_bytes = len(headers) - _IP_BYTES + len(part)
    struct.pack_into("!H", new, 2, _IP_BYTES + transport_bytes)
    struct.pack_into("!H", new, 10, 0)
    struct.pack_into("!H", new, 10, 0xFFFF ^ _folded(bytes(new[:_IP_BYTES])))
    if tcp:
        sequence = struct.unpack_from("!I", new, _IP_BYTES + 4)[0]
        struct.pack_into("!I", new, _IP_BYTES + 4, (sequence + offset) & 0xFFFFFFFF)
        new[_IP_BYTES + 13] &= 0xFF if is_last else 0xFF ^ _FIN_PSH
        new[_IP_BYTES + 13] &= 0xFF if is_first else 0xFF ^ _CWR
    else:
        struct.pack_into("!H", new, _IP_BYTES + 4, transport_bytes)
    pseudo = bytes(new[12:20]) + struct.pack("!HH", _TCP if tcp else _UDP, transport_bytes)
    struct.pack_into("!H", new, _IP_BYTES + (16 if tcp else 6), _folded(pseudo))
    return bytes(new)


def _folded(data: bytes) -> int:
    """Return the ones' complement sum of 16-bit words (RFC 1071), not inverted."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class _Forwarder:
    def __init__(self, fds: list[int], delay_s: float, loss: float) -> None:
        self._delay_s, self._loss = delay_s, loss
        self._to = {fds[0]: fds[1], fds[1]: fds[0]}
        self._on_way: deque[tuple[float, int, bytes]] = deque()  # one delay for all: in order of arrival
        self._rng = random.Random(1)

    def run(self) -> None:
        while True:
            timeout = max(0.0, self._on_way[0][0] - time.monotonic()) if self._on_way else None
            for fd in select.select(list(self._to), [], [], timeout)[0]:
                self._read(fd)
            now = time.monotonic()
            while self._on_way and self._on_way[0][0] <= now:
                _, to, data = self._on_way.popleft()
                try:
                    os.write(to, data)
                except OSError as exc:
                    print(f"wire: {exc}", file=sys.stderr, flush=True)

    def _read(self, fd: int) -> None:
        for _ in range(16):
            try:
                data = os.read(fd, 70_000)
            except BlockingIOError:
                return
            due = time.monotonic() + self._delay_s
            for left in self._survivors(data) if self._loss else [data]:
                self._on_way.append((due, self._to[fd], left))

    def _survivors(self, data: bytes) -> list[bytes]:
        _, kind, _, size, _, _ = _HEADER.unpack_from(data)
        if kind not in (_TCPV4, _UDP_L4):
            return [] if self._rng.random() < self._loss else [data]
        headers = _IP_BYTES + (_UDP_BYTES if kind == _UDP_L4 else (data[_HEADER.size + 32] >> 4) * 4)
        packets = -(-(len(data) - _HEADER.size - headers) // size)
        lost = [self._rng.random() < self._loss for _ in range(packets)]
        return cut(data, lost) if any(lost) else [data]


if __name__ == "__main__":
    os.nice(-10)
    _Forwarder([int(fd) for fd in sys.argv[1:3]], float(sys.argv[3]), float(sys.argv[4])).run()
