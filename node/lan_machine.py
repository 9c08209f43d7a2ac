"""When to speak on the local network, and whom to believe how much. No I/O: takes `now`, gives datagrams and peers.

Everything on a LAN can be forged, also source addresses, so an announcement is worth one small authenticated question
to the announced addresses (the node asks it) and no more. What hostile multicast can cost is bounded here: parsing by
rate (per source and in all), memory by caps, questions by rate. What is dropped is counted by reason.
"""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from p2pnode.core.address import Address, Scope, scope_of
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.lan_wire import TTL_S, Announcement, check_untrusted, encode_announcement, encode_query, read_untrusted

__all__ = ["LanMachine", "LanPeer"]

# All chosen by us, seconds.
START_AT_S = (0.0, 1.0, 3.0)  # RFC 6762 section 8.3 asks for at least two, one second apart; a third for lossy Wi-Fi
REPEAT_S = 60.0
REPEAT_JITTER = 0.1  # share of REPEAT_S either way, so that nodes started together spread out
TTL_MAX_S = 600
ANSWER_DELAY_S = (0.02, 0.12)  # RFC 6762 section 6: many answer the same question
SPEAK_INTERVAL_S = 1.0  # RFC 6762 section 6: no record is multicast twice within a second; bounds forged questions
# A peer is reported again when it says something new, or after this long: the first question may have been lost.
REPORT_INTERVAL_S = 2.5

MAX_PEERS = 256  # a busy office; the flood it bounds: 10,000 forged ids. About 1.5 KB each, 400 KB at worst
MAX_SOURCES = 256  # source addresses whose rate is counted; 100 bytes each
# Parsing costs about 0.1 ms, so 100/s are 1 % of a core. Bursts: 50 nodes on one machine, or 130 that start together.
SOURCE_RATE, SOURCE_BURST = 20.0, 100.0
TOTAL_RATE, TOTAL_BURST = 100.0, 400.0
# Reports: each makes the node send up to 8 questions of about 400 bytes.
REPORT_RATE, REPORT_BURST = 20.0, 64.0


@dataclass(frozen=True)
class LanPeer:
    """A peer as announced: unproven. `source`: where the announcement came from. `name`: harmless, may be empty."""

    peer_id: PeerId
    addresses: tuple[Address, ...]
    source: Address
    name: str = ""
    known: tuple[tuple[PeerId, Address], ...] = ()


