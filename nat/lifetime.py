"""Between which times of silence a router forgets a mapping. Pure.

RFC 5780, section 4.6 "Binding Lifetime Discovery": mappings are left alone for a while, then called.
"""

from __future__ import annotations

import math

__all__ = ["LifetimeBracket"]


class LifetimeBracket:
    """`low`: a mapping was alive after so many seconds of silence; `high`: one was dead, inf for none."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, math.inf

    def took(self, *, alive: bool, least: float, most: float) -> None:
        """Take a trial: the router saw the mapping silent for at least `least`, at most `most` seconds."""
        if alive:
            self.low = max(self.low, least)
        else:
            self.high = min(self.high, most)

    @property
    def contradictory(self) -> bool:
        """Whether trials contradict each other: lost packets, or a router that forgets early."""
        return self.low >= self.high

    def found(self, max_s: float, step_s: float) -> bool:
        """Whether it is exact enough, or longer than `max_s`."""
        return min(self.high, max_s) - self.low <= step_s

    def spread(self, count: int, max_s: float) -> list[float]:
        """Return silences to try at once: evenly, up to `max_s` as long as nothing has died."""
        width = (min(self.high, max_s) - self.low) / (count if self.high == math.inf else count + 1)
        return [self.low + width * (i + 1) for i in range(count)]

    def next(self, first_s: float, max_s: float) -> float:
        """Return the one silence to try: twice the last as long as nothing has died, then the middle."""
        if self.high == math.inf:
            return min(max_s, max(first_s, 2 * self.low))
        return (self.low + min(self.high, max_s)) / 2
