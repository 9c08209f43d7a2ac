"""Writing a record, or a topic entry: search for the nodes nearest to its key, and store it on each as soon as it is
surely one of them.

Kademlia (2002), section 2.3, stores when the search has ended. Here the size of the network tells how near a node must
be to be among the k nearest, so most stores leave with the first answers, and the writer may go on when enough nodes
have confirmed ("optimistic provide", Trautwein et al., "Design and Evaluation of IPFS", SIGCOMM 2022, measured it for
IPFS). The rest goes on behind it. A node that answers only after the search has ended gets the record, too, when it is
nearer than those that have it: a datagram that was lost must not make a wrong node the holder.

What was written before goes straight to those that the last search found (`holders`), and is searched only when fewer
than half of them take it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from p2pnode.core.address import Realm
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.calls import Outcome
from p2pnode.dht.contact import Contact
from p2pnode.dht.error_codes import code_name
from p2pnode.dht.holders import HolderBook
from p2pnode.dht.limits import Diversity
from p2pnode.dht.members import Members
from p2pnode.dht.messages import Announce, Error, Put, Request, Stored
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.results import PutResult
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.topic_entries import Shard, TopicEntry
from p2pnode.dht.topics import TopicStorage

__all__ = ["Writer"]

OWN_PREFIX = b"own records"  # in the storage's accounts; prefixes of addresses have 3 or 6 bytes


class _Thing(NamedTuple):
    """What is written. `request(token)`: what a holder is sent; `keep(realm)`: keep it here, say whether it is."""

    key: NodeId
    request: Callable[[bytes], Request]
    keep: Callable[[Realm], bool]


class Writer:
    """Puts things out, in any number of overlays at once."""

    def __init__(
        self, protocol: DhtProtocol, members: Members, storage: RecordStorage, topics: TopicStorage, network: Network,
        book: HolderBook, settings: DhtSettings,
    ) -> None:  # fmt: skip
        self.book = book
        self.protocol, self.members, self._storage, self._topics = protocol, members, storage, topics
        self.network, self.settings = network, settings
        self._tasks = TaskSet()

    async def put(
        self, record: SignedRecord, overlays: Iterable[Overlay], enough: int | None,
        on_settled: Callable[[PutResult], None] | None = None, *, again: bool = False,
    ) -> PutResult:  # fmt: skip
        """Store `record`; return when all who should have it answered or gave up, or `enough` in each have it.

        `again`: on those that the last search found, when they are known.
        """

        def keep(realm: Realm) -> bool:
            now, wall = self.network.monotonic(), self.network.wall()
            return self._storage.store(record, realm, OWN_PREFIX, now, wall) is None

        thing = _Thing(record.key, lambda token: Put(token, record), keep)
        return await self._write(thing, overlays, self.book, enough, on_settled, again=again)

    async def announce(self, entry: TopicEntry, topic: bytes, depth: int, overlay: Overlay) -> PutResult:
        """Store `entry` in its signer's shard at `depth`; `refused` has "deeper" for holders that have no place."""
        shard = Shard.of(topic, depth, entry.public_key)

        def keep(realm: Realm) -> bool:
            now, wall = self.network.monotonic(), self.network.wall()
            return self._topics.store(shard, entry, realm, OWN_PREFIX, now, wall) is None

        thing = _Thing(shard.key, lambda token: Announce(token, topic, depth, entry), keep)
        return await self._write(thing, [overlay], HolderBook())

    async def _write(
        self, thing: _Thing, overlays: Iterable[Overlay], book: HolderBook, enough: int | None = None,
        on_settled: Callable[[PutResult], None] | None = None, *, again: bool = False,
    ) -> PutResult:  # fmt: skip
        started = self.network.monotonic()
        changed = asyncio.Event()
        writes: list[_Write] = []
        tell = on_settled

        def progressed() -> None:
            nonlocal tell
            changed.set()
            if tell is not None and all(write.settled for write in writes):
                told, tell = tell, None
                told(self._result(writes, started))

        writes += [_Write(self, overlay, thing, book, progressed) for overlay in overlays]
        for write in writes:
            self._tasks.spawn(write.run(again=again))
        while not all(write.settled or (enough is not None and write.stored >= enough) for write in writes):
            changed.clear()
            await changed.wait()
        return self._result(writes, started)

    def _result(self, writes: list[_Write], started: float) -> PutResult:
        refused: Counter[str] = Counter()
        for write in writes:
            refused.update(write.refused)
        lost, found = max((write.lost for write in writes), default=(0, 0))
        return PutResult(
            stored=sum(write.stored for write in writes),
            tried=sum(len(write.sent) for write in writes),
            local=any(write.local for write in writes),
            elapsed_s=self.network.monotonic() - started,
            refused=dict(refused),
            settled=all(write.settled for write in writes),
            direct=all(write.direct for write in writes),
            lost=lost,
            found=found,
        )

    async def stop(self) -> None:
        """End what still goes on."""
        await self._tasks.cancel()


