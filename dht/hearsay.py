"""Names of nodes that answers named while we joined: where to begin a search until the table knows better. Pure.

A newcomer's table holds its own neighbourhood. Each answer to a search for our own id also names up to four nodes from
anywhere (`table.Table.scattered`); twenty answers are a fair sample of a network, and cost no datagram. Nobody has
proven anything, so these names are never in a table, never told to others, used once, and forgotten after two minutes.

What a liar gains is bounded: four names for each node that answers us (searches ask two of a block), two of a block in
all, as everywhere (security.md S1), and a search takes all that one node named into one of its disjoint paths; while it
began with such names, no read ends before holders on every path agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from p2pnode.core.address import Address
from p2pnode.dht.contact import Contact
from p2pnode.dht.limits import Diversity

__all__ = ["NAMES_PER_TELLER", "Hearsay", "Told"]

NAMES_PER_TELLER = 4
MAX_NAMES = 160  # about 600 bytes each, 100 kB per overlay; for two minutes
LIFE_S = 120.0


class Told(NamedTuple):
    """A contact that somebody named. `teller`: that node's id."""

    contact: Contact
    teller: bytes


class _Seen:
    """What there is of names already."""

    def __init__(self, names: Iterable[Told]) -> None:
        self.by_teller: Counter[bytes] = Counter()
        self.present = Diversity()
        self.addresses: set[Address] = set()
        for told in names:
            self.count(told)

    def count(self, told: Told) -> None:
        self.by_teller[told.teller] += 1
        self.present.count(told.contact.prefix)
        self.addresses.add(told.contact.address)


class Hearsay:
    """Of one overlay. `diverse`: apply the prefix limits, sensible in the public realm only."""

    def __init__(self, own_id: bytes, *, diverse: bool) -> None:
        self._own, self._diverse = int.from_bytes(own_id, "big"), diverse
        self._told: dict[bytes, tuple[Told, float]] = {}
        self._seen: _Seen | None = None  # of those; None: to be counted anew

    def __len__(self) -> int:
        return len(self._told)

    def hear(self, teller: bytes, contacts: Collection[Contact], known: Collection[bytes], now: float) -> None:
        """`teller` named these: keep the farthest from us that are not `known`, at most four of each teller."""
        self._expire(now)
        if self._seen is None:
            self._seen = _Seen(told for told, _ in self._told.values())
        seen = self._seen
        left = NAMES_PER_TELLER - seen.by_teller[teller]
        if left <= 0:
            return
        for contact in sorted(contacts, key=lambda contact: contact.long_id ^ self._own, reverse=True):
            if left <= 0 or len(self._told) >= MAX_NAMES:
                break
            if contact.id in self._told or contact.id in known or contact.address in seen.addresses:
                continue
            if contact.long_id == self._own or (self._diverse and seen.present.crowded(contact.prefix)):
                continue
            told = Told(contact, teller)
            self._told[contact.id] = (told, now)
            seen.count(told)
            left -= 1

    def closest(self, target: bytes, count: int, now: float) -> list[Told]:
        """Return up to `count` names, nearest to `target` (XOR) first."""
        self._expire(now)
        goal = int.from_bytes(target, "big")
        return sorted((told for told, _ in self._told.values()), key=lambda told: told.contact.long_id ^ goal)[:count]

    def forget(self, node_id: bytes) -> None:
        """It is being asked: what it answers says more."""
        if self._told.pop(node_id, None) is not None:
            self._seen = None

    def _expire(self, now: float) -> None:
        """Names are in the order in which they came."""
        while self._told:
            oldest, (_, heard_at) = next(iter(self._told.items()))
            if now - heard_at <= LIFE_S:
                return
            del self._told[oldest]
            self._seen = None
