"""Keeps rendezvous nodes: those that forward offers to us, through mappings in our router that we keep open.

Four are wanted and three suffice, so that one that dies or lies costs nothing. A registration is renewed every 25 s,
below the shortest common mapping time-out (30 s), or as seldom as the measured one allows (`mapping_life`), at most two
minutes: the renewal is the keep-alive, one datagram each way. Which nodes are
good (near, known for long, in different blocks) the DHT says; those that we have are kept as long as they answer, since
each change has to be published. There is no goodbye: leases end by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht import KnownContact, Registration
from p2pnode.dht.limits import prefix_of

__all__ = ["RendezvousDht", "RendezvousKeeper", "RendezvousSettings", "RendezvousStatistics"]

log = structlog.get_logger(__name__)

LEASE_BEATS = 3.6  # renewals in a lease: two may get lost
JITTER = 0.1  # share of the keep-alive, so that nodes started together do not beat in step
TLS_TRIES = 6  # further nodes that are asked, at once, when none of ours takes links at port 443 ...
TLS_AFTER_S = 5.0  # ... so long after there were enough: it is for others, and joining comes first
MAX_SHUNNED = 256  # nodes that refused or vanished; a table holds a few hundred


class RendezvousDht(Protocol):
    """What is needed of the DHT."""

    async def register(self, contact: KnownContact, *, lease_s: float = 60.0) -> Registration | None:
        """Ask a node to forward to us; None: it refused or did not answer."""

    def rendezvous_candidates(
        self, count: int, *, realm: Realm = Realm.PUBLIC, families: Collection[bool] = (False, True)
    ) -> list[KnownContact]:
        """Return nodes that could forward to us, best first."""


@dataclass(frozen=True)
class RendezvousSettings:
    """Times in seconds."""

    wanted: int = 4
    """Nodes to keep; presence has room for 4."""
    enough: int = 3
    """With fewer that answered lately, a further one is asked at once, not only when one is given up."""
    keep_alive: float = 25.0
    """Below the NAT's mapping time-out."""
    lease: float = 90.0
    """Two renewals may get lost."""
    retry: float = 2.0
    """After a renewal without answer; and, twice as long each time, while there are fewer nodes than wanted."""
    shun: float = 300.0
    """How long a node that refused or vanished is not asked again."""
    misses: int = 2
    """Renewals without answer in a row (each repeated by the DHT) until a node is given up."""

    def __post_init__(self) -> None:
        if not 1 <= self.enough <= self.wanted <= 4:
            raise ValueError("wanted is 1 to 4, enough is not above it")
        if not 0 < self.retry <= self.keep_alive < self.lease / 2:
            raise ValueError("retry is at most keep_alive, and keep_alive below half of lease")


@dataclass(frozen=True, slots=True)
class RendezvousStatistics:
    """`kept`: nodes now; `asked`: registrations and renewals; `unanswered` of these; `given_up`: nodes."""

    kept: int
    asked: int
    unanswered: int
    given_up: int


@dataclass(slots=True)
class _Kept:
    contact: KnownContact
    due_at: float
    granted: Registration
    misses: int = 0


