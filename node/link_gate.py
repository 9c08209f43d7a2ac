"""Whom a node lets link to it by TLS, and how often. Pure.

A handshake costs 0.3 ms and, while it goes on, 60 kB; a link 100 kB and what waits in it (`nat.link.MAX_WAITING`). So
half-open ones, links and handshakes per second are bounded, in all and per block of addresses; a block that has most of
the links loses its oldest when another one's newcomer finds no place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from p2pnode.dht.limits import Budget, PrefixBudgets, prefix_of

__all__ = ["LinkGate", "LinkLimits"]

T = TypeVar("T")


@dataclass(frozen=True)
class LinkLimits:
    """`shaking`: handshakes under way; `rate`: new connections per second. `of_prefix`: of one /24 or /48."""

    links: int = 512
    links_of_prefix: int = 64
    shaking: int = 64
    shaking_of_prefix: int = 8
    rate: float = 50.0
    rate_of_prefix: float = 5.0
    handshake_s: float = 5.0


class LinkGate(Generic[T]):
    """Counts connections from their acceptance to their end."""

    def __init__(self, limits: LinkLimits) -> None:
        self.limits = limits
        self.refused: Counter[str] = Counter()
        self._rates = PrefixBudgets(
            Budget(limits.rate, 2 * limits.rate), limits.rate_of_prefix, 4 * limits.rate_of_prefix
        )
        self._shaking: dict[T, bytes] = {}
        self._links: dict[T, bytes] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._links)

    @property
    def shaking(self) -> int:
        return len(self._shaking)

    def arrived(self, name: T, ip: str, now: float) -> bool:
        """A TCP connection came; False: close it at once, before any work."""
        prefix, limits = prefix_of(ip), self.limits
        if len(self._shaking) >= limits.shaking:
            self.refused["too_many_at_once"] += 1
        elif sum(1 for each in self._shaking.values() if each == prefix) >= limits.shaking_of_prefix:
            self.refused["too_many_of_prefix"] += 1
        elif not self._rates.take(prefix, now):
            self.refused["too_fast"] += 1
        else:
            self._shaking[name] = prefix
            return True
        return False

    def opened(self, name: T) -> tuple[bool, T | None]:
        """Its handshake is done. Return whether it may stay, and which link must go for it."""
        prefix = self._shaking.pop(name)
        of_prefix = Counter(self._links.values())
        loser: T | None = None
        if of_prefix[prefix] >= self.limits.links_of_prefix:
            self.refused["links_of_prefix"] += 1
            return False, None
        if len(self._links) >= self.limits.links:
            heaviest = max(of_prefix, key=of_prefix.__getitem__)
            if of_prefix[heaviest] <= of_prefix[prefix] + 1:
                self.refused["full"] += 1
                return False, None
            loser = next(each for each, block in self._links.items() if block == heaviest)
            del self._links[loser]
        self._links[name] = prefix
        return True, loser

    def left(self, name: T) -> None:
        """It has ended; harmless when it was refused."""
        self._shaking.pop(name, None)
        self._links.pop(name, None)
