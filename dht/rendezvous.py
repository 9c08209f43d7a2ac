"""Rendezvous: nodes register here, and others' sealed offers are forwarded to them. Pure; the engine authenticates.

A node behind a NAT keeps a flow with us alive and registers (`Register`); whoever wants to reach it sends us a
`Forward`, and we hand the blob over (`Deliver`) and say whether the target confirmed. Answers find the way back: who
sent us a Forward can be forwarded to for 30 s. We see two node ids and an opaque blob; what it is worth, the receiver
judges. A Forward to our own id is for us.

Limits, cheap ones first: requests come sealed and from proven addresses only (one AEAD for a stranger); per sender, per
prefix, in all, per target (security.md O1). Repeated requests are recognised, so nothing is handed over twice, and a
delivery is repeated twice at most.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht.calls import Asked, Outcome
from p2pnode.dht.contact import KnownContact, pack_address
from p2pnode.dht.leases import Lease, Leases
from p2pnode.dht.limits import Budget, PrefixBudgets, prefix_of
from p2pnode.dht.messages import (
    NOTICE,
    Answer,
    Deliver,
    Delivered,
    Error,
    ErrorCode,
    Forward,
    Forwarded,
    Register,
    Registered,
)

if TYPE_CHECKING:
    from p2pnode.dht.engine import Engine

__all__ = ["DeliverHandler", "Rendezvous"]

DeliverHandler = Callable[[PeerId, bytes, KnownContact, Address | None], None]
"""Called with (sender as the forwarding node says, blob, the forwarding node, where that sees the sender, or None: it
tells only if the sender wants it to)."""

CONVERSATION_LIFE = 30.0  # s; an answer to an offer comes within seconds, later ones within a check's 15 s
DELIVERY_TIMEOUT = 1.5  # s; the sender waits for 3 and must hear of a failure in time to try another way
REPEAT_LIFE = 10.0  # s; the last repetition of a request comes within 3
MAX_RECENT = 2_048  # forwards remembered for their repetitions (about 400 bytes each): 4 s at the total limit
MAX_PENDING = 512  # deliveries under way: a quarter of all calls (about 4 kB each, with the blob)
MAX_VIAS = 64  # nodes we registered with or sent through: a handful, and one for each peer being reached
MAX_HANDED = 512  # blobs handed to us, remembered for their repetitions (16 bytes each)


@dataclass(slots=True)
class _Forwarding:
    """A Forward under way or just done. `asked`: where its answer goes, the newest repetition's."""

    at: float
    asked: Asked
    done: bool = False


