"""A lookup carried out: `lookup.Lookup` decides whom to ask, this asks, judges the answers, and collects. Pure.

A search for a record's key ends only after the ids found nearest were judged (`density`): are they denser than the
network's size allows, a search for a random id tells whether the network has grown; if not, the whole region of twenty
expected honest nodes is searched, part by part.

Replaces `kademlia.crawling`, whose rounds wait 5 s for each dead contact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.dht.calls import Call, Outcome
from p2pnode.dht.contact import Contact, split_contacts_untrusted, unpack_address_untrusted
from p2pnode.dht.density import REGION_MOST, is_dense, region_aims, region_radius
from p2pnode.dht.engine import Engine
from p2pnode.dht.hearsay import Told
from p2pnode.dht.lookup import Lookup
from p2pnode.dht.messages import FindNode, Get, Nodes, Request, Value
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.table import Table

__all__ = ["Crawl", "Transport"]

# That the few who end a read early are so near. A false alarm only lets the read go on: from 0.006 on it waits for
# black holes too often (K2), at 0.001 liars of eight blocks agree before others are heard, once in seventy reads (E1).
FEW_BY_CHANCE = 0.0045
SPARE_QUERIES = 3  # beyond the answers that a read still needs: some may be lost, or come from nobody


class Transport(Protocol):
    """What a crawl needs of its shell: to ask, to stop asking, and the wall clock."""

    def ask(
        self, contact: Contact, request: Request, on_done: Callable[[Outcome], None], on_late: Callable[[], None]
    ) -> Call: ...

    def forget(self, call: Call) -> None: ...

    def wall(self) -> float: ...


class Crawl:
    """One lookup in one overlay; with `quorum`, for a record."""

    def __init__(
        self, transport: Transport, engine: Engine, target: NodeId, overlay: Overlay,
        on_finished: Callable[[Crawl], None], *, quorum: int | None = None, alpha: int | None = None,
        on_answered: Callable[[Contact, bytes], None] | None = None,
        on_record: Callable[[Crawl], None] | None = None, judged: bool = False,
    ) -> None:  # fmt: skip
        """`quorum`: end when so many nodes returned the best record; None: search nodes, not records. `judged`: a
        record's key is searched, so ground ids near it matter.

        `on_answered(contact, token)`: each useful answer, also of late ones after the end. `on_record(crawl)`: its
        record is a better one now.
        """
        settings = engine.settings
        self._transport, self._engine = transport, engine
        self._target, self.overlay = target, overlay
        self._on_finished: Callable[[Crawl], None] | None = on_finished
        self._on_answered, self._on_record = on_answered, on_record
        self._quorum = quorum
        self._request: Request = FindNode(target) if quorum is None else Get(target)
        self.lookup = Lookup(
            target, own_id=engine.node_id, ksize=settings.ksize, alpha=alpha or settings.alpha,
            max_queries=settings.max_queries, diverse=overlay.is_public, paths=settings.paths,
        )  # fmt: skip
        self._judged = judged
        self._alpha = alpha
        self._parts: list[Crawl] = []  # searches for other ids that this one waits for
        self._compared = False  # those for random ids have begun
        self._is_part_of_region = self._asked_farther_ones = False
        self.region = False  # the whole region is searched
        self._calls: dict[bytes, Call] = {}
        # Answers repeat each other: what a contact is worth is found out once. At most 24 for each query.
        self._judged_entries: dict[bytes, Contact | None] = {}
        self.tokens: dict[bytes, bytes] = {}
        self.answered: dict[bytes, Contact] = {}
        self.record: SignedRecord | None = None
        self.holders: list[Contact] = []

    @property
    def running(self) -> bool:
        return self._on_finished is not None

    def start(self, contacts: Iterable[Contact], record: SignedRecord | None = None, told: Iterable[Told] = ()) -> None:
        """Begin with these contacts, whom others named, and the record that we hold ourselves. May finish at once."""
        self.record = record
        self.lookup.add(contacts)
        for contact, teller in told:
            self.lookup.hear(contact, teller)
        knows_enough = len(self._table) >= self._engine.settings.ksize
        sizes = self._table.sizes
        if self._judged and self._quorum is None and knows_enough and not (sizes.begun or sizes.others(self._target)):
            sizes.begun = True
            self._compare(1)  # a writer's first search: nothing is known of other places
        self._pump()

    def also(self, contacts: Iterable[Contact]) -> None:
        """Ask these too, and go on from what they say."""
        for contact in contacts:
            if self.running and self.lookup.insist(contact):
                self._ask(contact)

    def cancel(self) -> None:
        """End without a result; nothing stays behind."""
        self._on_finished = None
        for part in self._parts:
            part.cancel()
        self._parts.clear()
        for call in self._calls.values():
            self._transport.forget(call)
        self._calls.clear()

    def _pump(self) -> None:
        if self._on_finished is None:
            return
        for contact in self.lookup.next_queries():
            self._ask(contact)
        if self._parts or not self.lookup.finished:
            return
        if not self.answered and self._ask_farther_ones():
            self._pump()
        elif not self._goes_on():
            self._finish()
        elif not self._parts:
            self._pump()

    def _ask_farther_ones(self) -> bool:
        """All the nearest that we know are dead: go on from the others. Return whether there are any."""
        if self._asked_farther_ones:
            return False
        self._asked_farther_ones = True
        return self.lookup.add(sorted(self._table.everybody(), key=lambda c: c.long_id ^ self.lookup.goal)) > 0

    def _ask(self, contact: Contact) -> None:
        self._engine.members.hearsay[self.overlay].forget(contact.id)
        self._calls[contact.id] = self._transport.ask(
            contact, self._request, lambda outcome: self._done(contact, outcome), lambda: self._late(contact)
        )

    def _late(self, contact: Contact) -> None:
        if self._on_finished is not None:
            self.lookup.late(contact)
            self._pump()

    def _done(self, contact: Contact, outcome: Outcome) -> None:
        self._calls.pop(contact.id, None)
        answer = outcome.answer
        if self._on_finished is None:
            # Late calls outlive the lookup: their answer serves the table, the round trips, and a writer.
            if self._on_answered is not None and isinstance(answer, Nodes):
                self._on_answered(outcome.contact or contact, answer.token)
            return
        if isinstance(answer, Nodes if self._quorum is None else Value):
            contacts = self._judge_untrusted(answer, outcome)
            if contacts is None:
                self.lookup.failed(contact)
            else:
                self.tokens[contact.id] = answer.token
                self.answered[contact.id] = outcome.contact or contact
                self.lookup.answered(contact, contacts)
                if self._target == self._engine.node_id:
                    known = {*self._calls, *self.answered}
                    self._engine.members.hearsay[self.overlay].hear(contact.id, contacts, known, self._engine.now)
                if self._on_answered is not None:
                    self._on_answered(outcome.contact or contact, answer.token)
                if isinstance(answer, Value) and answer.record is not None:
                    self._found_untrusted(answer.record, outcome.contact or contact)
        else:
            self.lookup.failed(contact)
        if self._quorum is not None and self._agreed(self._quorum):
            self._finish()
            return
        missing = (self._quorum or 0) - len(self.holders)
        # Who is near one holder is mostly a holder too: enough questions are under way, once as many as are missing.
        self.lookup.wanted = missing + SPARE_QUERIES + self.lookup.late_count if self.holders and missing > 0 else None
        self._pump()

    # -- ids that are too dense ---------------------------------------------------------------------------------

    @property
    def _table(self) -> Table:
        return self._engine.members.tables[self.overlay]

    def _agreed(self, quorum: int) -> bool:
        """Whether enough returned the best record, in as many address blocks, and not denser than chance allows: else
        whoever grinds a few ids could hide a newer one. Where the nearest are too dense by chance, five farther ones
        have to agree; all together must not be too dense either, or ever more ground ids would pass in the end."""
        if len(self.holders) < quorum or self.region:
            return False
        if quorum == 1 or not self.overlay.is_public:
            return True
        holders = sorted((holder.long_id ^ self.lookup.goal, holder.prefix) for holder in self.holders)
        blocks = {prefix: distance for distance, prefix in holders}  # the farthest of each
        if len(blocks) < quorum or not self.lookup.on_all_paths(self.holders):
            return False
        size, distances = self._table.size_for(self._target), [distance for distance, _prefix in holders]
        return not (
            is_dense(sorted(blocks.values())[-quorum:], size, FEW_BY_CHANCE)
            or is_dense(distances, size, FEW_BY_CHANCE, fewest=len(distances))
        )

    def _goes_on(self) -> bool:
        """The search has found the nearest. Learn from it; search on when they are too dense. Return whether."""
        nearest = self.lookup.closest()
        if self.region or self._is_part_of_region or len(nearest) < self._engine.settings.ksize:
            return False
        sizes = self._table.sizes
        distances = [contact.long_id ^ self.lookup.goal for contact in nearest]
        if self._target != self._engine.node_id:  # where ids are ground first, and where the table counts anyway
            sizes.learned(self._target, distances)
        if not self._judged or not is_dense(distances, self._table.size_for(self._target)):
            return False
        if sizes.may_have_grown(self._target, distances):
            return False
        if not self._compared:
            self._compared = True
            self._compare(2)
        elif is_dense(distances, sizes.newest(self._target) or self._table.size_for(self._target)):
            self._search_region()
        else:
            sizes.outdated(3)  # the network has grown
            return False
        return True

    def _compare(self, searches: int) -> None:
        """Search for random ids, for which nobody can have ground any."""
        self._search_parts([self._engine.token_bytes(20) for _ in range(searches)])

    def _search_region(self) -> None:
        size = self._table.size_for(self._target)
        self.region = True
        self._engine.counters.regions += 1
        self.lookup.widen(region_radius(size), REGION_MOST)
        self._search_parts(region_aims(self._target, size))

    def _search_parts(self, aims: list[bytes]) -> None:
        started: list[tuple[Crawl, list[Contact]]] = []
        for aim in aims:
            part = Crawl(
                self._transport, self._engine, NodeId(aim), self.overlay, self._part_finished, alpha=self._alpha
            )
            part._is_part_of_region = self.region
            goal = part.lookup.goal
            known = [*self.answered.values(), *self._table.closest(aim, self._engine.settings.ksize)]
            started.append((part, sorted(known, key=lambda contact: contact.long_id ^ goal)))
            self._parts.append(part)
        for part, contacts in started:
            part.start(contacts)

    def _part_finished(self, part: Crawl) -> None:
        self._parts.remove(part)
        if self.region:
            self.lookup.add(part.lookup.closest())
        self._pump()

    # -- answers ------------------------------------------------------------------------------------------------

    def _judge_untrusted(self, answer: Nodes | Value, outcome: Outcome) -> list[Contact] | None:
        """Return the contacts of an answer that may be asked, None when the answer is worth nothing.

        A node reached in one realm is believed about that realm only: nobody makes us send to a private address from
        outside (K1). Who tries is demoted. Contacts of the other address family are for the other overlay's table.
        """
        entries = self._judged_entries
        contacts: list[Contact] = []
        ignored = 0
        try:
            for packed in split_contacts_untrusted(answer.ipv4, answer.ipv6):
                try:
                    contact = entries[packed]
                except KeyError:
                    contact = entries[packed] = self._hear_untrusted(packed)
                if contact is None:
                    ignored += 1
                elif contact.overlay is self.overlay:
                    contacts.append(contact)
        except BadPacket as bad:
            self._engine.counters.drops[bad.reason] += 1
            self._demote(outcome)
            return None
        if ignored:
            self._engine.counters.ignored_contacts += ignored
            self._demote(outcome)
        return contacts

    def _hear_untrusted(self, packed: bytes) -> Contact | None:
        """Return the contact of a packed entry, None when it is impossible or of another realm."""
        engine = self._engine
        try:
            address = unpack_address_untrusted(packed[20:])
        except BadPacket:
            return None
        overlay = engine.members.overlay_of(address.ip)
        if overlay is None or overlay.realm is not self.overlay.realm:
            return None
        node_id = NodeId(packed[:20])
        if overlay is not self.overlay:
            engine.members.heard_of(node_id, address, overlay)
        # What we proved ourselves goes before hearsay: nobody can send us elsewhere for a node that we know.
        return engine.members.tables[overlay].find(node_id) or Contact(node_id, address, overlay)

    def _found_untrusted(self, record: SignedRecord, holder: Contact) -> None:
        if self.record is not None and record.seq < self.record.seq:
            return
        try:
            if record.key != self._target:
                raise BadPacket("other_record")
            record.verify(self._engine.tag, self._transport.wall())
        except BadPacket as bad:
            self._engine.counters.drops[bad.reason] += 1
            return
        if self.record is None or record.seq > self.record.seq:
            self.record, self.holders = record, [holder]
            if self._on_record is not None:
                self._on_record(self)
        elif record == self.record:
            self.holders.append(holder)

    @staticmethod
    def _demote(outcome: Outcome) -> None:
        if outcome.contact is not None:
            outcome.contact.demerits += 1

    def _finish(self) -> None:
        finished, self._on_finished = self._on_finished, None
        for part in self._parts:
            part.cancel()
        self._parts.clear()
        if finished is not None:
            finished(self)
