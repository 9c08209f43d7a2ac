"""Joining: search our own neighbourhood from the nodes that are known to begin with, in each overlay. A thin shell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.contact import Contact, KnownContact
from p2pnode.dht.crawl import Crawl
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.settings import DhtSettings

__all__ = ["Joining"]

log = structlog.get_logger(__name__)

MAX_BOOTSTRAP = 20  # contacts asked at once, per overlay
RETURN_PAUSE = 10.0  # s between two searches for those that came back with one that had been given up
HINT_PAUSE = 30.0  # s between two attempts to join an overlay through nodes named in passing
FILL_PAUSE = 15.0  # s, on average, until far buckets are filled that have hardly anybody
FARTHER_ONES = 8
SETTLE_PAUSES = (0.5, 2.0, 8.0, 30.0)  # s between looks around while the table is small


class _Search:
    """A search for our own neighbourhood that goes on. `crawl` is set at once, before anything can wait for it."""

    def __init__(self) -> None:
        self.crawl: Crawl | None = None
        self.ended = asyncio.Event()

    def begun(self, crawl: Crawl) -> None:
        self.crawl = crawl


class Joining:
    """Of one node. Ends with `stop`. `settles`: whether to look around again after a search; set by `Dht`."""

    def __init__(self, protocol: DhtProtocol, network: Network, settings: DhtSettings) -> None:
        self._protocol, self._network, self._settings = protocol, network, settings
        self._members = protocol.engine.members
        self._members.on_hint = self._heard_of
        self._members.on_returned = self._returned
        self._searches: dict[Overlay, _Search] = {}
        self._settling: set[Overlay] = set()
        self._hints: dict[Overlay, list[Contact]] = {}
        self._returns_at: dict[Overlay, float] = {}
        self._tasks = TaskSet()
        self.settles = False

    async def through(self, contacts: Iterable[KnownContact]) -> int:
        """Ask these nodes for our own neighbourhood and search on from there; return how many of them answered."""
        found: dict[Overlay, list[Contact]] = {}
        for known in contacts:
            overlay = self._members.overlay_of(known.address.ip)
            if overlay is not None and known.address.port and len(found.setdefault(overlay, [])) < MAX_BOOTSTRAP:
                found[overlay].append(Contact(known.node_id, known.address, overlay, known.peer_id))
        counts = await asyncio.gather(*(self._join(overlay, some) for overlay, some in found.items()))
        return sum(counts)

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _join(self, overlay: Overlay, contacts: list[Contact]) -> int:
        """A search that others have begun takes these in, asks each of them, and goes on from what they say: three
        bootstrap nodes cost one search, and one honest one among them is enough (security.md E2)."""
        search = self._searches.get(overlay)
        if search is None:
            search = self._searches[overlay] = _Search()
            try:
                await self._search(overlay, contacts, search)
            finally:
                del self._searches[overlay]
                search.ended.set()
        elif search.crawl is not None:
            search.crawl.also(contacts)
            await search.ended.wait()
        answered = {} if search.crawl is None else search.crawl.answered
        return sum(1 for contact in contacts if contact.id in answered)

    async def _search(self, overlay: Overlay, contacts: list[Contact], search: _Search) -> None:
        # All k nearest are asked in the end, and nobody waits in line: at once is one round trip instead of three.
        at_once = max(self._settings.alpha, self._settings.ksize, len(contacts))
        crawl = await self._protocol.crawl(
            self._protocol.engine.node_id, overlay, contacts=contacts, alpha=at_once, on_begun=search.begun
        )
        log.info("dht_joined", overlay=overlay.label, queried=crawl.lookup.queried)
        if self.settles and overlay not in self._settling:
            self._settling.add(overlay)
            self._tasks.spawn(self._settle(overlay))

    async def _settle(self, overlay: Overlay) -> None:
        """Look around again shortly after joining: others may have joined at the same moment, unknown to each other.

        The far parts of the id space come with the first publishes and reads: measured with 300 nodes, filling them at
        once made no read faster and cost each newcomer 80 datagrams. Where nobody publishes they are filled a little
        later (Kademlia 2002, section 2.3, does so at once): a far half known by one contact is lost with that contact.
        """
        try:
            table = self._members.tables[overlay]
            for pause in SETTLE_PAUSES:
                if len(table) >= self._settings.ksize:
                    break
                await asyncio.sleep(pause * self._network.rng.uniform(0.8, 1.2))
                await self._protocol.crawl(self._protocol.engine.node_id, overlay)
            await asyncio.sleep(FILL_PAUSE * self._network.rng.uniform(0.5, 1.5))
            await self._fill(overlay)
        finally:
            self._settling.discard(overlay)

    async def _fill(self, overlay: Overlay) -> None:
        """Look for nodes where our table has hardly any, the farthest part first.

        Who joined at the same moment as we did, next to us, knows as little: those farther away are asked too, for whom
        the part in question is a part of one well-filled bucket.
        """
        table, rng = self._members.tables[overlay], self._network.rng
        done = -1
        while (index := table.thin_bucket(done + 1)) is not None:
            done = index
            farther = [contact for bucket in table.buckets[:index] for contact in bucket.nodes.values()]
            others = rng.sample(farther, min(FARTHER_ONES, len(farther)))
            target = table.buckets[index].random_id(rng.getrandbits(160))
            await self._protocol.crawl(target, overlay, on_begun=lambda crawl, others=others: crawl.also(others))  # type: ignore[misc]

    def _heard_of(self, contact: Contact) -> None:
        """An answer named a node of an overlay of which we hardly know anybody: join that too, now and then."""
        hints = self._hints.get(contact.overlay)
        if hints is None:
            hints = self._hints[contact.overlay] = []
            self._tasks.spawn(self._join_by_hints(contact.overlay))
        if len(hints) < MAX_BOOTSTRAP:
            hints.append(contact)

    def _returned(self, contact: Contact) -> None:
        """One that had been given up answers. With it others may be back, a whole half of a network that fell apart:
        ask it for our neighbourhood."""
        now = self._network.monotonic()
        if self.settles and now >= self._returns_at.get(contact.overlay, 0.0):
            self._returns_at[contact.overlay] = now + RETURN_PAUSE
            self._tasks.spawn(self._join_through(contact))

    async def _join_through(self, contact: Contact) -> None:
        await self._join(contact.overlay, [contact])

    async def _join_by_hints(self, overlay: Overlay) -> None:
        try:
            await asyncio.sleep(0)  # the rest of the answer
            await self._join(overlay, self._hints[overlay])
            await asyncio.sleep(HINT_PAUSE * self._network.rng.uniform(0.8, 1.2))
        finally:
            del self._hints[overlay]
