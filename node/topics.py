"""Topics for applications: announce oneself under a name, and find who else did. Part of `node.Node`."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.ids import PeerId
from p2pnode.core.keys import SigningKey
from p2pnode.core.network import Network
from p2pnode.dht import Dht, TopicEntry, topic_id

__all__ = ["Announced", "TopicListing", "TopicMember", "Topical"]

MAX_NAME = 200  # characters of a topic's name
TOPIC_LIFE = 1_800.0  # seconds


@dataclass(frozen=True, slots=True)
class TopicMember:
    """Who announced itself, and with what. `age_s`: since it signed that. `value` is a stranger's: clean it."""

    peer: PeerId
    value: bytes
    age_s: float


@dataclass(frozen=True, slots=True)
class TopicListing:
    """`complete`: nobody was left out by the limit or by silent holders. `population`: members as the holders say.

    `answered`: holders that answered; 0 means that nothing is known, not that nobody announced.
    """

    members: tuple[TopicMember, ...]
    complete: bool
    population: int
    answered: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Announced:
    """How an announcement went. `stored`: nodes that confirmed to hold it, of `tried`; it is tried on behind this."""

    stored: int
    tried: int
    seconds: float


class Topical:
    """The calls about topics. A topic is a name, or 20 bytes of the application's own (which nobody can guess)."""

    dht: Dht
    network: Network

    async def announce(
        self, topic: str | bytes, value: bytes, *, key: SigningKey | None = None, life: float = TOPIC_LIFE
    ) -> Announced:
        """Announce `value` (1 to 200 bytes) under a topic until `unannounce`, `abandon` or the end of the node.

        `key` signs it (None: the node's): one entry per topic and key, the newest counts. `life`: seconds (60 to
        3,600) after which whoever vanished is gone; refreshed after a third of that. Raise ValueError.
        """
        result = await self.dht.announce(_topic(topic), value, key=key, life=life)
        return Announced(result.stored, result.tried, result.elapsed_s)

    async def unannounce(self, topic: str | bytes, *, key: SigningKey | None = None) -> bool:
        """Withdraw what was announced; return whether there was anything."""
        return await self.dht.unannounce(_topic(topic), key=None if key is None else key.public_raw) is not None

    def abandon(self, topic: str | bytes, *, key: SigningKey | None = None) -> None:
        """Keep an announcement no longer, without withdrawing it: it stays for the rest of its life."""
        self.dht.abandon(_topic(topic), key=None if key is None else key.public_raw)

    async def topic(self, topic: str | bytes, *, limit: int = 1_000, sample: bool = False) -> TopicListing:
        """Return who announced itself under a topic: all up to `limit`, or with `sample` so many at random.

        Entries are proven by their signer's key; whether that peer is online is another question.
        """
        result = await self.dht.topic(_topic(topic), limit=limit, sample=sample)
        members = tuple(self._member(entry) for entry in result.entries)
        return TopicListing(members, result.complete, result.population, result.answered, result.elapsed_s)

    def _member(self, entry: TopicEntry) -> TopicMember:
        age_s = max(0.0, self.network.wall() - entry.seq / 1000)
        return TopicMember(PeerId(entry.public_key), entry.value, age_s)


def _topic(topic: str | bytes) -> bytes:
    if isinstance(topic, bytes):
        return topic
    if not 1 <= len(topic) <= MAX_NAME:
        raise ValueError(f"a topic's name has 1 to {MAX_NAME} characters")
    return topic_id(topic)
