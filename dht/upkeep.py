"""The work that keeps a node useful while nobody uses it: pings, refreshed buckets, expiry. Decisions: `neighbours`."""

from __future__ import annotations

import asyncio

from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.calls import ignore
from p2pnode.dht.contact import Contact
from p2pnode.dht.handing import HandOver
from p2pnode.dht.messages import Ping
from p2pnode.dht.neighbours import CALM_AFTER, CheckUp, most_silent
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.repairing import Repairer
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.topics import TopicStorage

__all__ = ["Upkeep"]


class Upkeep:
    """Of one node, in all overlays. Begins with `start`, ends with `stop`."""

    def __init__(
        self,
        protocol: DhtProtocol,
        storage: RecordStorage,
        topics: TopicStorage,
        network: Network,
        settings: DhtSettings,
    ) -> None:
        self._protocol, self._storage, self._network, self._settings = protocol, storage, network, settings
        self._topics = topics
        self._members = protocol.engine.members
        self._checks = {overlay: CheckUp(table, settings) for overlay, table in self._members.tables.items()}
        self._checking: set[Overlay] = set()
        self._lost_at: dict[Overlay, float] = {}  # when a neighbour was lost, or the first contact came
        self._repairer = Repairer(protocol, storage, network, settings)
        self._hand_over = HandOver(protocol, storage, network, settings)
        self._tasks = TaskSet()
        self._members.on_missed = self._missed
        self._members.on_newcomer = self._newcomer

    def start(self) -> None:
        self._tasks.spawn(self._keep_up())
        self._tasks.spawn(self._repairer.run())
        self._tasks.spawn(self._hand_over.run())

    @property
    def running(self) -> bool:
        return len(self._tasks) > 0

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _keep_up(self) -> None:
        settings, rng = self._settings, self._network.rng
        turn = 0
        round_at = refresh_at = self._network.monotonic()
        round_at += settings.maintenance_interval
        refresh_at += settings.refresh_pause
        while True:
            # Jitter, so that nodes started together do not ping each other in step.
            await asyncio.sleep(settings.maintenance_interval / settings.pings_per_round * rng.uniform(0.9, 1.1))
            now = self._network.monotonic()
            turn += 1
            tables, serving = self._members.tables, self._members.serving
            calm = {
                overlay
                for overlay in serving
                if len(tables[overlay]) and now - self._lost_at.setdefault(overlay, now) > CALM_AFTER
            }
            contact = most_silent(tables.values(), serving, now, settings, turn, calm)
            if contact is not None:
                contact.last_pinged = now
                self._ping(contact)
            self._ask_the_dead(now)
            if now < round_at:
                continue
            round_at = now + settings.maintenance_interval
            self._storage.expire(now)
            self._topics.expire(now)
            self._protocol.engine.rendezvous.expire(now)
            self._protocol.engine.notices.expire(now)
            if now >= refresh_at:
                refresh_at = now + settings.refresh_pause
                await self._refresh_oldest(now)

    def _ask_the_dead(self, now: float) -> None:
        """Ask one of those that were given up once more, with one datagram: a partition may have healed."""
        for graves in self._members.graves.values():
            contact = graves.next(now)
            if contact is not None:
                self._protocol.start_call(contact.address, NodeId(contact.id), Ping(), on_done=ignore, once=True)

    def _ping(self, contact: Contact) -> None:
        # The engine counts the answer or the miss; nobody waits for it.
        self._protocol.start_call(contact.address, NodeId(contact.id), Ping(), on_done=ignore)

    def _newcomer(self, overlay: Overlay, contact: Contact) -> None:
        if self.running and overlay in self._members.serving:
            self._hand_over.joined(overlay, contact)

    def _missed(self, overlay: Overlay, contact: Contact, dropped: bool) -> None:
        if not self.running or overlay not in self._members.serving:
            return  # we hold nothing there
        if dropped:
            self._repairer.lost(overlay, contact)
        is_near = self._checks[overlay].missed(contact)
        if is_near and dropped:
            self._lost_at[overlay] = self._network.monotonic()
        if is_near and overlay not in self._checking:
            self._checking.add(overlay)
            self._tasks.spawn(self._check(overlay))

    async def _check(self, overlay: Overlay) -> None:
        try:
            while True:
                contact, pause = self._checks[overlay].next(self._network.monotonic())
                if contact is not None:
                    self._ping(contact)
                elif pause < 0:
                    return
                await asyncio.sleep(pause)
        finally:
            self._checking.discard(overlay)

    async def _refresh_oldest(self, now: float) -> None:
        """Look up a random id in the bucket that was left alone longest (Kademlia section 2.3, "refresh")."""
        stale = [
            (bucket.looked_up_at, overlay.label, index, overlay)
            for overlay, table in self._members.tables.items()
            if len(table) >= self._settings.ksize
            for index, bucket in enumerate(table.buckets)
            if now - bucket.looked_up_at > self._settings.refresh_interval
        ]
        if stale:
            _, _, index, overlay = min(stale)
            bucket = self._members.tables[overlay].buckets[index]
            bucket.looked_up_at = now
            await self._protocol.crawl(bucket.random_id(self._network.rng.getrandbits(160)), overlay)
