"""Confidence bands over runs that differ in their seed only.

The band is the two-sided 95 % interval of the mean by Student's t, which holds for as few as two runs (a bootstrap of
so few is too narrow). Runs of different seeds are independent, which values within one run are not: so bands are made
over runs, never over the samples of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CONFIDENCE", "Band", "band", "t_quantile"]

CONFIDENCE = 0.95
# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom (any statistics textbook).
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z = 1.959964


@dataclass(frozen=True)
class Band:
    """The mean of `n` runs, its 95 % interval, and the runs' standard deviation; one run has no interval."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    n: int


def t_quantile(freedom: float) -> float:
    """Return the two-sided 95 % point of Student's t. `freedom`: 1 or more, need not be whole (Welch)."""
    if freedom < 1:
        raise ValueError("at least one degree of freedom")
    if freedom > len(_T95):
        # Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5: three terms give four digits here.
        z, v = _Z, freedom
        return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    whole = int(freedom)
    low, high = _T95[whole - 1], _T95[min(whole, len(_T95) - 1)]
    return low + (high - low) * (freedom - whole)


def band(values: Sequence[float], *, share: bool = False) -> Band:
    """Return mean and interval. `share`: between 0 and 1, and so is its interval. Raise ValueError without values."""
    n = len(values)
    if not n:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Band(mean, None, None, None, 1)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    low, high = mean - half, mean + half
    if min(values) >= 0:  # times, sizes, counts: nothing of ours that is never negative could be
        low = max(0.0, low)
    if share:
        high = min(1.0, high)
    return Band(mean, low, high, sd, n)
