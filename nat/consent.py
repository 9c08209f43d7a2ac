"""Consent to go on sending (RFC 7675, section 5.1, "Expiration of Consent"), as a pure object.

The other side's answers to our checks are its consent; without one for 30 s nothing more may be sent there.
"""

from __future__ import annotations

import random

__all__ = ["ConsentClock"]

# Fixed by the specification
INTERVAL_S = 5.0
SPREAD = 0.2  # each pause is drawn from 0.8 to 1.2 intervals, so that many sessions do not beat in time
EXPIRES_S = 30.0


class ConsentClock:
    """When to check next, and whether consent is lost. `now`: monotonic seconds."""

    def __init__(self, now: float, rng: random.Random) -> None:
        """Consent was given `now`, by the check that was answered."""
        self._rng = rng
        self.answered_at = now
        self.check_at = now
        self.checked(now)

    def checked(self, now: float) -> None:
        """A check was sent: set the next one, never later than the expiry."""
        pause = INTERVAL_S * self._rng.uniform(1 - SPREAD, 1 + SPREAD)
        self.check_at = min(now + pause, self.answered_at + EXPIRES_S)

    def answered(self, now: float) -> None:
        self.answered_at = now

    def is_lost(self, now: float) -> bool:
        return now - self.answered_at >= EXPIRES_S