class Rendezvous:
    """All three roles: who forwards, who is registered, who sends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        settings = engine.settings
        target = settings.forward_target_rate, settings.forward_target_burst
        self.registered = Leases(settings.max_registrations, *target)
        self.visitors = Leases(settings.max_registrations, *target)
        self._newcomers = PrefixBudgets(Budget(200.0, 800.0), 10.0, 100.0)
        # Of one sender by its id: the common part is bounded by prefix, below.
        self._senders = PrefixBudgets(Budget(float("inf")), settings.forward_sender_rate, settings.forward_sender_burst)
        self._prefixes = PrefixBudgets(
            Budget(settings.forward_rate, 2 * settings.forward_rate),
            settings.forward_prefix_rate,
            settings.forward_prefix_burst,
        )
        self._via_budgets = PrefixBudgets(
            Budget(4 * settings.deliver_rate, 8 * settings.deliver_rate),
            settings.deliver_rate,
            2 * settings.deliver_rate,
        )
        self._unasked_budgets = PrefixBudgets(Budget(2.0, 8.0), 0.2, 4.0)
        self._recent: OrderedDict[bytes, _Forwarding] = OrderedDict()
        self._pending = 0
        self._vias: OrderedDict[tuple[bytes, Address], float] = OrderedDict()
        self._handed: OrderedDict[bytes, float] = OrderedDict()
        self.on_deliver: DeliverHandler | None = None
        self.tls443 = False
        self.forwarded = self.delivered = 0

    def used(self, node_id: bytes, address: Address, until: float) -> None:
        """We asked this node to forward, to us or for us: its deliveries are expected until then."""
        key = node_id, address
        self._vias[key] = max(until, self._vias.get(key, 0.0))
        self._vias.move_to_end(key)
        if len(self._vias) > MAX_VIAS:
            self._vias.popitem(last=False)

    def handle(self, request: Register | Forward | Deliver, asked: Asked, now: float, wall: float) -> Answer | None:
        """Return the answer, None when it comes later through the engine."""
        if isinstance(request, Deliver):
            return self._deliver(request, asked, now)
        if isinstance(request, Forward):
            return self._forward(request, asked, now, wall)
        return self._register(request, asked, now)

    def expire(self, now: float) -> None:
        """Forget what is over; to be called now and then."""
        self.registered.expire(now)
        self.visitors.expire(now)
        while self._recent and next(iter(self._recent.values())).at < now - REPEAT_LIFE:
            self._recent.popitem(last=False)
        while self._handed and next(iter(self._handed.values())) < now - REPEAT_LIFE:
            self._handed.popitem(last=False)

    # -- who forwards -------------------------------------------------------------------------------------------

    def _register(self, request: Register, asked: Asked, now: float) -> Answer:
        observed = pack_address(asked.source)
        if asked.overlay not in self._engine.members.serving:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        node_id = asked.session.peer_id.node_id
        known = self.registered.find(node_id, now) is not None
        if not known and not self._newcomers.take(prefix_of(asked.source.ip), now):
            return Error(observed, ErrorCode.BUSY, 0)
        if not self.registered.grant(node_id, asked.source, now + request.lease, now):
            return Error(observed, ErrorCode.BUSY, 0)
        return Registered(observed, request.lease, self._engine.on_relay is not None, self.tls443)

    def _forward(self, request: Forward, asked: Asked, now: float, wall: float) -> Answer | None:
        engine, observed = self._engine, pack_address(asked.source)
        sender = asked.session.peer_id
        to_us = request.target == engine.node_id
        if not to_us and asked.overlay not in engine.members.serving:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        key = _digest(sender.node_id, request.target, request.blob)
        known = self._recent.get(key)
        if known is not None and now - known.at < REPEAT_LIFE:
            if known.done:
                return Forwarded(observed)
            known.asked = asked
            return None
        if not self._senders.take(sender.node_id, now) or not self._prefixes.take(prefix_of(asked.source.ip), now):
            return Error(observed, ErrorCode.BUSY, 0)
        if to_us:
            self._remember(key, _Forwarding(now, asked, done=True))
            return self._hand_over(sender, request.blob, asked.source, asked, Forwarded(observed))
        self._expect_answers(sender.node_id, request.target, asked, now)
        lease = self.registered.find(request.target, now) or self.visitors.find(request.target, now)
        if lease is None and (asked.source.is_link or self.registered.find(sender.node_id, now) is not None):
            lease = self._known_server(request.target, asked, now)
        if lease is None or request.target == sender.node_id:
            return Error(observed, ErrorCode.NOT_HERE, 0)
        if self._pending >= MAX_PENDING or not lease.admit(sender.node_id, now):
            return Error(observed, ErrorCode.BUSY, 0)
        forwarding = _Forwarding(now, asked)
        self._remember(key, forwarding)
        self._pending += 1
        engine.call(
            lease.address, NodeId(request.target),
            Deliver(sender.raw, request.blob, observed if request.vouch else b""), now=now, wall=wall,
            timeout=DELIVERY_TIMEOUT, on_done=lambda outcome: self._done(key, forwarding, lease, outcome),
        )  # fmt: skip
        return None

    def _known_server(self, target: bytes, asked: Asked, now: float) -> Lease | None:
        """A sender whom UDP does not reach, or who tells nobody its address, has no other way to a node that strangers
        dial, and that keeps no rendezvous nodes: we hand its offer over, when we know that node. Only for those who are
        registered here or have a link."""
        contact = self._engine.members.tables[asked.overlay].find(target)
        if contact is None or contact.misses:
            return None
        self.visitors.grant(target, contact.address, now + CONVERSATION_LIFE, now)
        return self.visitors.find(target, now)

    def _expect_answers(self, sender: bytes, target: bytes, asked: Asked, now: float) -> None:
        """The sender can be forwarded to for a while, and the target is welcome to."""
        own = self.registered.find(sender, now)
        if own is None:
            self.visitors.grant(sender, asked.source, now + CONVERSATION_LIFE, now)
            own = self.visitors.find(sender, now)
        elif own.address != asked.source:
            self.registered.grant(sender, asked.source, own.until, now)  # its NAT gave it another mapping
        if own is not None:
            settings = self._engine.settings
            own.want(target, settings.forward_sender_rate, settings.forward_sender_burst)

    def _remember(self, key: bytes, forwarding: _Forwarding) -> None:
        self._recent[key] = forwarding
        self._recent.move_to_end(key)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)

    def _done(self, key: bytes, forwarding: _Forwarding, lease: Lease, outcome: Outcome) -> None:
        self._pending -= 1
        observed = pack_address(forwarding.asked.source)
        answer: Answer
        if isinstance(outcome.answer, Delivered):
            forwarding.done = True
            lease.misses = 0
            self.forwarded += 1
            answer = Forwarded(observed)
        else:
            if self._recent.get(key) is forwarding:
                del self._recent[key]  # asked once more, we try once more
            if outcome.answer is None:
                self.registered.missed(lease)
                self.visitors.missed(lease)
            busy = isinstance(outcome.answer, Error) and outcome.answer.code == ErrorCode.BUSY
            answer = Error(observed, ErrorCode.BUSY if busy else ErrorCode.NOT_HERE, 0)
        self._engine.answer(forwarding.asked, answer)

    # -- who is forwarded to ------------------------------------------------------------------------------------

    def _deliver(self, request: Deliver, asked: Asked, now: float) -> Answer | None:
        observed = pack_address(asked.source)
        via = asked.session.peer_id
        if self._vias.get((via.node_id, asked.source), 0.0) <= now and not self._unasked(request, asked, now):
            self._engine.counters.drops["unasked_delivery"] += 1
            return Error(observed, ErrorCode.NOT_HERE, 0)
        digest = _digest(via.node_id, request.sender, request.blob)
        if now - self._handed.get(digest, float("-inf")) < REPEAT_LIFE:
            return Delivered(observed)
        if not self._via_budgets.take(via.node_id, now):
            return Error(observed, ErrorCode.BUSY, 0)
        sender = PeerId.from_untrusted(request.sender)
        seen = Address.unpack_untrusted(request.seen) if request.seen else None
        self._handed[digest] = now
        if len(self._handed) > MAX_HANDED:
            self._handed.popitem(last=False)
        return self._hand_over(sender, request.blob, seen, asked, Delivered(observed))

    def _unasked(self, request: Deliver, asked: Asked, now: float) -> bool:
        """Whether a node that we never asked to forward may hand us an offer: where strangers may send us their own,
        but few: whoever asked through us is not crowded out. The offer itself proves who made it; a notice has to come
        the way we left."""
        if asked.overlay not in self._engine.members.serving or request.blob[0] >= NOTICE[0]:
            return False
        return self._unasked_budgets.take(prefix_of(asked.source.ip), now)

    def _hand_over(
        self, sender: PeerId, blob: bytes, seen: Address | None, asked: Asked, answer: Answer
    ) -> Answer | None:
        if blob[0] >= NOTICE[0]:
            return self._engine.notices.handed_untrusted(blob, asked, answer, self._engine.now, self._engine.wall)
        if self.on_deliver is None:
            return Error(answer.observed, ErrorCode.NOT_HERE, 0)
        # Confirmed before it is looked at: what the handler does must not delay or, failing, prevent the answer.
        self._engine.answer(asked, answer)
        self.delivered += 1
        via = asked.session.peer_id
        self.on_deliver(sender, blob, KnownContact(via, via.node_id, asked.source), seen)
        return None


def _digest(*parts: bytes) -> bytes:
    """Name a request by its content; all parts but the last have fixed lengths."""
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()
