"""Who may cost us how much: judges sealed offers and answers before, while and after they are opened.

Pure. In order, cheapest first: the same bytes seen before; budgets per sender, per rendezvous node and in all, those of
contacts apart from strangers'; one HPKE opening; one signature; the clock window; the attempt seen before.

A sender's id is only claimed until the seal opens: a hostile rendezvous node can use up what the budgets give to
senders *through itself*, hence every budget of a sender belongs to one rendezvous node. Others still get through.

Replays: accepted offers are remembered for twice the clock window, by sender and attempt. The budgets bound how many
that can be, so nothing is ever pushed out early and a flood reopens no window. An answer is bound to an own offer and
taken once.

An offer comes through several rendezvous nodes at once, so that a lost or hostile one does not matter. Copies within
ten seconds are told apart (`copy`), so that the answer can take each of the ways back; they have no other effect.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht.limits import Budget
from p2pnode.offer import Answer, Offer, offer_hash, read_untrusted, unseal_untrusted

__all__ = ["GuardSettings", "GuardStatistics", "OfferGuard", "Received", "SentOffer"]

MAX_SENT = 256  # own offers that wait for an answer; a user opens a few at once, a hall 64
MAX_RECENT = 256  # messages kept for their copies: 256 x 2 kB
COPY_S = 10.0  # after that the caller has a path or has given up
BATCH_S = 60.0
MAX_BUDGETS = 2_048  # (rendezvous node, sender) pairs; 300 bytes each. Beyond, the totals hold


@dataclass(frozen=True)
class GuardSettings:
    """Limits. Rates are per second; an opening costs about 0.2 ms, so the totals allow 0.5 and 2 % of a core."""

    window_s: float = 600.0
    """How far the sender's wall clock may be from ours, either way."""
    stranger_rate: float = 0.5
    """Openings for one stranger through one rendezvous node, `stranger_burst` at once."""
    stranger_burst: float = 4.0
    strangers_via_rate: float = 10.0
    """Openings for all strangers through one rendezvous node, twice as many at once."""
    strangers_rate: float = 25.0
    """Openings for all strangers. Times 20 minutes: 30,000 remembered offers, 3 MB, while a flood lasts."""
    known_rate: float = 2.0
    """The same three for contacts and for peers whose answer is awaited."""
    known_burst: float = 10.0
    known_via_rate: float = 40.0
    known_total_rate: float = 100.0
    max_copies: int = 4
    """Times that the same sealed bytes are taken: one per rendezvous node of the receiver."""

    def __post_init__(self) -> None:
        if not 0 < self.window_s <= 3600 or self.max_copies < 1:
            raise ValueError("window_s is above 0 and at most 3600 s, max_copies at least 1")


