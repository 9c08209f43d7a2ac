"""Budgets: how often something may happen, in all and per address prefix. Pure; callers pass `now`."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache

from p2pnode.core.address import Address

__all__ = [
    "Budget",
    "Diversity",
    "NonceCache",
    "PrefixBudgets",
    "SentLog",
    "any_crowded",
    "crowded_among",
    "prefix_of",
    "wide_prefix_of",
]

PER_PREFIX = 2
PER_WIDE_PREFIX = 8


@lru_cache(maxsize=8192)
def prefix_of(ip: str) -> bytes:
    """Return the block that one person gets easily: /24 of IPv4 (3 bytes), /48 of IPv6 (6 bytes)."""
    packed = ipaddress.ip_address(ip.partition("%")[0]).packed
    return packed[:3] if len(packed) == 4 else packed[:6]


def wide_prefix_of(prefix: bytes) -> bytes:
    """Return the /32 of an IPv6 prefix (what a provider gets); IPv4's stays as it is."""
    return prefix[:4] if len(prefix) == 6 else prefix


class Diversity:
    """How many of each address block there are in a bucket, a shortlist, an answer, among a record's holders.

    Crowded: 2 of a /24 or /48, and 8 of an IPv6 /32. Who comes then only fills places that others leave empty
    (security.md S1). At most two entries for each that was counted.
    """

    __slots__ = ("_counts",)

    def __init__(self, prefixes: Iterable[bytes] = ()) -> None:
        self._counts: dict[bytes, int] = {}
        for prefix in prefixes:
            self.count(prefix)

    def crowded(self, prefix: bytes) -> bool:
        """Whether one more would be too many. `prefix`: of `prefix_of`."""
        counts = self._counts
        if counts.get(prefix, 0) >= PER_PREFIX:
            return True
        return len(prefix) == 6 and counts.get(wide_prefix_of(prefix), 0) >= PER_WIDE_PREFIX

    def over(self, prefix: bytes) -> bool:
        """Whether there are too many already."""
        counts = self._counts
        return counts.get(prefix, 0) > PER_PREFIX or (
            len(prefix) == 6 and counts.get(wide_prefix_of(prefix), 0) > PER_WIDE_PREFIX
        )

    def count(self, prefix: bytes) -> None:
        """One more of this block."""
        counts = self._counts
        counts[prefix] = counts.get(prefix, 0) + 1
        if len(prefix) == 6:
            wide = wide_prefix_of(prefix)
            counts[wide] = counts.get(wide, 0) + 1


def any_crowded(prefixes: list[bytes]) -> bool:
    """Whether any block has more than its share. Cheap where each IPv4 block is there once, the usual case."""
    different = set(prefixes)
    if len(different) == len(prefixes) and (not different or len(max(different, key=len)) == 3):
        return False
    present = Diversity(prefixes)
    return any(present.over(prefix) for prefix in different)


def crowded_among(prefixes: list[bytes], prefix: bytes) -> bool:
    """Return `Diversity(prefixes).crowded(prefix)`, at a fifth of the cost: every sign of life of those without a place
    in the table asks."""
    if prefixes.count(prefix) >= PER_PREFIX:
        return True
    if len(prefix) != 6:
        return False
    wide = wide_prefix_of(prefix)
    return sum(other.startswith(wide) for other in prefixes if len(other) == 6) >= PER_WIDE_PREFIX


class Budget:
    """A token bucket: `rate` per second, at most `burst` at once."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self.rate = rate
        self.burst = rate if burst is None else burst
        self._left = self.burst
        self._at = 0.0

    def available(self, now: float) -> bool:
        if now > self._at:
            self._left = min(self.burst, self._left + (now - self._at) * self.rate)
            self._at = now
        return self._left >= 1

    def take(self, now: float) -> bool:
        """Use one up and return True, or return False when none is left."""
        if not self.available(now):
            return False
        self._left -= 1
        return True


class PrefixBudgets:
    """A budget per prefix under a common one.

    Remembers 4,096 prefixes (about 300 bytes each): legitimate first contacts come from a few hundred in a minute. A
    flood from more prefixes than that starts each with a full budget, and then the common one holds.
    """

    MAX_PREFIXES = 4_096

    def __init__(self, total: Budget, rate: float, burst: float | None = None) -> None:
        self._total = total
        self._rate, self._burst = rate, burst
        self._budgets: OrderedDict[bytes, Budget] = OrderedDict()

    def take(self, prefix: bytes, now: float) -> bool:
        budget = self._budgets.get(prefix)
        if budget is None:
            budget = self._budgets[prefix] = Budget(self._rate, self._burst)
            if len(self._budgets) > self.MAX_PREFIXES:
                self._budgets.popitem(last=False)
        else:
            self._budgets.move_to_end(prefix)
        # The own budget first: a prefix over its own limit must not eat the common one.
        return budget.available(now) and self._total.take(now) and budget.take(now)

    def __len__(self) -> int:
        return len(self._budgets)


class SentLog:
    """Where we sent anything: a NAT or firewall in front of us may let answers in from there.

    Remembers 8,192 addresses (about 200 bytes each), the oldest forgotten first: mappings live for minutes, and a node
    that sends to thousands of addresses in that time serves already.
    """

    MAX = 8_192

    def __init__(self) -> None:
        self._addresses: dict[Address, None] = {}
        self._ips: dict[str, int] = {}

    def note(self, address: Address) -> None:
        if address in self._addresses:
            return
        self._addresses[address] = None
        self._ips[address.ip] = self._ips.get(address.ip, 0) + 1
        if len(self._addresses) > self.MAX:
            oldest = next(iter(self._addresses))
            del self._addresses[oldest]
            self._ips[oldest.ip] -= 1
            if not self._ips[oldest.ip]:
                del self._ips[oldest.ip]

    def __contains__(self, address: Address) -> bool:
        return address in self._addresses

    def knows_ip(self, ip: str) -> bool:
        return ip in self._ips

    def __len__(self) -> int:
        return len(self._addresses)


class NonceCache:
    """Remembers nonces of verified requests for as long as their wall time is in the window; bounded."""

    def __init__(self, cap: int, life: float) -> None:
        self._cap, self._life = cap, life
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, nonce: bytes) -> bool:
        return nonce in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, nonce: bytes, now: float) -> None:
        seen = self._seen
        seen[nonce] = now
        while len(seen) > self._cap or next(iter(seen.values())) < now - self._life:
            seen.popitem(last=False)
