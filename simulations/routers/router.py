"""A router as a pure model: packets in, packets out or the reason why not. No I/O; time is an argument.

It has an inside (hosts with private IPv4 addresses, perhaps public IPv6 ones) and an outside. Order of decisions: own
outside address (hairpin), policy of the line, explicit mappings, then the tables that packets make.
Not modelled: ICMP, fragments, application gateways (docs/routers.md).
"""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from p2pnode.core.address import Address
from p2pnode.nat.nat64 import Nat64
from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.routers.openings import Openings
from p2pnode.simulations.routers.table import MappingTable
from p2pnode.simulations.routers.words import Protocol, Segment

__all__ = ["Passed", "RouterModel"]

_PROTOCOLS: tuple[Protocol, Protocol] = ("udp", "tcp")


class Passed(NamedTuple):
    """A packet as it leaves the router. `inside`: on which side."""

    source: Address
    to: Address
    inside: bool


class RouterModel:
    """One router. `outside_ips`: its IPv4 addresses outside, at least one; `rng`: its own generator."""

    def __init__(self, kind: RouterKind, outside_ips: tuple[str, ...], rng: random.Random, *, now: float = 0.0) -> None:
        """Raise ValueError without an outside address."""
        if not outside_ips:
            raise ValueError("a router needs an outside address")
        self.kind = kind
        self.outside_ips = outside_ips
        self.started_at = now
        """Since when it runs: the epoch of port-mapping protocols counts from here."""
        self.drops: Counter[str] = Counter()
        self.passed = 0
        self.openings = Openings()
        self._rng = rng
        self._paired: dict[str, str] = {}
        self._now = now
        self._nat64 = Nat64(ipaddress.IPv6Network(kind.nat64), is_public=lambda _ip: True) if kind.nat64 else None
        self._tables: dict[Protocol, MappingTable] = {
            protocol: MappingTable(
                kind, protocol, rng, external_ip=self._outside_ip, is_reserved=self._reservation(protocol)
            )
            for protocol in _PROTOCOLS
        }
        self._firewalls: dict[Protocol, MappingTable] = {
            protocol: MappingTable(kind, protocol, rng, external_ip=None, filtering=kind.ipv6_filtering)
            for protocol in _PROTOCOLS
        }

    # Packets

    def from_inside(
        self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment = ""
    ) -> Passed | str:
        """Take a packet of a host; return how it goes on, or why it is dropped."""
        self._now = now
        if to.ip in self.outside_ips:
            result = self._hairpin(now, protocol, source, to, segment)
        else:
            result = self._policy(protocol, to) or self._out(now, protocol, source, to, segment)
        return self._counted(result)

    def from_outside(
        self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment = ""
    ) -> Passed | str:
        """Take a packet for one of the outside addresses, or for a host's public IPv6 address."""
        self._now = now
        return self._counted(self._policy(protocol, None) or self._in(now, protocol, source, to, segment))

    # What is in it

    def mappings(self, now: float) -> int:
        """Return how many mappings are alive; those of an IPv6 firewall count as well."""
        return sum(len(table.mappings(now)) for table in self._all_tables())

    def sessions(self, now: float) -> int:
        """Return how many sessions are alive: what a real router's connection table would hold."""
        return sum(table.sessions(now) for table in self._all_tables())

    def table(self, protocol: Protocol) -> MappingTable:
        """Return the IPv4 mappings of a protocol."""
        return self._tables[protocol]

    def outside_ip_of(self, inside_ip: str) -> str:
        """Return the outside IPv4 address under which a host is seen (with arbitrary pooling: the first one)."""
        return self._outside_ip(inside_ip) if self.kind.pooling == "paired" else self.outside_ips[0]

    # What happens to it

    def reboot(self, now: float) -> None:
        """Forget everything: mappings, openings, which host has which outside address. The epoch begins anew."""
        for table in self._all_tables():
            table.clear()
        self.openings.clear()
        self._paired.clear()
        self.started_at = now

    def renumber(self, outside_ips: tuple[str, ...]) -> None:
        """Give it other outside addresses: mappings are lost, openings too (RFC 6887, section 8.5: the epoch tells)."""
        if not outside_ips:
            raise ValueError("a router needs an outside address")
        self.outside_ips = outside_ips
        self.reboot(self._now)

    # Inside

    def _policy(self, protocol: Protocol, to: Address | None) -> str | None:
        """`to`: None for a packet from outside, which no rule on remote ports looks at."""
        kind = self.kind
        if not kind.line:
            return "line_dead"
        if protocol == "udp":
            return None if kind.udp else "udp_blocked"
        if to is not None and kind.tcp_ports is not None and to.port not in kind.tcp_ports:
            return "tcp_port_blocked"
        return None

    def _out(self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment) -> Passed | str:
        if to.is_ipv6 and self._nat64 is not None and (to4 := self._nat64.inward(to)) != to:
            external = self._outbound(now, protocol, source, to4, segment)
            return external if isinstance(external, str) else Passed(external, to4, False)
        if to.is_ipv6:
            if self.kind.ipv6 == "none":
                return "no_ipv6"
            kept = self._firewalls[protocol].outbound(now, source, to, segment)
            if self.kind.ipv6 == "open" or not isinstance(kept, str):
                return Passed(source, to, False)
            return kept
        external = self._outbound(now, protocol, source, to, segment)
        return external if isinstance(external, str) else Passed(external, to, False)

    def _in(self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment) -> Passed | str:
        internal = self._inbound(now, protocol, source, to, segment)
        if isinstance(internal, str):
            return internal
        if internal.is_ipv6 and not source.is_ipv6:  # a mapping that NAT64 made
            return Passed(self._nat64.outward(source), internal, True) if self._nat64 is not None else "unsolicited"
        return Passed(source, internal, True)

    def _outbound(
        self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment
    ) -> Address | str:
        """An explicit mapping is one for packets from inside, too: RFC 6887, section 11.3."""
        if self.openings and (opening := self.openings.of(now, protocol, source)) is not None and opening.enabled:
            return opening.external
        return self._tables[protocol].outbound(now, source, to, segment)

    def _inbound(self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment) -> Address | str:
        if self.openings and (opening := self.openings.at(now, protocol, to)) is not None and opening.enabled:
            return opening.internal
        if not to.is_ipv6:
            return self._tables[protocol].inbound(now, source, to, segment)
        if self.kind.ipv6 == "none":
            return "no_ipv6"
        kept = self._firewalls[protocol].inbound(now, source, to, segment)
        return to if self.kind.ipv6 == "open" else kept

    def _hairpin(self, now: float, protocol: Protocol, source: Address, to: Address, segment: Segment) -> Passed | str:
        """From inside to our own outside address. RFC 4787, section 6 "Hairpinning Behavior"; the filter applies."""
        if self.kind.hairpin == "off":
            return "hairpin"
        external = self._outbound(now, protocol, source, to, segment)
        if isinstance(external, str):
            return external
        internal = self._inbound(now, protocol, external, to, segment)
        if isinstance(internal, str):
            return internal
        return Passed(external if self.kind.hairpin == "external" else source, internal, True)

    def _outside_ip(self, inside_ip: str) -> str:
        """RFC 4787, REQ-2: paired pooling gives a host the same outside address as long as it has mappings."""
        ips = self.outside_ips
        if len(ips) == 1:
            return ips[0]
        if self.kind.pooling == "arbitrary":
            return self._rng.choice(ips)
        paired = self._paired.get(inside_ip)
        if paired is None:
            counts = Counter(self._paired.values())
            paired = self._paired[inside_ip] = min(ips, key=lambda ip: counts[ip])
        return paired

    def _reservation(self, protocol: Protocol) -> Callable[[Address], bool]:
        def is_reserved(external: Address) -> bool:
            return bool(self.openings) and self.openings.at(self._now, protocol, external) is not None

        return is_reserved

    def _counted(self, result: Passed | str) -> Passed | str:
        if isinstance(result, str):
            self.drops[result] += 1
        else:
            self.passed += 1
        return result

    def _all_tables(self) -> list[MappingTable]:
        return [*self._tables.values(), *self._firewalls.values()]
