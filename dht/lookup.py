"""The lookup: a continuous search for the nodes nearest to a target. Pure; the caller sends, and reports back.

Differences from Kademlia (2002), section 2.3: no rounds, a query leaves whenever one of alpha slots is free; a *late*
query gives its slot back, while its answer still counts; beyond 2 nodes of one prefix in the shortlist (public realm)
others only fill places that diverse ones leave empty. It ends when the k nearest that are neither late nor failed have
answered.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections import Counter
from collections.abc import Iterable

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht.contact import Contact

__all__ = ["Lookup"]

PREFIX_IN_SHORTLIST = 2
# A liar could name a victim's address under many ids and ports, each asked three times with up to 1,200 bytes.
SILENT_PER_IP = 4  # queries to one public IP address while nobody there has answered
MAX_CANDIDATES = 400  # 20 answers of 20; beyond, the farthest are forgotten: a liar cannot fill memory


class _State(enum.Enum):
    NEW = enum.auto()
    FLYING = enum.auto()
    LATE = enum.auto()
    ANSWERED = enum.auto()
    FAILED = enum.auto()


class _Candidate:
    __slots__ = ("contact", "depth", "distance", "state")

    def __init__(self, contact: Contact, distance: int, depth: int) -> None:
        self.contact, self.distance, self.depth = contact, distance, depth
        self.state = _State.NEW

    def __lt__(self, other: _Candidate) -> bool:
        return self.distance < other.distance


class Lookup:
    """One search in one realm."""

    def __init__(
        self, target: NodeId, *, own_id: NodeId, ksize: int, alpha: int, max_queries: int, diverse: bool
    ) -> None:
        """`diverse`: apply the prefix limits, sensible in the public realm only."""
        self.target = target
        self._goal = int.from_bytes(target, "big")
        self._own_id = own_id
        self._ksize, self._alpha, self._max_queries, self._diverse = ksize, alpha, max_queries, diverse
        self._candidates: list[_Candidate] = []  # nearest first
        self._by_id: dict[bytes, _Candidate] = {}
        self._addresses: set[Address] = set()
        self._asked: Counter[str] = Counter()
        self._heard: set[str] = set()
        self._flying = 0
        self.queried = 0
        self.hops = 0
        self.late_count = 0

    def add(self, contacts: Iterable[Contact], *, depth: int = 0) -> int:
        """Consider these; return how many were new. Ours, known ones and a second id at an address are ignored."""
        added = 0
        for contact in contacts:
            if contact.id == self._own_id or contact.id in self._by_id or contact.address in self._addresses:
                continue
            candidate = _Candidate(contact, contact.long_id ^ self._goal, depth)
            if len(self._candidates) >= MAX_CANDIDATES and not self._forget_farther_than(candidate):
                continue
            self._by_id[contact.id] = candidate
            self._addresses.add(contact.address)
            insort(self._candidates, candidate)
            added += 1
        return added

    def next_queries(self) -> list[Contact]:
        """Return whom to ask now; each must be reported back by `answered` or `failed`, in between by `late`."""
        queries: list[Contact] = []
        again = True
        while again:
            again = False
            for candidate in self._shortlist():
                if self._flying >= self._alpha or self.queried >= self._max_queries:
                    return queries
                if candidate.state is not _State.NEW:
                    continue
                ip = candidate.contact.address.ip
                if self._diverse and self._asked[ip] >= SILENT_PER_IP and ip not in self._heard:
                    if not self._is_flying(ip):
                        candidate.state = _State.FAILED
                        again = True  # others take its place in the shortlist
                    continue
                candidate.state = _State.FLYING
                self._asked[ip] += 1
                self._flying += 1
                self.queried += 1
                queries.append(candidate.contact)
        return queries

    def seed_answered(self, contact: Contact, contacts: Iterable[Contact]) -> None:
        """An answer that came before the lookup began (bootstrap)."""
        if self.add([contact]):
            self._by_id[contact.id].state = _State.ANSWERED
            self.queried += 1
            self.hops = max(self.hops, 1)
            self.add(contacts, depth=1)

    def answered(self, contact: Contact, contacts: Iterable[Contact]) -> None:
        """`contact` answered with `contacts`; also when it had been late."""
        candidate = self._by_id.get(contact.id)
        if candidate is None:
            return
        if candidate.state is _State.FLYING:
            self._flying -= 1
        candidate.state = _State.ANSWERED
        self._heard.add(contact.address.ip)
        self.hops = max(self.hops, candidate.depth + 1)
        self.add(contacts, depth=candidate.depth + 1)

    def late(self, contact: Contact) -> None:
        """No answer in the usual time: its slot is free."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.state is _State.FLYING:
            candidate.state = _State.LATE
            self._flying -= 1
            self.late_count += 1

    def failed(self, contact: Contact) -> None:
        """No answer at all, or a useless one."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.state in (_State.FLYING, _State.LATE):
            self._flying -= candidate.state is _State.FLYING
            candidate.state = _State.FAILED

    @property
    def finished(self) -> bool:
        """Nothing more to ask. Late answers are awaited only while nobody at all has answered."""
        if self._flying:
            return False
        if self.queried < self._max_queries and any(c.state is _State.NEW for c in self._shortlist()):
            return False
        states = {candidate.state for candidate in self._candidates}
        return _State.ANSWERED in states or _State.LATE not in states

    def closest(self) -> list[Contact]:
        """Return up to k that answered, nearest first."""
        return [c.contact for c in self._select(c for c in self._candidates if c.state is _State.ANSWERED)]

    def _is_flying(self, ip: str) -> bool:
        return any(c.state is _State.FLYING and c.contact.address.ip == ip for c in self._candidates)

    def _shortlist(self) -> list[_Candidate]:
        return self._select(c for c in self._candidates if c.state not in (_State.FAILED, _State.LATE))

    def _select(self, candidates: Iterable[_Candidate]) -> list[_Candidate]:
        """Return the k nearest, those within the prefix limit first to get a place."""
        chosen: list[_Candidate] = []
        spare: list[_Candidate] = []
        prefixes: Counter[bytes] = Counter()
        for candidate in candidates:
            if len(chosen) >= self._ksize:
                break
            prefix = candidate.contact.prefix
            if self._diverse and prefixes[prefix] >= PREFIX_IN_SHORTLIST:
                if len(spare) < self._ksize:
                    spare.append(candidate)
                continue
            prefixes[prefix] += 1
            chosen.append(candidate)
        if len(chosen) < self._ksize and spare:
            chosen = sorted(chosen + spare[: self._ksize - len(chosen)])
        return chosen

    def _forget_farther_than(self, candidate: _Candidate) -> bool:
        farthest = self._candidates[-1]
        if farthest.state is not _State.NEW or farthest.distance <= candidate.distance:
            return False
        self._candidates.pop()
        del self._by_id[farthest.contact.id]
        self._addresses.discard(farthest.contact.address)
        return True
