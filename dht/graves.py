"""Contacts given up, and when to ask them once more: after a partition both halves have forgotten each other. Pure.

Whoever is dead costs a ping now and then, at growing intervals, and is forgotten after an hour; the first of the other
half that answers is the way back to all of it.
"""

from __future__ import annotations

from collections import OrderedDict

from p2pnode.dht.contact import Contact

__all__ = ["Graves"]

MAX_GRAVES = 64  # per table, about 500 bytes each; the oldest is forgotten first
FIRST_PAUSE, LAST_TRIES = 30.0, 8  # s, doubled with each try: the last comes after an hour
SPACING = 20.0  # s between any two


class _Grave:
    __slots__ = ("contact", "due_at", "tries")

    def __init__(self, contact: Contact, due_at: float) -> None:
        self.contact, self.due_at, self.tries = contact, due_at, 0


class Graves:
    """Of one table."""

    def __init__(self) -> None:
        self._graves: OrderedDict[bytes, _Grave] = OrderedDict()
        self._next_at = 0.0

    def __len__(self) -> int:
        return len(self._graves)

    def bury(self, contact: Contact, now: float) -> None:
        """A contact was dropped because it did not answer."""
        self._graves.pop(contact.id, None)
        self._graves[contact.id] = _Grave(contact, now + FIRST_PAUSE)
        if len(self._graves) > MAX_GRAVES:
            self._graves.popitem(last=False)

    def rise(self, node_id: bytes) -> bool:
        """A node answered; return whether it had been given up."""
        return self._graves.pop(node_id, None) is not None

    def next(self, now: float) -> Contact | None:
        """Return whom to ask once more, the one that is due for longest; it counts as asked."""
        if not self._graves or now < self._next_at:
            return None
        grave = min(self._graves.values(), key=lambda each: each.due_at)
        if grave.due_at > now:
            return None
        self._next_at = now + SPACING
        grave.tries += 1
        grave.due_at = now + FIRST_PAUSE * 2**grave.tries
        if grave.tries >= LAST_TRIES:
            del self._graves[grave.contact.id]
        return grave.contact