class _Write:
    """One thing in one overlay."""

    def __init__(
        self, writer: Writer, overlay: Overlay, thing: _Thing, book: HolderBook, changed: Callable[[], None]
    ) -> None:
        self._writer, self._overlay, self._thing, self._book, self._changed = writer, overlay, thing, book, changed
        self._goal = int.from_bytes(thing.key, "big")
        table = writer.members.tables[overlay]
        # Where the k-th nearest is to be expected; after the search, where it is.
        self._radius = table.radius_of(writer.settings.ksize)
        self._present = Diversity()
        self._searched = False
        self.sent: set[bytes] = set()
        self._waiting = 0
        self._failed: set[bytes] = set()
        self._all_answered = asyncio.Event()
        self.direct = False
        self.stored = 0
        self.local = False
        self.refused: Counter[str] = Counter()

    @property
    def settled(self) -> bool:
        """Whether the search has ended and every store was answered or given up."""
        return self._searched and not self._waiting

    @property
    def lost(self) -> tuple[int, int]:
        """See `HolderBook.lost`."""
        return self._book.lost(self._overlay, self._thing.key)

    async def run(self, *, again: bool) -> None:
        try:
            if not again or not await self._write_directly():
                await self._search()
        finally:
            self._searched = True
            self._changed()

    async def _write_directly(self) -> bool:
        """Store it on those that the last search found; return whether at least half of them took it."""
        known = self._book.known(self._overlay, self._thing.key, self._writer.network.monotonic())
        if not known:
            return False
        for holder, token in known:
            self._send(holder, token)
        await self._all_answered.wait()
        if 2 * self.stored < len(known):
            # Our address is another one, so that the tokens are worth nothing, or most of them are gone.
            self.sent -= self._failed
            self._failed.clear()
            self.refused.clear()
            self._present = Diversity()
            for holder, _ in known:
                if holder.id in self.sent:
                    self._present.count(holder.prefix)
            return False
        self.direct = True
        self.local = self._keep_own([holder for holder, _ in known])
        return True

    async def _search(self) -> None:
        crawl = await self._writer.protocol.crawl(
            self._thing.key, self._overlay, on_answered=self._answered, judged=True
        )
        holders = [crawl.answered[contact.id] for contact in crawl.lookup.closest()]
        self._book.searched(self._overlay, self._thing.key, holders, crawl.tokens, self._writer.network.monotonic())
        for failed in self._failed:
            self._book.failed(self._overlay, self._thing.key, failed)
        if len(holders) >= self._writer.settings.ksize:
            self._radius = holders[-1].long_id ^ self._goal
        for holder in holders:
            self._send(holder, crawl.tokens[holder.id])
        self.local = self._keep_own(holders)

    def _answered(self, contact: Contact, token: bytes) -> None:
        """A node answered the search, maybe after its end."""
        if contact.long_id ^ self._goal > self._radius or contact.id in self.sent:
            return
        # Prefix limits of a record's holders (security.md S1): the search itself fills places that stay empty.
        if not self._overlay.is_public or not self._present.crowded(contact.prefix):
            self._send(contact, token)

    def _send(self, contact: Contact, token: bytes) -> None:
        if contact.id in self.sent:
            return
        self.sent.add(contact.id)
        self._present.count(contact.prefix)
        self._waiting += 1
        self._writer.protocol.start_call(
            contact.address, NodeId(contact.id), self._thing.request(token),
            on_done=lambda outcome: self._done(contact, outcome),
        )  # fmt: skip

    def _done(self, holder: Contact, outcome: Outcome) -> None:
        self._waiting -= 1
        why = _refusal(outcome)
        if why:
            self.refused[why] += 1
            self._failed.add(holder.id)
            self._book.failed(self._overlay, self._thing.key, holder.id)
        else:
            self.stored += 1
        if not self._waiting:
            self._all_answered.set()
        self._changed()

    def _keep_own(self, holders: list[Contact]) -> bool:
        """Keep it here too when we are among the nearest ourselves."""
        writer = self._writer
        if self._overlay not in writer.members.serving:
            return False
        own = int.from_bytes(writer.protocol.engine.node_id, "big") ^ self._goal
        if len(holders) >= writer.settings.ksize and holders[-1].long_id ^ self._goal < own:
            return False
        return self._thing.keep(self._overlay.realm)


def _refusal(outcome: Outcome) -> str:
    """Return "" when stored, else why not."""
    if isinstance(outcome.answer, Stored):
        return ""
    if isinstance(outcome.answer, Error):
        return code_name(outcome.answer.code)
    return outcome.reason or "wrong_answer"
