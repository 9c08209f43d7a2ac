"""The flows of a relay: who may send to whom through us, and how much. Pure; the DHT's sealed requests prove who asks.

A flow joins two nodes that both asked for it, each naming the other and each from an address that it proved: so nobody
gets relayed bytes that he did not ask for, and each byte that leaves came in before. Like TURN's permissions (RFC 8656,
section 9) and libp2p's reservations (circuit v2), but for one pair at a time and by both. What passes is QUIC between
the two: ciphertext, never looked at.

Limits: flows in all, per node and per block of addresses; openings per second; bytes per second in all and per block of
addresses, fairly shared; a flow ends when one side does not renew it. Who owns much of one kind of addresses gains
little: of an IPv6 /32 eight /48s count for themselves, all others together (`relay_parties`); within a block that is
full, places and bytes are shared fairly among its single addresses (/64s), for a carrier's customers are strangers to
each other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.dht.limits import Budget, PrefixBudgets, prefix_of, wide_prefix_of
from p2pnode.fair_share import NestedShare
from p2pnode.relay_parties import Parties, site_of
from p2pnode.relay_wire import MAX_FLOW, deliver_frame

__all__ = ["Opened", "RelaySettings", "RelayStatistics", "RelayTable"]


@dataclass(frozen=True)
class RelaySettings:
    """Limits of a relay. Rates in bytes per second."""

    enabled: bool = True
    total_rate: float = 4_000_000.0
    """All together, each byte counted once: 32 Mbit/s in and as much out, a fifth of a core."""
    each_rate: float = 1_000_000.0
    """Of one /24 or /48, whatever is free."""
    max_flows: int = 1_024
    """Sides of flows, about 1 kB each."""
    max_flows_of_node: int = 32
    max_flows_of_prefix: int = 128
    opens_rate: float = 5.0
    """New flows per second of one /24 or /48, ten times as many at once; half as many of one address or /64, eight
    times as many of an IPv6 /32, forty times as many in all."""
    lease_s: float = 120.0
    """Longest time until a side has to renew."""

    @classmethod
    def of(cls, enabled: bool, bandwidth: int) -> RelaySettings:
        """`bandwidth`: bytes per second, all together; a block of addresses gets a quarter at most."""
        return cls(enabled=enabled, total_rate=float(bandwidth), each_rate=bandwidth / 4)


@dataclass(frozen=True, slots=True)
class Opened:
    """`flow`: the number of our side; `paired`: the other side is there; `told`: where it hears that we came."""

    flow: int
    lease: int
    paired: bool
    told: tuple[int, Address] | None


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """`flows`: sides; `pairs`: flows with both; `datagrams`, `bytes`: forwarded; `refused` openings, `dropped` frames:
    by reason."""

    flows: int
    pairs: int
    datagrams: int
    bytes: int
    refused: dict[str, int]
    dropped: dict[str, int]


@dataclass(slots=True, eq=False)
class _Side:
    """One end of a flow. `node`, `other`: node ids; `party`, `site`: whom it counts for, and which of its addresses;
    `twin`: the other end, when it is there."""

    flow: int
    node: bytes
    other: bytes
    address: Address
    party: bytes
    site: bytes
    until: float
    twin: _Side | None = None


class RelayTable:
    """All flows through this node."""

    def __init__(self, settings: RelaySettings, token_bytes: Callable[[int], bytes]) -> None:
        self.settings = settings
        self._token_bytes = token_bytes
        self._share = NestedShare(settings.total_rate, settings.each_rate)
        rate = settings.opens_rate
        # Each asked in turn: who is over his own limit uses up nobody else's. 4,096 x 300 bytes each at most.
        self._opens_of_site = PrefixBudgets(Budget(float("inf")), rate / 2, 5 * rate)
        self._opens_of_block = PrefixBudgets(Budget(float("inf")), rate, 10 * rate)
        self._opens = PrefixBudgets(Budget(40 * rate, 80 * rate), 8 * rate, 40 * rate)
        self._by_flow: OrderedDict[int, _Side] = OrderedDict()  # those renewed longest ago first
        self._by_pair: dict[tuple[bytes, bytes], _Side] = {}
        self._of_node: Counter[bytes] = Counter()
        self._parties = Parties()
        self._refused: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._datagrams = self._bytes = 0

    def open(self, node: bytes, other: bytes, address: Address, lease: float, now: float) -> Opened | None:
        """`node`, proven at `address`, wants a flow with `other` for `lease` seconds; 0 ends it. None: refused.

        Repeating it renews, and moves the flow to the address that it comes from now.
        """
        self.expire(now)
        side = self._by_pair.get((node, other))
        if lease <= 0:
            if side is not None:
                self._end(side)
            return Opened(0, 0, False, None)
        lease = min(lease, self.settings.lease_s)
        if side is None:
            reason = self._refusal(node, other, address, now)
            if reason:
                self._refused[reason] += 1
                return None
            side = self._begin(node, other, address)
        elif side.address != address and not self._move(side, address):
            self._refused["too_many"] += 1
            return None
        side.until = now + lease
        self._by_flow.move_to_end(side.flow)
        twin = side.twin
        came = twin is None and (twin := self._by_pair.get((other, node))) is not None
        if came and twin is not None:
            side.twin, twin.twin = twin, side
        told = (twin.flow, twin.address) if came and twin is not None else None
        return Opened(side.flow, int(lease), twin is not None and twin.until > now, told)

    def forward_untrusted(self, flow: int, datagram: bytes, source: Address, now: float) -> tuple[bytes, Address]:
        """Return the frame to send on and where. Raise BadPacket: `no_flow`, `other_address`, `unpaired`, `over_rate`;
        counted by reason."""
        try:
            side = self._by_flow.get(flow)
            if side is None or side.until <= now:
                raise BadPacket("no_flow")
            if side.address != source:
                raise BadPacket("other_address")
            twin = side.twin
            if twin is None or twin.until <= now:
                raise BadPacket("unpaired")
            if not self._share.admit(side.party, side.site, len(datagram), now):
                raise BadPacket("over_rate")
        except BadPacket as bad:
            self._dropped[bad.reason] += 1
            raise
        self._datagrams += 1
        self._bytes += len(datagram)
        return deliver_frame(twin.flow, datagram), twin.address

    def expire(self, now: float) -> None:
        """End what was not renewed."""
        while self._by_flow and (side := next(iter(self._by_flow.values()))).until <= now:
            self._end(side)

    def statistics(self) -> RelayStatistics:
        pairs = sum(1 for side in self._by_flow.values() if side.twin is not None) // 2
        return RelayStatistics(
            len(self._by_flow), pairs, self._datagrams, self._bytes, dict(self._refused), dict(self._dropped)
        )

    def _refusal(self, node: bytes, other: bytes, address: Address, now: float) -> str:
        """Return why not, or make room."""
        settings = self.settings
        if not settings.enabled:
            return "off"
        if node == other:
            return "itself"
        if self._of_node.get(node, 0) >= settings.max_flows_of_node:
            return "too_many"
        prefix, site = prefix_of(address.ip), site_of(address.ip)
        opens = self._opens_of_site.take(site, now) and self._opens_of_block.take(prefix, now)
        if not opens or not self._opens.take(wide_prefix_of(prefix), now):
            return "too_fast"
        party = self._parties.choose(prefix)
        if not self._make_room(party, site):
            return "too_many"
        return "" if len(self._by_flow) < settings.max_flows or self._displace(party) else "full"

    def _begin(self, node: bytes, other: bytes, address: Address) -> _Side:
        flow = int.from_bytes(self._token_bytes(2), "big")
        while flow in self._by_flow:
            flow = (flow + 1) & MAX_FLOW
        party, site = self._parties.choose(prefix_of(address.ip)), site_of(address.ip)
        side = _Side(flow, node, other, address, party, site, 0.0)
        self._by_flow[flow] = self._by_pair[node, other] = side
        self._of_node[node] += 1
        self._parties.began(party, site)
        return side

    def _move(self, side: _Side, address: Address) -> bool:
        """Whether its new block has room for one more."""
        party, site = self._parties.choose(prefix_of(address.ip)), site_of(address.ip)
        if party != side.party and not self._make_room(party, site):
            return False
        self._left(side)
        side.address, side.party, side.site = address, party, site
        self._parties.began(party, site)
        return True

    def _end(self, side: _Side) -> None:
        del self._by_flow[side.flow], self._by_pair[side.node, side.other]
        self._of_node[side.node] -= 1
        if self._of_node[side.node] <= 0:
            del self._of_node[side.node]
        self._left(side)
        if side.twin is not None:
            side.twin.twin = None

    def _left(self, side: _Side) -> None:
        self._parties.ended(side.party, side.site)
        if not self._parties.sides(side.party):
            self._share.forget(side.party)

    def _make_room(self, party: bytes, site: bytes) -> bool:
        """Whether the party may have one more. When it has all that a block may have, the address with the most of them
        loses its longest unrenewed to a newcomer whose address has fewer: neighbours are not one another."""
        if self._parties.sides(party) < self.settings.max_flows_of_prefix:
            return True
        heaviest, most = self._parties.heaviest_site(party)
        if most <= self._parties.sides_of_site(party, site) + 1:
            return False
        self._end(next(side for side in self._by_flow.values() if side.party == party and side.site == heaviest))
        return True

    def _displace(self, party: bytes) -> bool:
        """Full: the party with the most flows loses, of its address with the most, the longest unrenewed to a newcomer
        whose party has fewer."""
        heaviest, most = self._parties.heaviest()
        if most <= self._parties.sides(party) + 1:
            return False
        site, _ = self._parties.heaviest_site(heaviest)
        self._end(next(side for side in self._by_flow.values() if side.party == heaviest and side.site == site))
        return True
