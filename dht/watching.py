"""Watching records: `Dht.watch` keeps leases at holders and hands every newer version up. The shell of `subscription`.

All watches of a node share one task and two budgets, so that a hundred contacts cost a steady trickle and the death of
half the network no storm. Measured: about 45 datagrams a watched record and hour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

import structlog

from p2pnode.core.address import Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht.contact import Contact, KnownContact, pack_address
from p2pnode.dht.limits import Budget
from p2pnode.dht.messages import MAX_WAYS, Watch, Watching
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.records import SignedRecord, record_key
from p2pnode.dht.results import Told
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.subscription import Subscription

__all__ = ["LEASE_S", "LONG_LEASE_S", "Watcher"]

log = structlog.get_logger(__name__)

LEASE_S = 1_440.0
LONG_LEASE_S = 2_880.0  # where each renewal has to prove a new mapping first, with four datagrams more
SEARCH_RATE, SEARCH_BURST = 0.5, 4.0
ASK_RATE, ASK_BURST = 5.0, 30.0
BUSY_S = 0.5
SHORT_LEASE_S = 300.0  # a holder that grants less would have itself asked all the time
SETTLED_S = 60.0  # a holder without what was published before that missed it

WatchKey = tuple[Realm, bytes]


@dataclass(eq=False)
class _Watched:
    """One key. `since`: when we first had the version of `seq`. `doubted`: a search shows whether it is the last."""

    key: WatchKey
    subscription: Subscription
    on_told: Callable[[Told], None]
    record: SignedRecord | None = None
    since: float = 0.0
    doubted: bool = False
    ways: dict[bytes, tuple[KnownContact, ...]] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        return self.record.seq if self.record is not None else 0


class Watcher:
    """All watches of one node."""

    def __init__(self, protocol: DhtProtocol, storage: RecordStorage, network: Network) -> None:
        self._protocol, self._storage, self._network = protocol, storage, network
        self._engine = protocol.engine
        self._watched: dict[WatchKey, _Watched] = {}
        self._searches, self._asks = Budget(SEARCH_RATE, SEARCH_BURST), Budget(ASK_RATE, ASK_BURST)
        self._wake = asyncio.Event()
        self._tasks = TaskSet()
        self._running = False
        self._ways: tuple[KnownContact, ...] = ()
        self._lease_s = LEASE_S
        notices = self._engine.notices
        notices.watched = lambda realm, key: (realm, key) in self._watched
        notices.wanted = self._wanted
        notices.on_notice = self._noticed

    def watch(self, public_key: bytes, salt: bytes, realm: Realm, on_told: Callable[[Told], None]) -> None:
        """Call `on_told` with what is held now, and with each newer version; one watch for each record and realm."""
        key = realm, record_key(public_key, salt)
        if key not in self._watched:
            subscription = Subscription(self._lease_s, self._network.rng)
            self._watched[key] = _Watched(key, subscription, on_told)
            if not self._running:
                self._running = True
                self._tasks.spawn(self._run())
            self._wake.set()

    def doubt(self, public_key: bytes, salt: bytes, realm: Realm) -> bool:
        """Search now: our holders should have told of a newer version by now. `on_told` is called with what is found.

        Return False when this record is not watched. If there is a newer one, all three holders withheld it.
        """
        watched = self._watched.get((realm, record_key(public_key, salt)))
        if watched is not None:
            watched.doubted = True
            watched.subscription.search_now(self._network.monotonic())
            self._wake.set()
        return watched is not None

    def unwatch(self, public_key: bytes, salt: bytes, realm: Realm) -> None:
        """End a watch; its holders are told."""
        watched = self._watched.pop((realm, record_key(public_key, salt)), None)
        if watched is not None:
            for contact in watched.subscription.holders:
                request = Watch(watched.key[1], watched.seq, 0, [])
                self._protocol.start_call(contact.address, NodeId(contact.id), request, on_done=lambda _: None)

    def holders(self, public_key: bytes, salt: bytes, realm: Realm) -> tuple[KnownContact, ...]:
        """Return the nodes that will tell us of a change."""
        watched = self._watched.get((realm, record_key(public_key, salt)))
        return tuple(c.known() for c in watched.subscription.holders) if watched is not None else ()

    def reached_through(self, ways: Iterable[KnownContact], *, long: bool = False) -> None:
        """Say how we are told in the public realm from now on: through these nodes, or directly when there are none.

        `long`: leases are longer, since renewing costs more.
        """
        self._ways, self._lease_s = tuple(ways), LONG_LEASE_S if long else LEASE_S
        now = self._network.monotonic()
        for watched in self._watched.values():
            watched.subscription.lease_s = self._lease_s
            public = watched.key[0] is Realm.PUBLIC
            if public and any(self._outdated(used) for used in watched.ways.values()):
                watched.subscription.renew(now)
        self._wake.set()

    def renew(self) -> None:
        """Our address is another one: tell all holders."""
        now = self._network.monotonic()
        for watched in self._watched.values():
            watched.subscription.renew(now)
        self._wake.set()

    async def stop(self) -> None:
        """End everything. Leases end by themselves."""
        await self._tasks.cancel()

    # -- asking -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = self._step() - self._network.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(pause, 0.01) if pause != float("inf") else None):
                    await self._wake.wait()

    def _step(self) -> float:
        """Begin what is due and within the budgets; return when to look again."""
        now = self._network.monotonic()
        busy = False
        for watched in list(self._watched.values()):
            subscription = watched.subscription
            if self._searches.available(now) and subscription.search_due(now):
                self._searches.take(now)
                self._tasks.spawn(self._search(watched))
            while self._asks.available(now) and (contact := subscription.next_ask(now)) is not None:
                self._asks.take(now)
                self._tasks.spawn(self._ask(watched, contact))
            busy = busy or subscription.next_at() <= now
        if busy:
            return now + BUSY_S
        return min((watched.subscription.next_at() for watched in self._watched.values()), default=float("inf"))

    async def _search(self, watched: _Watched) -> None:
        """Read the record, and remember who answered: those that have it first, of both address families."""
        realm, key = watched.key
        held = self._storage.read(realm, key, self._network.monotonic()) or watched.record
        overlays = [overlay for overlay in Overlay.both(realm) if len(self._engine.members.tables[overlay])]
        quorum = self._engine.settings.read_quorum
        contacts: list[Contact] = []
        try:
            crawls = await asyncio.gather(
                *(
                    self._protocol.crawl(NodeId(key), overlay, quorum=quorum, record=held, judged=True)
                    for overlay in overlays
                )
            )
            best = max((crawl.record for crawl in crawls if crawl.record), key=lambda record: record.seq, default=None)
            has = {contact.id for crawl in crawls if crawl.record == best for contact in crawl.holders}
            goal = int.from_bytes(key, "big")
            ranked = [sorted(crawl.answered.values(), key=lambda c: c.long_id ^ goal) for crawl in crawls]
            answered = {c.id: c for turn in zip_longest(*ranked) for c in turn if c is not None}.values()
            contacts = _diverse([*(c for c in answered if c.id in has), *(c for c in answered if c.id not in has)])
            if watched.doubted and best is not None and best.seq > watched.seq:
                for holder in watched.subscription.holders:
                    watched.subscription.refused(holder, self._network.monotonic())
            watched.doubted = False
            self._take(watched, Told(best, "lookup", len(has)))
        finally:
            watched.subscription.found(contacts, self._network.monotonic())
            self._wake.set()

    async def _ask(self, watched: _Watched, contact: Contact) -> None:
        subscription, seq, since = watched.subscription, watched.seq, watched.since
        ways = self._choose_ways(watched.key[0], contact)
        packed = [way.node_id + pack_address(way.address) for way in ways]
        request = Watch(watched.key[1], seq, round(subscription.lease_s), packed)
        outcome = await self._protocol.request(contact.address, NodeId(contact.id), request)
        now, answer = self._network.monotonic(), outcome.answer
        if not isinstance(answer, Watching):
            if answer is None:
                subscription.failed(contact, now)
            else:
                subscription.refused(contact, now)
            watched.ways.pop(contact.id, None)
        elif answer.lease < SHORT_LEASE_S or (answer.seq < seq and now - since > SETTLED_S):
            subscription.refused(contact, now)  # it missed an update, and may miss the next
        else:
            subscription.granted(contact, min(answer.lease, subscription.lease_s), now)
            watched.ways[contact.id] = ways
            if answer.record is not None and answer.record.key == watched.key[1]:
                with contextlib.suppress(BadPacket):
                    answer.record.verify(self._engine.tag, self._network.wall())
                    self._take(watched, Told(answer.record, "renewal", 1))
        self._wake.set()

    def _choose_ways(self, realm: Realm, contact: Contact) -> tuple[KnownContact, ...]:
        """Return two of our ways, in another order for each holder: one that is dead delays one of three notices."""
        if realm is not Realm.PUBLIC or not self._ways:
            return ()
        turn = contact.id[0] % len(self._ways)
        return (*self._ways[turn:], *self._ways[:turn])[:MAX_WAYS]

    def _outdated(self, used: tuple[KnownContact, ...]) -> bool:
        """Whether a holder would tell us where we are not reached, or not in the best way."""
        return bool(used) != bool(self._ways) or any(way not in self._ways for way in used)

    # -- being told ---------------------------------------------------------------------------------------------

    def _wanted(self, realm: Realm, record: SignedRecord) -> bool:
        watched = self._watched.get((realm, record.key))
        return watched is not None and record.seq > watched.seq

    def _noticed(self, realm: Realm, record: SignedRecord, by: NodeId | None) -> None:
        watched = self._watched.get((realm, record.key))
        if watched is not None:
            self._take(watched, Told(record, "notice" if by is not None else "own", 1))

    def _take(self, watched: _Watched, told: Told) -> None:
        """Hand up what is newer, and that a lookup found nothing newer."""
        if self._watched.get(watched.key) is not watched:
            return
        if told.record is not None and told.record.seq > watched.seq:
            watched.record, watched.since = told.record, self._network.monotonic()
        elif told.how != "lookup":
            return
        watched.on_told(told)


def _diverse(contacts: Iterable[Contact]) -> list[Contact]:
    """Order by rank, but one of each address block before a second: order, never starve."""
    seen: set[bytes] = set()
    first: list[Contact] = []
    rest: list[Contact] = []
    for contact in contacts:
        (rest if contact.prefix in seen else first).append(contact)
        seen.add(contact.prefix)
    return first + rest
