"""Reading a topic: all of it shard by shard, or a random sample along one branch of its tree.

Several holders of a shard, chosen at random among those nearest to its key, are each asked on their own, with a nonce
of their own: a liar can leave out what it likes, but not make the others do so, nor fill a sample beyond its share. Of
a signer's entries the highest valid `seq` counts, and a withdrawn one hides what other holders still have.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht.contact import Contact
from p2pnode.dht.messages import ListTopic, TopicPage
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.topic_entries import MAX_DEPTH, ORDER_BYTES, Shard, TopicEntry, order_of
from p2pnode.dht.topics import TopicStorage

__all__ = ["TopicReader", "TopicResult"]

HOLDERS = 4  # asked per shard: with 30 % liars all four are in 1 of 120 reads
MAX_PAGES = 64  # per holder and shard: 128 entries, three to a page when they are long
AT_ONCE = 8  # shards read at the same time
MAX_SHARDS = 512  # per read, 65,000 entries: a topic that liars call endless ends here
BY_PAGE = 12  # a sample above this reads whole shards: four pages hold 12 to 36 entries
PARTS = 4  # of a shard, read from one holder at the same time
ORDERS = 256**ORDER_BYTES


@dataclass(frozen=True, slots=True)
class TopicResult:
    """`entries`: valid, not withdrawn, one per signer. `complete`: no limit or silent shard cut the reading short.

    `population`: entries of the whole topic, as those holders say (estimated for a sample). `shards`: read.
    `answered`: holders that answered, of those `asked`; 0 means that nothing is known, not that nobody announced.
    """

    entries: tuple[TopicEntry, ...]
    complete: bool
    population: int
    shards: int
    asked: int
    answered: int
    elapsed_s: float


@dataclass(slots=True)
class ShardRead:
    """What one shard's holders said, merged; withdrawn entries are still in it. `held`: their median count."""

    overlay: Overlay
    shard: Shard
    entries: dict[bytes, TopicEntry] = field(default_factory=dict)
    held: int = 0
    split: bool = False
    asked: int = 0
    answered: int = 0

    @property
    def live(self) -> list[TopicEntry]:
        return [entry for entry in self.entries.values() if entry.value]


class _Said(NamedTuple):
    """One holder's word."""

    held: int
    split: bool
    entries: list[TopicEntry]


