"""A rate that is shared fairly: who wants less than an equal part gets all he wants, the others share the rest. Pure.

Max-min fairness (Bertsekas and Gallager, "Data Networks", section 6.5.2 "Max-Min Flow Control"), from what each offered
within the last window: the level is where the sum of min(offered, level) fills the whole. A bucket over all keeps the
total also while the level does not know yet of those that just began; who stays below an equal part is not held to it.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["FairShare", "NestedShare", "level_of"]

WINDOW_S = 0.25
BURST_S = 0.25  # what a bucket holds, in seconds of its rate; above a round trip's burst of one QUIC connection
FIRST_BYTES = 16_384.0  # what somebody new may send before he has a level: a handshake
KEPT_S = 60.0  # an account that was silent for so long is forgotten


def level_of(offered: Iterable[float], total: float) -> float:
    """Return the level L with sum(min(each, L)) = total; infinite when all together offer no more than `total`."""
    rates = sorted(offered)
    left, count = total, len(rates)
    for place, rate in enumerate(rates):
        if rate * (count - place) >= left:
            return left / (count - place)
        left -= rate
    return float("inf")


class _Account:
    __slots__ = ("at", "offered", "sure", "tokens")

    def __init__(self, now: float) -> None:
        self.at = now
        self.tokens = self.sure = FIRST_BYTES
        self.offered = 0.0


class FairShare:
    """Admits bytes of many parties. Memory: 100 bytes for each that sent within the last minute; the caller bounds how
    many there can be."""

    def __init__(self, total: float, each: float) -> None:
        """`total`: bytes per second of all; `each`: of one party, however idle the rest."""
        self.total, self.each = total, each
        self.level = each
        self._equal = each
        self._accounts: dict[bytes, _Account] = {}
        self._window_at = 0.0
        self._left = total * BURST_S
        self._left_at = 0.0

    def admit(self, who: bytes, size: int, now: float) -> bool:
        """Whether `size` bytes of `who` may pass; they are used up when so."""
        if now - self._window_at >= WINDOW_S:
            self._roll(now)
        account = self._accounts.get(who)
        if account is None:
            account = self._accounts[who] = _Account(now)
        account.offered += size
        passed = now - account.at
        burst = max(FIRST_BYTES, self.level * BURST_S)
        account.tokens = min(burst, account.tokens + passed * self.level)
        account.sure = min(FIRST_BYTES, account.sure + passed * self._equal)
        account.at = now
        self._left = min(self.total * BURST_S, self._left + (now - self._left_at) * self.total)
        self._left_at = now
        if account.sure >= size:
            account.sure -= size  # the sum of all equal parts is the total: `_left` may become negative for a moment
        elif account.tokens < size or self._left < size:
            return False
        account.tokens = max(0.0, account.tokens - size)
        self._left -= size
        return True

    def refused(self, who: bytes, size: int) -> None:
        """Somebody else has refused these bytes of `who`, which he wanted all the same."""
        if (account := self._accounts.get(who)) is not None:
            account.offered += size

    def __len__(self) -> int:
        return len(self._accounts)

    def _roll(self, now: float) -> None:
        span = max(WINDOW_S, now - self._window_at)
        self._window_at = now
        wanted = [min(self.each, account.offered / span) for account in self._accounts.values() if account.offered]
        self.level = min(self.each, level_of(wanted, self.total))
        self._equal = min(self.each, self.total / max(1, len(wanted)))
        for who, account in list(self._accounts.items()):
            account.offered = 0.0
            if now - account.at > KEPT_S:
                del self._accounts[who]


class NestedShare:
    """A rate shared fairly among parties, and the part of each among its members. Memory: as `FairShare`, for parties
    and for members; the caller says when a party has ended."""

    def __init__(self, total: float, each: float) -> None:
        """`total`: bytes per second of all; `each`: of one party, however idle the rest."""
        self._parties = FairShare(total, each)
        self._members: dict[bytes, FairShare] = {}

    def admit(self, party: bytes, member: bytes, size: int, now: float) -> bool:
        """Whether `size` bytes of a party's member may pass; they are used up when so."""
        within = self._members.get(party)
        level = self._parties.level
        if within is None:
            within = self._members[party] = FairShare(level, level)
        within.total = within.each = level
        if not within.admit(member, size, now):
            self._parties.refused(party, size)
            return False
        return self._parties.admit(party, size, now)

    def forget(self, party: bytes) -> None:
        """It has no members any more; what it has used of late is remembered."""
        self._members.pop(party, None)
