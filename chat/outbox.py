"""What one device still has to get, in order, and when to try again. Pure; `now` is monotonic seconds.

Rules. Messages leave in the order in which they were written. On a new stream everything unacknowledged goes again,
oldest first: the receiver knows duplicates by their id. When the other side says "later" (its user has not decided
about us yet, its disk is full), nothing is sent for a while, then one message as a probe: so the order stays, and a
receiver that does not want us is not flooded. A link has one queue for messages to the hall and one for the others: who
does not take our direct messages yet still hears what we say to all.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence

from p2pnode.chat.store import OutboxItem

__all__ = ["FINAL_REFUSALS", "DeviceQueue", "retry_delay"]

# Chosen by us.
WINDOW = 64  # messages on their way to one device: 1 MB at most, and 64 per round trip
IN_MEMORY = 128  # messages of one device kept in memory (2 MB at most); the rest waits on disk
ACK_TIMEOUT_S = 20.0  # a receiver that answers nothing for so long gets a new stream
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
HOLD_FIRST_S, HOLD_MAX_S = 2.0, 60.0
FINAL_REFUSALS = frozenset({"blocked", "not_member"})
"""Codes after which a message is not sent again; any other, also unknown ones, means later."""


def retry_delay(failures: int, rng: random.Random) -> float:
    """Return the seconds until the next attempt after `failures` (1 or more) in a row: 1, 2, 4 ... 60, +-20 %.

    The spread keeps a crowd that lost the same peer from coming back in step.
    """
    return min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(failures - 1, 10)) * rng.uniform(0.8, 1.2)


class DeviceQueue:
    """The unacknowledged messages of one kind for one device."""

    def __init__(self) -> None:
        self._unsent: deque[OutboxItem] = deque()
        self._in_flight: dict[bytes, OutboxItem] = {}
        self._newest = 0
        self._hold_s = 0.0
        self._held_until = 0.0
        self._progress_at = 0.0
        self.more_on_disk = False
        """Whether the outbox on disk holds more than is here: load it when `wants_more`."""

    @property
    def pending(self) -> bool:
        """Whether anything is not acknowledged yet."""
        return bool(self._unsent or self._in_flight or self.more_on_disk)

    @property
    def wants_more(self) -> bool:
        return self.more_on_disk and not self._unsent and len(self._in_flight) < WINDOW

    @property
    def newest(self) -> int:
        """Position of the newest message that was ever in here."""
        return self._newest

    def add(self, item: OutboxItem) -> None:
        """Append a message that was just written to the outbox on disk."""
        if self.more_on_disk or len(self._unsent) + len(self._in_flight) >= IN_MEMORY:
            self.more_on_disk = True
        elif item.position > self._newest:
            self._unsent.append(item)
            self._newest = item.position

    def load(self, items: Sequence[OutboxItem], *, complete: bool) -> None:
        """Append what was read from the disk, from beyond `newest`. `complete`: there is no more."""
        self.more_on_disk = not complete
        for item in items:
            if item.position > self._newest:
                self._newest = item.position
                if item.id not in self._in_flight:
                    self._unsent.append(item)

    def reload(self) -> None:
        """The outbox on disk has changed behind us (older messages go to this device as well): read it again."""
        self._unsent.clear()
        self._newest = 0
        self.more_on_disk = True

    def take(self, now: float) -> list[OutboxItem]:
        """Return what is to be sent now, in order; it is in flight from here on."""
        if now < self._held_until:
            return []
        room = (1 if self._hold_s else WINDOW) - len(self._in_flight)
        taken = [self._unsent.popleft() for _ in range(min(max(room, 0), len(self._unsent)))]
        if taken and not self._in_flight:
            self._progress_at = now
        self._in_flight.update((item.id, item) for item in taken)
        return taken

    def acknowledged(self, ids: Iterable[bytes], now: float) -> list[OutboxItem]:
        """Return the messages that these ids name; they are done."""
        done = [item for message_id in ids if (item := self._in_flight.pop(message_id, None)) is not None]
        if done:
            self._progress_at = now
            self._hold_s = self._held_until = 0.0
        return done

    def refused(self, message_id: bytes, code: str, now: float) -> tuple[OutboxItem | None, bool]:
        """Return (the message, whether it is done with). Not done with: it waits, and all after it."""
        item = self._in_flight.pop(message_id, None)
        if item is None:
            return None, False
        self._progress_at = now
        if code in FINAL_REFUSALS:
            return item, True
        if now >= self._held_until:  # the first of a volley of refusals sets the pause, the others are part of it
            self._hold_s = min(HOLD_MAX_S, self._hold_s * 2 or HOLD_FIRST_S)
            self._held_until = now + self._hold_s
        self._unsent = deque(sorted([item, *self._unsent], key=lambda other: other.position))
        return item, False

    def forget(self, ids: Iterable[bytes]) -> None:
        """These messages arrived another way."""
        gone = frozenset(ids)
        self._unsent = deque(item for item in self._unsent if item.id not in gone)
        for message_id in gone:
            self._in_flight.pop(message_id, None)

    def release(self) -> None:
        """The other side may take us now: forget the pause."""
        self._hold_s = self._held_until = 0.0

    def restart(self) -> None:
        """The stream is gone: what was in flight goes again, first."""
        self._unsent = deque(sorted([*self._in_flight.values(), *self._unsent], key=lambda item: item.position))
        self._in_flight.clear()

    def drop(self) -> None:
        """Forget all: the member left, or the user blocked it."""
        self._unsent.clear()
        self._in_flight.clear()
        self.more_on_disk = False

    def deadline(self, now: float) -> float | None:
        """Return when to look again (monotonic), None when only an event can change anything."""
        if self._unsent and now < self._held_until:
            return self._held_until
        return self._progress_at + ACK_TIMEOUT_S if self._in_flight else None

    def stalled(self, now: float) -> bool:
        """Whether messages are in flight and nothing was heard about any for too long."""
        return bool(self._in_flight) and now >= self._progress_at + ACK_TIMEOUT_S
