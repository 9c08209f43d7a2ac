"""One watch of ours: at which holders it runs, when each is asked again, when to search anew. Pure; callers pass `now`.

Three holders are asked, the nearest that have the record, in different blocks where that can be: with one that lies or
dies, two tell. Leases are renewed at half their life, a third of that apart, so that one of the three is heard from
every few minutes; each answer also brings a refreshed record. A holder that does not answer makes the others be looked
at at once; one that missed an update is replaced.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from p2pnode.dht.contact import Contact

__all__ = ["Subscription"]

WANTED = 3
SEARCH_EVERY_S = 7_200.0  # nearer nodes may have come: a record has 20 holders, of which we know near ones
SEARCH_AGAIN_S = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # with fewer holders than wanted
SHUN_S = 600.0  # a node that refused, or missed an update
MAX_SPARE = 20
MAX_SHUNNED = 64


@dataclass(slots=True)
class _Held:
    contact: Contact
    renew_at: float


class Subscription:
    """About 2 kB for each watched key."""

    def __init__(self, lease_s: float, rng: random.Random) -> None:
        self.lease_s = lease_s
        self._rng = rng
        self._held: dict[bytes, _Held] = {}
        self._asking: dict[bytes, Contact] = {}
        self._spare: list[Contact] = []
        self._shunned: dict[bytes, float] = {}
        self._search_at = 0.0
        self._searching = False
        self._fruitless = 0
        self._all_there_are = WANTED

    @property
    def holders(self) -> tuple[Contact, ...]:
        """The nodes that will tell us."""
        return tuple(held.contact for held in self._held.values())

    def next_at(self) -> float:
        """Return when `due` has something to do."""
        if self._spare and self._missing() > 0:
            return 0.0
        times = [held.renew_at for node_id, held in self._held.items() if node_id not in self._asking]
        return min([*times, float("inf") if self._searching else self._search_at])

    def search_due(self, now: float) -> bool:
        """Whether to search now; then `found` has to be called."""
        if self._searching or now < self._search_at:
            return False
        self._searching = True
        return True

    def next_ask(self, now: float) -> Contact | None:
        """Return a node to ask now, None when none is due; then `granted`, `refused` or `failed` has to be called."""
        chosen = next(
            (h.contact for i, h in self._held.items() if h.renew_at <= now and i not in self._asking),
            None,
        )
        if chosen is None and self._missing() > 0:
            while self._spare and chosen is None:
                spare = self._spare.pop(0)
                if spare.id not in self._held and spare.id not in self._asking:
                    chosen = spare
        if chosen is not None:
            self._asking[chosen.id] = chosen
        return chosen

    def found(self, contacts: Iterable[Contact], now: float) -> None:
        """A search has ended: these nodes answered, the best first."""
        self._searching = False
        self._shunned = {node_id: until for node_id, until in self._shunned.items() if until > now}
        usable = [contact for contact in contacts if contact.id not in self._shunned]
        self._all_there_are = max(1, min(WANTED, len(usable)))
        # The best are asked whether we have them or not: who was good two hours ago may be far away now.
        best = {contact.id for contact in usable[:WANTED]}
        for node_id in [node_id for node_id in self._held if usable and node_id not in best]:
            del self._held[node_id]
        self._spare = [contact for contact in usable if contact.id not in self._held][:MAX_SPARE]
        if len(usable) >= WANTED:
            self._fruitless = 0
            self._search_at = now + SEARCH_EVERY_S * self._rng.uniform(0.9, 1.1)
        else:
            self._search_again(now)

    def granted(self, contact: Contact, lease_s: float, now: float) -> None:
        """This node tells us for `lease_s`."""
        self._asking.pop(contact.id, None)
        period = lease_s / 2 * self._rng.uniform(0.9, 1.0)
        if contact.id not in self._held:
            period *= (len(self._held) % WANTED + 1) / WANTED
        self._held[contact.id] = _Held(contact, now + period)
        self._look_for_more(now)

    def refused(self, contact: Contact, now: float) -> None:
        """It does not want to, or missed an update: somebody else instead."""
        self._shunned[contact.id] = now + SHUN_S
        if len(self._shunned) > MAX_SHUNNED:
            del self._shunned[next(iter(self._shunned))]
        self._lose(contact, now)

    def failed(self, contact: Contact, now: float) -> None:
        """It did not answer. If it held for us, the others may be gone as well."""
        if contact.id in self._held:
            for held in self._held.values():
                held.renew_at = min(held.renew_at, now)
        self._lose(contact, now)

    def search_now(self, now: float) -> None:
        """What the holders say is doubted."""
        self._search_at = min(self._search_at, now)

    def renew(self, now: float) -> None:
        """Where we are told is another place now: tell all of them."""
        for held in self._held.values():
            held.renew_at = now
        if not self._held and not self._searching:
            self._search_at = now

    def _missing(self) -> int:
        asked = sum(1 for node_id in self._asking if node_id not in self._held)
        return WANTED - len(self._held) - asked

    def _lose(self, contact: Contact, now: float) -> None:
        self._asking.pop(contact.id, None)
        self._held.pop(contact.id, None)
        self._look_for_more(now)

    def _look_for_more(self, now: float) -> None:
        """Search soon when there are too few and nobody is left to ask."""
        short = self._missing() > WANTED - self._all_there_are and not self._spare
        if short and not self._searching and self._search_at > now + SEARCH_AGAIN_S[-1]:
            self._search_again(now)

    def _search_again(self, now: float) -> None:
        pause = SEARCH_AGAIN_S[min(self._fruitless, len(SEARCH_AGAIN_S) - 1)]
        self._fruitless += 1
        self._search_at = now + pause * self._rng.uniform(0.8, 1.0)
