"""Percentiles of samples, and the names of the figures that they become.

A percentile here is always a value that was measured (*nearest rank*): the smallest one that at least p % of all
values do not exceed. No interpolation: with few values it would invent some.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["PERCENTS", "figure_name", "figures_of", "percentile"]

PERCENTS = (50, 90, 99)
_UNIT = re.compile(r"(?:_per_[a-z0-9_]+|_(?:s|ms|us|bytes|share|success))$")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted values. Raise ValueError when there are none."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def figure_name(sample: str, part: str) -> str:
    """Put `part` before the unit: (`lookup_s`, `p50`) gives `lookup_p50_s`; (`hops`, `max`) gives `hops_max`.

    Likewise before what it is counted per: (`bytes_per_lookup`, `p50`) gives `bytes_p50_per_lookup`.
    """
    match = _UNIT.search(sample)
    unit = match.group(0) if match else ""
    return f"{sample.removesuffix(unit)}_{part}{unit}"


def figures_of(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return p50, p90, p99 and max of each sample set by figure name; nothing of an empty set.

    Of what is counted per something (`datagrams_per_lookup`) the mean is a figure as well, under the set's own name.
    """
    figures: dict[str, float] = {}
    for name, values in samples.items():
        if not values:
            continue
        ordered = sorted(values)
        if "_per_" in name:
            figures[name] = math.fsum(ordered) / len(ordered)
        for percent in PERCENTS:
            figures[figure_name(name, f"p{percent}")] = percentile(ordered, percent)
        figures[figure_name(name, "max")] = ordered[-1]
    return figures
