"""Who is in our tables: one table per realm, fed by what was proven. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht.contact import Contact
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.table import Table

__all__ = ["FLAG", "Members", "flags_of"]

FLAG = {Realm.LOOPBACK: 1, Realm.PRIVATE: 2, Realm.PUBLIC: 4}
MAX_CACHED_IPS = 8_192  # about 150 bytes each


def flags_of(serve: Iterable[Realm]) -> int:
    """Return the flags byte: the realms in which a node serves."""
    return sum(FLAG[realm] for realm in set(serve))


class Members:
    """The routing tables, and where we serve ourselves.

    `on_contact(realm)`, and `on_joined(realm)` for the DHT itself, are called when a realm gets its first contact;
    `on_missed(realm, contact, dropped)` when a request to a contact got no answer, and whether that dropped it.
    """

    def __init__(self, node_id: NodeId, settings: DhtSettings) -> None:
        self._allow_documentation = settings.allow_documentation
        self._realms: dict[str, Realm | None] = {}
        self.serving = frozenset(settings.serve)
        self.flags = flags_of(self.serving)
        self.tables = {realm: Table(node_id, settings.ksize, realm) for realm in Realm}
        self.on_contact: Callable[[Realm], None] | None = None
        self.on_joined: Callable[[Realm], None] | None = None
        self.on_missed: Callable[[Realm, Contact, bool], None] | None = None

    def set_serving(self, realm: Realm, serves: bool) -> None:
        """Say from now on that we serve in this realm, or that we do not."""
        self.serving = self.serving | {realm} if serves else self.serving - {realm}
        self.flags = flags_of(self.serving)

    def realm_of(self, ip: str) -> Realm | None:
        """Return the realm of an address, None when nothing may be sent there. Remembered: every datagram asks."""
        try:
            return self._realms[ip]
        except KeyError:
            if len(self._realms) >= MAX_CACHED_IPS:
                self._realms.clear()
            try:
                realm = realm_of(ip, allow_documentation=self._allow_documentation)
            except ValueError:
                realm = None
            self._realms[ip] = realm
            return realm

    def seen(
        self, peer_id: PeerId, address: Address, realm: Realm, now: float, contact: Contact | None = None
    ) -> Contact:
        """A serving node proved to be at `address`: it enters the table, or its place there is renewed."""
        table = self.tables[realm]
        if contact is None:
            contact = table.find(peer_id.node_id)
            if contact is None or contact.address != address:
                contact = Contact(peer_id.node_id, address, realm, peer_id)
                contact.first_seen = now
        contact.last_seen = now
        contact.misses = 0
        first = not len(table)
        if table.add_contact(contact) and first:
            for callback in (self.on_joined, self.on_contact):
                if callback is not None:
                    callback(realm)
        return contact

    def missed(self, node_id: bytes, address: Address) -> None:
        """A request to this node at this address got no answer."""
        realm = self.realm_of(address.ip)
        contact = self.tables[realm].find(node_id) if realm is not None else None
        if contact is not None and realm is not None and contact.address == address:
            table = self.tables[realm]
            table.missed(contact)
            if self.on_missed is not None:
                self.on_missed(realm, contact, table.find(node_id) is None)

    def best(self) -> list[Contact]:
        """Return all contacts: those that miss nothing first, then the ones known longest (they tend to stay)."""
        contacts = [contact for table in self.tables.values() for contact in table]
        return sorted(contacts, key=lambda c: (c.misses, c.demerits, c.first_seen))
