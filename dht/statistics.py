"""Counters, and the snapshot of them that callers get."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pnode.dht.overlay import Overlay

__all__ = ["LOOKUP_BOUNDS_S", "Counters", "DhtStatistics", "Histogram", "kinds_of"]

KINDS = {5: "signed_request", 6: "signed_answer", 7: "sealed", 8: "token", 9: "forgot", 10: "dial_back"}


LOOKUP_BOUNDS_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0, 10.0)


def kinds_of(counts: list[int]) -> dict[str, int]:
    """Return what was counted by frame type under the types' names."""
    return {name: counts[kind] for kind, name in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values were at most each bound: `counts` has one more than `bounds`, for what is above all."""

    bounds: tuple[float, ...] = LOOKUP_BOUNDS_S
    counts: list[int] = field(default_factory=lambda: [0] * (len(LOOKUP_BOUNDS_S) + 1))
    sums: list[float] = field(default_factory=lambda: [0.0])

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sums[0] += value

    def copy(self) -> Histogram:
        return Histogram(self.bounds, list(self.counts), list(self.sums))


class Counters:
    """What went in and out, by frame type, and what was dropped, by reason (a fixed set of short words)."""

    def __init__(self) -> None:
        self.datagrams_in: list[int] = [0] * 256
        self.datagrams_out: list[int] = [0] * 256
        self.bytes_in_by: list[int] = [0] * 256
        self.bytes_out_by: list[int] = [0] * 256
        self.drops: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.signatures_checked = 0
        self.verify_s = 0.0
        self.ignored_contacts = 0
        self.regions = 0
        self.lookups = Histogram()
        self.clock: Callable[[], float] = lambda: 0.0
        """For `timed`; set by the shell, since the engine itself is given its time."""

    @property
    def bytes_in(self) -> int:
        return sum(self.bytes_in_by)

    @property
    def bytes_out(self) -> int:
        return sum(self.bytes_out_by)

    def verified(self, verify: Callable[[bytes, bytes], bool], signature: bytes, signed: bytes) -> bool:
        """Return `verify(signature, signed)`, counted and timed: it never waits, so its time is the processor's."""
        started = self.clock()
        holds = verify(signature, signed)
        self.signatures_checked += 1
        self.verify_s += self.clock() - started
        return holds


@dataclass(frozen=True, slots=True)
class DhtStatistics:
    """An immutable snapshot. Datagrams by kind: signed_request, signed_answer, sealed, token, forgot, dial_back."""

    contacts: dict[Overlay, int] = field(default_factory=dict)
    """Verified contacts per table: realm and address family."""
    records: int = 0
    record_bytes: int = 0
    """Estimated memory of the records."""
    topic_entries: int = 0
    topic_shards: int = 0
    topic_bytes: int = 0
    """Estimated memory of the topic entries."""
    registered: int = 0
    """Nodes that we forward to."""
    forwarded: int = 0
    """Blobs that we handed to their target, confirmed."""
    delivered: int = 0
    """Blobs that were handed to us."""
    watches: int = 0
    """Leases of nodes that we tell of changes."""
    notices: int = 0
    """Changes that we told, confirmed."""
    sessions: int = 0
    """Peers with agreed keys."""
    regions: int = 0
    """Searches of a whole region, because the ids near a key were denser than chance allows."""
    pending: int = 0
    """Requests of ours that wait for an answer."""
    datagrams_in: dict[str, int] = field(default_factory=dict)
    datagrams_out: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_in_by: dict[str, int] = field(default_factory=dict)
    """The same by kind."""
    bytes_out_by: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    """Datagrams dropped, by reason."""
    requests: dict[str, int] = field(default_factory=dict)
    """Requests answered, by kind."""
    refused: dict[str, int] = field(default_factory=dict)
    """Error answers received, by code."""
    signatures_checked: int = 0
    verify_s: float = 0.0
    """Processor seconds in the signatures of requests and answers."""
    lookups: Histogram = field(default_factory=Histogram)
    """Seconds of the lookups that ended."""
    estimated_nodes: dict[Overlay, float] = field(default_factory=dict)
    """How many nodes serve, from how near the nearest are."""
    by_bucket: dict[Overlay, tuple[int, ...]] = field(default_factory=dict)
    """Verified contacts in each bucket, the far half of the ids first."""
    ignored_contacts: int = 0
    """Contacts in answers that were impossible or of another realm."""
    rtt_s: float | None = None
    """Smoothed round trip over all nodes."""
    clock_offset_s: float | None = None
    """How far our clock is ahead of a node that refused us for it; None when none did."""
