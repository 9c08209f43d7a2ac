"""Whether what we published is there: read back from the nodes nearest to its key, as a stranger would read it.

A store that was confirmed may be lost all the same: its holder lied, had to make room, left, or is no longer one of the
nearest since others came. What is missing is brought again by the very search that misses it (`Dht.read_back`), which
also tells where the next refreshes go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from p2pnode.core.address import Realm
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, PutResult, SignedRecord

__all__ = ["PublishedRecord", "ReadBacks"]

log = structlog.get_logger(__name__)

# A search to the end costs some 90 datagrams, both directions.
FIRST_PAUSE_S = 180.0  # after the first publish: a network that has just begun grows meanwhile
SMALL_PAUSE_S, SMALL = 5.0, 20  # the same where there are so few nodes that it costs next to nothing
PAUSE_S = 900.0  # after one that found something missing
DOUBTFUL_PAUSE_S = 60.0  # at a publish that somebody refused, that lost holders, or a read-back that found nobody
CALM = 0.9  # share that must have it
LOSSES = 3  # of twenty holders: then others take their place, as in `dht/repair.py`


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """`held` of the `asked` nodes nearest to its key had the record. `what`: its salt. `at`: monotonic seconds."""

    realm: Realm
    what: str
    held: int
    asked: int
    at: float


class _Watched:
    """The newest version of a record, when it was published first and read back last, when that is due again."""

    __slots__ = ("calm_s", "due_at", "first_at", "read_at", "record")

    def __init__(self, record: SignedRecord, now: float, calm_s: float, first_pause_s: float) -> None:
        self.record, self.calm_s = record, calm_s
        self.first_at = now
        self.read_at: float | None = None
        self.due_at = now + first_pause_s


class ReadBacks:
    """Reads back three minutes after the first publish (seconds in a small network), when the network has doubled, and
    then at the record's pace; sooner while somebody refuses, nobody has it, holders are lost, or the record says
    something else."""

    def __init__(
        self,
        dht: Dht,
        network: Network,
        own_seq: Callable[[SignedRecord], int],
        newer: Callable[[Realm, SignedRecord, int], None],
    ) -> None:
        """`own_seq(record)`: the highest `seq` that we gave to this record. `newer(realm, record, seq)`: somebody holds
        a record of ours with a higher one than any that we know of."""
        self._dht, self._network, self._own_seq, self._newer = dht, network, own_seq, newer
        self._tasks = TaskSet()
        self._watched: dict[tuple[Realm, bytes], _Watched] = {}
        self._found: dict[tuple[Realm, bytes], PublishedRecord] = {}

    def all(self) -> tuple[PublishedRecord, ...]:
        """Return the newest figures of each record."""
        return tuple(self._found[key] for key in sorted(self._found, key=lambda key: (key[0].value, key[1])))

    def settled(self, realm: Realm, record: SignedRecord, result: PutResult, calm_s: float) -> None:
        """A publish has ended. `calm_s`: seconds from a read-back that found all in place to the next."""
        key = realm, record.salt
        now = self._network.monotonic()
        watched = self._watched.get(key)
        if watched is None:
            first_s = SMALL_PAUSE_S if self._dht.estimated_size(realm) < SMALL else FIRST_PAUSE_S
            watched = self._watched[key] = _Watched(record, now, calm_s, first_s)
        changed = watched.record.value != record.value
        watched.record = record
        if self._doubtful(key, result):
            due_at = now if watched.read_at is None else watched.read_at + DOUBTFUL_PAUSE_S
        elif changed:
            due_at = (watched.read_at or watched.first_at) + DOUBTFUL_PAUSE_S
        else:
            return
        watched.due_at = min(watched.due_at, max(now, due_at))

    def grown(self, realm: Realm) -> bool:
        """Half of the nodes nearest to a record are new, and may lack it. Return whether there is any in `realm`."""
        watched = [each for key, each in self._watched.items() if key[0] is realm]
        for each in watched:
            each.due_at = 0.0
        return bool(watched)

    def next_due(self) -> float:
        """Return when `read_due` wants to be called (monotonic)."""
        return min((watched.due_at for watched in self._watched.values()), default=float("inf"))

    def read_due(self) -> None:
        """Begin to read back what is due."""
        now = self._network.monotonic()
        realms = self._dht.realms()
        for (realm, _), watched in self._watched.items():
            if watched.due_at <= now and realm in realms:
                watched.read_at, watched.due_at = now, now + PAUSE_S
                self._tasks.spawn(self._read(realm, watched.record))

    async def stop(self) -> None:
        """End what still goes on."""
        await self._tasks.cancel()

    def _doubtful(self, key: tuple[Realm, bytes], result: PutResult) -> bool:
        found = self._found.get(key)
        return (
            (found is not None and not found.held)
            or any(why != "timeout" for why in result.refused)
            or result.lost > min(LOSSES, result.found // 4)
        )

    async def _read(self, realm: Realm, record: SignedRecord) -> None:
        there = await self._dht.read_back(record, realm)
        what = record.salt.decode()
        highest = self._own_seq(record)
        if record.seq < highest >= there.seq:
            return  # we have published anew meanwhile: what was found of this one says nothing
        key = realm, record.salt
        found = PublishedRecord(realm, what, there.held, there.asked, self._network.monotonic())
        self._found[key] = found
        watched = self._watched.get(key)
        if watched is not None and there.held >= CALM * there.asked:
            watched.due_at = max(watched.due_at, (watched.read_at or 0.0) + watched.calm_s)
        if there.seq > highest:
            log.warning("published_is_outdated", realm=realm.value, what=what, seq=record.seq, newer=there.seq)
            self._newer(realm, record, there.seq)
        elif not there.held:
            log.warning("published_not_seen", realm=realm.value, what=what, asked=there.asked)
        else:
            log.info("published_seen", realm=realm.value, what=what, held=there.held, asked=there.asked)
