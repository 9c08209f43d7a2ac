"""Whom a throw-away node talks to, and what becomes of everybody else who asks. Pure.

There is one seat. Who is free gives it to whoever asks first. Who is asking somebody itself lets others wait: those
with a greater id than its own for as long as that takes, those with a smaller one for a moment only. A circle of people
who wait for each other has one who waits for a greater id, and opens there. When two ask each other, the question of
the smaller id counts. So of two who choose a third exactly one gets him, and the other hears soon that it has to look
on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from p2pnode import PeerId

__all__ = ["Seat", "Verdict"]

Verdict = Literal["take", "wait", "wait_briefly", "busy", "taken", "crossing"]

MAX_WAITING = 4


class Seat:
    """Of the node `own`."""

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self.asking: PeerId | None = None
        self.taken: PeerId | None = None
        self._ours = False  # whether whoever has the seat was asked by us
        self._waiting: OrderedDict[PeerId, None] = OrderedDict()

    @property
    def free(self) -> bool:
        return self.taken is None and self.asking is None

    def ask(self, peer: PeerId) -> bool:
        """Whether we may ask `peer` now: nobody else is asked, nobody has the seat."""
        if not self.free:
            return False
        self.asking = peer
        return True

    def answered(self, peer: PeerId) -> bool:
        """`peer`, whom we asked, keeps its own seat for us. False when ours was given to it or another meanwhile."""
        if self.asking != peer:
            return False
        self.asking, self.taken, self._ours = None, peer, True
        self._waiting.clear()
        return True

    def asked_by(self, peer: PeerId) -> Verdict:
        """`take`: the seat is theirs now; `wait`, `wait_briefly`: ask `given` again once our own question is answered;
        `busy`: too many do."""
        if self.taken is not None:
            return "taken"
        if self.asking is None:
            self.taken, self._ours = peer, False
            return "take"
        if self.asking == peer:
            if self._own < peer:
                return "crossing"
            self.asking, self.taken, self._ours = None, peer, False
            self._waiting.clear()
            return "take"
        if len(self._waiting) >= MAX_WAITING:
            return "busy"
        self._waiting[peer] = None
        return "wait" if self._own < peer else "wait_briefly"

    def given(self, peer: PeerId) -> bool | None:
        """Whether the seat was given to somebody who waited: True theirs, False others', None: go on waiting."""
        if self.taken == peer:
            return True
        return None if peer in self._waiting else False

    def forget(self, peer: PeerId) -> None:
        """Who waited has gone."""
        self._waiting.pop(peer, None)

    def leave(self, peer: PeerId, *, ours: bool) -> None:
        """It comes to nothing with `peer`, whom we asked (`ours`) or who asked us. Who waits longest has the seat."""
        if (ours and self.asking == peer) or (self.taken == peer and self._ours == ours):
            self.asking = self.taken = None
            if self._waiting:
                self.taken, _ = self._waiting.popitem(last=False)
                self._ours = False
                self._waiting.clear()
