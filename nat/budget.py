"""Limits on what may be sent because somebody asked for it: pure objects, `now` in monotonic seconds.

C1 (docs/security.md): candidates in an offer may aim at a victim. Whatever the offers say and however many they are, an
address gets at most 10 packets within 12 s before it answers, and a session sends no more than 10 to it at all.
"""

from __future__ import annotations

from collections import OrderedDict

from p2pnode.core.address import Address

__all__ = ["PACKETS_BEFORE_ANSWER", "AddressBudget", "Pace"]

# Fixed by docs/security.md, C1
PACKETS_BEFORE_ANSWER = 10
# Chosen by us
WINDOW_S = 12.0  # as long as one attempt takes: the next attempt to a peer that was not there starts afresh
ANSWERED_FOR_S = 60.0
PROBES = 5  # of path_choice: they go to an address that a connection follows to, beside its own packets
MOVE_PAUSE_S = 1.0  # addresses that take turns (copies of each packet sent from elsewhere) must not make us flap
MAX_ADDRESSES = 2048  # 64 sessions of 15 addresses are 960; about 400 KiB. Beyond it the oldest is forgotten


class Pace:
    """A token bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate`: per second. `burst`: how many may come at once."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def allow(self, now: float) -> bool:
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Entry:
    __slots__ = ("answered_at", "began_at", "sent")

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.sent = 0
        self.answered_at: float | None = None


class AddressBudget:
    """How many packets each address has drawn since it last proved that it wants them."""

    def __init__(self, limit: int = PACKETS_BEFORE_ANSWER, window_s: float = WINDOW_S) -> None:
        self._limit = limit
        self._window_s = window_s
        self._entries: OrderedDict[Address, _Entry] = OrderedDict()

    def spend(self, address: Address, now: float) -> bool:
        """Whether one more packet may go there; it is counted when so."""
        entry = self._entries.get(address)
        if entry is None:
            entry = self._entries[address] = _Entry(now)
            if len(self._entries) > MAX_ADDRESSES:
                self._entries.popitem(last=False)
        if self._is_answered(entry, now):
            return True
        if now - entry.began_at >= self._window_s:
            entry.began_at, entry.sent = now, 0
            self._entries.move_to_end(address)
        if entry.sent >= self._limit:
            return False
        entry.sent += 1
        return True

    def answered(self, address: Address, now: float) -> None:
        """It answered what only it could have received: no limit for a minute."""
        entry = self._entries.setdefault(address, _Entry(now))
        entry.answered_at = now
        self._entries.move_to_end(address)

    def afresh(self, address: Address) -> None:
        """Forget what it drew: it can only now be reached, and may get as much again."""
        self._entries.pop(address, None)

    def is_answered(self, address: Address, now: float) -> bool:
        entry = self._entries.get(address)
        return entry is not None and self._is_answered(entry, now)

    def __len__(self) -> int:
        return len(self._entries)

    def _is_answered(self, entry: _Entry, now: float) -> bool:
        return entry.answered_at is not None and now - entry.answered_at < ANSWERED_FOR_S


class Following:
    """How a connection follows its other side to a new address, and what it may send there unproven (C1, A1).

    That packets come from an address proves nothing: who has the keys can write any source on them (RFC 9000, section
    9.3.1, "Peer Address Spoofing"). An answered probe does; until then ten packets may go, and three times the bytes
    that came.
    """

    def __init__(self, now: float) -> None:
        self._moved_at = now
        self._left: int | None = None  # packets that the new address may still get; None: it has answered a probe
        self._credit = 0

    def move(self, now: float) -> bool:
        """Whether it may move now; taken into account when so."""
        if now - self._moved_at < MOVE_PAUSE_S:
            return False
        self._moved_at, self._left, self._credit = now, PACKETS_BEFORE_ANSWER - PROBES, 0
        return True

    def answered(self) -> None:
        """The address that packets go to has answered a probe."""
        self._left = None

    def heard(self, size: int) -> None:
        """So many bytes came from the address that packets go to, whoever sent them."""
        if self._left is not None:
            self._credit += 3 * size

    @property
    def unlimited(self) -> bool:
        """Whether packets need not be counted."""
        return self._left is None

    def spend(self, size: int) -> bool:
        """Whether one more packet may go; counted when so."""
        if self._left is None:
            return True
        if self._credit >= size:
            self._credit -= size
            return True
        self._left -= 1
        return self._left >= 0
