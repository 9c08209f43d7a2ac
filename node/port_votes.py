"""Whether a port of the router's leads to us, put to the vote of nodes that dialled it. Pure.

One liar, and a router that works for it, must not make us publish an address that is not ours (security.md, C1): it has
one vote, and it takes more than half of those that tried, two at least where two could be asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["PortVerdict", "PortVotes"]

ENOUGH = 2


@dataclass(frozen=True, slots=True)
class PortVerdict:
    """`ip`: the outside IP address at which our port was reached, None without agreement. `refuted`: most of those
    that tried, two at least, did not get through."""

    ip: str | None
    refuted: bool


class PortVotes:
    """Of one check. A voter is an address block, where there are several."""

    def __init__(self, *, known: int, asked: int) -> None:
        """`known`: voters that there are; `asked`: how many of them are asked (4 at most: four small entries)."""
        self._known, self._asked = known, asked
        self._tried: set[Hashable] = set()
        self._reached: dict[Hashable, str] = {}

    def tried(self, voter: Hashable) -> None:
        """It says that it has sent us a frame."""
        self._tried.add(voter)

    def reached(self, voter: Hashable, ip: str) -> None:
        """Its frame came; it had sent it to `ip`, as it says."""
        self._tried.add(voter)
        self._reached.setdefault(voter, ip)

    @property
    def settled(self) -> bool:
        """Whether those that have yet to answer change nothing."""
        return self._count()[1] >= self._needed(self._asked)

    @property
    def verdict(self) -> PortVerdict:
        ip, count = self._count()
        refuted = len(self._tried) >= ENOUGH and 2 * len(self._reached) < len(self._tried)
        return PortVerdict(ip if count >= self._needed(len(self._tried)) else None, refuted)

    def _count(self) -> tuple[str | None, int]:
        most = Counter(self._reached.values()).most_common(1)
        return most[0] if most else (None, 0)

    def _needed(self, voters: int) -> int:
        return max(voters // 2 + 1, min(ENOUGH, self._known))
