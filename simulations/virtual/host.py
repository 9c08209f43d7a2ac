"""A host of the virtual world: its addresses, routes, ports and sockets."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from p2pnode.core.address import Address
from p2pnode.core.network import Gateway, Interface, TcpStream
from p2pnode.simulations.virtual.links import Link
from p2pnode.simulations.virtual.network import VirtualNetwork
from p2pnode.simulations.virtual.places import is_local, is_loopback, is_public, kind_of, segment_of
from p2pnode.simulations.virtual.processes import Process
from p2pnode.simulations.virtual.sockets import LOOPBACK_IPS, VirtualDatagramSocket, VirtualMulticastSocket
from p2pnode.simulations.virtual.tcp import VirtualTcpStream
from p2pnode.simulations.virtual.tcp_packet import TcpPacket

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.world import VirtualWorld

__all__ = ["VirtualHost"]

T = TypeVar("T")
_WILDCARDS = ("0.0.0.0", "::")
# Linux, net.ipv4.ip_local_port_range.
_EPHEMERAL_PORTS = (32_768, 60_999)


class VirtualHost:
    """A machine: what all nodes on it share. Made by `VirtualWorld.host`. A router is a subclass (docs/world.md)."""

    def __init__(self, world: VirtualWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.silent: str | None = None
        """Why nothing passes its network card now: "down" or "suspended"; None when all is well. Read only."""
        self.wall_offset = 0.0
        """Seconds by which the wall clock of this host is wrong."""
        self.lag_s = 0.0
        """Seconds that it has slept: its monotonic clock is that much behind the world's."""
        self.links: dict[str | None, Link] = {}
        """Its access link by segment (None: the internet), see `VirtualWorld.set_link`."""
        self.region: str | None = None
        self.networks: list[VirtualNetwork] = []
        self.udp: dict[Address, VirtualDatagramSocket] = {}
        self.tcp: dict[Address, tuple[Process, Callable[[TcpStream], None]]] = {}
        self.streams: dict[tuple[Address, Address], VirtualTcpStream] = {}
        self.groups: dict[Address, list[VirtualMulticastSocket]] = {}
        self.watchers: list[tuple[Process, Callable[[], None]]] = []
        self.traffic: dict[str, list[int]] = {}
        """By kind: datagrams out, bytes out, datagrams in, bytes in; only when the world counts traffic."""
        self._up = True
        self._suspended_at: float | None = None
        self._addresses: dict[str, str | None] = {}  # address -> segment
        self._interfaces: tuple[Interface, ...] | None = None  # None: to be made anew
        self._segments: dict[str, list[str]] = {}
        self._public: dict[bool, list[str]] = {False: [], True: []}  # by "is IPv6"
        self._only_public: tuple[str | None, str | None] | None = None  # IPv4 and IPv6, when there is nothing else
        self._gateway: VirtualHost | None = None
        self._rng = random.Random(f"{world.seed}/{name}/host")
        self._networks_made = 0

    @property
    def up(self) -> bool:
        """False: the cable is out; nothing leaves and nothing arrives, loopback too."""
        return self._up

    @up.setter
    def up(self, value: bool) -> None:
        self._up = value
        self._silence()

    @property
    def suspended_at(self) -> float | None:
        """World's time since which it sleeps; None when it is awake. Set by `faults.suspend`."""
        return self._suspended_at

    @suspended_at.setter
    def suspended_at(self, value: float | None) -> None:
        self._suspended_at = value
        self._silence()

    @property
    def gateway(self) -> VirtualHost | None:
        """The router that takes what is for no neighbour; it must share a segment with this host."""
        return self._gateway

    @gateway.setter
    def gateway(self, value: VirtualHost | None) -> None:
        self._gateway = value
        self._sort_addresses()

    def network(self) -> VirtualNetwork:
        """Return a further `Network` for a further node on this host."""
        self._networks_made += 1
        network = VirtualNetwork(self, self._networks_made)
        self.networks.append(network)
        return network

    # Addresses and routes

    def add_address(self, ip: str, *, lan: str | None = None) -> None:
        """Give the host an address. Raise ValueError when it is taken or not one; watchers are told."""
        ip = Address.of(ip, 0).ip
        segment = segment_of(ip, lan)
        self.world.attach(self, ip, segment)
        self._addresses[ip] = segment
        self._addresses_changed()

    def remove_address(self, ip: str) -> None:
        """Take an address away; sockets bound to it stay open and hear nothing. Raise KeyError."""
        segment = self._addresses.pop(ip)
        self._addresses_changed()
        self.world.detach(self, ip, segment)

    def replace_addresses(self, ips: Iterable[str], *, lan: str | None = None) -> None:
        """Give the host these addresses in place of all others; watchers are told once. Raise ValueError."""
        old, self._addresses = self._addresses, {}
        self._sort_addresses()
        for ip, segment in old.items():
            self.world.detach(self, ip, segment)
        try:
            for ip in ips:
                ip = Address.of(ip, 0).ip  # noqa: PLW2901 - the same address
                segment = segment_of(ip, lan)
                self.world.attach(self, ip, segment)
                self._addresses[ip] = segment
        except ValueError:
            for ip, segment in self._addresses.items():
                self.world.detach(self, ip, segment)
            self._addresses = {}
            raise
        finally:
            self._addresses_changed()

    def addresses(self) -> tuple[str, ...]:
        """Own addresses without loopback, in the order in which they were given."""
        return tuple(self._addresses)

    def first_medium(self) -> str | None:
        """Return the segment of the first address, None when that is on the internet."""
        return next(iter(self._addresses.values()), None)

    def segments(self) -> dict[str, list[str]]:
        """Segments that the host is on, each with the host's addresses there. Not to be changed."""
        return self._segments

    def interfaces(self) -> tuple[Interface, ...]:
        """Loopback, then one per segment; public addresses on no segment each have their own."""
        if self._interfaces is None:
            found: dict[str, list[str]] = {}
            for ip, segment in self._addresses.items():
                found.setdefault(segment or f"public/{ip}", []).append(ip)
            cards = (Interface(f"eth{i}", tuple(ips)) for i, ips in enumerate(found.values()))
            self._interfaces = (Interface("lo", LOOPBACK_IPS), *cards)
        return self._interfaces

    def has(self, ip: str) -> bool:
        """Whether packets for this address are for this host."""
        return ip in self._addresses or is_loopback(ip)

    def route(self, to: Address, bound: str) -> tuple[str, VirtualHost | None] | None:
        """Return (source address, next host or None) for a packet to `to`; None when there is no route.

        `bound`: the address that the socket is bound to; a wildcard leaves the choice to the host.
        """
        ip = to.ip
        free = bound in _WILDCARDS
        if free and self._only_public is not None:
            other = self.world.internet.get(ip)
            if other is not None and other is not self and other.gateway is None:
                source = self._only_public[":" in ip]
                return None if source is None else (source, other)
        if ip in self._addresses:
            return (ip if free else bound), self
        six = ":" in ip
        if is_loopback(ip):
            return (LOOPBACK_IPS[six] if free else bound), self
        for segment, own in self._segments.items():
            other = self.world.neighbour(ip, segment)
            if other is not None and (source := self._source(own, six, bound, free)) is not None:
                return source, other
        if self.gateway is not None and not is_local(ip):
            shared = [
                own for segment, ips in self._segments.items() if segment in self.gateway.segments() for own in ips
            ]
            shared.sort(key=is_public, reverse=is_public(ip))  # stable; an IPv6 host has both kinds
            source = self._source(shared, six, bound, free)
            return None if source is None else (source, self.gateway)
        if not is_public(ip) or (source := self._source(self._public[six], six, bound, free)) is None:
            return None
        return source, self.world.entrance(ip, self)

    def gateways(self) -> list[Gateway]:
        """Return the gateway's first address of each family on a segment that we share, and ours toward it."""
        found: dict[bool, Gateway] = {}
        theirs = self._gateway.segments() if self._gateway is not None else {}
        for segment, own in self._segments.items():
            for ip in theirs.get(segment, ()):
                local = next((mine for mine in own if (":" in mine) == (":" in ip)), None)
                if local is not None:
                    found.setdefault(":" in ip, Gateway(ip, local))
        return list(found.values())

    def next_hop(self, ip: str) -> VirtualHost | None:
        """Return where a router passes a packet for `ip` on to: a neighbour, its own gateway, or over the internet.

        None: nobody has that address.
        """
        for segment in self._segments:
            if (other := self.world.neighbour(ip, segment)) is not None:
                return other
        if is_local(ip):
            return None
        return self.gateway or self.world.entrance(ip, self)

    # Ports

    def bind(self, local: Address, table: dict[Address, T], item: T) -> Address:
        """Enter a socket into the table of its port and return where it is bound. Raise OSError."""
        if local.ip not in _WILDCARDS and not self.has(local.ip):
            raise _os_error(errno.EADDRNOTAVAIL)
        if local.port:
            if self._is_taken(local, table):
                raise _os_error(errno.EADDRINUSE)
        else:
            local = self._free_port(local, lambda candidate: self._is_taken(candidate, table))
        table[local] = item
        return local

    def free_tcp_address(self, ip: str) -> Address:
        """Return an address to connect from. Raise OSError."""
        taken = {local for local, _ in self.streams}
        return self._free_port(Address(ip, 0), lambda a: a in taken or self._is_taken(a, self.tcp))

    def mss(self, is_ipv6: bool) -> int:
        """Bytes of data that fit into one TCP packet on every link of this host."""
        mtu = min((link.profile.mtu for link in self.links.values()), default=1500)
        return mtu - (60 if is_ipv6 else 40)

    # The wire

    def deliver(self, data: bytes, source: Address, to: Address, group: str | None) -> None:
        """Take a datagram from the wire. `group`: the segment it was multicast on, None for unicast."""
        world = self.world
        counts = world.counts
        if self.silent is not None:
            counts[self.silent] += 1
            return
        if group is not None:
            self._deliver_to_group(data, source, to, group)
            return
        if to.ip not in self._addresses and not is_loopback(to.ip):
            counts["no_host"] += 1  # it has moved meanwhile
            return
        # A plain tuple is equal to an Address and quicker made.
        one = self.udp.get(to) or self.udp.get(("::" if ":" in to.ip else "0.0.0.0", to.port))  # type: ignore[call-overload]
        if one is None:
            counts["no_socket"] += 1
            return
        counts["delivered"] += 1
        if world.counts_traffic:
            self._count_in(kind_of(data), len(data))
        one.receive(data, source)

    def send_tcp(self, packet: TcpPacket, source: Address, to: Address) -> None:
        """Send a TCP packet from one of the own addresses."""
        route = self.route(to, source.ip)
        if route is None:
            self.world.tcp_counts["no_route"] += 1
            return
        self.world.note(self, source, to, "tcp", len(packet.data))
        self.world.carry_tcp(packet, source, to, self, route[1])

    def deliver_tcp(self, packet: TcpPacket, source: Address, to: Address) -> None:
        """Take a TCP packet from the wire. A router overrides this, translates, and calls `world.carry_tcp`."""
        counts = self.world.tcp_counts
        if self.silent is not None:
            counts[self.silent] += 1
            return
        if not self.has(to.ip):
            counts["no_host"] += 1
            return
        stream = self.streams.get((to, source))
        opening = packet.syn and not packet.ack
        listener = self.tcp.get(to) or self.tcp.get(Address("::" if to.is_ipv6 else "0.0.0.0", to.port))
        if stream is None and opening and listener is not None:
            process, handler = listener
            stream = VirtualTcpStream(self, process, to, source, accepted=handler)
        counts["delivered" if stream is not None else "no_socket"] += 1
        if stream is not None:
            stream.process.context.run(stream.arrive, packet)
        elif not packet.rst:
            self.send_tcp(TcpPacket(rst=True, ack=True, seq=packet.acked), to, source)

    # Parts

    def _deliver_to_group(self, data: bytes, source: Address, to: Address, group: str) -> None:
        sockets = [each for each in self.groups.get(to, ()) if group in each.joined]
        self.world.counts["delivered" if sockets else "no_socket"] += 1
        if sockets and self.world.counts_traffic:
            self._count_in("multicast", len(data))
        for each in sockets:
            each.receive(data, source)

    def _count_in(self, kind: str, size: int) -> None:
        row = self.traffic.setdefault(kind, [0, 0, 0, 0])
        row[2] += 1
        row[3] += size

    def _source(self, own: list[str], six: bool, bound: str, free: bool) -> str | None:
        for ip in own:
            if (":" in ip) == six and (free or ip == bound):
                return ip
        return None

    def _is_taken(self, local: Address, table: dict[Address, T]) -> bool:
        """As Linux without SO_REUSEADDR: a wildcard collides with every address of its family."""
        if local.ip in _WILDCARDS:
            return any(a.port == local.port and a.is_ipv6 == local.is_ipv6 for a in table)
        return local in table or Address(_WILDCARDS[local.is_ipv6], local.port) in table

    def _free_port(self, local: Address, is_taken: Callable[[Address], bool]) -> Address:
        first, last = _EPHEMERAL_PORTS
        start = self._rng.randint(first, last)
        for offset in range(last - first + 1):
            candidate = Address(local.ip, first + (start - first + offset) % (last - first + 1))
            if not is_taken(candidate):
                return candidate
        raise _os_error(errno.EADDRINUSE)

    def _silence(self) -> None:
        self.silent = "suspended" if self._suspended_at is not None else None if self._up else "down"

    def _addresses_changed(self) -> None:
        self._sort_addresses()
        for process, changed in self.watchers:
            self.world.loop.call_soon(changed, context=process.context)

    def _sort_addresses(self) -> None:
        self._interfaces = None
        self._segments = {}
        self._public = {False: [], True: []}
        for ip, segment in self._addresses.items():
            if segment is not None:
                self._segments.setdefault(segment, []).append(ip)
            if is_public(ip):
                self._public[":" in ip].append(ip)
        if self._segments or self._gateway is not None:
            self._only_public = None
        else:
            self._only_public = (next(iter(self._public[False]), None), next(iter(self._public[True]), None))


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
