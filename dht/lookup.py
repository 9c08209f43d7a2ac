"""The lookup: a continuous search for the nodes nearest to a target. Pure; the caller sends, and reports back.

Differences from Kademlia (2002), section 2.3: no rounds, a query leaves whenever one of alpha slots is free; a *late*
query gives its slot back, while its answer still counts, and so does one that nearer nodes have pushed out of the
shortlist; beyond 2 nodes of one prefix in the shortlist (public realm)
others only fill places that diverse ones leave empty.

Several *paths* at once, disjoint in what they are told (S/Kademlia, Baumgart and Mies 2007, section 4.4): each begins
with its own share of the known contacts, and an answer extends only the path that asked. A node is asked once, by
whichever path comes to it first; that it answered, or failed, counts for all. A liar thus leads one path astray, while
the others still arrive at the nearest nodes. In an honest network all paths arrive at the same nodes, and the second
costs a few queries, not as many again.

It ends when, on every path, the k nearest that are neither late nor failed have answered. Where the ids near the target
turn out to be too dense (`density`), the caller may `widen` it to a whole region.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht.contact import Contact
from p2pnode.dht.limits import Diversity

__all__ = ["Lookup"]

# A liar could name a victim's address under many ids and ports, each asked three times with up to 1,200 bytes.
SILENT_PER_IP = 4  # queries to one public IP address while nobody there has answered
SILENT_PER_PREFIX = 8  # the same in a /24 or /48; then its others wait until nobody else is left to ask
FLYING_FACTOR = 2  # times alpha: queries under way at most, with those that hold no slot
MANY_LATE = 4  # so many silent ones let one more be asked
KEPT_PER_PREFIX = 8  # candidates of a block that are kept when there are too many
MAX_CANDIDATES = 400  # per path: 20 answers of 20; beyond, the farthest are forgotten: a liar cannot fill memory


class _State(enum.IntEnum):
    NEW = 0
    FLYING = 1
    ANSWERED = 2
    LATE = 3
    FAILED = 4


_NEW, _FLYING, _ANSWERED, _LATE, _FAILED = _State


class _Candidate:
    """`paths`: bit p is set when path p knows it. `asked_by`: the path whose query it was."""

    __slots__ = ("asked_by", "contact", "depth", "distance", "paths", "state")

    def __init__(self, contact: Contact, distance: int, depth: int) -> None:
        self.contact, self.distance, self.depth = contact, distance, depth
        self.state = _NEW
        self.paths = 0
        self.asked_by = 0


class _Path:
    """What one path knows, nearest first. `idle`: nothing to ask until something changes. `crowded`: some block of
    addresses may have had more than its share in it; where none has, which is usual, nobody need count them."""

    __slots__ = ("bit", "candidates", "crowded", "distances", "idle", "present")

    def __init__(self, number: int) -> None:
        self.bit = 1 << number
        self.candidates: list[_Candidate] = []
        self.distances: list[int] = []
        self.idle = self.crowded = False
        self.present = Diversity()


class Lookup:
    """One search in one realm."""

    def __init__(
        self, target: NodeId, *, own_id: NodeId, ksize: int, alpha: int, max_queries: int, diverse: bool, paths: int = 1
    ) -> None:
        """`diverse`: apply the prefix limits, sensible in the public realm only."""
        self.target = target
        self.goal = int.from_bytes(target, "big")
        self._own_id = own_id
        self._ksize, self._alpha, self._max_queries, self._diverse = ksize, alpha, max_queries, diverse
        self._most, self._radius = ksize, -1  # how many are searched, and within what distance more than ksize
        self._paths = [_Path(number) for number in range(paths)]
        self._turn = 0
        self._path_of: dict[bytes, int] = {}  # of those whose names this search began with
        self._by_id: dict[bytes, _Candidate] = {}
        self._addresses: set[Address] = set()
        self._asked: Counter[str | bytes] = Counter()
        self._heard: set[str | bytes] = set()
        self._flying = 0
        self._late = 0
        self._answered = 0
        self.wanted: int | None = None
        """How many more answers are useful: no more queries are under way. None: as many as there are slots."""
        self.queried = 0
        self.hops = 0
        self.late_count = 0

    def add(self, contacts: Iterable[Contact]) -> int:
        """Begin with these, nearest first, in turn on each path; return how many were new.

        Ours, known ones and a second id at an address are ignored.
        """
        added = 0
        for contact in contacts:
            added += self._tell(self._paths[added % len(self._paths)], contact, 0)
        return added

    def hear(self, contact: Contact, teller: bytes) -> None:
        """Begin with one that `teller` named before. All that one node names is one path's: its answer to this search,
        too, extends that path only."""
        number = self._path_of.setdefault(teller, len(self._path_of) % len(self._paths))
        self._tell(self._paths[number], contact, 0)

    def next_queries(self) -> list[Contact]:
        """Return whom to ask now; each must be reported back by `answered` or `failed`, in between by `late`."""
        queries: list[Contact] = []
        paths = self._paths
        idle = 0
        while idle < len(paths) and self._has_slot() and self.queried < self._max_queries:
            number = self._turn
            self._turn = (number + 1) % len(paths)
            path = paths[number]
            candidate = None if path.idle else self._next_of(path)
            if candidate is None:
                path.idle = True
                idle += 1
                continue
            idle = 0
            self._fly(candidate, number)
            queries.append(candidate.contact)
        return queries

    def insist(self, contact: Contact) -> bool:
        """Count `contact` as asked, however far it is: whoever begins wants to hear it. False: it is ours, or known."""
        number = len(self._by_id) % len(self._paths)
        if not self._tell(self._paths[number], contact, 0):
            return False
        self._fly(self._by_id[contact.id], number)
        return True

    def _fly(self, candidate: _Candidate, path: int) -> None:
        candidate.state = _FLYING
        candidate.asked_by = self._path_of.get(candidate.contact.id, path)
        self._asked[candidate.contact.address.ip] += 1
        self._asked[candidate.contact.prefix] += 1
        self._flying += 1
        self.queried += 1

    def answered(self, contact: Contact, contacts: Iterable[Contact]) -> None:
        """`contact` answered with `contacts`; also when it had been late."""
        candidate = self._by_id.get(contact.id)
        if candidate is None:
            return
        self._settle(candidate, _ANSWERED)
        self._heard.add(contact.address.ip)
        self._heard.add(contact.prefix)
        depth = candidate.depth + 1
        self.hops = max(self.hops, depth)
        path = self._paths[candidate.asked_by]
        for each in contacts:
            self._tell(path, each, depth)

    def late(self, contact: Contact) -> None:
        """No answer in the usual time: its slot is free."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.state is _FLYING:
            self._settle(candidate, _LATE)
            self.late_count += 1

    def failed(self, contact: Contact) -> None:
        """No answer at all, or a useless one."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.state in (_FLYING, _LATE):
            self._settle(candidate, _FAILED)

    def widen(self, radius: int, most: int) -> None:
        """Search all within the distance `radius`, up to `most`, and the k nearest as before."""
        self._radius, self._most = radius, max(most, self._ksize)
        self._max_queries += 2 * self._most
        for path in self._paths:
            path.idle = False

    def on_all_paths(self, contacts: Iterable[Contact]) -> bool:
        """Whether each path has asked some of these; of no account unless the search began with hearsay."""
        if not self._path_of:
            return True
        return len({self._by_id[contact.id].asked_by for contact in contacts}) == len(self._paths)

    @property
    def finished(self) -> bool:
        """Nothing more to ask. Late answers are awaited only while nobody at all has answered."""
        if self._flying or (self._late and not self._answered):
            return False
        if self.queried >= self._max_queries:
            return True
        return all(path.idle or self._next_of(path) is None for path in self._paths)

    def closest(self) -> list[Contact]:
        """Return up to k that answered, of a widened search up to as many as it was widened to, nearest first."""
        answered = sorted(
            (c for c in self._by_id.values() if c.state is _ANSWERED), key=lambda candidate: candidate.distance
        )
        return [candidate.contact for candidate in self._diverse_first(answered)]

    def _has_slot(self) -> bool:
        """Whether another query may leave. One that is no longer among the k nearest of a path holds no slot: what it
        may tell is known better already."""
        if self.wanted is not None and self._flying >= self.wanted:
            return False
        most = FLYING_FACTOR * self._alpha
        # Few at once, for most who are asked early are not among the nearest in the end; more where some are silent, so
        # that black holes are not met one after the other (K2).
        slots = min(self._alpha + self.late_count, most)
        if self._flying < slots:
            return True
        if self._flying >= most:
            return False
        wanted: set[int] = set()
        for path in self._paths:
            places = self._most
            for candidate in path.candidates:
                if candidate.state is _FLYING:
                    wanted.add(candidate.distance)
                elif candidate.state >= _LATE:
                    continue
                places -= 1
                if not places:
                    break
        return len(wanted) < slots

    def _settle(self, candidate: _Candidate, state: _State) -> None:
        """Leave one state for another; paths that know the candidate may have something to ask again."""
        before, candidate.state = candidate.state, state
        self._flying -= before is _FLYING
        self._late += (state is _LATE) - (before is _LATE)
        self._answered += (state is _ANSWERED) - (before is _ANSWERED)
        for path in self._paths:
            if candidate.paths & path.bit:
                path.idle = False

    def _tell(self, path: _Path, contact: Contact, depth: int) -> int:
        """Let a path know a contact; return 1 when the whole lookup had not known it."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.paths & path.bit:
            return 0
        if candidate is None and (contact.id == self._own_id or contact.address in self._addresses):
            return 0
        distance = contact.long_id ^ self.goal
        if len(path.candidates) >= MAX_CANDIDATES and not self._forget_farther_than(path, distance):
            return 0
        new = candidate is None
        if candidate is None:
            candidate = self._by_id[contact.id] = _Candidate(contact, distance, depth)
            self._addresses.add(contact.address)
        candidate.paths |= path.bit
        at = bisect_left(path.distances, distance)
        path.distances.insert(at, distance)
        path.candidates.insert(at, candidate)
        path.idle = False
        if self._diverse and not path.crowded:
            path.crowded = path.present.crowded(contact.prefix)
            path.present.count(contact.prefix)
        return int(new)

    def _next_of(self, path: _Path) -> _Candidate | None:
        """Return whom the path should ask: the nearest of its k nearest live ones that nobody has asked."""
        taken = 0
        present = Diversity() if path.crowded else None
        spare: list[_Candidate] = []
        # Where many are silent, others most likely are: a few more than k are asked, not the last of k in a line.
        more = min(self.late_count // MANY_LATE, self._alpha)
        for candidate in path.candidates:
            state = candidate.state
            if state >= _LATE:
                continue
            if self._is_enough(taken - more, candidate):
                break
            if present is not None and present.crowded(candidate.contact.prefix):
                spare.append(candidate)
                continue
            if state is _NEW:
                if not self._diverse or not self._is_silent(candidate):
                    return candidate
                if candidate.state is _NEW:
                    spare.append(candidate)
                continue
            if present is not None:
                present.count(candidate.contact.prefix)
            taken += 1
        for candidate in spare[: max(0, self._ksize - taken)]:
            if candidate.state is _NEW and not self._is_silent_ip(candidate):
                return candidate
        return None

    def _is_enough(self, taken: int, candidate: _Candidate) -> bool:
        """Whether, with `taken` nearer ones, this candidate and all farther ones need not be asked."""
        return taken >= self._most or (taken >= self._ksize and candidate.distance > self._radius)

    def _is_silent(self, candidate: _Candidate) -> bool:
        """Whether enough were asked at this IP address, or near it, none of whom has answered. Others then take its
        place."""
        prefix = candidate.contact.prefix
        if self._asked[prefix] >= SILENT_PER_PREFIX and prefix not in self._heard:
            return True
        return self._is_silent_ip(candidate)

    def _is_silent_ip(self, candidate: _Candidate) -> bool:
        if not self._diverse:
            return False
        ip = candidate.contact.address.ip
        if self._asked[ip] < SILENT_PER_IP or ip in self._heard:
            return False
        if not any(c.state is _FLYING and c.contact.address.ip == ip for c in self._by_id.values()):
            candidate.state = _FAILED
        return True

    def _diverse_first(self, candidates: Iterable[_Candidate]) -> list[_Candidate]:
        """Return the nearest, those within the prefix limits first to get a place."""
        chosen: list[_Candidate] = []
        spare: list[_Candidate] = []
        present = Diversity()
        for candidate in candidates:
            if self._is_enough(len(chosen), candidate):
                break
            prefix = candidate.contact.prefix
            if self._diverse and present.crowded(prefix):
                spare.append(candidate)
                continue
            present.count(prefix)
            chosen.append(candidate)
        if len(chosen) < self._ksize and spare:
            chosen = sorted(chosen + spare[: self._ksize - len(chosen)], key=lambda candidate: candidate.distance)
        return chosen

    def _forget_farther_than(self, path: _Path, distance: int) -> bool:
        """Make room for a candidate at `distance`; return whether there is any."""
        at = len(path.candidates) - 1
        if self._diverse:
            at = self._one_too_many(path)
        victim = path.candidates[at]
        if victim.state is not _NEW or (victim.distance <= distance and at == len(path.candidates) - 1):
            return False
        path.candidates.pop(at)
        path.distances.pop(at)
        victim.paths &= ~path.bit
        if not victim.paths:
            del self._by_id[victim.contact.id]
            self._addresses.discard(victim.contact.address)
        return True

    @staticmethod
    def _one_too_many(path: _Path) -> int:
        """Return the place of the farthest of a crowded block that nobody has asked, else of the farthest of all.

        Whoever grinds hundreds of ids in a few blocks must not make a path forget everybody else.
        """
        counts = Counter(candidate.contact.prefix for candidate in path.candidates)
        for at in range(len(path.candidates) - 1, -1, -1):
            candidate = path.candidates[at]
            if candidate.state is _NEW and counts[candidate.contact.prefix] > KEPT_PER_PREFIX:
                return at
        return len(path.candidates) - 1
