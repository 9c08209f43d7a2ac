"""How a cost grows with the number of nodes: a + b log10(n), as every DHT of the Kademlia kind should.

Kademlia (2002), section 3, "Sketch of proofs": a lookup takes O(log n) steps. The fit is by least squares; what it says
of a size that was not tried comes with the 95 % prediction interval by Student's t, which widens with the distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.simulations.report.bands import t_quantile

__all__ = ["FAR", "Fit", "fit"]

FAR = 1_000_000
POINTS_MIN = 3


@dataclass(frozen=True)
class Fit:
    """value = a + b log10(n). `error`: standard error of a residual. `points`: how many it was fitted to."""

    a: float
    b: float
    error: float
    points: int
    middle: float
    spread: float

    def at(self, size: float) -> float:
        return self.a + self.b * math.log10(size)

    def half_width(self, size: float) -> float:
        """Return half of the 95 % prediction interval at a size."""
        far = (math.log10(size) - self.middle) ** 2 / self.spread
        return t_quantile(self.points - 2) * self.error * math.sqrt(1 + 1 / self.points + far)


def fit(points: Sequence[tuple[float, float]]) -> Fit | None:
    """Fit (size, value) points; None with fewer than three of them or fewer than two sizes, or sizes below 1."""
    if len(points) < POINTS_MIN or any(size < 1 for size, _ in points):
        return None
    xs = [math.log10(size) for size, _ in points]
    middle = math.fsum(xs) / len(xs)
    spread = math.fsum((x - middle) ** 2 for x in xs)
    if spread == 0:
        return None
    mean = math.fsum(value for _, value in points) / len(points)
    b = math.fsum((x - middle) * (value - mean) for x, (_, value) in zip(xs, points, strict=True)) / spread
    a = mean - b * middle
    squares = math.fsum((value - a - b * x) ** 2 for x, (_, value) in zip(xs, points, strict=True))
    return Fit(a, b, math.sqrt(squares / (len(points) - 2)), len(points), middle, spread)
