"""Which of a connection's paths carries its packets: a pure object, `now` in monotonic seconds.

Paths are probed when they are added, and while there are several, seldom, to keep their mappings and know their round
trips. The initiator of the connection chooses the best: a direct one before a relayed one, then the fastest, with
hysteresis. The other side follows it (nat/paths.py). Both leave a path that has died: when packets stay
unacknowledged, every path is probed; the present one has died when another answers and it does not.

RFC 9000, section 9, "Connection Migration", is the model; there only the client moves. Figures: iroh and Tailscale's
magicsock (better by a margin, trust in a path ends after 6.5 s).
"""

from __future__ import annotations

from p2pnode.nat.budget import Pace
from p2pnode.nat.path import Path

__all__ = ["MAX_PATHS", "PathChoice"]

MAX_PATHS = 12  # ten candidates of an offer, two relays; about 500 bytes each
FIRST_PROBES_S = (0.1, 0.2, 0.4, 0.8, 1.6)  # pauses after each of the first probes, as of ICE's checks
SPARE_EVERY_S = 20.0  # below the shortest common mapping time-out (30 s)
SUSPECT_EVERY_S = 0.2  # pauses between probes while the present path may be dead
SUSPECT_S = 0.4  # so long the present path has to answer, or twice its round trip
MISSES = 3  # probes unanswered in a row: the path is not used
FORGET_S = 30.0  # a path that never answered is not probed again before that, whoever asks for it (C1)
VALIDATE_S = 2.0  # so long a path that the other side was followed to has to answer (RFC 9000, section 9.3.2)
MAX_OUTSTANDING = 8  # numbers of probes that may still be answered, per path
BETTER = 0.8  # of the present round trip: who is not clearly faster is not worth a move
BETTER_BY_S = 0.005
STAY_S = 5.0  # after a move, before the next one for speed alone


class _Known:
    __slots__ = ("answered_at", "misses", "next_at", "path", "rtt_s", "sent", "turn")

    def __init__(self, path: Path, now: float) -> None:
        self.path = path
        self.next_at = now
        self.turn = 0
        self.sent: dict[bytes, float] = {}
        self.rtt_s: float | None = None
        self.answered_at: float | None = None
        self.misses = 0


