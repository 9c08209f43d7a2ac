"""Which contacts to ping next: silent ones, those around us first, and quickly once some of these miss. Pure.

The k nearest to us hold what we hold: that one of them died must be known within a minute or two. A ping shows both
ends that the other lives, so four a minute keep twenty neighbours heard every two to three minutes. A neighbour that
misses is asked twice more within seconds, and pays for three quick pings of others: after a single death that is all;
after many at once each of these finds more, until all neighbours have been asked. When nobody answers any more it is we
who are cut off, and nobody is judged by that.

Where no neighbour was lost for ten minutes, one of them is asked each 90 s, whoever was silent longest: when many die
at once the first or second such ping finds it, and the quick ones do the rest. That one alone died is known later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from p2pnode.dht.contact import Contact
from p2pnode.dht.limits import Budget
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.table import Table

__all__ = ["CALM_AFTER", "CheckUp", "most_silent"]

CALM_AFTER = 600.0  # s without a lost neighbour
CALM_TURN = 6  # then one in six pings may go to a neighbour ...
CALM_SILENT = 60.0  # ... that was silent for so long, s
OTHERS_TURN = 4  # each fourth ping goes to those far away first
AGAIN_AFTER = (3.0, 6.0)  # s until a neighbour that missed once, twice is asked again
PINGS_PER_MISS = 3
JUST_HEARD = 20.0  # s: who was heard so lately needs no quick ping
CUT_OFF_AFTER = 180.0  # s
CUT_OFF_PINGS = 4  # quick pings under way or missed while nobody was heard: it is we who are cut off


def most_silent(
    tables: Iterable[Table], serving: Collection[Overlay], now: float, settings: DhtSettings, turn: int,
    calm: Collection[Overlay] = (),
) -> Contact | None:  # fmt: skip
    """Return whom to ping in the upkeep: nobody has heard from it for too long. `turn` counts the pings; `calm`: where
    no neighbour was lost for long.

    A node that does not serve in an overlay holds nothing there: its neighbours are contacts like others.
    """
    near: list[Contact] = []
    far: list[Contact] = []
    tables = list(tables)
    heard_at = max((contact.last_seen for table in tables for contact in table), default=now)
    # Nobody at all was heard of late: we are cut off, and must not forget our neighbours for it.
    cut_off = now - heard_at > CUT_OFF_AFTER
    for table in tables:
        neighbours = {contact.id for contact in table.neighbours()} if table.overlay in serving else set()
        if cut_off or (table.overlay in calm and turn % CALM_TURN != 1):
            near_limit = settings.silent_after
        else:
            near_limit = CALM_SILENT if table.overlay in calm else settings.neighbour_silent_after
        for contact in table:
            silent = now - max(contact.last_seen, contact.last_pinged)
            is_near = contact.id in neighbours
            limit = near_limit if is_near else settings.silent_after
            if silent > limit / (1 + contact.misses):
                (near if is_near else far).append(contact)
    first, second = (far, near) if turn % OTHERS_TURN == 0 else (near, far)
    return min(first or second, key=lambda contact: contact.last_seen, default=None)


class CheckUp:
    """The quick pings of one overlay's neighbours."""

    def __init__(self, table: Table, settings: DhtSettings) -> None:
        self.table = table
        self._budget = Budget(settings.check_rate, settings.check_burst)
        self._most = settings.ksize
        self._allowed = 0
        self._unheard_since = 0.0
        self._unheard = 0

    def missed(self, contact: Contact) -> bool:
        """A contact missed a request; return whether the neighbours are to be checked now."""
        if not self.table.is_near(contact):
            return False
        self._allowed = min(self._allowed + PINGS_PER_MISS, self._most)
        return True

    def next(self, now: float) -> tuple[Contact | None, float]:
        """Return (whom to ping now, seconds until the next call); a negative time: the check is over."""
        neighbours = self.table.neighbours()
        if max((contact.last_seen for contact in self.table), default=0.0) > self._unheard_since:
            self._unheard_since, self._unheard = now, 0
        if self._unheard >= CUT_OFF_PINGS + sum(1 for contact in neighbours if contact.misses):
            self._allowed = 0
            return None, -1.0
        if not self._budget.available(now):
            return None, 1.0
        doubtful = [contact for contact in neighbours if contact.misses]
        due = [(contact.last_pinged + AGAIN_AFTER[contact.misses > 1], contact) for contact in doubtful]
        at, chosen = min(due, key=lambda pair: pair[0], default=(now, None))
        if chosen is None or at > now:
            silent = [c for c in neighbours if not c.misses and now - max(c.last_seen, c.last_pinged) > JUST_HEARD]
            chosen = min(silent, key=lambda contact: contact.last_seen, default=None) if self._allowed else None
            if chosen is None:
                self._allowed = 0
                return None, at - now if due else -1.0
            self._allowed -= 1
        self._budget.take(now)
        self._unheard += 1
        chosen.last_pinged = now
        return chosen, 0.25
