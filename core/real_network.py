"""The real world: `Network` on asyncio (any selector loop; uvloop; Windows' proactor loop).

How UDP is sent and read: `core/real_udp.py`. Ordinary UDP sockets never set SO_REUSEADDR: on Linux it would let two
nodes share a port, each hearing half of what arrives, where an error is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import ifaddr

from p2pnode.core.address import Address
from p2pnode.core.link_events import InterfaceWatch
from p2pnode.core.network import (
    Cancel,
    DatagramHandler,
    DatagramSocket,
    Gateway,
    Interface,
    MulticastSocket,
    Network,
    SegmentsHandler,
    TcpStream,
)
from p2pnode.core.real_udp import UdpSocket, address_of
from p2pnode.core.routes import default_gateways, quick_gateway_ips

__all__ = ["RealNetwork"]

T = TypeVar("T")

# Chosen by us.
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024  # half a second of 8 MB/s; the kernel silently gives what it allows
SEND_BUFFER_BYTES = 1024 * 1024
# Fixed by specification: RFC 6762 section 11, "Source Address Check" (IP TTL 255); others stay on the link with 1.
MDNS_PORT, MDNS_TTL = 5353, 255
# Linux' numbers, which the socket module leaves out.
_SO_RCVBUFFORCE = 33
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
_MTU_DISCOVER, _DISCOVER_PROBE = {socket.AF_INET: 10, socket.AF_INET6: 23}, 3
# Others' "do not fragment", by (IPv4, IPv6)
_DONT_FRAGMENT = {"win32": (14, 14), "darwin": (28, 62)}
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 0x1


class RealNetwork(Network):
    """The machine's own sockets, clocks and entropy. Sockets belong to the event loop that runs when they open."""

    def __init__(self) -> None:
        self.rng = random.Random()

    def monotonic(self) -> float:
        """Seconds of the event loop's clock.

        On Linux every loop's clock is CLOCK_MONOTONIC, but uvloop's stands still within a turn and counts whole
        milliseconds: too coarse for round trips, so it is read directly.
        """
        return time.monotonic() if sys.platform == "linux" else asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    async def open_udp(
        self, local: Address, handler: DatagramHandler, many: SegmentsHandler | None = None, *, whole: bool = False
    ) -> DatagramSocket:
        sock = _new_socket(local)
        try:
            if whole:
                _never_fragment(sock)
            sock.bind(_sockaddr(local))
            return UdpSocket(sock, handler, many)
        except BaseException:
            sock.close()
            raise

    async def open_multicast(self, group: Address, handler: DatagramHandler) -> MulticastSocket:
        sock = _new_socket(group)
        try:
            return _GroupSocket(sock, group, handler, self)
        except BaseException:
            sock.close()
            raise

    async def connect_tcp(self, to: Address, *, local_port: int = 0, resets: bool = False) -> TcpStream:
        if not local_port:
            return _Stream(*await asyncio.open_connection(to.ip, to.port))
        sock = _shared_port(to.is_ipv6, local_port)
        if resets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, _sockaddr(to))
            return _Stream(*await asyncio.open_connection(sock=sock))
        except BaseException:
            sock.close()
            raise

    async def listen_tcp(self, local: Address, handler: Callable[[TcpStream], None]) -> Cancel:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handler(_Stream(reader, writer))

        server = await asyncio.start_server(accept, local.ip, local.port)
        return server.close

    def interfaces(self) -> list[Interface]:
        return [Interface(name, ips) for name, _index, ips in _interfaces_up()]

    def watch_interfaces(self, changed: Callable[[], None]) -> Cancel:
        return InterfaceWatch(lambda: (self.interfaces(), quick_gateway_ips()), changed).cancel

    async def gateways(self) -> list[Gateway]:
        return await self.run_blocking(default_gateways)

    async def resolve(self, host: str, port: int) -> list[Address]:
        try:
            return [Address.of(host, port)]
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):  # UnicodeError: a label that is too long or empty for IDNA
            return []
        return list(dict.fromkeys(Address.of(str(info[4][0]), port) for info in found))

    async def run_blocking(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)


