"""What applications call to announce themselves under a topic, and to read one. Part of `server.Dht`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey, SigningKey
from p2pnode.core.network import Network
from p2pnode.dht.announcing import Announcer
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.results import PutResult
from p2pnode.dht.topic_entries import TopicEntry
from p2pnode.dht.topic_reading import TopicReader, TopicResult
from p2pnode.dht.topics import TopicStorage
from p2pnode.dht.writing import Writer

__all__ = ["Topics"]

TOPIC_LIFE = 1_800.0  # seconds; refreshed each ten minutes
MAX_READ = 10_000  # entries; about 4 MB


class Topics:
    """The calls about topics. A topic is 20 bytes: `topic_id(name)`, or anything that nobody can guess."""

    key: NodeKey
    network: Network
    network_tag: bytes
    protocol: DhtProtocol
    _writer: Writer

    def _start_topics(self, storage: TopicStorage) -> None:
        self._topics = storage
        self._announcer = Announcer(self._writer, self.network, self.network_tag, lambda: self._chosen(None))
        self._topic_reader = TopicReader(self.protocol, storage, self.network, self.network_tag)

    async def announce(
        self, topic: bytes, value: bytes, *, key: SigningKey | None = None, life: float = TOPIC_LIFE,
        realms: Iterable[Realm] | None = None,
    ) -> PutResult:  # fmt: skip
        """Announce `value` (1 to 200 bytes) under a topic, signed by `key` (None: the node's), until `unannounce`.

        `life`: seconds (60 to 3,600) that the entry stays when we vanish; it is refreshed after a third of that.
        `realms`: None for all in which we are, or come to be. One entry per topic and key: another one replaces it.
        Return how many holders confirmed; what is not stored is tried again after 15 s. Raise ValueError.
        """
        return await self._announcer.announce(topic, value, key or self.key, life, realms)

    async def unannounce(self, topic: bytes, *, key: bytes | None = None) -> PutResult | None:
        """Withdraw our entry, of the signer with the public key `key` (None: the node's); None when there is none."""
        return await self._announcer.unannounce(topic, self.key.public_raw if key is None else key)

    def abandon(self, topic: bytes, *, key: bytes | None = None) -> None:
        """Keep our entry no longer; what is stored of it stays until it expires, also when this node stops."""
        self._announcer.abandon(topic, self.key.public_raw if key is None else key)

    async def unannounce_all(self) -> None:
        """Withdraw all our entries."""
        await self._announcer.unannounce_all()

    def announced(self) -> list[tuple[bytes, bytes, bytes, int]]:
        """Return (topic, signer's public key, value, holders that confirmed last time) of each of our entries."""
        return self._announcer.announced()

    async def topic(
        self, topic: bytes, *, limit: int = 1_000, sample: bool = False, realms: Iterable[Realm] | None = None
    ) -> TopicResult:
        """Return the entries under a topic: all up to `limit` (at most 10,000), or with `sample` so many at random.

        Never raises for a topic that nobody knows.
        """
        chosen = self._chosen(realms)
        limit = max(1, min(limit, MAX_READ))
        if sample:
            return await self._topic_reader.sample(topic, chosen, limit)
        return await self._topic_reader.whole(topic, chosen, limit)

    async def topic_pages(
        self, topic: bytes, *, max_shards: int = 512, realms: Iterable[Realm] | None = None
    ) -> AsyncIterator[list[TopicEntry]]:
        """Yield the entries of a topic shard by shard, as they come: for topics too large to wait for.

        A signer comes again when a later shard has a newer entry; an empty value withdraws what came before.
        """
        seen: dict[bytes, int] = {}
        async for read in self._topic_reader.shards(topic, self._chosen(realms), max_shards):
            fresh = [entry for entry in read.entries.values() if entry.seq > seen.get(entry.public_key, -1)]
            seen.update((entry.public_key, entry.seq) for entry in fresh)
            if fresh:
                yield fresh

    def _chosen(self, realms: Iterable[Realm] | None) -> list[Overlay]:
        return self._overlays(frozenset(Realm if realms is None else realms))

    def _overlays(self, realms: Collection[Realm]) -> list[Overlay]:
        raise NotImplementedError  # `Dht` knows
