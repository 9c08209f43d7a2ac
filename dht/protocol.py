"""The asyncio shell: datagrams and one timer drive the engine; calls and lookups become awaitable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht.calls import Call, Outcome
from p2pnode.dht.contact import Contact
from p2pnode.dht.crawl import Crawl
from p2pnode.dht.engine import Engine
from p2pnode.dht.messages import Request
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.storage import RecordStorage

__all__ = ["DhtProtocol"]

T = TypeVar("T")
log = structlog.get_logger(__name__)


class DhtProtocol(KademliaProtocol):
    """`kademlia`'s protocol with its datagram layer (`rpcudp`) replaced by the authenticated engine."""

    def __init__(self, engine: Engine, network: Network, storage: RecordStorage) -> None:
        super().__init__(Node(engine.node_id), storage, engine.settings.ksize)
        self.engine = engine
        engine.counters.clock = network.monotonic
        engine.calls.on_due = engine.notices.on_due = self._arm
        self.routers = engine.members.tables
        self.router = self.routers[Overlay.PUBLIC_IPV4]
        self._network = network
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._stopped = False
        self._crawls: set[Crawl] = set()

    def __getattr__(self, name: str) -> object:
        # The original turns any unknown name into a remote call: a misspelling would send datagrams.
        raise AttributeError(name)

    def wall(self) -> float:
        return self._network.wall()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Take a datagram from the mux. Never raises."""
        if self._stopped:
            return
        try:
            self.engine.receive(data, addr, self._network.monotonic(), self._network.wall())
        except Exception:  # the last boundary: one datagram must never end the socket's handler
            self.engine.counters.drops["internal_error"] += 1
            log.exception("dht_datagram_failed")

    def start_call(
        self, address: Address, node_id: NodeId | None, request: Request, *, on_done: Callable[[Outcome], None],
        on_late: Callable[[], None] | None = None, timeout: float | None = None, once: bool = False,
    ) -> Call:  # fmt: skip
        return self.engine.call(
            address, node_id, request, now=self._network.monotonic(), wall=self._network.wall(), on_done=on_done,
            on_late=on_late, timeout=timeout, once=once,
        )  # fmt: skip

    def ask(
        self, contact: Contact, request: Request, on_done: Callable[[Outcome], None], on_late: Callable[[], None]
    ) -> Call:
        """For `Crawl`."""
        return self.start_call(contact.address, NodeId(contact.id), request, on_done=on_done, on_late=on_late)

    def forget(self, call: Call) -> None:
        self.engine.cancel(call)

    async def request(
        self, address: Address, node_id: NodeId | None, request: Request, timeout: float | None = None
    ) -> Outcome:
        """Ask one node and wait. Never raises; cancelling it leaves nothing behind."""
        if self._stopped:
            return Outcome(None, "stopped")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        call = self.start_call(
            address, node_id, request, on_done=lambda outcome: _resolve(future, outcome), timeout=timeout
        )
        try:
            return await future
        finally:
            self.engine.cancel(call)

    async def crawl(
        self, target: NodeId, overlay: Overlay, *, contacts: Iterable[Contact] | None = None, quorum: int | None = None,
        record: SignedRecord | None = None, alpha: int | None = None,
        on_answered: Callable[[Contact, bytes], None] | None = None,
        on_record: Callable[[Crawl], None] | None = None, on_begun: Callable[[Crawl], None] | None = None,
        judged: bool = False,
    ) -> Crawl:  # fmt: skip
        """Look `target` up in one overlay; `contacts`: None to begin with the nearest of the table. `judged`: it is
        a record's key."""
        future: asyncio.Future[Crawl] = asyncio.get_running_loop().create_future()
        crawl = Crawl(
            self, self.engine, target, overlay, lambda done: _resolve(future, done), quorum=quorum, alpha=alpha,
            on_answered=on_answered, on_record=on_record, judged=judged,
        )  # fmt: skip
        if self._stopped:
            return crawl
        table = self.routers[overlay]
        table.looked_up(target, self._network.monotonic())
        self._crawls.add(crawl)
        if on_begun is not None:
            on_begun(crawl)
        started = self._network.monotonic()
        try:
            if contacts is None:
                told = self.engine.members.told_of(overlay, target, started)
                crawl.start(table.closest(target, self.engine.settings.ksize), record, told)
            else:
                crawl.start(contacts, record)
            await future
            self.engine.counters.lookups.add(self._network.monotonic() - started)
            return crawl
        finally:
            self._crawls.discard(crawl)
            if crawl.running:
                crawl.cancel()

    def close(self) -> None:
        """End all calls; whoever waits gets a failure at once."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in self.engine.calls.all():
            if self.engine.calls.close(call):
                call.on_done(Outcome(None, "stopped"))

    def _arm(self, at: float) -> None:
        if at >= self._timer_at or self._stopped:
            return  # the armed one comes early enough, and arms the next
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        if not self._stopped:
            self.engine.handle_timer(self._network.monotonic(), self._network.wall())
            at = self.engine.next_timer()
            if at is not None:
                self._arm(at)


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