class TopicReader:
    """Reads topics. Keeps nothing between reads."""

    def __init__(self, protocol: DhtProtocol, storage: TopicStorage, network: Network, network_tag: bytes) -> None:
        self._protocol, self._storage, self._network, self._tag = protocol, storage, network, network_tag

    async def shards(self, topic: bytes, overlays: Iterable[Overlay], max_shards: int) -> AsyncIterator[ShardRead]:
        """Yield the topic's shards, whole, the shallow ones first, until no holder knows of others."""
        waiting = [(overlay, Shard(0, 0, topic)) for overlay in overlays]
        left = min(max_shards, MAX_SHARDS)
        while waiting and left > 0:
            now_read, waiting = waiting[: min(AT_ONCE, left)], waiting[min(AT_ONCE, left) :]
            left -= len(now_read)
            for read in await asyncio.gather(*(self._read(overlay, shard, whole=True) for overlay, shard in now_read)):
                if read.split:
                    waiting += [(read.overlay, child) for child in read.shard.children()]
                yield read

    async def whole(self, topic: bytes, overlays: Iterable[Overlay], limit: int) -> TopicResult:
        """Return all entries, up to `limit`."""
        started = self._network.monotonic()
        merged: dict[bytes, TopicEntry] = {}
        reads: list[ShardRead] = []
        async for read in self.shards(topic, overlays, MAX_SHARDS):
            reads.append(read)
            for signer, entry in read.entries.items():
                known = merged.get(signer)
                if known is None or entry.seq > known.seq:
                    merged[signer] = entry
            if sum(1 for entry in merged.values() if entry.value) > limit:
                break
        live = [entry for entry in merged.values() if entry.value]
        children = sum(len(read.shard.children()) for read in reads if read.split)
        roots = sum(1 for read in reads if not read.shard.depth)
        complete = (
            bool(reads)
            and len(live) <= limit
            and len(reads) >= roots + children
            and all(read.answered for read in reads)
        )
        return self._result(live[:limit], reads, sum(read.held for read in reads), complete, started)

    async def sample(self, topic: bytes, overlays: Iterable[Overlay], count: int) -> TopicResult:
        """Return up to `count` entries, each about equally likely: one random branch of the tree is read.

        An entry at depth d is on that branch in one of 2^d readings, and then drawn with 2^d times the weight. Close to
        uniform while `count` is small against the topic.
        """
        started, rng = self._network.monotonic(), self._network.rng
        branches = [self._branch(topic, overlay, whole=count > BY_PAGE) for overlay in overlays]
        reads = [read for branch in await asyncio.gather(*branches) for read in branch]
        pools = [(read.held << read.shard.depth, read.live) for read in reads]
        population = sum(weight for weight, _ in pools)
        for _, pool in pools:
            rng.shuffle(pool)
        drawn: dict[bytes, TopicEntry] = {}
        while len(drawn) < count and (pools := [(weight, pool) for weight, pool in pools if pool]):
            pool = rng.choices([pool for _, pool in pools], [max(weight, 1) for weight, _ in pools])[0]
            entry = pool.pop()
            if entry.public_key not in drawn or entry.seq > drawn[entry.public_key].seq:
                drawn[entry.public_key] = entry
        return self._result(list(drawn.values()), reads, population, all(read.answered for read in reads), started)

    async def _branch(self, topic: bytes, overlay: Overlay, *, whole: bool) -> list[ShardRead]:
        place = self._network.rng.getrandbits(MAX_DEPTH)
        reads: list[ShardRead] = []
        for depth in range(MAX_DEPTH + 1):
            reads.append(await self._read(overlay, Shard(depth, place >> (MAX_DEPTH - depth), topic), whole=whole))
            if not reads[-1].split:
                break
        return reads

    def _result(
        self, entries: list[TopicEntry], reads: list[ShardRead], population: int, complete: bool, started: float
    ) -> TopicResult:
        return TopicResult(
            entries=tuple(entries), complete=complete, population=max(population, len(entries)), shards=len(reads),
            asked=sum(read.asked for read in reads), answered=sum(read.answered for read in reads),
            elapsed_s=self._network.monotonic() - started,
        )  # fmt: skip

    async def _read(self, overlay: Overlay, shard: Shard, *, whole: bool) -> ShardRead:
        """Read one shard: all of it, or one page of each of several holders."""
        crawl = await self._protocol.crawl(shard.key, overlay, judged=True)
        near = [crawl.answered[contact.id] for contact in crawl.lookup.closest()]
        self._network.rng.shuffle(near)
        read = ShardRead(overlay, shard)
        candidates = iter(near)
        said = await asyncio.gather(*(self._hear(candidates, read, whole=whole) for _ in range(HOLDERS)))
        now, wall = self._network.monotonic(), self._network.wall()
        own = self._storage.page(overlay.realm, shard, bytes(ORDER_BYTES), bytes(ORDER_BYTES), ORDERS, now)
        heard = [word for word in said if word is not None]
        if own.entries:
            heard.append(_Said(own.held, own.split, self._believed_untrusted(own.entries, shard, wall)))
        for word in heard:
            for entry in word.entries:
                known = read.entries.get(entry.public_key)
                if known is None or entry.seq > known.seq:
                    read.entries[entry.public_key] = entry
        if heard:
            read.held = sorted(word.held for word in heard)[len(heard) // 2]
            read.split = 2 * sum(word.split for word in heard) >= len(heard)
        read.answered = len(heard)
        return read

    async def _hear(self, candidates: Iterator[Contact], read: ShardRead, *, whole: bool) -> _Said | None:
        """Ask one holder after the other until one answers; None when there is none left."""
        for contact in candidates:
            read.asked += 1
            said = await self._ask_untrusted(contact, read.shard, whole=whole)
            if said is not None:
                return said
        return None

    async def _ask_untrusted(self, contact: Contact, shard: Shard, *, whole: bool) -> _Said | None:
        """Return what one holder has: all of it, or a page. None when it does not answer, or makes no sense."""
        nonce = self._network.token_bytes(ORDER_BYTES)
        page = await self._page_untrusted(contact, shard, nonce, 0)
        if page is None:
            return None
        entries = list(page.entries)
        if whole and page.more:
            # The order is that of a hash, after its first bit: equal parts of its range hold about as many each.
            start = _place(nonce, entries[-1])
            cuts = [start + (ORDERS - start) * part // PARTS for part in range(PARTS + 1)]
            parts = [self._part_untrusted(contact, shard, nonce, *cut) for cut in itertools.pairwise(cuts)]
            entries += itertools.chain.from_iterable(await asyncio.gather(*parts))
        believed = self._believed_untrusted(entries, shard, self._network.wall())
        if len(believed) < len(entries):
            contact.demerits += 1
        return _Said(page.held, page.split, believed)

    async def _part_untrusted(
        self, contact: Contact, shard: Shard, nonce: bytes, after: int, end: int
    ) -> list[TopicEntry]:
        entries: list[TopicEntry] = []
        for _ in range(MAX_PAGES // PARTS):
            page = await self._page_untrusted(contact, shard, nonce, after)
            if page is None:
                break
            entries += [entry for entry in page.entries if _place(nonce, entry) <= end]
            if len(entries) < len(page.entries) or not page.more or (after := _place(nonce, page.entries[-1])) >= end:
                break
        return entries

    async def _page_untrusted(self, contact: Contact, shard: Shard, nonce: bytes, after: int) -> TopicPage | None:
        """Ask for the entries behind `after`. None: no answer, or one that is out of order, which counts against it."""
        request = ListTopic(shard.topic, shard.depth, shard.index, nonce, after.to_bytes(ORDER_BYTES, "big"))
        outcome = await self._protocol.request(contact.address, NodeId(contact.id), request)
        page = outcome.answer
        if not isinstance(page, TopicPage):
            return None
        places = [after, *(_place(nonce, entry) for entry in page.entries)]
        if any(place >= following for place, following in itertools.pairwise(places)) or (
            page.more > len(page.entries)
        ):
            contact.demerits += 1
            return None
        return page

    def _believed_untrusted(self, entries: Iterable[TopicEntry], shard: Shard, wall: float) -> list[TopicEntry]:
        """Return those that are valid, of this network and topic, and belong into this shard."""
        believed: list[TopicEntry] = []
        for entry in entries:
            try:
                if Shard.of(shard.topic, shard.depth, entry.public_key) != shard:
                    raise BadPacket("other_shard")
                entry.verify(self._tag, shard.topic, wall)
            except BadPacket as bad:
                # An expired one may be there for the minutes in which clocks differ.
                self._protocol.engine.counters.drops[bad.reason] += 1
            else:
                believed.append(entry)
        return believed


def _place(nonce: bytes, entry: TopicEntry) -> int:
    return int.from_bytes(order_of(nonce, entry.public_key, withdrawn=not entry.value), "big")