class _GroupSocket(UdpSocket):
    """A socket in a multicast group on every interface that is up.

    Bound to the group's address where the system allows it: so unicast to the port goes to the other programs that
    share it, and nobody beyond the link can reach us through it.
    """

    def __init__(self, sock: socket.socket, group: Address, handler: DatagramHandler, network: RealNetwork) -> None:
        self._group = group
        self._network = network
        self._joined: dict[int, str] = {}  # interface index -> one of its addresses
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ttl = MDNS_TTL if group.port == MDNS_PORT else 1
        if group.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        if sys.platform == "linux":
            # Otherwise Linux delivers groups that any other program of this machine joined, on any interface.
            level, option = (socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL) if group.is_ipv6 else (0, _IP_MULTICAST_ALL)
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, 0)
        wildcard = "::" if group.is_ipv6 else "0.0.0.0"
        sock.bind((wildcard if sys.platform == "win32" else group.ip, group.port))
        super().__init__(sock, handler)
        self.refresh()

    def send(self, data: bytes, to: Address | None = None) -> None:  # noqa: ARG002 - always to the group
        """Send one datagram to the group on every joined interface."""
        for index, ip in list(self._joined.items()):
            if self._closed:
                return
            try:
                if self._is_ipv6:
                    self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                else:
                    self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _interface_selector(ip, index))
            except OSError:  # the interface is gone; should it come back, `refresh` joins again
                del self._joined[index]
                continue
            super().send(data, self._group)

    def refresh(self) -> None:
        """Join on interfaces that came since, and forget those that went."""
        if self._closed:
            return
        now: dict[int, str] = {}
        for _name, index, ips in _interfaces_up():
            ip = next((ip for ip in ips if (":" in ip) == self._is_ipv6), None)
            if ip is not None and self._join(ip, index):
                now[index] = ip
        self._joined = now

    def _join(self, ip: str, index: int) -> bool:
        group = socket.inet_pton(self._sock.family, self._group.ip)
        try:
            if self._is_ipv6:
                membership = group + struct.pack("@I", index)
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            else:
                membership = group + _interface_selector(ip, index)[4:] if _HAS_MREQN else group + socket.inet_aton(ip)
                self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError as exc:
            # Joined before; or an interface without multicast (some tunnels), or the limit on memberships is reached.
            return exc.errno == errno.EADDRINUSE
        return True


_LINGER = "hh" if sys.platform == "win32" else "ii"
_HAS_MREQN = sys.platform in ("linux", "darwin")  # others choose an interface by its address alone


def _interface_selector(ip: str, index: int) -> bytes:
    """Return IP_MULTICAST_IF's value: an ip_mreqn (by index: two interfaces may share an address) or an address."""
    if _HAS_MREQN:
        return bytes(4) + socket.inet_aton(ip) + struct.pack("@i", index)
    return socket.inet_aton(ip)


class _Stream:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.remote = address_of(writer.get_extra_info("peername"))

    async def read(self, limit: int) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


def _new_socket(local: Address) -> socket.socket:
    """Return a non-blocking UDP socket of the address's family, not yet bound. Raise OSError."""
    family = socket.AF_INET6 if local.is_ipv6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if local.is_ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sizes = [(socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES), (socket.SO_SNDBUF, SEND_BUFFER_BYTES)]
    if sys.platform == "linux":
        # Above net.core.rmem_max, for who may administer the network: that default (208 kB) lasts for 10 ms of a flood.
        sizes.append((_SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES))
    for option, size in sizes:
        with contextlib.suppress(OSError):  # a system that refuses (BSD, above its maximum) keeps its default
            sock.setsockopt(socket.SOL_SOCKET, option, size)
    return sock


def _never_fragment(sock: socket.socket) -> None:
    """Let everything leave whole, whatever the system knows of paths (RFC 8899, section 3). Raise OSError."""
    is_ipv6 = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if is_ipv6 else socket.IPPROTO_IP
    if sys.platform == "linux":
        sock.setsockopt(level, _MTU_DISCOVER[sock.family], _DISCOVER_PROBE)
    elif sys.platform in _DONT_FRAGMENT:
        sock.setsockopt(level, _DONT_FRAGMENT[sys.platform][is_ipv6], 1)
    else:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))


def _shared_port(is_ipv6: bool, port: int) -> socket.socket:
    """Return a TCP socket bound to a port that other connections of ours have, too. Raise OSError.

    Linux and BSD want SO_REUSEPORT on each socket of the port (Linux takes SO_REUSEADDR as well while none listens);
    Windows has SO_REUSEADDR alone, which means the same there. A connection to the same far end that still lingers
    (TIME-WAIT) makes `connect` fail with EADDRNOTAVAIL.
    """
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("::" if is_ipv6 else "0.0.0.0", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _sockaddr(address: Address) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return what `bind` takes; an IPv6 zone (%eth0 or %2) becomes the scope id. Raise OSError on an unknown zone."""
    ip, _, zone = address.ip.partition("%")
    if not address.is_ipv6:
        return ip, address.port
    return ip, address.port, 0, (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0


def _interfaces_up() -> list[tuple[str, int, tuple[str, ...]]]:
    """Return (name, index, canonical addresses) of each interface that is up, loopback included."""
    found = []
    for adapter in ifaddr.get_adapters():
        ips = [ip.ip if isinstance(ip.ip, str) else _with_zone(ip.ip[0], ip.ip[2]) for ip in adapter.ips]
        if ips and adapter.index is not None and _is_up(adapter.name):
            found.append((adapter.name, adapter.index, tuple(dict.fromkeys(Address.of(ip, 0).ip for ip in ips))))
    return found


def _with_zone(ip: str, scope_id: int) -> str:
    if not ip.lower().startswith("fe80") or not scope_id or "%" in ip:
        return ip
    try:
        return f"{ip}%{socket.if_indextoname(scope_id)}"
    except OSError:  # it went away a moment ago
        return f"{ip}%{scope_id}"


def _is_up(name: str) -> bool:
    """Ask Linux; elsewhere an interface with an address counts as up."""
    if sys.platform != "linux":
        return True
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sH14x", name.encode()[:15], 0))
        except OSError:
            return False
    flags: int = struct.unpack_from("H", answer, 16)[0]
    return bool(flags & _IFF_UP)
