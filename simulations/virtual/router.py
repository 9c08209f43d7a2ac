"""Routers of the virtual world: the models of `simulations/routers` between hosts, and the homes that they make.

    router = VirtualRouter(world, kind_named("port-restricted"), "198.51.100.7")
    alice, bob = router.host("192.168.1.10"), router.host("192.168.1.11")     # two `Network`s on its LAN

    home = Home.build(world, "cgnat", "198.51.100.8", "198.51.100.9")           # by name, with the carrier's router
    carol = home.host()

Multicast stays on its LAN: no router passes it on. A packet is judged when it reaches the router.
"""

from __future__ import annotations

import ipaddress
import random
from collections import Counter

from p2pnode.core.address import Address
from p2pnode.simulations.routers.kinds import RouterKind, kind_named
from p2pnode.simulations.routers.router import Passed, RouterModel
from p2pnode.simulations.routers.words import Segment
from p2pnode.simulations.virtual.host import VirtualHost
from p2pnode.simulations.virtual.network import VirtualNetwork
from p2pnode.simulations.virtual.router_services import RouterServices
from p2pnode.simulations.virtual.tcp_packet import TcpPacket
from p2pnode.simulations.virtual.world import VirtualWorld

__all__ = ["Home", "VirtualRouter"]

LAN_DELAY_S = 0.0005
INSIDE_IP = "192.168.1.1"
CARRIER_INSIDE_IP = "100.64.0.1"  # RFC 6598, "IANA-Reserved IPv4 Prefix for Shared Address Space"
_FIRST_HOST = 10


class VirtualRouter(VirtualHost):
    """A router. Its LAN has its name; its own link is its way out."""

    def __init__(
        self,
        world: VirtualWorld,
        kind: RouterKind,
        *outside: str,
        behind: VirtualRouter | None = None,
        inside: str = INSIDE_IP,
        inside6: str | None = None,
        name: str = "",
    ) -> None:
        """`outside`: IPv4 addresses outside, as many as the kind's pool, on the LAN of `behind` if that is given.

        `inside`, `inside6`: its own addresses inside, the latter if hosts have IPv6. Raise ValueError.
        """
        if not kind.translates:
            raise ValueError(f"{kind.name} is no router")
        if len(outside) < kind.pool:
            raise ValueError(f"{kind.name} needs {kind.pool} outside addresses")
        super().__init__(world, name or f"router-{outside[0]}")
        self.kind = kind
        self.inside = inside
        self.lan = self.name
        self._segment = f"lan/{self.lan}"
        self._hosts = 0
        world.hosts.append(self)
        world.set_lan(self.lan, delay=LAN_DELAY_S)
        for ip in outside:
            self.add_address(ip, lan=None if behind is None else behind.lan)
        self.gateway = behind
        for ip in (inside, *((inside6,) if inside6 is not None else ())):
            self.add_address(ip, lan=self.lan)
        rng = random.Random(f"{world.seed}/{self.name}/router")
        self.model = RouterModel(kind, outside, rng, now=world.loop.now())
        self.services = RouterServices(self, inside6) if kind.port_mapping else None

    # Building

    def host(self, ip: str, *more: str, name: str = "") -> VirtualNetwork:
        """Make a host on the LAN, with this router as its gateway. Raise ValueError when an address is taken."""
        host = VirtualHost(self.world, name or f"{self.name}/{ip}")
        self.world.hosts.append(host)
        for each in (ip, *more):
            host.add_address(each, lan=self.lan)
        host.gateway = self
        return host.network()

    def next_inside_ip(self) -> str:
        """Return an address of the inside /24 that has not been returned before."""
        self._hosts += 1
        return str(ipaddress.ip_address(self.inside) + _FIRST_HOST - 2 + self._hosts)

    # What can be seen

    @property
    def outside_ips(self) -> tuple[str, ...]:
        return self.model.outside_ips

    @property
    def mappings(self) -> int:
        """Mappings alive now, of UDP and TCP."""
        return self.model.mappings(self.world.loop.now())

    @property
    def sessions(self) -> int:
        """Sessions alive now: what a real router's connection table would hold."""
        return self.model.sessions(self.world.loop.now())

    @property
    def drops(self) -> Counter[str]:
        """Packets dropped so far, by reason (docs/routers.md)."""
        return self.model.drops

    # What happens to it

    def reboot(self, *, down_s: float = 0.0) -> None:
        """Forget everything, after `down_s` seconds without power; then it tells its hosts, as PCP and NAT-PMP say."""
        if down_s > 0:
            self.up = False
            self.world.loop.call_later(down_s, self._back)
        else:
            self._restarted()

    def renumber(self, *outside: str) -> None:
        """Give it other outside addresses, as a provider does over night; mappings are lost. Raise ValueError."""
        if len(outside) < self.kind.pool:
            raise ValueError(f"{self.kind.name} needs {self.kind.pool} outside addresses")
        for ip in self.model.outside_ips:
            self.remove_address(ip)
        for ip in outside:
            self.add_address(ip, lan=None if not isinstance(self.gateway, VirtualRouter) else self.gateway.lan)
        self.model.renumber(outside)
        self._restarted()

    def _back(self) -> None:
        self.up = True
        self._restarted()

    def _restarted(self) -> None:
        self.model.reboot(self.world.loop.now())
        if self.services is not None:
            self.services.announce()

    # Packets

    def deliver(self, data: bytes, source: Address, to: Address, group: str | None) -> None:
        """Take a datagram from the wire and pass it on, translated, or not."""
        world = self.world
        if group is not None or self.silent is not None:
            super().deliver(data, source, to, group)
            return
        model, now = self.model, world.loop.now()
        if self._is_inside(source.ip):
            if to.ip in self._addresses and to.ip not in model.outside_ips:
                super().deliver(data, source, to, None)  # for a service of its own
                return
            result = model.from_inside(now, "udp", source, to)
        else:
            result = self._from_outside(now, "udp", source, to, "")
        if isinstance(result, str):
            world.counts[f"router_{result}"] += 1
            return
        world.counts["forwarded"] += 1
        world.carry(data, result.source, result.to, self, self.next_hop(result.to.ip), None)

    def deliver_tcp(self, packet: TcpPacket, source: Address, to: Address) -> None:
        """The same for a TCP packet."""
        world = self.world
        if self.silent is not None:
            super().deliver_tcp(packet, source, to)
            return
        model, now, segment = self.model, world.loop.now(), _segment_of(packet)
        if self._is_inside(source.ip):
            if to.ip in self._addresses and to.ip not in model.outside_ips:
                super().deliver_tcp(packet, source, to)
                return
            result = model.from_inside(now, "tcp", source, to, segment)
        else:
            result = self._from_outside(now, "tcp", source, to, segment)
            if isinstance(result, str) and segment == "syn" and self._rejects(result):
                refusal = TcpPacket(rst=True, ack=True, seq=packet.acked)
                world.carry_tcp(refusal, to, source, self, self.next_hop(source.ip))
        if isinstance(result, str):
            world.tcp_counts[f"router_{result}"] += 1
            return
        world.tcp_counts["forwarded"] += 1
        world.carry_tcp(packet, result.source, result.to, self, self.next_hop(result.to.ip))

    def multicast(self, data: bytes, source: Address, group: Address) -> None:
        """Send a datagram to a group on the LAN."""
        self.world.note(self, source, group, "multicast", len(data))
        for other in self.world.members(self._segment):
            self.world.carry(data, source, group, self, other, self._segment)

    def _from_outside(self, now: float, protocol: str, source: Address, to: Address, segment: Segment) -> Passed | str:
        if to.ip not in self.model.outside_ips and not (to.is_ipv6 and self._is_inside(to.ip)):
            self.model.drops["not_ours"] += 1
            return "not_ours"
        return self.model.from_outside(now, "tcp" if protocol == "tcp" else "udp", source, to, segment)

    def _is_inside(self, ip: str) -> bool:
        """Whether an address belongs to a host of the LAN, or (public ones) of a router on it."""
        world = self.world
        if world.neighbour(ip, self._segment) is not None:
            return True
        host = world.owner(ip, None) if ":" in ip else None
        while host is not None and host.gateway is not None:
            host = host.gateway
            if host is self:
                return True
        return False

    def _rejects(self, reason: str) -> bool:
        return self.kind.tcp_unsolicited == "reject" and reason in ("unsolicited", "filtered")


