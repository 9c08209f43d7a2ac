"""How much strangers and members may say. Pure objects that take `now` (seconds, monotonic)."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable

from p2pnode import Address

__all__ = ["Buckets", "StrangerGate", "prefix_of"]


class Buckets:
    """Token buckets by key. At most `capacity` keys (about 150 bytes each): the one unused for longest goes first,
    which at worst gives its owner a full bucket again."""

    def __init__(self, *, rate: float, burst: float, capacity: int = 4096) -> None:
        """`rate`: tokens per second, `burst`: the most that can be saved up."""
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, now: float) -> bool:
        """Take one token of `key`; False when there is none."""
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        allowed = level >= 1.0
        self._levels[key] = (level - 1.0 if allowed else level, now)
        if len(self._levels) > self._capacity:
            self._levels.popitem(last=False)
        return allowed

    def __len__(self) -> int:
        return len(self._levels)


class StrangerGate:
    """Whether one more first message of a stranger is taken.

    Limits: 256 open requests; 8 at once and then 1 per 5 minutes from one /24 (IPv4) or /48 (IPv6), so that one
    network cannot fill the list; 32 at once and then 1 per 10 s from everywhere. A household or office behind one
    address that writes to the same person for the first time is well below that.
    """

    MAX_OPEN = 256

    def __init__(self) -> None:
        self._by_prefix = Buckets(rate=1 / 300, burst=8)
        self._all = Buckets(rate=1 / 10, burst=32, capacity=1)

    def admits(self, source: Address, open_requests: int, now: float) -> bool:
        """Judge, and count it when True. `open_requests`: requests that wait for the user's decision."""
        if open_requests >= self.MAX_OPEN:
            return False
        return self._by_prefix.take(prefix_of(source.ip), now) and self._all.take("", now)


def prefix_of(ip: str) -> str:
    """Return the /24 (IPv4) or /48 (IPv6) that `ip` is in."""
    parsed = ipaddress.ip_address(ip.partition("%")[0])
    return str(ipaddress.ip_network((parsed.packed, 24 if parsed.version == 4 else 48), strict=False))
