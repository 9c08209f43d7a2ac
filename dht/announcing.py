"""Keeps own topic entries where readers look for them: announced, refreshed while wanted, withdrawn.

An entry goes into the shallowest shard of its signer's branch that has room. Each refresh begins one shard above the
one that had room last time, so entries move up again when a topic shrinks, and readers find no gap on their way down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog

from p2pnode.core.address import Realm
from p2pnode.core.keys import SigningKey
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.results import PutResult
from p2pnode.dht.topic_entries import MAX_DEPTH, MAX_ENTRY_VALUE, MAX_TOPIC_LIFE, TOPIC_BYTES, TopicEntry
from p2pnode.dht.writing import Writer

__all__ = ["Announcer"]

log = structlog.get_logger(__name__)

REFRESH_SHARE = 3  # of its life an entry is refreshed after a third: two refreshes may fail
RETRY_S = 15.0  # after an announcement that nobody stored; also how soon an overlay that is new is noticed
JITTER = 0.1
MIN_LIFE = 60.0
SLEPT_S = 30.0  # wall clock against monotonic one: the machine slept, or its clock was set
AT_ONCE = 8  # entries refreshed at the same time
MAX_KEPT = 1_024  # own entries; about 1 kB each


class _Own:
    """An entry that is wanted. `places`: where it is, with the moment (monotonic) when its last version there ends."""

    __slots__ = (
        "depths",
        "due_at",
        "expires",
        "key",
        "life",
        "lock",
        "places",
        "realms",
        "seq",
        "stored",
        "topic",
        "value",
    )

    def __init__(self, key: SigningKey, topic: bytes, realms: frozenset[Realm] | None) -> None:
        self.key, self.topic, self.realms = key, topic, realms
        self.value = b""
        self.life = 0.0
        self.seq = self.expires = 0
        self.depths: dict[Overlay, int] = {}
        self.due_at: dict[Overlay, float] = {}
        self.places: dict[tuple[Overlay, int], float] = {}
        self.stored: dict[Overlay, int] = {}
        self.lock = asyncio.Lock()  # a refresh and a withdrawal must not overtake each other


class Announcer:
    """All own entries of one node."""

    def __init__(
        self, writer: Writer, network: Network, network_tag: bytes, overlays: Callable[[], list[Overlay]]
    ) -> None:
        """`overlays`: in which we know anybody."""
        self._writer, self._network, self._tag, self._overlays = writer, network, network_tag, overlays
        self._own: dict[tuple[bytes, bytes], _Own] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskSet()
        self._wall_ahead_s = 0.0

    async def announce(
        self, topic: bytes, value: bytes, key: SigningKey, life: float, realms: Iterable[Realm] | None
    ) -> PutResult:
        """Announce now, and keep it announced. See `Dht.announce`."""
        if len(topic) != TOPIC_BYTES or not 1 <= len(value) <= MAX_ENTRY_VALUE:
            raise ValueError("a topic has 20 bytes, an entry 1 to 200")
        if not MIN_LIFE <= life <= MAX_TOPIC_LIFE:
            raise ValueError("an entry lives for 60 s to an hour")
        name = (topic, key.public_raw)
        own = self._own.get(name)
        if own is None:
            if len(self._own) >= MAX_KEPT:
                raise ValueError("too many entries are announced")
            own = self._own[name] = _Own(key, topic, frozenset(realms) if realms is not None else None)
        own.value, own.life = value, life
        own.due_at.clear()
        results = await self._publish_due(own)
        if not len(self._tasks):
            self._wall_ahead_s = self._network.wall() - self._network.monotonic()
            self._tasks.spawn(self._run())
        self._wake.set()
        return _sum(results)

    async def unannounce(self, topic: bytes, key: bytes) -> PutResult | None:
        """Withdraw; return None when nothing was announced."""
        own = self._own.pop((topic, key), None)
        if own is None:
            return None
        async with own.lock:
            now = self._network.monotonic()
            places = [place for place, until in own.places.items() if until > now]
            entry = self._sign(own, b"")
            results = [self._writer.announce(entry, topic, depth, overlay) for overlay, depth in places]
            return _sum(await asyncio.gather(*results))

    def abandon(self, topic: bytes, key: bytes) -> None:
        """Keep an entry no longer; what is stored of it stays until it expires."""
        self._own.pop((topic, key), None)

    async def unannounce_all(self) -> None:
        await asyncio.gather(*(self.unannounce(topic, key) for topic, key in list(self._own)))

    def announced(self) -> list[tuple[bytes, bytes, bytes, int]]:
        """Return (topic, signer's key, value, holders that confirmed last time) of each own entry."""
        return [(own.topic, own.key.public_raw, own.value, sum(own.stored.values())) for own in self._own.values()]

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _run(self) -> None:
        while self._own:
            self._wake.clear()
            now = self._network.monotonic()
            wall_ahead_s = self._network.wall() - now
            slept = abs(wall_ahead_s - self._wall_ahead_s) > SLEPT_S
            self._wall_ahead_s = wall_ahead_s
            owns = list(self._own.values())
            for own in owns if slept else ():
                own.due_at.clear()
            for at in range(0, len(owns), AT_ONCE):
                await asyncio.gather(*(self._publish_due(own) for own in owns[at : at + AT_ONCE]))
            now = self._network.monotonic()
            due = [at for own in self._own.values() for at in own.due_at.values()]
            uncovered = any(self._wanted(own) - own.due_at.keys() for own in self._own.values())
            wait = max(0.1, min(min(due, default=now + RETRY_S) - now, 0.1 if uncovered else RETRY_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _wanted(self, own: _Own) -> frozenset[Overlay]:
        return frozenset(each for each in self._overlays() if own.realms is None or each.realm in own.realms)

    async def _publish_due(self, own: _Own) -> list[PutResult]:
        async with own.lock:
            now = self._network.monotonic()
            if self._own.get((own.topic, own.key.public_raw)) is not own:
                return []  # withdrawn meanwhile
            due = [overlay for overlay in self._wanted(own) if own.due_at.get(overlay, 0.0) <= now]
            if not due:
                return []
            entry = self._sign(own, own.value)
            return await asyncio.gather(*(self._publish(own, entry, overlay) for overlay in due))

    async def _publish(self, own: _Own, entry: TopicEntry, overlay: Overlay) -> PutResult:
        depth = max(0, own.depths.get(overlay, 0) - 1)
        while True:
            result = await self._writer.announce(entry, own.topic, depth, overlay)
            if result.stored or result.local:
                own.places[overlay, depth] = self._network.monotonic() + own.life
            # Stores also go to nodes that are only nearly among the k nearest, where readers do not look.
            nearest = min(result.tried, self._writer.settings.ksize)
            if 2 * result.refused.get("deeper", 0) < max(nearest, 1) or depth == MAX_DEPTH:
                break
            depth += 1
        own.depths[overlay] = depth
        own.stored[overlay] = result.stored
        now = self._network.monotonic()
        if result.stored:  # our own copy is no use to others, and the nearest that we know may just have died
            own.due_at[overlay] = now + own.life / REFRESH_SHARE * (1 - JITTER * self._network.rng.random())
        else:
            own.due_at[overlay] = now + RETRY_S
            log.warning("announcement_not_stored", overlay=overlay.label, tried=result.tried, refused=result.refused)
        return result

    def _sign(self, own: _Own, value: bytes) -> TopicEntry:
        wall = self._network.wall()
        own.seq = max(own.seq + 1, int(wall * 1000))
        expires = int(wall + own.life)
        # What withdraws must not end before what it withdraws, or that one could be brought back.
        own.expires = expires if value else max(expires, min(own.expires, int(wall) + MAX_TOPIC_LIFE))
        return TopicEntry.sign(own.key, self._tag, own.topic, own.seq, own.expires, value)


def _sum(results: list[PutResult]) -> PutResult:
    """Several overlays' results as one."""
    refused: dict[str, int] = {}
    for result in results:
        for why, count in result.refused.items():
            refused[why] = refused.get(why, 0) + count
    return PutResult(
        stored=sum(result.stored for result in results),
        tried=sum(result.tried for result in results),
        local=any(result.local for result in results),
        elapsed_s=max((result.elapsed_s for result in results), default=0.0),
        refused=refused,
    )