class Home:
    """Where hosts live: behind a router of some kind, behind two, or (`public`) with addresses of their own."""

    def __init__(self, world: VirtualWorld, kind: RouterKind, router: VirtualRouter | None, free: list[str]) -> None:
        self.world = world
        self.kind = kind
        self.router = router
        self._free = free
        self._prefix6: ipaddress.IPv6Network | None = None

    @classmethod
    def build(
        cls,
        world: VirtualWorld,
        kind: RouterKind | str,
        *outside: str,
        carrier: VirtualRouter | None = None,
        prefix6: str | None = None,
        name: str = "",
    ) -> Home:
        """Build a home of a kind, by name or as it is.

        `outside`: public IPv4 addresses; for `public` those of the hosts. `carrier`: the provider's router, shared with
        other homes; without it a kind behind a carrier gets one of its own. `prefix6`: the /64 of the hosts where the
        kind has IPv6; without it there is none. Raise ValueError.
        """
        kind = kind_named(kind) if isinstance(kind, str) else kind
        prefix = ipaddress.IPv6Network(prefix6) if prefix6 is not None else None
        if not kind.translates:
            home = cls(world, kind, None, list(outside))
            home._prefix6 = prefix
            return home
        name = name or f"{kind.name}-{outside[0] if outside else len(world.hosts)}"
        if kind.carrier is not None:
            if carrier is None:
                carrier = VirtualRouter(world, kind.carrier, *outside, inside=CARRIER_INSIDE_IP, name=f"{name}-carrier")
            outside = (carrier.next_inside_ip(),)
        inside6 = str(prefix[1]) if prefix is not None else None
        home = cls(world, kind, VirtualRouter(world, kind, *outside, behind=carrier, inside6=inside6, name=name), [])
        home._prefix6 = prefix
        return home

    def host(self) -> VirtualNetwork:
        """Make a further host. Raise ValueError when a public one has no address left."""
        if self.router is None:
            if not self._free:
                raise ValueError("there is no public address left for a further host")
            ip = self._free.pop(0)
            return self.world.host(ip, *self._ipv6_beside(ip))
        ip = self.router.next_inside_ip()
        return self.router.host(ip, *self._ipv6_beside(ip))

    def _ipv6_beside(self, ip: str) -> tuple[str, ...]:
        """The IPv6 address of the host with this IPv4 address, if it has one."""
        if self._prefix6 is None or self.kind.ipv6 == "none":
            return ()
        return (str(self._prefix6[int(ip.rpartition(".")[2])]),)


def _segment_of(packet: TcpPacket) -> Segment:
    if packet.rst:
        return "rst"
    if packet.syn:
        return "syn-ack" if packet.ack else "syn"
    return "fin" if packet.fin else "ack"
