"""The mappings of one protocol: made by packets from inside, looked up by packets from outside, forgotten in time.

RFC 4787, sections 4 and 5, for UDP; RFC 5382 for TCP. Nothing happens by itself: what has expired at `now` counts as
gone and is swept up when it is in the way or has become too much. A packet from outside makes no mapping and no filter:
the laboratory's kernel has to be told the same, or the answer from inside would find its port taken by a stranger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable

from p2pnode.core.address import Address
from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.routers.ports import PortChooser
from p2pnode.simulations.routers.tcp_states import TcpSession, opened
from p2pnode.simulations.routers.words import ADDRESS_AND_PORT, INDEPENDENT, Protocol, Rule, Segment, part

__all__ = ["Mapping", "MappingTable"]

_SWEEP_MIN = 64


class Mapping:
    """An inside address and port, and the outside ones that stand for it.

    `udp`, `tcp`: sessions by remote address (UDP: by what the filter looks at of it), with their time of expiry.
    """

    __slots__ = ("expires_at", "external", "internal", "keys", "sweep_at", "tcp", "udp")

    def __init__(self, internal: Address, external: Address, keys: tuple[Hashable, Hashable]) -> None:
        self.internal = internal
        self.external = external
        self.keys = keys
        self.expires_at = 0.0
        self.sweep_at = _SWEEP_MIN
        self.udp: dict[Hashable, list[float]] = {}  # [expires at, 1.0 when it was answered]
        self.tcp: dict[Address, TcpSession] = {}

    def sessions(self, now: float) -> int:
        """Return how many remote addresses (UDP: what the filter looks at of them) it knows."""
        return sum(now < each[0] for each in self.udp.values()) + sum(
            now < session.expires_at for session in self.tcp.values()
        )

    def sweep(self, now: float) -> None:
        """Drop the sessions that have expired."""
        self.udp = {key: each for key, each in self.udp.items() if now < each[0]}
        self.tcp = {key: session for key, session in self.tcp.items() if now < session.expires_at}
        self.sweep_at = max(_SWEEP_MIN, 2 * (len(self.udp) + len(self.tcp)))


class MappingTable:
    """Mappings of one protocol of one router.

    `external_ip`: tells the outside address for a host, None to keep the inside one (a firewall without translation).
    `is_reserved`: whether an outside port is taken by something else, such as an explicit mapping.
    """

    def __init__(
        self,
        kind: RouterKind,
        protocol: Protocol,
        rng: random.Random,
        *,
        external_ip: Callable[[str], str] | None,
        is_reserved: Callable[[Address], bool] = lambda _external: False,
        filtering: Rule | None = None,
    ) -> None:
        self._kind = kind
        self._protocol = protocol
        self._filtering: Rule = filtering or kind.filtering
        self._external_ip = external_ip
        self._is_reserved = is_reserved
        self._overload = kind.overload and external_ip is not None
        self._mapping_rule: Rule = ADDRESS_AND_PORT if self._overload else kind.mapping
        if external_ip is None:
            self._mapping_rule = INDEPENDENT
        self._quota = kind.quota if external_ip is not None else 0
        self._ports = PortChooser(kind, rng)
        self._by_inside: dict[Hashable, Mapping] = {}
        self._by_outside: dict[Hashable, Mapping] = {}
        self._by_source: dict[Address, list[Mapping]] = {}  # with overloading only; newest last
        self._sweep_at = _SWEEP_MIN

    # Packets

    def outbound(self, now: float, source: Address, to: Address, segment: Segment = "") -> Address | str:
        """Return the outside address for a packet from inside, or why it is dropped."""
        key = (source, part(self._mapping_rule, to)) if self._mapping_rule != INDEPENDENT else source
        mapping = self._by_inside.get(key)
        if mapping is None or now >= mapping.expires_at:
            if self._protocol == "tcp" and segment != "syn":
                return "no_session"
            made = self._make(now, key, source, to)
            if isinstance(made, str):
                return made
            mapping = made
        if self._protocol == "tcp":
            return self._tcp_out(now, mapping, to, segment)
        session = mapping.udp.get(part(self._filtering, to))
        if session is None:
            if self._is_full(now):
                return "table_full"
            session = self._add_udp(now, mapping, to)
        elif now >= session[0]:
            session[1] = 0.0
        self._refresh(now, mapping, session)
        return mapping.external

    def inbound(self, now: float, source: Address, external: Address, segment: Segment = "") -> Address | str:
        """Return the inside address for a packet from outside, or why it is dropped."""
        key: Hashable = (external, source) if self._overload else external
        mapping = self._by_outside.get(key)
        if mapping is None or now >= mapping.expires_at:
            return "unsolicited"
        if self._protocol == "tcp":
            return self._tcp_in(now, mapping, source, segment)
        session = mapping.udp.get(part(self._filtering, source))
        if session is None or now >= session[0]:
            return "filtered"
        session[1] = 1.0
        if self._kind.inbound_refresh:
            self._refresh(now, mapping, session)
        return mapping.internal

    # What is in it

    def mappings(self, now: float) -> list[Mapping]:
        """Return the living ones, oldest first."""
        return [mapping for mapping in self._by_inside.values() if now < mapping.expires_at]

    def sessions(self, now: float) -> int:
        """Return how many remote addresses the living mappings know."""
        return sum(mapping.sessions(now) for mapping in self._by_inside.values())

    def external_of(self, now: float, internal: Address) -> Address | None:
        """Return the outside address that every remote sees of an inside one; None when there is no such mapping."""
        mapping = self._by_inside.get(internal) if self._mapping_rule == INDEPENDENT else None
        return mapping.external if mapping is not None and now < mapping.expires_at else None

    def is_taken(self, now: float, external: Address, by: Address) -> bool:
        """Whether an outside address stands for another inside one than `by`."""
        return any(
            mapping.external == external and mapping.internal != by and now < mapping.expires_at
            for mapping in self._by_outside.values()
        )

    def clear(self) -> None:
        """Forget all."""
        self._by_inside.clear()
        self._by_outside.clear()
        self._by_source.clear()

    # Inside

    def _add_udp(self, now: float, mapping: Mapping, to: Address) -> list[float]:
        if len(mapping.udp) >= mapping.sweep_at:
            mapping.sweep(now)
        session = mapping.udp[part(self._filtering, to)] = [0.0, 0.0]
        return session

    def _refresh(self, now: float, mapping: Mapping, session: list[float]) -> None:
        kind = self._kind
        session[0] = max(session[0], now + (kind.answered_lifetime_s if session[1] else kind.udp_lifetime_s))
        mapping.expires_at = max(mapping.expires_at, session[0])

    def _make(self, now: float, key: Hashable, source: Address, to: Address) -> Mapping | str:
        """Make a mapping that has no session yet, so that it is not alive: the caller adds one."""
        if len(self._by_inside) >= self._sweep_at or self._kind.port_block:
            self._sweep(now)
        if self._is_full(now):
            return "table_full"
        if self._quota and self._count_of(now, source.ip) >= self._quota:
            return "quota"
        external = self._choose(now, source, to)
        if external is None:
            return "no_port"
        old = self._by_inside.get(key)
        if old is not None:
            self._remove(old)
        outside: Hashable = (external, to) if self._overload else external
        in_the_way = self._by_outside.get(outside)
        if in_the_way is not None:
            self._remove(in_the_way)
        mapping = Mapping(source, external, (key, outside))
        self._by_inside[key] = self._by_outside[outside] = mapping
        if self._overload:
            self._by_source.setdefault(source, []).append(mapping)
        return mapping

    def _choose(self, now: float, source: Address, to: Address) -> Address | None:
        if self._external_ip is None:
            return source
        ip = self._external_ip(source.ip)

        def is_free(port: int) -> bool:
            external = Address(ip, port)
            mapping = self._by_outside.get((external, to) if self._overload else external)
            if mapping is not None and now < mapping.expires_at:
                return False
            return external != to and not self._is_reserved(external)  # a hairpin to itself would answer itself

        if self._overload and (newest := self._newest(now, source)) is not None and is_free(newest.external.port):
            return newest.external
        port = self._ports.choose(ip, source.ip, source.port, is_free)
        return None if port is None else Address(ip, port)

    def _newest(self, now: float, source: Address) -> Mapping | None:
        """The last living flow of an inside address: Linux tries its outside port first (find_appropriate_src)."""
        flows = self._by_source.get(source)
        if flows is None:
            return None
        flows[:] = [flow for flow in flows if now < flow.expires_at]
        return flows[-1] if flows else None

    def _tcp_out(self, now: float, mapping: Mapping, to: Address, segment: Segment) -> Address | str:
        session = mapping.tcp.get(to)
        if session is None or now >= session.expires_at:
            if segment != "syn":
                return "no_session"
            if self._is_full(now):
                return "table_full"
            mapping.tcp[to] = session = opened(now, "out", self._kind)
        else:
            session.see(now, "out", segment, self._kind)
        self._outlive(mapping)
        return mapping.external

    def _tcp_in(self, now: float, mapping: Mapping, source: Address, segment: Segment) -> Address | str:
        session = mapping.tcp.get(source)
        if session is not None and now < session.expires_at:
            session.see(now, "in", segment, self._kind)
        elif not self._tcp_lets_in(now, mapping, source):
            return "filtered"
        elif segment != "syn":
            return "no_session"
        else:
            mapping.tcp[source] = opened(now, "in", self._kind)
        self._outlive(mapping)
        return mapping.internal

    def _tcp_lets_in(self, now: float, mapping: Mapping, source: Address) -> bool:
        wanted = part(self._filtering, source)
        return any(
            part(self._filtering, remote) == wanted for remote, each in mapping.tcp.items() if now < each.expires_at
        )

    @staticmethod
    def _outlive(mapping: Mapping) -> None:
        """A TCP mapping lives as long as its longest session; sessions may get shorter when they close."""
        mapping.expires_at = max(session.expires_at for session in mapping.tcp.values())

    def _count_of(self, now: float, ip: str) -> int:
        return sum(mapping.internal.ip == ip and now < mapping.expires_at for mapping in self._by_inside.values())

    def _is_full(self, now: float) -> bool:
        return bool(self._kind.table_max) and self.sessions(now) >= self._kind.table_max

    def _sweep(self, now: float) -> None:
        for mapping in [each for each in self._by_inside.values() if now >= each.expires_at]:
            self._remove(mapping)
        for mapping in self._by_inside.values():
            mapping.sweep(now)
        self._by_source = {
            source: living
            for source, flows in self._by_source.items()
            if (living := [flow for flow in flows if now < flow.expires_at])
        }
        self._ports.keep_blocks_of({mapping.internal.ip for mapping in self._by_inside.values()})
        self._sweep_at = max(_SWEEP_MIN, 2 * len(self._by_inside))

    def _remove(self, mapping: Mapping) -> None:
        inside, outside = mapping.keys
        if self._by_inside.get(inside) is mapping:
            del self._by_inside[inside]
        if self._by_outside.get(outside) is mapping:
            del self._by_outside[outside]
