"""The part of `Dht` that reaches nodes through nodes: rendezvous and dial-back, made awaitable."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from p2pnode.core.address import Realm
from p2pnode.core.ids import NodeId
from p2pnode.core.network import Network
from p2pnode.dht.contact import Contact, KnownContact
from p2pnode.dht.dialback import Evidence
from p2pnode.dht.engine import Engine, RelayHandler
from p2pnode.dht.members import Members
from p2pnode.dht.messages import (
    MAX_BLOB,
    MAX_LEASE,
    MAX_RELAY_LEASE,
    Forward,
    Forwarded,
    Register,
    Registered,
    Relay,
    Relaying,
)
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.rendezvous import CONVERSATION_LIFE, DeliverHandler
from p2pnode.dht.serving import Serving
from p2pnode.dht.settings import DhtSettings

__all__ = ["Registration", "Signalling"]

log = structlog.get_logger(__name__)

LEASE_SLACK = 10.0  # s; a delivery may leave just before the lease ends
NEWCOMER_PENALTY = 0.2  # s of round trip that a node known only now is thought worse; halved after ten minutes


@dataclass(frozen=True, slots=True)
class Registration:
    """A node forwards to us. `relays`: it relays, too. `rtt_s`: what asking took. `seen`: our address as it sees it, as
    sent. `tls443`: it takes TLS links at port 443, so that those can call us whom nothing else passes."""

    relays: bool
    rtt_s: float
    seen: bytes = b""
    tls443: bool = False


class Signalling:
    """Mixed into `Dht`, which sets what is declared here."""

    network: Network
    settings: DhtSettings
    protocol: DhtProtocol
    _engine: Engine
    _members: Members
    _serving: Serving

    # -- rendezvous ---------------------------------------------------------------------------------------------

    @property
    def on_deliver(self) -> DeliverHandler | None:
        """Called with (sender as the forwarding node says, blob, forwarding node, the sender's address as it sees
        it, or None) when a blob is handed to us.

        Who forwarded may have lied about the sender, changed the blob, or repeated an old one. Must not block.
        """
        return self._engine.rendezvous.on_deliver

    @on_deliver.setter
    def on_deliver(self, callback: DeliverHandler | None) -> None:
        self._engine.rendezvous.on_deliver = callback

    async def register(self, contact: KnownContact, *, lease_s: float = 60.0) -> Registration | None:
        """Ask a node to forward to us while the lease (1 to 480 s) runs, at the address that it sees; None: no.

        Repeating it renews the lease and keeps the NAT's mapping alive.
        """
        lease = max(1, min(MAX_LEASE, round(lease_s)))
        self._expect_deliveries(contact, lease + LEASE_SLACK)
        outcome = await self.protocol.request(contact.address, contact.node_id, Register(lease))
        if not isinstance(outcome.answer, Registered):
            return None
        answer = outcome.answer
        return Registration(answer.relays, outcome.rtt_s, answer.observed, answer.tls443)

    @property
    def tls443(self) -> bool:
        """Whether we take TLS links at port 443; those who register hear of it."""
        return self._engine.rendezvous.tls443

    @tls443.setter
    def tls443(self, takes: bool) -> None:
        self._engine.rendezvous.tls443 = takes

    # -- relay --------------------------------------------------------------------------------------------------

    @property
    def on_relay(self) -> RelayHandler | None:
        """Who joins two nodes that ask us for it, for which it has the right frames; None: we do not relay."""
        return self._engine.on_relay

    @on_relay.setter
    def on_relay(self, handler: RelayHandler | None) -> None:
        self._engine.on_relay = handler

    async def relay(
        self, contact: KnownContact, peer: NodeId, *, lease_s: float = 100.0, timeout: float | None = None
    ) -> Relaying | None:
        """Ask a node to join us with `peer`, for up to 120 s; 0 ends it. None: it refused or did not answer."""
        lease = max(0, min(MAX_RELAY_LEASE, round(lease_s)))
        outcome = await self.protocol.request(contact.address, contact.node_id, Relay(peer, lease), timeout)
        return outcome.answer if isinstance(outcome.answer, Relaying) else None

    async def forward(
        self, via: KnownContact, target: NodeId, blob: bytes, *, timeout: float = 3.0, vouch: bool = False
    ) -> bool:
        """Have `via` hand 1 to 900 bytes to `target`, which registered there, spoke through it of late, or is it.

        Return whether the target confirmed. Costs one round trip to the target through `via`, two more to `via` when
        no keys are agreed with it. For 30 s `via` forwards the target's answers to us. `vouch`: the target is told
        at which address `via` sees us.
        """
        if not 1 <= len(blob) <= MAX_BLOB:
            raise ValueError(f"a blob has 1 to {MAX_BLOB} bytes")
        self._expect_deliveries(via, CONVERSATION_LIFE + timeout)
        outcome = await self.protocol.request(via.address, via.node_id, Forward(target, blob, vouch), timeout)
        return isinstance(outcome.answer, Forwarded)

    def _expect_deliveries(self, via: KnownContact, life: float) -> None:
        self._engine.rendezvous.used(via.node_id, via.address, self.network.monotonic() + life)

    def rendezvous_candidates(
        self, count: int, *, realm: Realm = Realm.PUBLIC, families: Collection[bool] = (False, True)
    ) -> list[KnownContact]:
        """Return up to `count` servers that we have keys with, the best first. `families`: True stands for IPv6.

        One per prefix before a second of any. Good is near, known for long, and not missing; ids play no part, since
        an attacker can grind those. O(n log n) in the table's size.
        """
        now = self.network.monotonic()
        ranked: list[tuple[int, int, Contact]] = []
        for is_ipv6 in families:  # in turn: who has one family reaches us through the nodes of that
            table = self._members.tables[Overlay.of(realm, is_ipv6=is_ipv6)]
            contacts = [c for c in table if self._engine.keyring.newest(c.id) is not None]
            contacts.sort(key=lambda contact: _worth(contact, now))
            seen: dict[bytes, int] = {}
            for place, contact in enumerate(contacts):
                turn = seen[contact.prefix] = seen.get(contact.prefix, -1) + 1
                # A node that misses is worth less than any second of a prefix.
                ranked.append((turn + (len(contacts) if contact.misses else 0), place, contact))
        ranked.sort(key=lambda entry: entry[:2])
        return [contact.known() for _, _, contact in ranked[:count]]

    # -- serving ------------------------------------------------------------------------------------------------

    @property
    def serving(self) -> frozenset[Realm]:
        """The realms in which this node serves: enters others' tables, stores, forwards, dials back."""
        return self._serving.realms

    def reached(self, realm: Realm, *, is_ipv6: bool) -> bool:
        """Whether strangers reach this node in a realm by one address family: it serves there, unless it is a guest."""
        return self._serving.reached(Overlay.of(realm, is_ipv6=is_ipv6))

    @property
    def on_serving(self) -> Callable[[Realm, bool], None] | None:
        """Called when this node begins to serve in a realm, or ceases."""
        return self._serving.on_serving

    @on_serving.setter
    def on_serving(self, callback: Callable[[Realm, bool], None] | None) -> None:
        self._serving.on_serving = callback

    @property
    def on_checked(self) -> Callable[[], None] | None:
        """Called after each dial-back check: `serving` and `unreachable` may have changed."""
        return self._serving.on_checked

    @on_checked.setter
    def on_checked(self, callback: Callable[[], None] | None) -> None:
        self._serving.on_checked = callback

    @property
    def has_sent_to(self) -> Callable[[str], bool] | None:
        """Whether anything else on the same socket was sent to this IP: STUN, QUIC. None: only the DHT uses it."""
        return self._serving.has_sent_to

    @has_sent_to.setter
    def has_sent_to(self, question: Callable[[str], bool] | None) -> None:
        self._serving.has_sent_to = question

    def unreachable(self, *, is_ipv6: bool) -> bool:
        """Whether nodes of the public realm tried to reach us and did not; False also where nobody has tried yet."""
        return self._serving.unreachable(is_ipv6=is_ipv6)

    def addresses_changed(self) -> None:
        """Our addresses changed: whether we can be reached has to be found out anew."""
        self._serving.addresses_changed()

    async def dial_back(self, *, is_ipv6: bool = False, timeout: float = 3.0) -> bool:
        """Have nodes of the public realm try to reach us. Return whether one did, provably past any NAT."""
        overlay = Overlay.of(Realm.PUBLIC, is_ipv6=is_ipv6)
        return await self._serving.check(overlay, timeout) is Evidence.PROVEN

    async def dial_back_at(self, port: int, *, timeout: float = 3.0) -> Evidence:
        """Have nodes of the public realm try to reach us at an outside IPv4 port that a router has opened; return what
        it shows."""
        return await self._serving.check(Overlay.of(Realm.PUBLIC, is_ipv6=False), timeout, port=port)

    async def learn_filter(self, *, is_ipv6: bool = False, timeout: float = 3.0) -> None:
        """Find out what comes in unasked, before a router opens a port for us: later checks can tell the difference."""
        await self._serving.learn_filter(Overlay.of(Realm.PUBLIC, is_ipv6=is_ipv6), timeout)

    def check_again(self, *, is_ipv6: bool) -> None:
        """Check now whether we can be reached: a router has opened the way, or closed it."""
        self._serving.hurry(Overlay.of(Realm.PUBLIC, is_ipv6=is_ipv6))


def _worth(contact: Contact, now: float) -> float:
    age = max(0.0, now - contact.first_seen)
    rtt_s = 0.5 if contact.rtt_s is None else contact.rtt_s
    return rtt_s + NEWCOMER_PENALTY / (1 + age / 600)
