"""How often somebody who was reported is chosen. Pure; times are Unix seconds.

Everybody draws the same lot for a device: five minutes long it is chosen or it is not, whoever looks and however often
it tries. So a reported device that asks a hundred strangers is not chosen more often than one that waits, as it would
be if each drew a lot of his own.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping

__all__ = ["Board", "is_drawn", "next_slot", "strength_of", "weight_of"]

# Chosen by us; all nodes must agree for the lots to be the same.
FRESH_S = 86_400.0  # how long a report counts in full
STALE_S = 7 * 86_400.0  # when it counts no more
FREE = 1.0  # one report alone changes nothing: anybody can have one bad day, or meet one spiteful stranger
HALVED_BY = 2.0  # reports beyond that halve how often somebody is chosen
LEAST = 1 / 8  # nobody is shut out: what twenty sybils say is no proof
SLOT_S = 300.0
_LOT = b"p2pnode/1/random-lot"

MAX_DEVICES = 1_024  # whose reports are remembered; the one not met for longest goes first
MAX_REPORTS = 64  # of each: 64 kB with 1,024 devices of one report, 5 MB at worst


def strength_of(reports: Iterable[float], now: float) -> float:
    """Return what reports, by the start of their conversations, count together at `now`."""
    return sum(min(1.0, max(0.0, 1.0 - (now - at - FRESH_S) / (STALE_S - FRESH_S))) for at in reports)


def weight_of(strength: float) -> float:
    """Return how often somebody is chosen, 1: as often as everybody. Ten fresh reports: 0.18."""
    return max(LEAST, 1.0 / (1.0 + max(0.0, strength - FREE) / HALVED_BY))


def is_drawn(device: bytes, strength: float, now: float) -> bool:
    """Whether a blinded id is chosen in the five minutes round `now`."""
    weight = weight_of(strength)
    if weight >= 1.0:
        return True
    slot = int(now // SLOT_S).to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(_LOT + slot + device).digest()[:8], "big") < weight * 2**64


def next_slot(now: float) -> float:
    """Return the seconds until lots are drawn anew."""
    return SLOT_S - now % SLOT_S


class Board:
    """Valid reports that were seen, by device and reporter: they count while their reporters are away, too."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, dict[bytes, float]] = OrderedDict()

    def add(self, device: bytes, reports: Mapping[bytes, float]) -> dict[bytes, float]:
        """Note valid reports by reporter (start of the conversation); return those that are news. The first of a
        reporter counts: he cannot make it younger."""
        if not reports and device not in self._seen:
            return {}  # anybody can name devices that do not exist: they take no place
        known = self._seen.setdefault(device, {})
        self._seen.move_to_end(device)
        news: dict[bytes, float] = {}
        for reporter, at in reports.items():
            if reporter not in known and len(known) < MAX_REPORTS:
                known[reporter] = news[reporter] = at
        if len(self._seen) > MAX_DEVICES:
            self._seen.popitem(last=False)
        return news

    def reports(self, device: bytes) -> int:
        """Return how many reporters a device has."""
        return len(self._seen.get(device, {}))

    def strength(self, device: bytes, now: float) -> float:
        return strength_of(self._seen.get(device, {}).values(), now)

    def is_drawn(self, device: bytes, now: float) -> bool:
        return is_drawn(device, self.strength(device, now), now)
