"""Is somebody there? What speaks for it, how old that is, and what follows. Pure; callers pass the clocks.

Evidence is what the peer itself did: a session that is open, broke or was left with a goodbye, and its own signed
records (found by a lookup, or told by their holders). The newest decides. A session that breaks makes the peer "last
seen" at once; it is offline a minute after it was heard last, unless something newer turns up meanwhile. Whoever never
was in contact with it believes its record until that expires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import UserId

__all__ = ["GONE_AFTER_S", "Knowledge", "RecordHeard", "State", "Verdict"]

State = Literal["online", "last_seen", "offline", "unknown"]
"""`last_seen`: it was there a moment ago, and is perhaps not any more; it still counts as online."""

GONE_AFTER_S = 55.0  # since a peer was heard on a session that broke: below the promised 60
GONE_AT_LEAST_S = 10.0  # since the session broke: time for the attempt to reach it anew


@dataclass(frozen=True, slots=True)
class RecordHeard:
    """A presence record. `seq`: unix milliseconds; `expires`: unix seconds; `how`: `record` (a lookup), `notice` (its
    holders told us); `holders`: nodes that returned it."""

    seq: int
    expires: int
    online: bool
    how: str
    holders: int
    addresses: tuple[Address, ...] = ()
    name: str = ""
    user: UserId | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`age_s`: seconds since the peer did what is the evidence, None without any. `evidence`: `session` (it is or was
    connected to us), `session_lost`, `goodbye`, `record`, `notice`, `lan`, or "" for none. `last_seen`: unix seconds.
    """

    state: State
    age_s: float | None = None
    evidence: str = ""
    holders: int = 0
    last_seen: float | None = None

    @property
    def online(self) -> bool:
        return self.state in ("online", "last_seen")


@dataclass(slots=True, eq=False)
class Knowledge:
    """All that is known of one peer: about 1 kB. Times are monotonic seconds unless they say wall."""

    records: dict[Realm, RecordHeard] = field(default_factory=dict)
    in_session: bool = False
    heard_at: float | None = None
    heard_wall: float = 0.0
    lost_at: float | None = None
    left: bool = False

    def heard(self, realm: Realm, record: RecordHeard) -> None:
        """A record; of two in a realm the one with the higher `seq` counts."""
        known = self.records.get(realm)
        if known is None or record.seq > known.seq or (record.seq == known.seq and record.holders > known.holders):
            self.records[realm] = record

    def session_opened(self, now: float, wall: float) -> None:
        self.in_session, self.left, self.lost_at = True, False, None
        self.heard_at, self.heard_wall = now, wall

    def session_ended(self, now: float, wall: float, silent_s: float, *, lost: bool, left: bool) -> None:
        """`silent_s`: since the peer was heard; `lost`: it fell silent; `left`: it said goodbye."""
        self.in_session, self.left = False, left
        self.lost_at = now if lost else None
        silent = silent_s if lost else 0.0
        self.heard_at, self.heard_wall = now - silent, wall - silent

    def verdict(self, now: float, wall: float, *, silent_s: float = 0.0, on_lan: bool = False) -> Verdict:
        """Judge. `silent_s`: of the open session; `on_lan`: discovery on the local network knows it."""
        if self.in_session:
            return Verdict("online", silent_s, "session", last_seen=wall - silent_s)
        here = [r for r in self.records.values() if r.online and r.expires > wall]
        newest_here = max(here, key=lambda r: r.seq, default=None)
        broken = self.lost_at is not None or self.left
        if newest_here is not None and not (broken and newest_here.seq / 1000 <= self.heard_wall):
            return self._of_record("online", newest_here, wall)
        if broken and self.heard_at is not None and self._newest_goodbye() <= self.heard_wall:
            return self._of_session(now)
        if on_lan and not broken:
            return Verdict("online", self._age(now), "lan", last_seen=self.heard_wall or None)
        newest = max(self.records.values(), key=lambda r: r.seq, default=None)
        if self.heard_at is not None and (newest is None or newest.seq / 1000 <= self.heard_wall):
            return self._of_session(now)
        return self._of_record("offline", newest, wall) if newest is not None else Verdict("unknown")

    def changes_at(self, now: float, wall: float) -> float | None:
        """Return when the verdict may become another one by time alone."""
        ends = [now + r.expires - wall for r in self.records.values() if r.online and r.expires > wall]
        if not self.in_session and self.heard_at is not None and (gone := self._gone_at()) > now:
            ends.append(gone)
        return min(ends, default=None)

    def addresses(self, wall: float) -> tuple[Address, ...]:
        """Return where its records of now say that it can be dialled."""
        here = [r for r in self.records.values() if r.online and r.expires > wall]
        return tuple(dict.fromkeys(address for record in here for address in record.addresses))

    def newest(self) -> RecordHeard | None:
        return max(self.records.values(), key=lambda r: r.seq, default=None)

    def _newest_goodbye(self) -> float:
        return max((r.seq / 1000 for r in self.records.values() if not r.online), default=0.0)

    def _gone_at(self) -> float:
        heard = self.heard_at or 0.0
        return max(heard + GONE_AFTER_S, (self.lost_at or 0.0) + GONE_AT_LEAST_S)

    def _age(self, now: float) -> float | None:
        return None if self.heard_at is None else max(0.0, now - self.heard_at)

    def _of_session(self, now: float) -> Verdict:
        """It was heard on a session that has ended."""
        evidence = "goodbye" if self.left else "session_lost" if self.lost_at is not None else "session"
        state: State = "offline" if self.left or now >= self._gone_at() else "last_seen"
        return Verdict(state, self._age(now), evidence, last_seen=self.heard_wall)

    @staticmethod
    def _of_record(state: State, record: RecordHeard, wall: float) -> Verdict:
        seen = record.seq / 1000
        how = record.how if record.online else "goodbye"
        return Verdict(state, max(0.0, wall - seen), how, record.holders, seen)
