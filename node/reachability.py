"""What our address looks like from outside, and what kind of NAT that means. Pure: fed with reports, judges on demand.

Each report says who saw us, where that observer is, and which address it saw. Anybody may lie, so

- an address block (/24, /48) has one vote; an address is believed with three votes that are more than half of all.
  In a network that has fewer than three blocks each observer votes; in one of fewer than three nodes, fewer suffice;
- the newest report of an observer replaces its older one;
- when two voters change their minds about an address, all reports of it that are older than the first change are void:
  the router was restarted or the line renumbered. (One alone cannot: a liar could void the truth.)

Mapping (RFC 4787, section 4.1 "Address and Port Mapping"): the same address for all is endpoint-independent; one that
no majority shares is not, and then two observers at one IP address (RFC 5780, section 4.3 "Determining NAT Mapping
Behavior") tell whether the port of the destination matters; without such a pair the worse is assumed. One of our own
local addresses, seen from outside, means no NAT.
Modelled after hyperdht's `lib/nat.js`, which also gives the classifier no network.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.dht.limits import prefix_of

__all__ = ["NatKind", "Reachability", "ReachabilityStatistics", "Reflexive"]

T = TypeVar("T", bound=Hashable)

WITNESSES = 3
MAX_OBSERVERS = 64  # per realm and family: a node talks to a few dozen; the oldest report goes first (64 x 300 bytes)
MAX_AGE_S = 7 * 3600.0  # every DHT node repeats what it sees at least with new keys, each 6 h
DOUBTERS = 2  # voters that must change their minds before others' reports are void
DOUBT_S = 600.0  # within this time; a restart is seen by all that are in touch within a keep-alive (25 s)
MAX_PORTS = 8


class NatKind(enum.Enum):
    """How the NAT before us maps our socket; the values are the words of `netcheck` and `status`."""

    UNKNOWN = "unknown"
    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UDP_BLOCKED = "udp-blocked"

    @property
    def predictable(self) -> bool:
        """Whether one believed address serves every peer."""
        return self in (NatKind.NONE, NatKind.ENDPOINT_INDEPENDENT)


@dataclass(frozen=True, slots=True)
class Reflexive:
    """A verdict for one realm and address family.

    `address`: what every peer should use, None when it differs by peer or is not known. `ip`: our outside IP address,
    believed by the same rule even where ports differ. `ports`: those seen lately, newest first, at most 8.
    `witnesses`: votes for `address` (where there is none: for `ip`), of `votes` in all.
    """

    kind: NatKind
    address: Address | None
    ip: str | None
    ports: tuple[int, ...] = ()
    witnesses: int = 0
    votes: int = 0


@dataclass(frozen=True, slots=True)
class ReachabilityStatistics:
    """`reports`: taken; `ignored`: by reason; `voided`: reports dropped after a contradiction."""

    reports: int
    ignored: dict[str, int]
    voided: int
    observers: int


@dataclass(frozen=True, slots=True)
class _Report:
    observer: Address
    own: Address
    block: bytes
    at: float


@dataclass(slots=True)
class _Side:
    """Reports of one realm and family: the newest per observer, oldest first; doubts: address -> voter -> when."""

    reports: OrderedDict[bytes, _Report] = field(default_factory=OrderedDict)
    doubts: dict[Address, dict[Hashable, float]] = field(default_factory=dict)


class Reachability:
    """Collects reports and judges them."""

    def __init__(self, *, allow_documentation: bool = False) -> None:
        """`allow_documentation`: documentation networks are public, for laboratories."""
        self._allow_documentation = allow_documentation
        self._sides: dict[tuple[Realm, bool], _Side] = {}
        self._taken = 0
        self._voided = 0
        self._ignored: Counter[str] = Counter()

    def report(self, observer: bytes, at: Address, own: Address, now: float) -> bool:
        """Take one report; return whether it says something new.

        `observer`: the node's public key, empty for a STUN server. `at`: where the observer is. `own`: our address as
        it saw it. Ignored is what names an address of another realm or family than the observer's.
        """
        realm = self._realm_of(at)
        if realm is None or self._realm_of(own) is not realm:
            self._ignored["other_realm"] += 1
            return False
        if at.is_ipv6 != own.is_ipv6 or not own.port:
            self._ignored["bad_address"] += 1
            return False
        side = self._sides.setdefault((realm, own.is_ipv6), _Side())
        report = _Report(at, own, prefix_of(at.ip), now)
        name = observer + at.pack()  # one node at two ports is two observers: they tell whether the port matters
        before = side.reports.pop(name, None)
        side.reports[name] = report
        if len(side.reports) > MAX_OBSERVERS:
            side.reports.popitem(last=False)
        self._taken += 1
        if before is not None and before.own != own:
            self._doubt(side, before.own, report)
        return before is None or before.own != own

    def forget(self) -> None:
        """Our network has changed (an interface came or went): nothing reported before holds any more."""
        self._sides.clear()

    def verdict(
        self, realm: Realm, *, ipv6: bool, local: Iterable[Address], known: Collection[Address], now: float
    ) -> Reflexive:
        """Judge one realm and family.

        `local`: our own addresses with their ports. `known`: where the nodes are that we know, of any realm and family:
        they say how many witnesses, in how many blocks, there could be. Ask after joining: before, every network looks
        as small as the one node that answered first.
        """
        reports = self._fresh(realm, ipv6, now)
        if not reports:
            return Reflexive(NatKind.UNKNOWN, None, None)
        there = {a for a in known if a.is_ipv6 is ipv6 and self._realm_of(a) is realm}
        there |= {report.observer for report in reports}
        by_block = len({prefix_of(a.ip) for a in there}) >= WITNESSES
        needed = min(WITNESSES, len(there))
        addresses = _votes(reports, by_block, lambda own: own)
        ports = tuple(dict.fromkeys(report.own.port for report in reversed(reports)))[:MAX_PORTS]
        address, count = addresses.most_common(1)[0]
        shared = 2 * count > addresses.total()
        if shared and count >= needed:
            kind = NatKind.ENDPOINT_INDEPENDENT if count > 1 else NatKind.UNKNOWN  # one observer cannot tell
            kind = NatKind.NONE if address in set(local) else kind
            return Reflexive(kind, address, address.ip, ports, count, addresses.total())
        ips = _votes(reports, by_block, lambda own: own.ip)
        ip, count = ips.most_common(1)[0]
        if count < needed or 2 * count <= ips.total():
            return Reflexive(NatKind.UNKNOWN, None, None, ports, 0, ips.total())
        # With a majority that is still too small, more reports will decide; without one, the mapping depends.
        kind = NatKind.UNKNOWN if shared else _dependence(reports)
        return Reflexive(kind, None, ip, ports, count, ips.total())

    def statistics(self) -> ReachabilityStatistics:
        observers = sum(len(side.reports) for side in self._sides.values())
        return ReachabilityStatistics(self._taken, dict(self._ignored), self._voided, observers)

    def _realm_of(self, address: Address) -> Realm | None:
        return realm_of(address.ip, allow_documentation=self._allow_documentation)

    def _fresh(self, realm: Realm, ipv6: bool, now: float) -> list[_Report]:
        """Return the reports that count, oldest first; forget those that are too old."""
        side = self._sides.get((realm, ipv6))
        if side is None:
            return []
        for name, report in list(side.reports.items()):
            if now - report.at > MAX_AGE_S:
                del side.reports[name]
        return list(side.reports.values())

    def _doubt(self, side: _Side, address: Address, report: _Report) -> None:
        """`report` says that its observer no longer sees us at `address`."""
        by_block = len({r.block for r in side.reports.values()}) >= WITNESSES
        doubts = side.doubts.setdefault(address, {})
        doubts[report.block if by_block else report.observer] = report.at
        for voter in [voter for voter, at in doubts.items() if report.at - at > DOUBT_S]:
            del doubts[voter]
        if len(doubts) >= DOUBTERS:
            since = min(doubts.values())
            stale = [name for name, r in side.reports.items() if r.own == address and r.at <= since]
            for name in stale:
                del side.reports[name]
            self._voided += len(stale)
        named = {r.own for r in side.reports.values()}
        side.doubts = {doubted: by for doubted, by in side.doubts.items() if doubted in named}


def _votes(reports: Iterable[_Report], by_block: bool, part: Callable[[Address], T]) -> Counter[T]:
    """Count one vote per block (what most of its observers say; of equals the newest) or per observer."""
    voters: dict[Hashable, list[T]] = {}
    for report in reports:
        voters.setdefault(report.block if by_block else report.observer, []).append(part(report.own))
    return Counter(Counter(reversed(said)).most_common(1)[0][0] for said in voters.values())


def _dependence(reports: Iterable[_Report]) -> NatKind:
    """Tell from observers that share an IP address whether the destination's port matters; the worse without any."""
    by_ip: dict[str, dict[Address, Address]] = {}
    for report in reports:
        by_ip.setdefault(report.observer.ip, {})[report.observer] = report.own
    pairs = [list(seen.values()) for seen in by_ip.values() if len(seen) > 1]
    alike = sum(1 for seen in pairs if len(set(seen)) == 1)
    return NatKind.ADDRESS_DEPENDENT if 2 * alike > len(pairs) else NatKind.ADDRESS_AND_PORT_DEPENDENT
