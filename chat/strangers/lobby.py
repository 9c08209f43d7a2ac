"""Whom to ask next among those who say that they are free. Pure; times are monotonic seconds."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable

from p2pnode import Address, PeerId, Scope
from p2pnode.chat.limits import prefix_of

__all__ = ["Acquaintances", "Candidates", "Patience"]

# Chosen by us.
AGAIN_S = {
    "unasked": 0.0,  # somebody else had our seat first
    "busy": 0.4,  # a question takes a tenth of a second mostly
    "crossing": 1.0,
    "taken": 2.0,  # one seat of five is given back, within two seconds; who keeps it is in no later listing
    "failed": 20.0,
    "again": 20.0,
    "later": 60.0,
    "clock": 300.0,
}
"""How long somebody is left alone, by how it went; others: 10 s."""
MAX_TRIED = 512  # about 150 bytes each
KEPT = 8  # partners that are not met again at once ...
KEPT_S = 60.0  # ... for so long: in a lobby of two they meet again then
PATIENCE_S = 6.0  # of our seat that one address block may waste: once 5 s of silence, or ten questions taken back
PATIENCE_BACK = 0.1  # seconds of it that come back each second
MAX_BLOCKS = 512  # about 200 bytes each


class Candidates:
    """Of one throw-away node: who was in the lobby when it was read last, and how it went with whom was tried."""

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._listed: list[PeerId] = []
        self._not_before: OrderedDict[PeerId, float] = OrderedDict()

    def listed(self, peers: Iterable[PeerId]) -> None:
        """These say that they are free; what was said before counts no more."""
        self._listed = [peer for peer in dict.fromkeys(peers) if peer != self._own]

    def choose(self, now: float, rng: random.Random) -> PeerId | None:
        """Draw one, whom no listing gives again before `tried` says how it went; nobody that was tried a moment ago."""
        fit = [peer for peer in self._listed if self._not_before.get(peer, 0.0) <= now]
        if not fit:
            return None
        peer = rng.choice(fit)
        self._not_before[peer] = float("inf")
        return peer

    def tried(self, peer: PeerId, how: str, now: float) -> None:
        """It came to nothing: `how` is the code of the answer, or `failed`."""
        self._not_before.pop(peer, None)
        self._not_before[peer] = now + AGAIN_S.get(how, 10.0)
        if len(self._not_before) > MAX_TRIED:
            self._not_before.popitem(last=False)


class Acquaintances:
    """The blinded ids that this user talked to last: they are not met again at once."""

    def __init__(self) -> None:
        self._met: OrderedDict[bytes, float] = OrderedDict()

    def met(self, device: bytes, now: float) -> None:
        self._met.pop(device, None)
        self._met[device] = now
        if len(self._met) > KEPT:
            self._met.popitem(last=False)

    def just_met(self, device: bytes, now: float) -> bool:
        return now < self._met.get(device, float("-inf")) + KEPT_S


class Patience:
    """How much of our time each address block (/24, /48) wasted: who takes the seat, or has us ask, and lets it come
    to nothing, again and again, is left alone for a while. Not on a LAN or one machine, where all share a block."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wasted(self, source: Address, seconds: float, now: float) -> None:
        """So much of the seat's time came to nothing with somebody at `source`."""
        if source.scope is not Scope.PUBLIC or seconds <= 0.0:
            return
        block = prefix_of(source.ip)
        self._left[block] = self._now(block, now) - seconds, now
        self._left.move_to_end(block)
        if len(self._left) > MAX_BLOCKS:
            self._left.popitem(last=False)

    def is_lost(self, source: Address, now: float) -> bool:
        """Whether nobody from there is talked to now."""
        return source.scope is Scope.PUBLIC and self._now(prefix_of(source.ip), now) <= 0.0

    def _now(self, block: str, now: float) -> float:
        left, at = self._left.get(block, (PATIENCE_S, now))
        return min(PATIENCE_S, left + (now - at) * PATIENCE_BACK)
