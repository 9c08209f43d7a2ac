"""What is noted of an ICE attempt: per remote address, and in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from p2pnode.core.address import Address
from p2pnode.nat.candidates import CandidateKind

__all__ = ["CheckReport", "CheckState", "IceStatistics", "Record"]

CheckState = Literal["waiting", "checking", "heard", "answered"]


@dataclass(frozen=True)
class CheckReport:
    """What came of one remote address, for the trace.

    `state`: `heard` when its checks reach us but it has not answered ours. `sent`: checks sent. `rtt_s`: seconds.
    `own`: our address as it sees it.
    """

    address: Address
    kind: CandidateKind
    state: CheckState
    sent: int
    rtt_s: float | None
    own: Address | None


@dataclass(frozen=True)
class IceStatistics:
    """A snapshot; `dropped` counts by reason."""

    sessions: int
    checks_sent: int
    checks_received: int
    answers_sent: int
    dropped: Mapping[str, int]


class Record:
    """What happened with one remote address."""

    def __init__(self, kind: CandidateKind) -> None:
        self.kind: CandidateKind = kind
        self.sent = 0
        self.spent = 0
        self.heard = False
        self.answered = False
        self.rtt_s: float | None = None
        self.own: Address | None = None

    @property
    def state(self) -> CheckState:
        if self.answered:
            return "answered"
        if self.heard:
            return "heard"
        return "checking" if self.sent else "waiting"
