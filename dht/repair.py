"""Which records the holders bring to others, and when. Pure: no clock is read, nothing is sent.

The author publishes anew while it is there. For records whose author is away, the holders nearest to the key (the
first, and some time later the second, by our table) act once enough of those that should hold the record are gone.
Losses are counted from the last time the record came in: whoever brought it brought it to the others too (Kademlia
2002, section 2.5, "optimized key republishing").
"""

from __future__ import annotations

from collections.abc import Iterator

from p2pnode.dht.contact import Contact
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage, StoredRecord
from p2pnode.dht.table import Table

__all__ = ["RepairPlan"]

ID_SPACE = 2**160
LOSSES = 3  # of twenty holders: then it is repaired
REPAIRERS = 2  # the nearest, and the second in case the nearest does not do it
WITHIN = 12.0  # expected nodes nearer to a key than we are; beyond, we are surely not the second nearest later either
FIRST_PAUSE, SECOND_PAUSE = 10.0, 30.0  # s before the nearest, the second nearest acts: who died meanwhile is known
MAX_WATCHED = 16_384  # records with losses, about 200 bytes each

_WatchKey = tuple[Overlay, bytes]  # a record is held once per realm, and repaired in both of its overlays


class _Watched:
    """A record of which holders were lost. `due_at`: infinite below the threshold."""

    __slots__ = ("due_at", "lost", "not_before", "record")

    def __init__(self, record: SignedRecord) -> None:
        self.record = record
        self.lost = 0
        self.due_at = float("inf")
        self.not_before = 0.0


class RepairPlan:
    """Losses of the records that we hold, and which of them is to be repaired now."""

    def __init__(
        self, own_id: bytes, tables: dict[Overlay, Table], storage: RecordStorage, settings: DhtSettings
    ) -> None:
        self._own = int.from_bytes(own_id, "big")
        self._tables, self._storage, self._interval = tables, storage, settings.repair_interval
        self._losses = max(1, min(LOSSES, settings.ksize // 4))
        self._watched: dict[_WatchKey, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def lost(self, overlay: Overlay, contacts: list[Contact], now: float, jitter: float) -> None:
        """These were dropped from the table. `jitter`: 0 to 1, random."""
        table = self._tables[overlay]
        ids = [contact.long_id for contact in contacts]
        for key, held, goal in self._near(overlay, table):
            nearest = table.closest(key[1], table.ksize)
            radius = nearest[-1].long_id ^ goal if len(nearest) >= table.ksize else ID_SPACE
            lost = sum(1 for node_id in ids if node_id ^ goal <= radius)
            if not lost:
                continue
            watched = self._watched.get(key)
            if watched is None or watched.record is not held.record:
                if watched is None and len(self._watched) >= MAX_WATCHED:
                    continue
                watched = self._watched[key] = _Watched(held.record)
            watched.lost += lost
            if watched.lost >= self._losses and watched.due_at == float("inf"):
                rank = self._rank(table, goal, key[1])
                pause = (SECOND_PAUSE if rank else FIRST_PAUSE) * (1 + jitter / 2)
                watched.due_at = max(now + pause, watched.not_before)

    def next_due(self, now: float) -> tuple[Overlay, SignedRecord] | None:
        """Return a record to be repaired now, the one with the most losses first; it counts as repaired from now on."""
        due: list[tuple[int, _WatchKey]] = []
        for key, watched in list(self._watched.items()):
            held = self._storage.get((key[0].realm, key[1]))
            if held is None or held.expires_at <= now or held.record is not watched.record:
                del self._watched[key]  # gone, or its author has published anew
            elif watched.due_at <= now:
                due.append((watched.lost, key))
        for _, key in sorted(due, key=lambda pair: -pair[0]):
            watched = self._watched[key]
            if self._rank(self._tables[key[0]], int.from_bytes(key[1], "big"), key[1]) < REPAIRERS:
                watched.lost, watched.due_at, watched.not_before = 0, float("inf"), now + self._interval
                return key[0], watched.record
            # Nearer ones do it. Should they go, they are losses again.
            watched.lost, watched.due_at = self._losses - 1, float("inf")
        return None

    def _near(self, overlay: Overlay, table: Table) -> Iterator[tuple[_WatchKey, StoredRecord, int]]:
        """Yield the records that we may have to repair: those whose key is near to us."""
        radius = table.radius_of(WITHIN)
        for (realm, key), held in self._storage:
            if realm is overlay.realm:
                goal = int.from_bytes(key, "big")
                if goal ^ self._own <= radius:
                    yield (overlay, key), held, goal

    def _rank(self, table: Table, goal: int, key: bytes) -> int:
        """Return how many living nodes that we know are nearer to the key than we are, REPAIRERS at most."""
        own = goal ^ self._own
        nearer = 0
        for contact in table.closest(key, table.ksize):
            if contact.long_id ^ goal > own or nearer >= REPAIRERS:
                break
            nearer += not contact.misses
        return nearer
