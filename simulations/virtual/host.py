"""A host of the virtual world: its addresses, ports and sockets; and the `Network` that a node on it is given."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from p2pnode.core.address import Address, Scope, scope_of
from p2pnode.core.network import Cancel, DatagramHandler, DatagramSocket, Interface, MulticastSocket, Network, TcpStream
from p2pnode.simulations.virtual.places import WALL_AT_START_S, is_public, kind_of, segment_of
from p2pnode.simulations.virtual.tcp import connect

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.world import VirtualWorld

__all__ = ["VirtualHost", "VirtualNetwork"]

T = TypeVar("T")
LOOPBACK_IPS = ("127.0.0.1", "::1")
LOOPBACK_SEGMENT = "lo"
_WILDCARDS = ("0.0.0.0", "::")
# The kernel's own limit (65,535 less the IP and UDP headers): more is EMSGSIZE.
UDP_PAYLOAD_MAX = 65_507
# Linux, net.ipv4.ip_local_port_range.
_EPHEMERAL_PORTS = (32_768, 60_999)


class VirtualHost:
    """A machine: what all nodes on it share. Made by `VirtualWorld.host`."""

    def __init__(self, world: VirtualWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.up = True
        """False: the cable is out; nothing leaves and nothing arrives, loopback too."""
        self.wall_offset = 0.0
        """Seconds by which the wall clock of this host is wrong."""
        self.udp: dict[Address, VirtualDatagramSocket] = {}
        self.tcp: dict[Address, Callable[[TcpStream], None]] = {}
        self.groups: dict[Address, list[VirtualMulticastSocket]] = {}
        self.watchers: list[Callable[[], None]] = []
        self._addresses: dict[str, str | None] = {}  # address -> segment
        self._rng = random.Random(f"{world.seed}/{name}/host")
        self._networks = 0

    def network(self) -> VirtualNetwork:
        """Return a further `Network` for a further node on this host."""
        self._networks += 1
        return VirtualNetwork(self, self._networks)

    def add_address(self, ip: str, *, lan: str | None = None) -> None:
        """Give the host an address. Raise ValueError when it is taken or not one; watchers are told."""
        ip = Address.of(ip, 0).ip
        segment = segment_of(ip, lan)
        self.world.attach(self, ip, segment)
        self._addresses[ip] = segment
        self._tell_watchers()

    def remove_address(self, ip: str) -> None:
        """Take an address away; sockets bound to it stay open and hear nothing. Raise KeyError."""
        segment = self._addresses.pop(ip)
        self.world.detach(self, ip, segment)
        self._tell_watchers()

    def addresses(self) -> tuple[str, ...]:
        """Own addresses without loopback, in the order in which they were given."""
        return tuple(self._addresses)

    def segments(self) -> dict[str, list[str]]:
        """Segments that the host is on, each with the host's addresses there."""
        found: dict[str, list[str]] = {}
        for ip, segment in self._addresses.items():
            if segment is not None:
                found.setdefault(segment, []).append(ip)
        return found

    def route(self, to: Address, bound: str) -> tuple[str, VirtualHost | None] | None:
        """Return (source address, receiving host or None) for a packet to `to`; None when there is no route.

        `bound`: the address that the socket is bound to; a wildcard leaves the choice to the host.
        """
        own = "" if bound in _WILDCARDS else bound
        if scope_of(to.ip) is Scope.LOOPBACK:
            return own or LOOPBACK_IPS[to.is_ipv6], self
        if to.ip in self._addresses:
            return own or to.ip, self
        public = is_public(to.ip)
        for ip, segment in self._addresses.items():
            if (":" in ip) != to.is_ipv6 or (own and own != ip):
                continue
            if public:
                if is_public(ip):
                    return ip, self.world.owner(to.ip, None)
            elif segment is not None and (other := self.world.owner(to.ip, segment)) is not None:
                return ip, other
        return None

    def bind(self, local: Address, table: dict[Address, T], item: T) -> Address:
        """Enter a socket into the table of its port and return where it is bound. Raise OSError."""
        own = (*_WILDCARDS, *self._addresses)
        if local.ip not in own and scope_of(local.ip) is not Scope.LOOPBACK:
            raise _os_error(errno.EADDRNOTAVAIL)
        if local.port:
            if self._is_taken(local, table):
                raise _os_error(errno.EADDRINUSE)
        else:
            local = self._free_port(local, table)
        table[local] = item
        return local

    def deliver(self, data: bytes, source: Address, to: Address, group: str | None) -> None:
        """Take a datagram from the wire. `group`: the segment it was multicast on, None for unicast."""
        counts = self.world.counts
        if not self.up:
            counts["down"] += 1
            return
        sockets: list[VirtualDatagramSocket] | list[VirtualMulticastSocket]
        if group is not None:
            sockets = [each for each in self.groups.get(to, ()) if group in each.joined]
        else:
            exact = self.udp.get(to) or self.udp.get(Address(_WILDCARDS[to.is_ipv6], to.port))
            sockets = [exact] if exact is not None else []
        counts["delivered" if sockets else "no_socket"] += 1
        for each in sockets:
            each.receive(data, source)

    def _is_taken(self, local: Address, table: dict[Address, T]) -> bool:
        """As Linux without SO_REUSEADDR: a wildcard collides with every address of its family."""
        if local.ip in _WILDCARDS:
            return any(a.port == local.port and a.is_ipv6 == local.is_ipv6 for a in table)
        return local in table or Address(_WILDCARDS[local.is_ipv6], local.port) in table

    def _free_port(self, local: Address, table: dict[Address, T]) -> Address:
        first, last = _EPHEMERAL_PORTS
        start = self._rng.randint(first, last)
        for offset in range(last - first + 1):
            candidate = Address(local.ip, first + (start - first + offset) % (last - first + 1))
            if not self._is_taken(candidate, table):
                return candidate
        raise _os_error(errno.EADDRINUSE)

    def _tell_watchers(self) -> None:
        for changed in self.watchers:
            self.world.loop.call_soon(changed)


