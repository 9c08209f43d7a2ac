"""Who of a room's neighbours is sent what, and who is asked: a tree of pushes over a mesh of few neighbours. No I/O.

As Plumtree ("Epidemic Broadcast Trees", Leitao, Pereira, Rodrigues, 2007), on a mesh of GossipSub's size: an entry is
pushed on to the neighbours that want pushes, all others are told a moment later that it is there, and ask for it when
nobody has pushed it by then. Who pushes what was there already is asked not to. Logs without gaps make "which do you
have" a number for each device, so the same frames repair what a broken connection lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode import PeerId
from p2pnode.chat.rooms.log import RoomLog
from p2pnode.chat.rooms.wire import MAX_LOGS, Frame, Have, Mesh, Position, Range, Want

__all__ = ["FEW", "MOST", "WANTED", "Neighbour", "Neighbours"]

# Chosen by us; GossipSub has D_low 4, D 6, D_high 12.
FEW = 8  # devices up to which everybody is everybody's neighbour
WANTED = 4  # neighbours that we look for beyond that: with those who look for us they are 8, and MOST leaves places
MOST = 12  # neighbours that we take
PUSHERS = 2  # who may push us others' entries before one is asked not to: one may be slow, or fall silent
TELL_S = 0.25  # how long news for a neighbour that is not pushed to waits for company
WHOLE_S = 30.0  # everything is told anew so often: heals what nobody noticed, and keeps the session
GRACE_S = 0.5  # how long a push may take before somebody is asked
ASK_S = 3.0  # how long an answer may take before somebody else is asked
NOTHING_S = 30.0  # how long somebody is left alone who has what we do not want
BULK = 32  # entries behind from which nothing is waited for


@dataclass(slots=True)
class Neighbour:
    """A device that we exchange entries with. `told`: what it has, as it said or as we sent."""

    peer: PeerId
    told: dict[bytes, int] = field(default_factory=dict)
    heard: bool = False
    """It has told everything once."""
    wants_push: bool = True
    pushes: bool = True
    news: set[bytes] = field(default_factory=set)
    news_at: float = float("inf")
    whole_at: float = float("-inf")
    asked_until: float = float("-inf")
    asked_at_count: int = -1
    quiet_until: float = float("-inf")
    more: bool = False


class Neighbours:
    """The neighbours in one room. `now`: monotonic seconds. `stored`: how far each log is on our disk."""

    def __init__(self, log: RoomLog) -> None:
        self._log = log
        self.all: dict[PeerId, Neighbour] = {}
        self.stored: dict[bytes, int] = {}
        self._behind_since: dict[bytes, float] = {}

    def add(self, peer: PeerId) -> Neighbour:
        return self.all.setdefault(peer, Neighbour(peer))

    def remove(self, peer: PeerId) -> bool:
        return self.all.pop(peer, None) is not None

    # what comes

    def heard_have(self, neighbour: Neighbour, frame: Have, now: float) -> None:
        """It told what it has."""
        for position in frame.positions:
            if position.device not in neighbour.told and len(neighbour.told) >= MAX_LOGS:
                continue
            neighbour.told[position.device] = max(position.seq, neighbour.told.get(position.device, 0))
            if position.seq > self._log.length(position.device):
                self._behind_since.setdefault(position.device, now)
        neighbour.heard = neighbour.heard or frame.whole

    def heard_entry(self, neighbour: Neighbour, device: bytes, seq: int) -> None:
        """It sent an entry, so it has it."""
        if device in neighbour.told or len(neighbour.told) < MAX_LOGS:
            neighbour.told[device] = max(seq, neighbour.told.get(device, 0))

    def duplicate(self, neighbour: Neighbour, device: bytes) -> Frame | None:
        """It pushed what was there; return what to tell it."""
        pushing = sum(n.pushes for n in self.all.values())
        if not neighbour.pushes or device == neighbour.peer.raw or pushing <= PUSHERS:
            return None
        neighbour.pushes = False
        return Mesh(self._log.room.raw, False)

    def answered(self, neighbour: Neighbour, now: float, *, more: bool) -> None:
        """All that it sends to our question is taken."""
        neighbour.asked_until = float("-inf")
        neighbour.more = more
        if self._log.count == neighbour.asked_at_count:
            neighbour.quiet_until = now + NOTHING_S
            neighbour.more = False

    # what goes

    def push_to(self, device: bytes, seq: int, source: PeerId | None) -> list[Neighbour]:
        """Return who gets an entry at once; `source`: who sent it to us, None for ours, which everybody gets."""
        found = []
        for neighbour in self.all.values():
            if neighbour.peer == source or neighbour.told.get(device, 0) >= seq or not neighbour.heard:
                continue
            if neighbour.wants_push or source is None:
                found.append(neighbour)
                if neighbour.told.get(device, 0) == seq - 1:
                    neighbour.told[device] = seq
        return found

    def grew(self, device: bytes, now: float) -> None:
        """A log is longer, on our disk; those who do not know are told soon."""
        seq = self.stored[device]
        for neighbour in self.all.values():
            if neighbour.told.get(device, 0) < seq or neighbour.peer.raw == device:
                neighbour.news.add(device)
                neighbour.news_at = min(neighbour.news_at, now + TELL_S)
        if seq >= max((n.told.get(device, 0) for n in self.all.values()), default=0):
            self._behind_since.pop(device, None)

    def whole(self) -> Have:
        """Return everything that is on our disk."""
        positions = [self._position(device) for device, seq in self.stored.items() if seq]
        return Have(self._log.room.raw, True, positions[:MAX_LOGS])

    def caught_up(self) -> bool:
        """Whether all is there that some neighbour has, as far as we want it."""
        length = self._log.length
        return any(
            n.heard and not self._log.lacking(Position(d, seq, b"") for d, seq in n.told.items() if seq > length(d))
            for n in self.all.values()
        )

    def tick(self, now: float) -> list[tuple[PeerId, Frame]]:
        """Return what is due: who is told what, who is asked for what."""
        due: list[tuple[PeerId, Frame]] = []
        for neighbour in self.all.values():
            if now >= neighbour.whole_at + WHOLE_S:
                neighbour.whole_at, neighbour.news_at = now, float("inf")
                neighbour.news.clear()
                due.append((neighbour.peer, self.whole()))
            elif now >= neighbour.news_at:
                positions = [self._position(device) for device in sorted(neighbour.news) if self.stored.get(device)]
                neighbour.news_at = float("inf")
                neighbour.news.clear()
                if positions:
                    due.append((neighbour.peer, Have(self._log.room.raw, False, positions[:MAX_LOGS])))
        return due + self._questions(now)

    def next_at(self, now: float) -> float:
        """Return when `tick` has something to do."""
        moments = [min(n.news_at, n.whole_at + WHOLE_S) for n in self.all.values()]
        if self._behind_since and self.all:
            moments.append(now + GRACE_S)
        return min(moments, default=float("inf"))

    def _questions(self, now: float) -> list[tuple[PeerId, Frame]]:
        if not self._behind_since and not any(n.more for n in self.all.values()):
            return []
        due: list[tuple[PeerId, Frame]] = []
        asked: set[bytes] = set()
        waits = self._log.missing()
        for neighbour in self.all.values():
            if now < neighbour.asked_until or now < neighbour.quiet_until:
                continue
            lacking = self._lacking(neighbour)
            lacking += [r for r in waits if neighbour.told.get(r.device, 0) >= r.last]
            bulk = neighbour.more or sum(r.last - r.first + 1 for r in lacking) >= BULK
            ranges: dict[bytes, Range] = {}
            for each in lacking:
                since = self._behind_since.setdefault(each.device, now)
                if each.device not in asked and each.device not in ranges and (bulk or now >= since + GRACE_S):
                    ranges[each.device] = each
            neighbour.more = False
            if not ranges:
                continue
            asked |= set(ranges)
            neighbour.asked_until = now + ASK_S
            neighbour.asked_at_count = self._log.count
            neighbour.pushes = True
            due.append((neighbour.peer, Want(self._log.room.raw, True, list(ranges.values())[:MAX_LOGS])))
        if not due and not any(self._lacking(n) for n in self.all.values()) and not waits:
            self._behind_since.clear()
        return due

    def _lacking(self, neighbour: Neighbour) -> list[Range]:
        told, length = neighbour.told, self._log.length
        return self._log.lacking(
            Position(device, told[device], b"") for device in self._behind_since if told.get(device, 0) > length(device)
        )

    def _position(self, device: bytes) -> Position:
        return self._log.position(device, min(self.stored[device], self._log.length(device)))