class PathChoice:
    """The paths of one connection."""

    def __init__(self, path: Path, now: float, *, chooses: bool) -> None:
        """`path`: where the connection was proven. `chooses`: we are the initiator."""
        self.active = path
        self._chooses = chooses
        self._known = {path: _Known(path, now)}
        self._known[path].answered_at = now
        self._moved_at = self._asked_at = now
        self._suspect_at: float | None = None
        self._waited_s = 0.0
        # Frames and packets name their source, and can be copied (A1): what they teach us is probed at this pace.
        self._learning = Pace(MAX_PATHS / FORGET_S, MAX_PATHS)

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    @property
    def paths(self) -> list[Path]:
        return list(self._known)

    @property
    def suspect(self) -> bool:
        """Whether the present path may be dead."""
        return self._suspect_at is not None

    def has_answered(self, path: Path) -> bool:
        """Whether it answered of late."""
        known = self._known.get(path)
        return known is not None and known.answered_at is not None and known.misses < MISSES

    def rtt_s(self, path: Path) -> float | None:
        known = self._known.get(path)
        return None if known is None else known.rtt_s

    def add(self, path: Path, now: float) -> None:
        """A path that may work: probe it, five times at most until it answers (C1)."""
        known = self._known.get(path)
        if known is not None:
            return
        if len(self._known) >= MAX_PATHS and not self._forget_one():
            return
        self._begin(path, now)

    def learn(self, path: Path, now: float) -> bool:
        """Something came by this path, from whomever: probe it. Return whether it is known now."""
        if path not in self._known and self._learning.allow(now):
            self.add(path, now)
        return path in self._known

    def has_failed(self, path: Path) -> bool:
        """Whether all of its first probes went unanswered."""
        known = self._known.get(path)
        return known is not None and known.answered_at is None and known.turn >= len(FIRST_PROBES_S)

    def _begin(self, path: Path, now: float) -> None:
        self._known[path] = _Known(path, now)
        if len(self._known) == 2:
            self._known[self.active].next_at = now  # its round trip is to be compared

    def remove(self, path: Path) -> None:
        """The path has ended, such as a relay's flow. The present one stays until another takes over."""
        if path != self.active:
            self._known.pop(path, None)

    def moved(self, path: Path, now: float) -> None:
        """The connection uses `path` from now on."""
        self.active = path
        self._moved_at = now
        self._suspect_at = None
        if path not in self._known:
            if len(self._known) >= MAX_PATHS and not self._forget_one():
                del self._known[min(self._known.values(), key=lambda known: known.answered_at or 0.0).path]
            self._begin(path, now)
        elif not self.has_answered(path):
            known = self._known[path]
            known.answered_at = None
            known.turn, known.next_at = 0, now

    def doubt(self, now: float, *, for_s: float = 0.0) -> None:
        """What was sent by the present path stays unacknowledged, for so long already."""
        if self._suspect_at is None and len(self._known) > 1:
            self._suspect_at, self._waited_s = now, for_s
            for known in self._known.values():
                if known.answered_at is not None:
                    known.next_at = now

    def trust(self) -> None:
        """What was sent is acknowledged: the present path works."""
        self._suspect_at = None

    def due(self, now: float) -> list[Path]:
        """Return the paths to probe now; each must be told by `sent`."""
        if len(self._known) < 2:
            return []
        chosen = []
        for known in list(self._known.values()):
            if known.next_at > now:
                continue
            if known.answered_at is None and known.turn >= len(FIRST_PROBES_S) and known.path != self.active:
                if known.turn > len(FIRST_PROBES_S):
                    del self._known[known.path]  # it never answered, and may be tried anew
                known.turn, known.next_at = known.turn + 1, now + FORGET_S
                continue
            known.next_at = now + self._pause(known)
            known.turn += 1
            chosen.append(known.path)
        return chosen

    def sent(self, path: Path, number: bytes, now: float) -> None:
        known = self._known[path]
        known.sent[number] = now
        known.misses += 1
        if len(known.sent) > MAX_OUTSTANDING:
            del known.sent[next(iter(known.sent))]

    def answered(self, path: Path, number: bytes, now: float) -> bool:
        """Whether this answers a probe of ours by that path."""
        known = self._known.get(path)
        at = None if known is None else known.sent.pop(number, None)
        if known is None or at is None:
            return False
        sample = now - at
        known.rtt_s = sample if known.rtt_s is None else min(sample, 0.75 * known.rtt_s + 0.25 * sample)
        known.answered_at = now
        known.misses = 0
        if not self.suspect:
            known.next_at = now + SPARE_EVERY_S
        return True

    def choose(self, now: float) -> Path:
        """Return the path to use."""
        self._asked_at = now
        if self._suspect_at is not None:
            return self._escape(self._suspect_at, now)
        present = self._known[self.active]
        if present.answered_at is None and now - self._moved_at >= VALIDATE_S:
            return min(self._usable(), key=_rank, default=present).path  # it was followed in vain
        if not self._chooses:
            return self.active
        best = min(self._usable(), key=_rank, default=present)
        if best.path == self.active:
            return self.active
        if best.path.relayed == self.active.relayed:
            if present.rtt_s is None or best.rtt_s is None or now - self._moved_at < STAY_S:
                return self.active
            if best.rtt_s > BETTER * present.rtt_s - BETTER_BY_S:
                return self.active
        elif best.path.relayed:
            return self.active  # a direct one that lives is not left for a relay
        return best.path

    def next_at(self) -> float | None:
        """Return when `due` or `choose` may say something new."""
        if len(self._known) < 2:
            return None
        at = min(known.next_at for known in self._known.values())
        if self._known[self.active].answered_at is None and self._moved_at + VALIDATE_S > self._asked_at:
            at = min(at, self._moved_at + VALIDATE_S)
        return at

    def _pause(self, known: _Known) -> float:
        if known.answered_at is None:
            return FIRST_PROBES_S[min(known.turn, len(FIRST_PROBES_S) - 1)]
        return SUSPECT_EVERY_S if self.suspect or known.misses in (1, 2) else SPARE_EVERY_S

    def _usable(self) -> list[_Known]:
        """Those that answered; with three probes unanswered in a row one is out until it answers again."""
        return [known for known in self._known.values() if self.has_answered(known.path)]

    def _escape(self, since: float, now: float) -> Path:
        present = self._known[self.active]
        if present.answered_at is not None and present.answered_at > since:
            self._suspect_at = None  # it lives: the network only lost something
            return self.active
        patience = max(SUSPECT_S, 2 * (present.rtt_s or 0.0))
        others = [k for k in self._known.values() if k is not present and k.answered_at and k.answered_at > since]
        if now - since + self._waited_s < patience or not others:
            return self.active
        present.answered_at = None  # it has to answer before it is used again
        present.turn, present.next_at = 0, now
        return min(others, key=_rank).path

    def _forget_one(self) -> bool:
        """Make room: the path that never answered and was probed most."""
        waiting = [known for known in self._known.values() if known.answered_at is None and known.path != self.active]
        if not waiting:
            return False
        del self._known[max(waiting, key=lambda known: known.turn).path]
        return True


def _rank(known: _Known) -> tuple[bool, float]:
    return known.path.relayed, known.rtt_s if known.rtt_s is not None else float("inf")
