"""Carries out what `repair` decides: searches a record's nearest nodes, and stores it on those that lack it."""

from __future__ import annotations

import asyncio

import structlog

from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht.calls import ignore
from p2pnode.dht.contact import Contact
from p2pnode.dht.limits import Budget
from p2pnode.dht.messages import Put
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.reading import ALL_OF_THEM
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.repair import RepairPlan
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage

__all__ = ["Repairer"]

log = structlog.get_logger(__name__)

LOOK_EVERY = 5.0  # s: losses of that time are judged together
MAX_LOST = 256  # dropped contacts waiting to be judged


class Repairer:
    """One record at a time, within budgets. The record stays its author's: neither `seq` nor `expires` changes.

    Stores go only to nodes that answered our own search from their address, with their key, and lacked the record: no
    hearsay makes holders send to a victim.
    """

    def __init__(self, protocol: DhtProtocol, storage: RecordStorage, network: Network, settings: DhtSettings) -> None:
        self._protocol, self._storage, self._network = protocol, storage, network
        self._members = protocol.engine.members
        self._plan = RepairPlan(protocol.engine.node_id, self._members.tables, storage, settings)
        self._searches = Budget(settings.repair_rate, settings.repair_burst)
        self._stores = Budget(settings.repair_put_rate, settings.repair_put_burst)
        self._lost: dict[Overlay, list[Contact]] = {}
        self._ksize = settings.ksize

    def lost(self, overlay: Overlay, contact: Contact) -> None:
        """A contact was dropped from the table."""
        waiting = self._lost.setdefault(overlay, [])
        if len(waiting) < MAX_LOST:
            waiting.append(contact)

    async def run(self) -> None:
        """Repair for ever, until cancelled."""
        rng = self._network.rng
        while True:
            await asyncio.sleep(LOOK_EVERY * rng.uniform(0.9, 1.1))
            now = self._network.monotonic()
            for overlay, contacts in self._lost.items():
                if contacts:
                    self._plan.lost(overlay, contacts, now, rng.random())
                    contacts.clear()
            while len(self._plan) and self._searches.available(now) and (due := self._plan.next_due(now)):
                self._searches.take(now)
                await self._repair(*due)
                now = self._network.monotonic()

    async def _repair(self, overlay: Overlay, record: SignedRecord) -> None:
        crawl = await self._protocol.crawl(record.key, overlay, quorum=ALL_OF_THEM, record=record, judged=True)
        if crawl.record is None:
            return
        if crawl.record is not record:
            now, wall = self._network.monotonic(), self._network.wall()
            self._storage.store(crawl.record, overlay.realm, crawl.holders[0].prefix, now, wall)
        have = {holder.id for holder in crawl.holders}
        nearest = [crawl.answered[contact.id] for contact in crawl.lookup.closest()]
        brought = 0
        # We are one of the k nearest ourselves. In a region that is too dense all are to have it.
        for contact in nearest if crawl.region else nearest[: self._ksize - 1]:
            if contact.id not in have:
                await self._bring(contact, crawl.tokens[contact.id], crawl.record)
                brought += 1
        log.debug("record_repaired", overlay=overlay.label, had=len(have), brought=brought)

    async def _bring(self, contact: Contact, token: bytes, record: SignedRecord) -> None:
        if not self._stores.take(self._network.monotonic()):
            await asyncio.sleep(1 / self._stores.rate)
            self._stores.take(self._network.monotonic())
        self._protocol.start_call(contact.address, NodeId(contact.id), Put(token, record), on_done=ignore)
