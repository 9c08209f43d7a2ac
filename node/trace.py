"""What an attempt tried and what answered, for people and for `connect --json`."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Trace", "TraceStep"]

MAX_STEPS = 200  # a connect to 10 addresses leaves about 30; bounds what a hostile presence can make us keep


@dataclass(frozen=True)
class TraceStep:
    """`at_s`: seconds since the attempt began; `step`: what was tried; `result`: what came of it."""

    at_s: float
    step: str
    result: str


@dataclass
class Trace:
    """The steps of one attempt, in order of time. `started_at`: monotonic seconds."""

    started_at: float
    steps: list[TraceStep] = field(default_factory=list)

    def add(self, now: float, step: str, result: str) -> None:
        """Note a step; beyond 200 the rest is not kept."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(TraceStep(round(now - self.started_at, 4), step, result))
