"""Which records are offered to a node that has just come near. Pure: no clock is read, nothing is sent.

Whoever joins near a key must hold its record, or a reader who asks the nearest nodes finds nobody who has it (Kademlia
2002, section 2.5: "for each key in its local database that is closer to the new node's ID, it sends the key/value pair
to the new node"). Were it left to all twenty holders, each newcomer would be offered each record twenty times. So one
does it, the nearest to the key of those that were there when the record came in; some time later the second nearest
looks whether it was done.

A node that is new itself takes everybody for a newcomer, and in a network that has just begun everybody is one: nothing
is handed over in an overlay that we have been in for less than two minutes. The authors publish anew when it has grown.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from p2pnode.dht.contact import Contact
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import CLOSE_TO_EXPIRY, SignedRecord
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage, StoredRecord
from p2pnode.dht.table import Table

__all__ = ["HandOverPlan", "Offer"]

SETTLED = 120.0  # s that we must have been in an overlay
FIRST_PAUSE, SECOND_PAUSE = 15.0, 45.0  # s before the nearest, the second nearest acts; up to half as long again
HANDED = 600.0  # s after which a node that came later than a record surely was offered it
MAX_WAITING = 256  # newcomers, about 1 kB each with the keys that are to be looked at
MAX_OF_PREFIX = 8  # of them from one /24 or /48 in public overlays
SLICE = 100  # records looked at in one go, about 2 ms


class Offer(NamedTuple):
    """Ask `contact` for the record's key; when it lacks it, give it the record."""

    overlay: Overlay
    contact: Contact
    record: SignedRecord


class _Newcomer:
    """`keys`: records still to be looked at, None before its time; `later`: those where we are the second nearest."""

    __slots__ = ("contact", "due_at", "keys", "later", "overlay", "second_at")

    def __init__(self, overlay: Overlay, contact: Contact, due_at: float, second_at: float) -> None:
        self.overlay, self.contact = overlay, contact
        self.due_at, self.second_at = due_at, second_at
        self.keys: deque[bytes] | None = None
        self.later: deque[bytes] = deque()


class HandOverPlan:
    """Newcomers, and what each of them is to be offered."""

    def __init__(
        self, own_id: bytes, tables: dict[Overlay, Table], storage: RecordStorage, settings: DhtSettings
    ) -> None:
        self._own = int.from_bytes(own_id, "big")
        self._tables, self._storage, self._ksize = tables, storage, settings.ksize
        self._since: dict[Overlay, float] = {}
        self._waiting: list[_Newcomer] = []
        self._prefixes: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def joined(self, overlay: Overlay, contact: Contact, now: float, jitter: float) -> None:
        """A contact that we did not know entered the table. `jitter`: 0 to 1, random."""
        since = self._since.setdefault(overlay, now)
        if now - since < SETTLED or len(self._waiting) >= MAX_WAITING or not len(self._storage):
            return
        if overlay.is_public and self._prefixes[contact.prefix] >= MAX_OF_PREFIX:
            return
        if contact.long_id ^ self._own > self._radius(overlay, 4):
            return  # too far for a key that both of us are to hold
        longer = 1 + jitter / 2
        self._prefixes[contact.prefix] += 1
        self._waiting.append(_Newcomer(overlay, contact, now + FIRST_PAUSE * longer, now + SECOND_PAUSE * longer))

    def due(self, now: float) -> bool:
        """Whether `next_offer` has something to look at."""
        return any(newcomer.due_at <= now for newcomer in self._waiting)

    def next_offer(self, now: float, wall: float) -> Offer | None:
        """Return a record to be offered now; None when there was none among the next 100 looked at."""
        newcomer = next((each for each in self._waiting if each.due_at <= now), None)
        if newcomer is None:
            return None
        overlay, contact = newcomer.overlay, newcomer.contact
        if self._tables[overlay].find(contact.id) is not contact or contact.misses:
            self._forget(newcomer)  # it left, or moved
            return None
        if newcomer.keys is None:
            newcomer.keys = deque(key for (realm, key), _ in self._storage if realm is overlay.realm)
        first = newcomer.due_at < newcomer.second_at
        for _ in range(min(SLICE, len(newcomer.keys))):
            key = newcomer.keys.popleft()
            held = self._storage.get((overlay.realm, key))
            if held is None or held.expires_at <= now or held.record.expires - wall < CLOSE_TO_EXPIRY:
                continue
            rank = self._rank(newcomer, key, held, now)
            if rank is None:
                continue
            if not first or not rank:
                return Offer(overlay, contact, held.record)
            newcomer.later.append(key)
        if not newcomer.keys:
            if first and newcomer.later:
                newcomer.keys, newcomer.later = newcomer.later, deque()
                newcomer.due_at = newcomer.second_at
            else:
                self._forget(newcomer)
        return None

    def _forget(self, newcomer: _Newcomer) -> None:
        self._waiting.remove(newcomer)
        prefix = newcomer.contact.prefix
        self._prefixes[prefix] -= 1
        if not self._prefixes[prefix]:
            del self._prefixes[prefix]

    def _radius(self, overlay: Overlay, times: float) -> int:
        """Return `times` the distance in which k nodes are to be expected."""
        return self._tables[overlay].radius_of(times * self._ksize)

    def _rank(self, newcomer: _Newcomer, key: bytes, held: StoredRecord, now: float) -> int | None:
        """Return 0 when we are the nearest to the key that surely has the record, 1 when the second nearest.

        None: others do it, or the newcomer need not have it.
        """
        overlay, contact = newcomer.overlay, newcomer.contact
        goal = int.from_bytes(key, "big")
        own, its = self._own ^ goal, contact.long_id ^ goal
        radius = self._radius(overlay, 2)
        if own > radius or its > radius:
            return None
        nearer_than_we = 0
        nearer_than_it = int(own < its)
        old = max(held.stored_at, now - HANDED)
        for other in self._tables[overlay].closest(key, self._ksize + 1):
            distance = other.long_id ^ goal
            if other is contact or other.misses:
                continue
            nearer_than_it += distance < its
            nearer_than_we += distance < own and other.first_seen <= old
        return nearer_than_we if nearer_than_it < self._ksize and nearer_than_we <= 1 else None
