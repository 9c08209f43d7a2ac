"""Whether what we published is there: read back from the nodes nearest to its key, as a stranger would read it.

A store that was confirmed may be lost all the same: its holder lied, had to make room, or was not one of the nearest.
What is missing is brought again by the very search that misses it (`Dht.read_back`).
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

# A search to the end costs some 60 datagrams, both directions.
PAUSE_S = 900.0
DOUBTFUL_PAUSE_S = 60.0  # after a publish that somebody refused, or a read-back that found nobody


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """`held` of the `asked` nodes nearest to its key had the record. `what`: its salt. `at`: monotonic seconds."""

    realm: Realm
    what: str
    held: int
    asked: int
    at: float


class ReadBacks:
    """Reads back at the first publish, then at most every 15 minutes; every minute while somebody refuses or nobody has
    it."""

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
        self._last: dict[tuple[Realm, bytes], float] = {}
        self._found: dict[tuple[Realm, bytes], PublishedRecord] = {}

    def all(self) -> tuple[PublishedRecord, ...]:
        """Return the newest figures of each record."""
        return tuple(self._found[key] for key in sorted(self._found, key=lambda key: (key[0].value, key[1])))

    def settled(self, realm: Realm, record: SignedRecord, result: PutResult) -> None:
        """A publish has ended: read it back, when that is due."""
        key = realm, record.salt
        seen = key not in self._found or self._found[key].held > 0
        doubtful = not seen or any(why != "timeout" for why in result.refused)
        now = self._network.monotonic()
        if now - self._last.get(key, float("-inf")) >= (DOUBTFUL_PAUSE_S if doubtful else PAUSE_S):
            self._last[key] = now
            self._tasks.spawn(self._read(realm, record))

    async def stop(self) -> None:
        """End what still goes on."""
        await self._tasks.cancel()

    async def _read(self, realm: Realm, record: SignedRecord) -> None:
        there = await self._dht.read_back(record, realm)
        what = record.salt.decode()
        highest = self._own_seq(record)
        if record.seq < highest >= there.seq:
            return  # we have published anew meanwhile: what was found of this one says nothing
        found = PublishedRecord(realm, what, there.held, there.asked, self._network.monotonic())
        self._found[realm, record.salt] = found
        if there.seq > highest:
            log.warning("published_is_outdated", realm=realm.value, what=what, seq=record.seq, newer=there.seq)
            self._newer(realm, record, there.seq)
        elif not there.held:
            log.warning("published_not_seen", realm=realm.value, what=what, asked=there.asked)
        else:
            log.info("published_seen", realm=realm.value, what=what, held=there.held, asked=there.asked)
