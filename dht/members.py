"""Who is in our tables: one table per overlay, fed by what was proven. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht.contact import Contact
from p2pnode.dht.graves import Graves
from p2pnode.dht.hearsay import Hearsay, Told
from p2pnode.dht.limits import Budget
from p2pnode.dht.overlay import WANTS_BOTH, Overlay
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.table import Table

__all__ = ["Members", "flags_of"]

RESTART_RATE, RESTART_BURST = 1 / 15, 4.0  # believed per second, and at once
MAX_CACHED_IPS = 8_192  # about 150 bytes each


def flags_of(serve: Iterable[Overlay]) -> int:
    """Return the flags byte: the overlays in which a node serves."""
    return sum({overlay.flag for overlay in serve})


class Members:
    """The routing tables, and where we serve ourselves.

    `on_contact(realm)`, and `on_joined(overlay)` for the DHT itself, are called when one gets its first contact;
    `on_filled(realm)` when a table gets its k-th contact;
    `on_hint(contact)` when an answer named a node of the other address family, and few are known there;
    `on_newcomer(overlay, contact)` when a node that we did not know got a place in a table, or one has restarted;
    `on_returned(contact)` when one that had been given up answered;
    `on_missed(overlay, contact, dropped)` when a request to a contact got no answer, and whether that dropped it.
    """

    def __init__(self, node_id: NodeId, settings: DhtSettings) -> None:
        self._allow_documentation = settings.allow_documentation
        self._overlays: dict[str, Overlay | None] = {}
        self._families = frozenset({False, True})
        self._heard_at: dict[Overlay, float] = {}
        self._ksize = settings.ksize
        self.serving = frozenset(overlay for overlay in Overlay if overlay.realm in settings.serve)
        self.tables = {overlay: Table(node_id, settings.ksize, overlay) for overlay in Overlay}
        self.flags = flags_of(self.serving)
        self._restarts = Budget(RESTART_RATE, RESTART_BURST)
        self.on_contact: Callable[[Realm], None] | None = None
        self.on_joined: Callable[[Overlay], None] | None = None
        self.graves = {overlay: Graves() for overlay in Overlay}
        self.hearsay = {overlay: Hearsay(node_id, diverse=overlay.is_public) for overlay in Overlay}
        self.on_returned: Callable[[Contact], None] | None = None
        self.on_filled: Callable[[Realm], None] | None = None
        self.on_hint: Callable[[Contact], None] | None = None
        self.on_newcomer: Callable[[Overlay, Contact], None] | None = None
        self.on_missed: Callable[[Overlay, Contact, bool], None] | None = None

    def use_families(self, families: Collection[bool]) -> None:
        """We have sockets of these families (True stands for IPv6)."""
        self._families = frozenset(families)
        self._reflag()

    def heard_of(self, node_id: NodeId, address: Address, overlay: Overlay) -> None:
        """An answer in the other family's overlay named a node of this one."""
        if self.on_hint is not None and self._lacks(overlay) and self.tables[overlay].find(node_id) is None:
            self.on_hint(Contact(node_id, address, overlay))

    def told_of(self, overlay: Overlay, target: bytes, now: float) -> list[Told]:
        """Return whom others named near `target` while we joined; nobody where the table is filled by now."""
        table = self.tables[overlay]
        if not len(self.hearsay[overlay]):
            return []
        bucket = table.bucket_of(target)
        if bucket is not table.buckets[-1] and len(bucket.nodes) >= self._ksize:
            return []
        told = self.hearsay[overlay].closest(target, self._ksize, now)
        return [each for each in told if table.find(each.contact.id) is None]

    def _lacks(self, overlay: Overlay) -> bool:
        return overlay.is_ipv6 in self._families and len(self.tables[overlay]) < self._ksize

    def _reflag(self) -> None:
        """Say so when we wish to hear of the other family: we are in one overlay of a realm, hardly in the other."""
        wants = any(self._lacks(overlay) and len(self.tables[overlay.other_family]) for overlay in Overlay)
        self.flags = flags_of(self.serving) | (WANTS_BOTH if wants else 0)

    def set_serving(self, overlay: Overlay, serves: bool) -> None:
        """Say from now on that we serve in this overlay, or that we do not."""
        self.serving = self.serving | {overlay} if serves else self.serving - {overlay}
        self._reflag()

    def overlay_of(self, ip: str) -> Overlay | None:
        """Return the overlay of an address, None when nothing may be sent there. Remembered: every datagram asks."""
        try:
            return self._overlays[ip]
        except KeyError:
            if len(self._overlays) >= MAX_CACHED_IPS:
                self._overlays.clear()
            try:
                realm = realm_of(ip, allow_documentation=self._allow_documentation)
            except ValueError:
                realm = None
            overlay = None if realm is None else Overlay.of(realm, is_ipv6=":" in ip)
            self._overlays[ip] = overlay
            return overlay

    def seen(
        self, peer_id: PeerId, address: Address, overlay: Overlay, now: float, contact: Contact | None = None
    ) -> Contact:
        """A serving node proved to be at `address`: it enters the table, or its place there is renewed."""
        table = self.tables[overlay]
        unknown = False
        if contact is None:
            contact = table.find(peer_id.node_id)
            unknown = contact is None
            if contact is None or contact.address != address:
                contact = Contact(peer_id.node_id, address, overlay, peer_id)
                contact.first_seen = now
        contact.last_seen = self._heard_at[overlay] = now
        contact.misses = 0
        before = len(table)
        added = table.add_contact(contact)
        if len(table) != before and min(before, len(table)) < self._ksize:
            self._reflag()
        if self.graves[overlay].rise(contact.id) and self.on_returned is not None:
            self.on_returned(contact)
        if added and unknown and self.on_newcomer is not None:
            self.on_newcomer(overlay, contact)
        if before < self._ksize <= len(table) and self.on_filled is not None:
            self.on_filled(overlay.realm)
        if added and not before:
            if self.on_joined is not None:
                self.on_joined(overlay)
            if self.on_contact is not None and not len(self.tables[overlay.other_family]):
                self.on_contact(overlay.realm)
        return contact

    def restarted(self, node_id: bytes, address: Address, overlay: Overlay, now: float) -> None:
        """A node that we know has lost its keys, and so most likely the records that it held: it is a newcomer.

        When many seem to, it is we who were away, and they who doubt our keys.
        """
        contact = self.tables[overlay].find(node_id)
        if contact is not None and contact.address == address and self._restarts.take(now):
            contact.first_seen = now
            if self.on_newcomer is not None:
                self.on_newcomer(overlay, contact)

    def missed(self, node_id: bytes, address: Address, asked_at: float) -> None:
        """A request to this node at this address, of `asked_at`, got no answer. When nobody else was heard since its
        first miss in a row, it is we who are cut off, and nobody is judged by that."""
        overlay = self.overlay_of(address.ip)
        contact = self.tables[overlay].find(node_id) if overlay is not None else None
        if contact is not None and overlay is not None and contact.address == address:
            table = self.tables[overlay]
            if not contact.misses:
                contact.missed_at = asked_at
            in_bucket = not table.is_new_node(contact)
            table.missed(contact, cut_off=self._heard_at.get(overlay, float("-inf")) < contact.missed_at)
            dropped = table.find(node_id) is None
            if dropped and in_bucket:
                self.graves[overlay].bury(contact, asked_at)
            if self.on_missed is not None:
                self.on_missed(overlay, contact, dropped)

    def best(self) -> list[Contact]:
        """Return all contacts: those that miss nothing first, then the ones known longest (they tend to stay)."""
        contacts = [contact for table in self.tables.values() for contact in table]
        return sorted(contacts, key=lambda c: (c.misses, c.demerits, c.first_seen))
