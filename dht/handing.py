"""Carries out what `handover` decides: asks a newcomer for a record, and gives it the record when it lacks it."""

from __future__ import annotations

import asyncio

import structlog

from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht.calls import Outcome, ignore
from p2pnode.dht.contact import Contact
from p2pnode.dht.handover import HandOverPlan, Offer
from p2pnode.dht.limits import Budget
from p2pnode.dht.messages import Get, Put, Value
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage

__all__ = ["HandOver"]

log = structlog.get_logger(__name__)

LOOK_EVERY = 5.0  # s while newcomers wait


class HandOver:
    """Offers within a budget: two datagrams each, four when the newcomer lacks the record.

    They go to the address where the newcomer proved its key, and the store only after its answer.
    """

    def __init__(self, protocol: DhtProtocol, storage: RecordStorage, network: Network, settings: DhtSettings) -> None:
        self._protocol, self._storage, self._network = protocol, storage, network
        self._plan = HandOverPlan(protocol.engine.node_id, protocol.engine.members.tables, storage, settings)
        self._budget = Budget(settings.handover_rate, settings.handover_burst)
        self._came = asyncio.Event()
        self.offered = self.given = 0

    def joined(self, overlay: Overlay, contact: Contact) -> None:
        """A contact that we did not know entered the table."""
        self._plan.joined(overlay, contact, self._network.monotonic(), self._network.rng.random())
        if len(self._plan):
            self._came.set()

    async def run(self) -> None:
        """Hand over for ever, until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(LOOK_EVERY * self._network.rng.uniform(0.9, 1.1))
            while self._plan.due(self._network.monotonic()):
                offer = self._plan.next_offer(self._network.monotonic(), self._network.wall())
                if offer is None:
                    await asyncio.sleep(0)  # many records: others come in between
                    continue
                if not self._budget.take(self._network.monotonic()):
                    await asyncio.sleep(1 / self._budget.rate)
                    self._budget.take(self._network.monotonic())
                self._offer(offer)
            if not len(self._plan):
                self._came.clear()

    def _offer(self, offer: Offer) -> None:
        self.offered += 1
        self._protocol.start_call(
            offer.contact.address, NodeId(offer.contact.id), Get(offer.record.key),
            on_done=lambda outcome: self._answered(offer, outcome),
        )  # fmt: skip

    def _answered(self, offer: Offer, outcome: Outcome) -> None:
        answer, record = outcome.answer, offer.record
        if not isinstance(answer, Value):
            return
        if answer.record is None or answer.record.seq < record.seq:
            self.given += 1
            self._protocol.start_call(
                offer.contact.address, NodeId(offer.contact.id), Put(answer.token, record), on_done=ignore
            )
        elif answer.record.seq > record.seq and answer.record.key == record.key:
            # It has a newer one: then we are behind. `store` checks it.
            now, wall = self._network.monotonic(), self._network.wall()
            self._storage.store(answer.record, offer.overlay.realm, offer.contact.prefix, now, wall)
