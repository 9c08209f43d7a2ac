"""Counters, and the snapshot of them that callers get."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from p2pnode.core.address import Realm

__all__ = ["Counters", "DhtStatistics"]

KINDS = {5: "signed_request", 6: "signed_answer", 7: "sealed", 8: "token", 9: "forgot", 10: "dial_back"}


class Counters:
    """What went in and out, by frame type, and what was dropped, by reason (a fixed set of short words)."""

    def __init__(self) -> None:
        self.datagrams_in: list[int] = [0] * 256
        self.datagrams_out: list[int] = [0] * 256
        self.bytes_in = 0
        self.bytes_out = 0
        self.drops: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.signatures_checked = 0
        self.ignored_contacts = 0


@dataclass(frozen=True, slots=True)
class DhtStatistics:
    """An immutable snapshot. Datagrams by kind: signed_request, signed_answer, sealed, token, forgot, dial_back."""

    contacts: dict[Realm, int] = field(default_factory=dict)
    """Verified contacts per realm."""
    buckets: dict[Realm, int] = field(default_factory=dict)
    records: int = 0
    record_bytes: int = 0
    """Estimated memory of the records."""
    registered: int = 0
    """Nodes that we forward to."""
    forwarded: int = 0
    """Blobs that we handed to their target, confirmed."""
    delivered: int = 0
    """Blobs that were handed to us."""
    sessions: int = 0
    """Peers with agreed keys."""
    pending: int = 0
    """Requests of ours that wait for an answer."""
    datagrams_in: dict[str, int] = field(default_factory=dict)
    datagrams_out: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    """Datagrams dropped, by reason."""
    requests: dict[str, int] = field(default_factory=dict)
    """Requests answered, by kind."""
    refused: dict[str, int] = field(default_factory=dict)
    """Error answers received, by code."""
    signatures_checked: int = 0
    ignored_contacts: int = 0
    """Contacts in answers that were impossible or of another realm."""
    rtt_s: float | None = None
    """Smoothed round trip over all nodes."""
    clock_offset_s: float | None = None
    """How far our clock is ahead of a node that refused us for it; None when none did."""