@dataclass
class _Bucket:
    """A token bucket: `rate` per second, at most `burst` at once."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    filled_at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class _Entry:
    peer: LanPeer
    expires_at: float
    reported_at: float | None


class LanMachine:
    """Announces one node and remembers the others.

    `describe`: our announcement as it is now (its ttl is filled in here); without addresses nothing is announced.
    `rng`: for jitter. Ask `next_at` after every call, and call `tick` then; send what it returns.
    """

    def __init__(
        self, peer_id: PeerId, network_tag: bytes, describe: Callable[[], Announcement], rng: random.Random
    ) -> None:
        self._peer_id = peer_id
        self._network_tag = network_tag
        self._describe = describe
        self._rng = rng
        self._speak_at: list[float] = []
        self._ask_at: list[float] = []
        self._spoken_at = float("-inf")
        self._query = encode_query(peer_id)
        self._last_sent = b""
        self._peers: dict[PeerId, _Entry] = {}
        self._sources: dict[str, _Bucket] = {}
        self._total = _Bucket(TOTAL_RATE, TOTAL_BURST)
        self._reports = _Bucket(REPORT_RATE, REPORT_BURST)
        self._counts: Counter[str] = Counter()

    def start(self, now: float) -> None:
        """Begin, or begin again after the network changed: announce and ask, three times."""
        offset = max(0.0, self._spoken_at + SPEAK_INTERVAL_S - now)
        self._speak_at = [now + offset + at for at in START_AT_S]
        self._ask_at = list(self._speak_at)

    def next_at(self) -> float | None:
        """When `tick` is due (seconds, monotonic); None before `start`."""
        return min((*self._speak_at, *self._ask_at), default=None)

    def tick(self, now: float) -> list[bytes]:
        """Return the datagrams that are due; forget peers that went silent."""
        for peer_id in [p for p, entry in self._peers.items() if entry.expires_at <= now]:
            del self._peers[peer_id]
        datagrams = []
        if any(at <= now for at in self._ask_at):
            self._ask_at = [at for at in self._ask_at if at > now]
            datagrams.append(self._query)
            self._counts["queries_out"] += 1
        if any(at <= now for at in self._speak_at):
            self._speak_at = [at for at in self._speak_at if at > now]
            own = self._describe()
            if own.addresses:
                datagrams.append(self._encode(own, TTL_S))
                self._spoken_at = now
        if not self._speak_at:
            self._speak_at = [now + REPEAT_S * self._rng.uniform(1 - REPEAT_JITTER, 1 + REPEAT_JITTER)]
        return datagrams

    def goodbye(self) -> bytes:
        """Return the datagram that takes our announcement back."""
        return self._encode(self._describe(), 0)

    def receive(self, data: bytes, source: Address, now: float, own_ips: Collection[str]) -> LanPeer | None:
        """Take a datagram of the group; return the peer to be asked for its key, if any.

        `own_ips`: addresses of this machine. Never raises: what is no good is counted by reason.
        """
        self._counts["datagrams_in"] += 1
        if data in (self._last_sent, self._query):  # multicast brings back what we say
            self._counts["own"] += 1
            return None
        try:
            check_untrusted(data)  # first: printers and televisions must not use up the rates
            self._check_rate(source.ip, now)
            announcement = read_untrusted(data)
            if announcement is None:
                self._hear_query(now)
                return None
            return self._hear(announcement, source, now, own_ips)
        except BadPacket as exc:
            self._counts[f"dropped_{exc.reason}"] += 1
            return None

    def peers(self) -> Mapping[PeerId, LanPeer]:
        """Return who was heard and neither said goodbye nor fell silent, oldest first."""
        return {peer_id: entry.peer for peer_id, entry in self._peers.items()}

    def statistics(self) -> Mapping[str, int]:
        """Return counters: datagrams_in, own, queries_in, queries_out, announcements_in/out, dropped_<reason>."""
        return {**self._counts, "peers": len(self._peers), "sources": len(self._sources)}

    def _encode(self, own: Announcement, ttl: int) -> bytes:
        self._counts["announcements_out"] += 1
        self._last_sent = encode_announcement(replace(own, ttl=ttl))
        return self._last_sent

    def _check_rate(self, ip: str, now: float) -> None:
        """Raise BadPacket("rate"). The source first, so that one loud host does not use up everybody's share."""
        bucket = self._sources.pop(ip, None) or _Bucket(SOURCE_RATE, SOURCE_BURST)
        self._sources[ip] = bucket
        if len(self._sources) > MAX_SOURCES:
            del self._sources[next(iter(self._sources))]
        if not bucket.take(now) or not self._total.take(now):
            raise BadPacket("rate")

    def _hear_query(self, now: float) -> None:
        self._counts["queries_in"] += 1
        answer_at = max(now + self._rng.uniform(*ANSWER_DELAY_S), self._spoken_at + SPEAK_INTERVAL_S)
        if not any(at <= answer_at for at in self._speak_at):
            self._speak_at.append(answer_at)

    def _hear(
        self, announcement: Announcement, source: Address, now: float, own_ips: Collection[str]
    ) -> LanPeer | None:
        if announcement.peer_id == self._peer_id:
            self._counts["own"] += 1
            return None
        if announcement.network_tag != self._network_tag:
            raise BadPacket("other_network")
        self._counts["announcements_in"] += 1
        known = self._peers.get(announcement.peer_id)
        if announcement.ttl == 0:
            # From where it announced itself last: a forged goodbye needs at least a forged source.
            if known is not None and known.peer.source.ip == source.ip:
                del self._peers[announcement.peer_id]
            return None
        addresses = tuple(a for a in announcement.addresses if _is_believable(a.ip, source.ip, own_ips))
        if not addresses:
            raise BadPacket("bad_scope")
        peer = LanPeer(announcement.peer_id, addresses, source, announcement.name, announcement.known)
        entry = _Entry(peer, now + min(announcement.ttl, TTL_MAX_S), known.reported_at if known else None)
        self._peers.pop(peer.peer_id, None)
        self._peers[peer.peer_id] = entry
        if len(self._peers) > MAX_PEERS:
            self._forget_one()
        changed = known is None or known.peer.addresses != addresses
        if not changed and entry.reported_at is not None and now < entry.reported_at + REPORT_INTERVAL_S:
            return None
        if not self._reports.take(now):
            raise BadPacket("report_rate")
        entry.reported_at = now
        return peer

    def _forget_one(self) -> None:
        """The source that announces most loses its oldest: a flood from few addresses pushes nobody else out."""
        by_source = Counter(entry.peer.source.ip for entry in self._peers.values())
        heaviest = max(by_source.values())
        victim = next(p for p, entry in self._peers.items() if by_source[entry.peer.source.ip] == heaviest)
        del self._peers[victim]
        self._counts["forgotten"] += 1


def _is_believable(ip: str, source_ip: str, own_ips: Collection[str]) -> bool:
    """Whether an announced address may be asked for its key, so that nobody is made to knock at strangers' doors.

    Private ones are: the LAN may have several networks. Loopback only when said on this machine; a public one when it
    is the source itself or shares a network (/24, /64) with one of ours. Link-local lacks its interface.
    """
    scope = scope_of(ip)
    if scope is Scope.LOOPBACK:
        return scope_of(source_ip) is Scope.LOOPBACK or source_ip in own_ips
    if scope in (Scope.PRIVATE, Scope.SHARED):
        return True
    if scope in (Scope.PUBLIC, Scope.DOCUMENTATION):
        network = ipaddress.ip_network(f"{ip}/{64 if ':' in ip else 24}", strict=False)
        return ip == source_ip or any(ipaddress.ip_address(own.partition("%")[0]) in network for own in own_ips)
    return False
