"""How large a network is, by our own searches, and whether ids near a key are denser than chance allows. Pure.

Whoever grinds keys until twenty of their ids are nearer to a victim's key than everybody else's would hold, and hide,
all of its records (Sridhar, Ascigil, Keizer et al., "Content Censorship in the InterPlanetary File System", NDSS 2024).
Honest ids are uniform: with n nodes, n times the i-th smallest distance (as a share of the id space) has the Gamma
distribution of shape i. Where the i nearest are nearer than that ever happens, searches take in the whole *region* in
which twenty honest nodes are to be expected (the same paper, section VII; the remedy there as here).

That paper compares histograms of common-prefix lengths (KL divergence), which an attacker can shape ("Active Sybil
Attack and Efficient Defense Strategy in IPFS DHT", arXiv 2505.01139). Judging each of the i nearest bounds what shaping
can gain: an attack that is not noticed leaves about seven honest nodes among the twenty nearest.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["DENSE_BY_CHANCE", "REGION_MOST", "SizeEstimate", "is_dense", "region_aims", "region_radius"]

ID_BITS = 160
ID_SPACE = 2**ID_BITS
GROWING_SEARCHES = 4  # in which growth is still believed to go on ...
GROWTH = 2.0  # ... up to so many times the newest estimate
SAMPLES = 16  # searches remembered, about 150 bytes each
DENSE_BY_CHANCE = 2e-5  # that i uniform ids are so near; with the estimate's own error, alarms stay below 1 %
FEWEST = 4  # ids that are judged
REGION_NODES = 20  # honest nodes to be expected in the region
REGION_MOST = 80  # nodes asked in it
AIM_NODES = 1.0  # parts of the region with fewer expected nodes are not searched on their own


class SizeEstimate:
    """Estimates from the k nearest of different searches: for random ids, our own records, others' records.

    Each is (k - 1) / (distance of the k-th), unbiased, with a standard error of 24 % for k = 20. Ground ids raise the
    estimates of the searches that meet them, never the others: `cautious` is the lower quartile, which holds while a
    quarter of the searches met none.
    """

    def __init__(self) -> None:
        self._samples: OrderedDict[bytes, float] = OrderedDict()
        self._growing = 0
        self.begun = False
        """Whether the first search for a random id was begun: several writes at once need one only."""

    def __len__(self) -> int:
        return len(self._samples)

    def learned(self, target: bytes, distances: Sequence[int]) -> None:
        """A search for `target` ended with all of the k nearest; `distances`: ascending, two at least."""
        self._growing = max(0, self._growing - 1)
        self._samples.pop(target, None)
        self._samples[target] = 1.0 + (len(distances) - 1) * ID_SPACE / max(1, distances[-1])
        if len(self._samples) > SAMPLES:
            self._samples.popitem(last=False)

    def others(self, target: bytes) -> int:
        """Return how many searches for other ids are remembered."""
        return len(self._samples) - (target in self._samples)

    def outdated(self, newest: int) -> None:
        """The network has grown: remember only the `newest` searches, and be lenient in the next ones."""
        while len(self._samples) > newest:
            self._samples.popitem(last=False)
        self._growing = GROWING_SEARCHES

    def may_have_grown(self, target: bytes, distances: Sequence[int]) -> bool:
        """Whether what looks dense is explained by a network that was seen to grow a few searches ago: each newcomer of
        a network that doubles in seconds would otherwise search for random ids again and again."""
        return self._growing > 0 and not is_dense(distances, GROWTH * self.newest(target))

    def newest(self, target: bytes) -> float:
        """Return the lower of what the two newest searches for ids other than `target` told; 0.0 without any."""
        others = [size for other, size in self._samples.items() if other != target]
        return min(others[-2:], default=0.0)

    def median(self, own: float) -> float:
        """Return the median of all, and of `own`, the estimate from our own neighbourhood."""
        ordered = sorted([own, *self._samples.values()])
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def cautious(self, target: bytes) -> float | None:
        """Return the lower quartile of searches for ids other than `target`; None without any."""
        ordered = sorted(size for other, size in self._samples.items() if other != target)
        return ordered[(len(ordered) - 1) // 4] if ordered else None


def is_dense(
    distances: Sequence[int], size: float, by_chance: float = DENSE_BY_CHANCE, *, fewest: int = FEWEST
) -> bool:
    """Whether the i nearest, for any i from `fewest` on, are nearer than happens with the probability `by_chance`
    among `size` nodes.

    `distances`: of the nearest that answered, ascending. P(Gamma(i) < x) = P(Poisson(x) >= i).
    """
    for count in range(fewest, len(distances) + 1):
        expected = size * distances[count - 1] / ID_SPACE
        if expected < count and _at_least(count, expected) < by_chance:
            return True
    return False


def _at_least(count: int, expected: float) -> float:
    """Return P(Poisson(expected) >= count). The terms fall from the first on: expected < count."""
    term = math.exp(-expected + count * math.log(expected) - math.lgamma(count + 1)) if expected > 0 else 0.0
    total, i = term, count
    while term > total * 1e-6:
        i += 1
        term *= expected / i
        total += term
    return total


def region_radius(size: float) -> int:
    """Return the distance within which twenty honest nodes are to be expected."""
    return int(ID_SPACE * min(1.0, REGION_NODES / size))


def region_aims(target: bytes, size: float) -> list[bytes]:
    """Return ids, one in each larger part of the region, whose nearest nodes are that part's.

    Who is asked for the target tells only the ground ids, which are nearer than all others. The parts are those that
    differ from the target in one of the bits behind the region's; each has half as many nodes as the one before.
    """
    goal = int.from_bytes(target, "big")
    bit = min(region_radius(size).bit_length(), ID_BITS) - 1  # below twenty nodes the region is everything
    aims: list[bytes] = []
    while bit >= 0 and size * 2.0 ** (bit - ID_BITS) >= AIM_NODES:
        aims.append((goal ^ (1 << bit)).to_bytes(ID_BITS // 8, "big"))
        bit -= 1
    return aims
