"""Reading a record: search for it, take the highest valid `seq`, and bring it to those that lack it.

A holder that answered without the record, or with an older one, gave us a token with its answer: whoever reads can mend
it for one datagram ("read repair", as in Amazon's Dynamo, DeCandia et al., SOSP 2007, section 4.6; Kademlia 2002,
section 2.3, caches a found record at the nearest node without it). Within a budget, never a record that is about to
expire, and the same node not twice within five minutes: one that refuses for want of room is not asked by each read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Set

from p2pnode.core.address import Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.calls import ignore
from p2pnode.dht.contact import Contact
from p2pnode.dht.crawl import Crawl
from p2pnode.dht.holders import HolderBook
from p2pnode.dht.limits import Budget
from p2pnode.dht.messages import Put
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.records import CLOSE_TO_EXPIRY, SignedRecord
from p2pnode.dht.results import GetResult, ReadBack
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage

__all__ = ["ALL_OF_THEM", "Reader"]

ALL_OF_THEM = 1_000_000  # a quorum that is never reached: the search goes to the end
STORES_PER_READ = 3
MAX_BROUGHT = 1_024  # remembered stores, about 200 bytes each

OnNewer = Callable[[GetResult], None]


class Reader:
    """Reads records, in any number of overlays at once."""

    def __init__(
        self, protocol: DhtProtocol, storage: RecordStorage, book: HolderBook, network: Network, network_tag: bytes,
        settings: DhtSettings,
    ) -> None:  # fmt: skip
        self._book = book
        self.protocol, self.network, self.settings = protocol, network, settings
        self._storage, self._tag = storage, network_tag
        self._tasks = TaskSet()
        self._stores = Budget(settings.read_repair_rate, settings.read_repair_burst)
        self._brought: OrderedDict[tuple[bytes, bytes, int], float] = OrderedDict()

    async def get(
        self, key: NodeId, searched: Iterable[Overlay], own: Iterable[Realm], *, fast: bool, on_newer: OnNewer | None
    ) -> GetResult:
        """Search in these overlays; our own copies of the realms `own` count, too. See `Dht.get`."""
        read = _Read(self, key, searched, own)
        if not fast:
            await read.run()
            return read.result()
        task = self._tasks.spawn(read.run())
        try:
            await read.first.wait()
        except asyncio.CancelledError:
            task.cancel()
            raise
        read.on_newer = on_newer
        return read.result()

    async def read_back(self, record: SignedRecord, overlays: Iterable[Overlay]) -> ReadBack:
        """Search our own record to the end as a stranger would; bring it to those that lack it."""
        found = await asyncio.gather(*(self._read_back(record, overlay) for overlay in overlays))
        return ReadBack(
            held=sum(each.held for each in found),
            asked=sum(each.asked for each in found),
            seq=max((each.seq for each in found), default=record.seq),
        )

    async def _read_back(self, record: SignedRecord, overlay: Overlay) -> ReadBack:
        crawl = await self.protocol.crawl(record.key, overlay, quorum=ALL_OF_THEM, judged=True)
        nearest = crawl.lookup.closest()
        near = [crawl.answered[contact.id] for contact in nearest]
        self._book.searched(overlay, record.key, near, crawl.tokens, self.network.monotonic())
        holders = frozenset(contact.id for contact in crawl.holders if crawl.record == record)
        newer = crawl.record is not None and crawl.record.seq > record.seq
        if not newer:  # else it is no longer the one to be brought to anybody
            self._mend(crawl, record, [contact for contact in near if contact.id not in holders])
        return ReadBack(
            held=sum(1 for contact in nearest if contact.id in holders),
            asked=len(nearest),
            seq=crawl.record.seq if newer and crawl.record is not None else record.seq,
        )

    def mend(self, crawl: Crawl) -> None:
        """Bring the record that a search found to some of the nearest that answered without it."""
        if crawl.record is not None:
            self._mend(crawl, crawl.record, self._lacking(crawl, {c.id for c in crawl.holders})[:STORES_PER_READ])

    def _mend(self, crawl: Crawl, record: SignedRecord, lacking: Iterable[Contact]) -> None:
        if record.expires - self.network.wall() < CLOSE_TO_EXPIRY:
            return
        now = self.network.monotonic()
        for contact in lacking:
            if self._may_bring(contact, record, now):
                self.protocol.start_call(
                    contact.address, NodeId(contact.id), Put(crawl.tokens[contact.id], record), on_done=ignore
                )

    def own_copy(self, realm: Realm, key: NodeId) -> SignedRecord | None:
        """Return the record that we hold ourselves, None when there is none or it has expired since."""
        record = self._storage.read(realm, key, self.network.monotonic())
        try:
            if record is not None:
                record.verify(self._tag, self.network.wall())
        except BadPacket:
            return None
        return record

    async def stop(self) -> None:
        """End what still goes on."""
        await self._tasks.cancel()

    def _lacking(self, crawl: Crawl, have: Set[bytes]) -> list[Contact]:
        """Return those that answered, are near enough to have to hold the record, and do not `have` it, nearest first.

        A search that ended early may not have met the k nearest: the size of the network tells how near they are.
        """
        radius = self.protocol.routers[crawl.overlay].radius_of(self.settings.ksize)
        goal = int.from_bytes(crawl.lookup.target, "big")
        nearest = (crawl.answered[contact.id] for contact in crawl.lookup.closest())
        return [contact for contact in nearest if contact.id not in have and contact.long_id ^ goal <= radius]

    def _may_bring(self, contact: Contact, record: SignedRecord, now: float) -> bool:
        what = (contact.id, record.key, record.seq)
        if now - self._brought.get(what, float("-inf")) < self.settings.repair_interval or not self._stores.take(now):
            return False
        self._brought[what] = now
        self._brought.move_to_end(what)
        if len(self._brought) > MAX_BROUGHT:
            self._brought.popitem(last=False)
        return True


class _Read:
    """One key in some overlays. `first`: set with the first valid record, or at the end."""

    def __init__(self, reader: Reader, key: NodeId, searched: Iterable[Overlay], own: Iterable[Realm]) -> None:
        self._reader, self._key = reader, key
        self._searched = tuple(searched)
        self._own = {realm: reader.own_copy(realm, key) for realm in own}
        self._best = max((record for record in self._own.values() if record), key=lambda r: r.seq, default=None)
        self._crawls: dict[Overlay, Crawl] = {}
        self._started = reader.network.monotonic()
        self._ended = False
        self.first = asyncio.Event()
        self.on_newer: OnNewer | None = None
        if self._best is not None:
            self.first.set()

    async def run(self) -> None:
        try:
            await asyncio.gather(*(self._search(overlay) for overlay in self._searched))
            self._ended = True
            for crawl in self._crawls.values():
                self._reader.mend(crawl)
        finally:
            self._ended = True
            self.first.set()
            self._tell()

    def result(self) -> GetResult:
        """Return what is known now."""
        best, crawls = self._best, self._crawls.values()
        return GetResult(
            record=best,
            hops=max((crawl.lookup.hops for crawl in crawls), default=0),
            queried=sum(crawl.lookup.queried for crawl in crawls),
            elapsed_s=self._reader.network.monotonic() - self._started,
            holders=tuple(c.known() for crawl in crawls if crawl.record == best and best for c in crawl.holders),
            late=sum(crawl.lookup.late_count for crawl in crawls),
            answered=sum(len(crawl.answered) for crawl in crawls),
            settled=self._ended,
        )

    async def _search(self, overlay: Overlay) -> None:
        self._crawls[overlay] = await self._reader.protocol.crawl(
            self._key, overlay, quorum=self._reader.settings.read_quorum, record=self._own.get(overlay.realm),
            on_record=lambda crawl: self._heard(overlay, crawl), judged=True,
        )  # fmt: skip

    def _heard(self, overlay: Overlay, crawl: Crawl) -> None:
        """A search found a record that is better than what that search had before."""
        self._crawls[overlay] = crawl
        record = crawl.record
        if record is not None and (self._best is None or record.seq > self._best.seq):
            self._best = record
            self.first.set()
            self._tell()

    def _tell(self) -> None:
        if self.on_newer is not None:
            self.on_newer(self.result())
