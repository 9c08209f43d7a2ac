"""Our own requests that wait for an answer: who was asked what, when it is late, when it failed. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht.contact import Contact
from p2pnode.dht.keyring import Ephemeral, Session
from p2pnode.dht.messages import Answer, Request
from p2pnode.dht.overlay import Overlay

__all__ = ["Asked", "Call", "CallBook", "Outcome", "Rtt", "ignore"]

WORTH_HASTENING = 0.75
MAX_CALLS = 2_048  # at once: 100 lookups with 20 requests each; about 3 kB each, 6 MB


class Asked(NamedTuple):
    """Another node's sealed request that waits for our answer: its keys, its counter, where it came from."""

    session: Session
    counter: bytes
    source: Address
    overlay: Overlay


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `answer` is None when it failed: `reason` is timeout, busy, cancelled or no_realm."""

    answer: Answer | None
    reason: str = ""
    peer_id: PeerId | None = None
    contact: Contact | None = None
    rtt_s: float = 0.0


class Rtt:
    """Smoothed round trip and its variation (RFC 6298, section 2), for one node or all together."""

    __slots__ = ("smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0

    @property
    def late_after(self) -> float | None:
        """Seconds after which an answer is late; None while nothing was measured."""
        return None if self.smoothed is None else self.smoothed + max(4 * self.variation, self.smoothed / 4)

    def measured(self, rtt_s: float) -> None:
        if self.smoothed is None:
            self.smoothed, self.variation = rtt_s, rtt_s / 2
        else:
            self.variation += (abs(self.smoothed - rtt_s) - self.variation) / 16
            self.smoothed += (rtt_s - self.smoothed) / 16


class Call:
    """One request of ours, with its repetitions. `on_late` may come once, `on_done` comes exactly once.

    `opening`: a signed Ping is out to agree keys, the request itself follows; `openings`: how often that happened.
    """

    __slots__ = (
        "address", "asked_at", "deadline", "done", "ephemeral", "forgotten", "keys", "late_at", "must_sign", "node_id",
        "nonces", "on_done", "on_late", "opening", "openings", "payload", "request", "retried", "rto", "session",
        "signed_size", "tokens", "wall",
    )  # fmt: skip

    def __init__(
        self, address: Address, node_id: NodeId | None, request: Request, payload: bytes, signed_size: int,
        on_done: Callable[[Outcome], None], on_late: Callable[[], None] | None,
    ) -> None:  # fmt: skip
        self.address, self.node_id, self.request, self.payload = address, node_id, request, payload
        self.signed_size = signed_size
        self.on_done, self.on_late = on_done, on_late
        self.rto = self.asked_at = self.deadline = self.late_at = self.wall = 0.0
        self.tokens = self.openings = 0
        self.ephemeral: Ephemeral | None = None
        self.session: Session | None = None
        self.keys: list[bytes] = []
        self.nonces: list[bytes] = []
        self.done = self.forgotten = self.retried = self.must_sign = self.opening = False


class CallBook:
    """Calls by what their answer will name, and one timer for all. Nothing stays after a call ended."""

    def __init__(self) -> None:
        # SHA-256 of a signed request (32 bytes), or key id and counter of a sealed one (16): the call and when it left.
        self._waiting: dict[bytes, tuple[Call, float]] = {}
        self._by_nonce: dict[bytes, Call] = {}
        self._timers: list[tuple[float, int, Call]] = []
        self._serial = 0
        self.pending = 0
        self.on_due: Callable[[float], None] = lambda _at: None
        """Called with a moment at which `due` wants to be called; it may be earlier than what was told before."""

    def open(self) -> bool:
        """Count a new call in; return False when there are too many."""
        if self.pending >= MAX_CALLS:
            return False
        self.pending += 1
        return True

    def sent(self, call: Call, key: bytes, now: float, nonce: bytes | None = None) -> None:
        self._waiting[key] = (call, now)
        call.keys.append(key)
        if nonce is not None:
            self._by_nonce[nonce] = call
            call.nonces.append(nonce)

    def find(self, key: bytes) -> tuple[Call, float] | None:
        return self._waiting.get(key)

    def find_nonce(self, nonce: bytes) -> Call | None:
        return self._by_nonce.get(nonce)

    def wake(self, call: Call, at: float) -> None:
        self._serial += 1
        heapq.heappush(self._timers, (at, self._serial, call))
        self.on_due(at)

    def hasten(self, before: float, rto: float, now: float) -> None:
        """What is late was a guess, `before`, and is known better now: who joins by twenty contacts need not wait so
        long for the one whose answer got lost. Later changes are too small to be worth it."""
        if rto > before * WORTH_HASTENING:
            return
        for call in self.all():
            if call.rto == before and not call.retried:
                call.rto = rto
                call.late_at = min(max(now, call.asked_at + rto), call.deadline)
                self.wake(call, call.late_at)

    def close(self, call: Call) -> bool:
        """Forget the call; return False when it had ended before."""
        if call.done:
            return False
        call.done = True
        self.pending -= 1
        for key in call.keys:
            self._waiting.pop(key, None)
        for nonce in call.nonces:
            self._by_nonce.pop(nonce, None)
        call.ephemeral = None
        return True

    def next_timer(self) -> float | None:
        """Return when `due` wants to be called, None when nothing waits."""
        timers = self._timers
        while timers and timers[0][2].done:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def due(self, now: float) -> list[Call]:
        """Return the calls whose moment has come."""
        calls: list[Call] = []
        while (at := self.next_timer()) is not None and at <= now:
            calls.append(heapq.heappop(self._timers)[2])
        return calls

    def all(self) -> list[Call]:
        return list({id(call): call for call, _ in self._waiting.values()}.values())


def ignore(_: Outcome) -> None:
    """For `on_done`: nobody waits for this answer; what it tells the engine takes in."""