class VirtualDatagramSocket:
    """A bound UDP socket of the virtual world."""

    def __init__(self, host: VirtualHost, local: Address, handler: DatagramHandler) -> None:
        self._host = host
        self._handler = handler
        self._closed = False
        self.dropped = 0
        self.local = host.bind(local, host.udp, self)

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, now or never."""
        if self._closed:
            return
        world = self._host.world
        route = self._host.route(to, self.local.ip) if to.is_ipv6 == self.local.is_ipv6 and to.port else None
        if route is None or len(data) > UDP_PAYLOAD_MAX or not _may_leave(route, self._host):
            self.dropped += 1
            world.counts["no_route"] += 1
            return
        source = Address(route[0], self.local.port)
        world.note(source, to, kind_of(data), len(data))
        world.carry(bytes(data), source, to, self._host, route[1], None)

    def receive(self, data: bytes, source: Address) -> None:
        self._handler(data, source)

    def close(self) -> None:
        """Close at once; no handler call follows."""
        if not self._closed:
            self._closed = True
            del self._host.udp[self.local]


class VirtualMulticastSocket:
    """A socket in a multicast group on every segment of its host, and on loopback."""

    def __init__(self, host: VirtualHost, group: Address, handler: DatagramHandler) -> None:
        self._host = host
        self._group = group
        self._handler = handler
        self.joined: dict[str, list[str]] = {}
        self.refresh()
        host.groups.setdefault(group, []).append(self)

    def send(self, data: bytes) -> None:
        """Send one datagram to the group on every joined segment; the own host hears it too."""
        world, host = self._host.world, self._host
        if self not in host.groups.get(self._group, ()):
            return
        for segment, ips in self.joined.items():
            ip = next((ip for ip in ips if (":" in ip) == self._group.is_ipv6), None)
            if ip is None:
                continue
            source = Address(ip, self._group.port)
            world.note(source, self._group, "multicast", len(data))
            for other in [host] if segment == LOOPBACK_SEGMENT else world.members(segment):
                world.carry(bytes(data), source, self._group, host, other, segment)

    def receive(self, data: bytes, source: Address) -> None:
        if self in self._host.groups[self._group]:  # another socket's handler may just have closed this one
            self._handler(data, source)

    def refresh(self) -> None:
        """Join on segments that the host came to since."""
        self.joined = {LOOPBACK_SEGMENT: list(LOOPBACK_IPS), **self._host.segments()}

    def close(self) -> None:
        sockets = self._host.groups.get(self._group, [])
        if self in sockets:
            sockets.remove(self)


class VirtualNetwork(Network):
    """The `Network` of one node on a virtual host."""

    def __init__(self, host: VirtualHost, number: int) -> None:
        self.host = host
        self.rng = random.Random(f"{host.world.seed}/{host.name}/{number}/rng")
        self._tokens = random.Random(f"{host.world.seed}/{host.name}/{number}/tokens")

    def network(self) -> VirtualNetwork:
        """Return a further `Network` on the same host, for a further node."""
        return self.host.network()

    def monotonic(self) -> float:
        return self.host.world.loop.time()

    def wall(self) -> float:
        return WALL_AT_START_S + self.host.world.loop.time() + self.host.wall_offset

    def token_bytes(self, count: int) -> bytes:
        """Return bytes of the seed: guessable here, so that runs repeat."""
        return self._tokens.randbytes(count)

    async def open_udp(self, local: Address, handler: DatagramHandler) -> DatagramSocket:
        return VirtualDatagramSocket(self.host, local, handler)

    async def open_multicast(self, group: Address, handler: DatagramHandler) -> MulticastSocket:
        if scope_of(group.ip) is not Scope.MULTICAST:
            raise _os_error(errno.EINVAL)
        return VirtualMulticastSocket(self.host, group, handler)

    async def connect_tcp(self, to: Address) -> TcpStream:
        return await connect(self.host, to)

    async def listen_tcp(self, local: Address, handler: Callable[[TcpStream], None]) -> Cancel:
        """Listen. With port 0 use `VirtualHost.tcp` to learn the port."""
        bound = self.host.bind(local, self.host.tcp, handler)

        def cancel() -> None:
            self.host.tcp.pop(bound, None)

        return cancel

    def interfaces(self) -> list[Interface]:
        found = [Interface("lo", LOOPBACK_IPS)]
        segments: dict[str, list[str]] = {}
        for ip, segment in self.host._addresses.items():
            segments.setdefault(segment or f"public/{ip}", []).append(ip)
        found += [Interface(f"eth{i}", tuple(ips)) for i, ips in enumerate(segments.values())]
        return found

    def watch_interfaces(self, changed: Callable[[], None]) -> Cancel:
        self.host.watchers.append(changed)

        def cancel() -> None:
            if changed in self.host.watchers:
                self.host.watchers.remove(changed)

        return cancel

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Look up in `VirtualWorld.names`; takes one turn of the loop."""
        await asyncio.sleep(0)
        try:
            return [Address.of(host, port)]
        except ValueError:
            return [Address.of(ip, port) for ip in self.host.world.names.get(host.lower(), ())]

    async def run_blocking(self, function: Callable[..., T], *args: object) -> T:
        return function(*args)


def _may_leave(route: tuple[str, VirtualHost | None], host: VirtualHost) -> bool:
    """A loopback source never leaves its host (Linux: EINVAL)."""
    return route[1] is host or scope_of(route[0]) is not Scope.LOOPBACK


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