class RendezvousKeeper:
    """Chooses, registers, renews, replaces."""

    def __init__(
        self,
        *,
        dht: RendezvousDht,
        network: Network,
        changed: Callable[[], None],
        settings: RendezvousSettings | None = None,
        realm: Realm = Realm.PUBLIC,
        families: Callable[[], Collection[bool]] = lambda: (False, True),
        moved: Callable[[], None] = lambda: None,
        elsewhere: bool = False,
    ) -> None:
        """`changed` is called after `contacts()` has become another set; it must not block.

        `families()`: those (True: IPv6) in which somebody has to forward to us. `moved()`: several nodes see us
        elsewhere than at their last renewal: our router has forgotten the flows. `elsewhere`: keep none at our own
        outside address (another node of this machine or household): as a relay it would tell what it is to hide.
        """
        self._dht = dht
        self._network = network
        self._changed = changed
        self._realm, self._families, self._moved, self._elsewhere = realm, families, moved, elsewhere
        self.settings = settings or RendezvousSettings()
        self._kept: dict[NodeId, _Kept] = {}
        self.keep_alive = self.settings.keep_alive
        """Seconds between renewals at most; another when the lifetime of mappings was measured."""
        self._beat_at = 0.0  # all are renewed together: several that die together are missed together
        self._shunned: OrderedDict[NodeId, float] = OrderedDict()
        self._retry_s = self.settings.retry
        self._tls_tries = TLS_TRIES
        self._tls_at = float("inf")
        self._wake = asyncio.Event()
        self._told: frozenset[KnownContact] = frozenset()
        self._asked = self._unanswered = self._given_up = 0

    def contacts(self) -> tuple[KnownContact, ...]:
        """Return the nodes that forward to us now, those that answered last time first, among them one that takes links
        at port 443, where there is one: some peers pass no other."""
        ranked = sorted(self._kept.values(), key=lambda kept: kept.misses)
        chosen, others = ranked[: self.settings.wanted], ranked[self.settings.wanted :]
        taking = [kept for kept in others if kept.granted.tls443]
        if taking and not any(kept.granted.tls443 for kept in chosen):
            chosen[-1] = taking[0]
        return tuple(kept.contact for kept in chosen)

    def relays(self) -> list[tuple[KnownContact, float]]:
        """Return those of them that relay as well, each with its round trip in seconds, the nearest first."""
        kept = [k for k in self._kept.values() if k.granted.relays and not k.misses]
        return sorted(((k.contact, k.granted.rtt_s) for k in kept), key=lambda relay: relay[1])

    def wake(self) -> None:
        """Look now whether there are more candidates: nodes became known."""
        self._wake.set()

    def keep_alive_every(self, seconds: float | None) -> None:
        """Renew after so many seconds at most, None: as set."""
        self.keep_alive = self.settings.keep_alive if seconds is None else seconds
        latest = self._network.monotonic() + self.keep_alive
        self._beat_at = min(self._beat_at, latest)
        for kept in self._kept.values():
            kept.due_at = min(kept.due_at, latest)
        self._wake.set()

    def renew(self) -> None:
        """Renew everything now: our network, and so every mapping, has changed."""
        self._shunned.clear()
        self._retry_s = self.settings.retry
        self._tls_tries = TLS_TRIES
        for kept in self._kept.values():
            kept.due_at = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Keep them for ever, until cancelled."""
        while True:
            self._wake.clear()
            await self.keep_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next_at() - self._network.monotonic())):
                    await self._wake.wait()

    async def keep_due(self) -> None:
        """Renew what is due, then ask further nodes until there are enough or no candidates are left."""
        now = self._network.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + self.keep_alive * (1 - JITTER * self._network.rng.random())
        due = [kept for kept in self._kept.values() if kept.due_at <= now]
        if due:
            moved = await asyncio.gather(*(self._renew(kept) for kept in due))
            if sum(moved) > 1:  # one alone may lie
                self._moved()
        # A network with fewer servers than wanted is asked less and less often whether it has more.
        self._retry_s = min(2 * self._retry_s, self.keep_alive)
        while self._network.monotonic() < self._beat_at and (candidates := self._choose()):
            self._retry_s = self.settings.retry
            await asyncio.gather(*(self._try(contact) for contact in candidates))
        if len(self._kept) >= self.settings.enough:
            self._tls_at = min(self._tls_at, self._network.monotonic() + TLS_AFTER_S)
        self._tell()

    def statistics(self) -> RendezvousStatistics:
        return RendezvousStatistics(len(self._kept), self._asked, self._unanswered, self._given_up)

    def _next_at(self) -> float:
        due = [kept.due_at for kept in self._kept.values()]
        if len(self._kept) < self.settings.wanted:
            due.append(self._network.monotonic() + self._retry_s)
        if self._wants_tls():
            due.append(max(self._tls_at, self._network.monotonic()))
        return min(due)

    def _missing(self) -> int:
        answering = sum(1 for kept in self._kept.values() if not kept.misses)
        if answering < self.settings.enough:
            return self.settings.wanted - answering
        return self.settings.wanted - len(self._kept)

    def _wants_tls(self) -> bool:
        return self._tls_tries > 0 and not any(kept.granted.tls443 for kept in self._kept.values())

    def _choose(self) -> list[KnownContact]:
        """Return as many untried candidates as are missing: first from address blocks that we have no node in."""
        now = self._network.monotonic()
        missing = self._missing()
        if self._wants_tls() and now >= self._tls_at:
            missing, self._tls_tries = max(missing, self._tls_tries), 0
        if missing <= 0:
            return []
        while self._shunned and next(iter(self._shunned.values())) <= now:
            self._shunned.popitem(last=False)
        count = max(missing, self.settings.wanted) + len(self._kept) + len(self._shunned)
        found = self._dht.rendezvous_candidates(count, realm=self._realm, families=self._families())
        free = [c for c in found if c.node_id not in self._kept and c.node_id not in self._shunned]
        chosen = _diverse(free, {prefix_of(kept.contact.address.ip) for kept in self._kept.values()})
        return chosen[:missing]

    async def _try(self, contact: KnownContact) -> None:
        granted = await self._register(contact)
        if granted is not None and not (self._elsewhere and _at_our_address(contact, granted)):
            self._kept[contact.node_id] = _Kept(contact, self._beat_at, granted)
        else:
            self._shun(contact.node_id)

    async def _renew(self, kept: _Kept) -> bool:
        """Return whether the node sees us elsewhere than before."""
        granted = await self._register(kept.contact)
        if granted is not None:
            moved = granted.seen != kept.granted.seen
            kept.granted = granted
            kept.misses = 0
            kept.due_at = self._beat_at
            return moved
        kept.misses += 1
        kept.due_at = self._network.monotonic() + self.settings.retry
        if kept.misses >= self.settings.misses:
            del self._kept[kept.contact.node_id]
            self._given_up += 1
            self._shun(kept.contact.node_id)
            log.info("rendezvous_given_up", address=str(kept.contact.address))
        return False

    async def _register(self, contact: KnownContact) -> Registration | None:
        self._asked += 1
        lease = max(self.settings.lease, LEASE_BEATS * self.keep_alive)
        granted = await self._dht.register(contact, lease_s=lease)
        if granted is None:
            self._unanswered += 1
        return granted

    def _shun(self, node_id: NodeId) -> None:
        self._shunned[node_id] = self._network.monotonic() + self.settings.shun
        self._shunned.move_to_end(node_id)
        if len(self._shunned) > MAX_SHUNNED:
            self._shunned.popitem(last=False)

    def _tell(self) -> None:
        """Drop what is more than wanted, and say whether the set is another one now."""
        keep = self.contacts()
        for node_id in self._kept.keys() - {contact.node_id for contact in keep}:
            if self._kept.pop(node_id).misses:
                self._shun(node_id)
        if frozenset(keep) != self._told:
            self._told = frozenset(keep)
            log.info("rendezvous_changed", nodes=[str(contact.address) for contact in keep])
            self._changed()


def _at_our_address(contact: KnownContact, granted: Registration) -> bool:
    """Whether a node sees us at the address that it has itself."""
    try:
        return Address.unpack_untrusted(granted.seen).ip == contact.address.ip
    except BadPacket:
        return False


def _diverse(contacts: Iterable[KnownContact], used: set[bytes]) -> list[KnownContact]:
    """Order by rank, but one of each new address block before a second: order, never starve."""
    seen = set(used)
    first: list[KnownContact] = []
    rest: list[KnownContact] = []
    for contact in contacts:
        prefix = prefix_of(contact.address.ip)
        (rest if prefix in seen else first).append(contact)
        seen.add(prefix)
    return first + rest