@dataclass(frozen=True, slots=True)
class SentOffer:
    """An own offer on its way: to whom, which attempt, and the sealed bytes' hash that the answer must name."""

    peer: PeerId
    attempt: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A proven message. `copy`: 0 for the first arrival, then 1, 2...; copies only tell another way to answer.

    `sent`: the own offer that an answer answers, None with an offer.
    """

    sender: PeerId
    message: Offer | Answer
    copy: int
    sent: SentOffer | None


@dataclass(frozen=True, slots=True)
class GuardStatistics:
    """`accepted`, `copies`; `refused` by reason; `opened`: HPKE openings tried; `verified`: signatures checked."""

    accepted: int
    copies: int
    refused: dict[str, int]
    opened: int
    verified: int
    remembered: int


class OfferGuard:
    """Opens what rendezvous nodes deliver, within limits."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network_tag: bytes,
        known: Callable[[PeerId], bool],
        settings: GuardSettings | None = None,
    ) -> None:
        """`known`: whether a peer is a contact or has a session; asked once per delivery, must be cheap."""
        self._key = key
        self._tag = network_tag
        self._known = known
        self.settings = settings or GuardSettings()
        s = self.settings
        self._sent: OrderedDict[bytes, SentOffer] = OrderedDict()
        self._awaited: Counter[PeerId] = Counter()
        self._recent: OrderedDict[bytes, _Recent] = OrderedDict()
        self._memory = _Memory(2 * s.window_s)
        self._strangers = _Budgets(s.stranger_rate, s.stranger_burst, s.strangers_via_rate, s.strangers_rate)
        self._contacts = _Budgets(s.known_rate, s.known_burst, s.known_via_rate, s.known_total_rate)
        self._refused: Counter[str] = Counter()
        self._accepted = self._copies = self._opened = self._verified = 0

    def expect(self, peer: PeerId, attempt: bytes, sealed: bytes) -> SentOffer:
        """Note an own offer before it is sent; its answer is taken once. The oldest of 256 gives way."""
        sent = SentOffer(peer, attempt, offer_hash(sealed))
        self._sent[attempt] = sent
        self._awaited[peer] += 1
        if len(self._sent) > MAX_SENT:
            self.forget(next(iter(self._sent.values())))
        return sent

    def forget(self, sent: SentOffer) -> None:
        """The attempt is over; an answer that comes still is refused."""
        if self._sent.pop(sent.attempt, None) is not None:
            self._awaited[sent.peer] -= 1
            if not self._awaited[sent.peer]:
                del self._awaited[sent.peer]

    def receive_untrusted(self, sealed: bytes, *, sender: PeerId, via: bytes, now: float, wall: float) -> Received:
        """Judge what came from `sender`, as the rendezvous node `via` (its node id) says.

        `now`: monotonic, `wall`: Unix seconds. Raise BadPacket: `replayed`, `over_budget`, `bad_clock`,
        `unexpected_answer`, and those of `open_untrusted`; counted by reason.
        """
        try:
            return self._receive(sealed, sender, via, now, wall)
        except BadPacket as bad:
            self._refused[bad.reason] += 1
            raise

    def statistics(self) -> GuardStatistics:
        return GuardStatistics(
            self._accepted, self._copies, dict(self._refused), self._opened, self._verified, len(self._memory)
        )

    def _receive(self, sealed: bytes, sender: PeerId, via: bytes, now: float, wall: float) -> Received:
        digest = offer_hash(sealed)
        recent = self._recent.get(digest)
        if recent is not None and recent.received.sender == sender:
            return self._again(recent, now)
        budgets = self._contacts if sender in self._awaited or self._known(sender) else self._strangers
        if not budgets.take(via, sender, now):
            raise BadPacket("over_budget")
        message = self._open(sealed, sender)
        sent = self._fits(message, sender, now, wall)
        received = Received(sender, message, 0, sent)
        self._recent[digest] = _Recent(received, now)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        self._accepted += 1
        return received

    def _again(self, recent: _Recent, now: float) -> Received:
        recent.copies += 1
        if recent.copies >= self.settings.max_copies or now - recent.at > COPY_S:
            raise BadPacket("replayed")
        self._copies += 1
        first = recent.received
        return Received(first.sender, first.message, recent.copies, first.sent)

    def _open(self, sealed: bytes, sender: PeerId) -> Offer | Answer:
        self._opened += 1
        text = unseal_untrusted(sealed, key=self._key, sender=sender, network_tag=self._tag)
        self._verified += 1
        return read_untrusted(text, sender=sender, receiver=self._key.peer_id, network_tag=self._tag)

    def _fits(self, message: Offer | Answer, sender: PeerId, now: float, wall: float) -> SentOffer | None:
        if isinstance(message, Answer):
            # Bound to our own offer's hash, so its clock does not matter.
            sent = self._sent.get(message.attempt)
            if sent is None or sent.peer != sender or sent.hash != message.offer_hash:
                raise BadPacket("unexpected_answer")
            self.forget(sent)
            return sent
        if abs(message.sent_at_ms / 1000 - wall) > self.settings.window_s:
            raise BadPacket("bad_clock")
        if not self._memory.add(sender.raw + message.attempt, now):
            raise BadPacket("replayed")
        return None


@dataclass(slots=True)
class _Recent:
    received: Received
    at: float
    copies: int = 0


class _Budgets:
    """Budgets of one class of senders: per sender and rendezvous node, per rendezvous node, in all."""

    def __init__(self, rate: float, burst: float, via_rate: float, total_rate: float) -> None:
        self._rate, self._burst, self._via_rate = rate, burst, via_rate
        self._total = Budget(total_rate, 2 * total_rate)
        self._via: OrderedDict[bytes, Budget] = OrderedDict()
        self._senders: OrderedDict[bytes, Budget] = OrderedDict()

    def take(self, via: bytes, sender: PeerId, now: float) -> bool:
        """Use one opening up; nothing is used up when one of the three budgets is empty."""
        budgets = (
            self._budget(self._senders, via + sender.raw, self._rate, self._burst),
            self._budget(self._via, via, self._via_rate, 2 * self._via_rate),
            self._total,
        )
        return all(budget.available(now) for budget in budgets) and all(budget.take(now) for budget in budgets)

    @staticmethod
    def _budget(kept: OrderedDict[bytes, Budget], name: bytes, rate: float, burst: float) -> Budget:
        budget = kept.get(name)
        if budget is None:
            budget = kept[name] = Budget(rate, burst)
            if len(kept) > MAX_BUDGETS:
                kept.popitem(last=False)
        else:
            kept.move_to_end(name)
        return budget


class _Memory:
    """Names of accepted offers, forgotten in batches of a minute when they are `life_s` old (monotonic).

    64 bits of SHA-256 per name, about 80 bytes of memory. An attempt id is random and sealed, so nobody can choose his
    own to collide with another's.
    """

    def __init__(self, life_s: float) -> None:
        self._life_s = life_s
        self._batches: deque[tuple[float, set[bytes]]] = deque()

    def __len__(self) -> int:
        return sum(len(names) for _, names in self._batches)

    def add(self, name: bytes, now: float) -> bool:
        """Remember a name; False when it is known already."""
        short = hashlib.sha256(name).digest()[:8]
        while self._batches and now - self._batches[0][0] > self._life_s + BATCH_S:
            self._batches.popleft()
        if any(short in names for _, names in self._batches):
            return False
        if not self._batches or now - self._batches[-1][0] > BATCH_S:
            self._batches.append((now, set()))
        self._batches[-1][1].add(short)
        return True
