"""UDP sockets of the virtual world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramHandler
from p2pnode.simulations.virtual.places import is_multicast, kind_of
from p2pnode.simulations.virtual.processes import RUNNING, Process

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost

__all__ = ["LOOPBACK_IPS", "LOOPBACK_SEGMENT", "VirtualDatagramSocket", "VirtualMulticastSocket"]

LOOPBACK_IPS = ("127.0.0.1", "::1")
LOOPBACK_SEGMENT = "lo"
# The kernel's own limit (65,535 less the IP and UDP headers): more is EMSGSIZE.
UDP_PAYLOAD_MAX = 65_507


class VirtualDatagramSocket:
    """A bound UDP socket."""

    def __init__(self, host: VirtualHost, process: Process, local: Address, handler: DatagramHandler) -> None:
        self.dropped = 0
        self.local = host.bind(local, host.udp, self)
        self.process = process
        self._host = host
        self._world = host.world
        self._handler = handler
        self._closed = False
        self._is_ipv6 = self.local.is_ipv6

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, now or never."""
        if self._closed:
            return
        host, world = self._host, self._world
        if host.lag_s:
            _check_caller(self.process)
        route = host.route(to, self.local.ip) if (":" in to.ip) == self._is_ipv6 and to.port else None
        if route is None or len(data) > UDP_PAYLOAD_MAX:
            if is_multicast(to.ip) and len(data) <= UDP_PAYLOAD_MAX and self._send_to_group(bytes(data), to):
                return
            self.dropped += 1
            world.counts["no_route" if route is None else "message_too_long"] += 1
            return
        source_ip, other = route
        source = self.local if source_ip == self.local.ip else Address(source_ip, self.local.port)
        if world.notes:
            world.note(host, source, to, kind_of(data), len(data))
        world.carry(bytes(data), source, to, host, other, None)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send each."""
        for data in datagrams:
            self.send(data, to)

    def _send_to_group(self, data: bytes, group: Address) -> bool:
        """Send to a group from an ordinary socket, as SSDP's searches go: answers come back to it. False: no LAN."""
        host, world = self._host, self._world
        sent = False
        for segment, ips in host.segments().items():
            for ip in ips:
                if (":" in ip) == self._is_ipv6 == group.is_ipv6 and self.local.ip in (ip, "0.0.0.0", "::"):
                    source = Address(ip, self.local.port)
                    world.note(host, source, group, "multicast", len(data))
                    for other in world.members(segment):
                        world.carry(data, source, group, host, other, segment)
                    sent = True
                    break
        return sent

    def receive(self, data: bytes, source: Address) -> None:
        """Hand a datagram to the program, in its own context."""
        self.process.context.run(self._handler, data, source)

    def close(self) -> None:
        """Close at once; no handler call follows."""
        if not self._closed:
            self._closed = True
            del self._host.udp[self.local]


class VirtualMulticastSocket:
    """A socket in a multicast group on every segment of its host, and on loopback."""

    def __init__(self, host: VirtualHost, process: Process, group: Address, handler: DatagramHandler) -> None:
        self.process = process
        self._host = host
        self._group = group
        self._handler = handler
        self.joined: dict[str, list[str]] = {}
        self.refresh()
        host.groups.setdefault(group, []).append(self)

    def send(self, data: bytes) -> None:
        """Send one datagram to the group on every joined segment; the own host hears it too."""
        host = self._host
        world = host.world
        if self not in host.groups.get(self._group, ()):
            return
        if host.lag_s:
            _check_caller(self.process)
        own = host.segments()
        for segment, ips in self.joined.items():
            here = ips if segment == LOOPBACK_SEGMENT else [ip for ip in ips if ip in own.get(segment, ())]
            ip = next((ip for ip in here if (":" in ip) == self._group.is_ipv6), None)
            if ip is None:
                continue
            source = Address(ip, self._group.port)
            world.note(host, source, self._group, "multicast", len(data))
            for other in [host] if segment == LOOPBACK_SEGMENT else world.members(segment):
                world.carry(bytes(data), source, self._group, host, other, segment)

    def receive(self, data: bytes, source: Address) -> None:
        """Hand a datagram to the program, unless another handler has just closed this socket."""
        if self in self._host.groups[self._group]:
            self.process.context.run(self._handler, data, source)

    def refresh(self) -> None:
        """Join on segments that the host came to since."""
        self.joined = {LOOPBACK_SEGMENT: list(LOOPBACK_IPS), **self._host.segments()}

    def close(self) -> None:
        sockets = self._host.groups.get(self._group, [])
        if self in sockets:
            sockets.remove(self)


def _check_caller(process: Process) -> None:
    """Refuse to mix clocks: a timer set outside a process that has slept would be early by the time slept."""
    if RUNNING.get() is not process:
        raise RuntimeError("this host has been suspended: call what runs on it through VirtualNetwork.run or .call")
