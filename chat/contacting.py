"""What the user decides about people. Part of `service.Chat`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode import InvalidPeerError, PeerId, UserId
from p2pnode.chat.model import Contact, Hall, Party

if TYPE_CHECKING:
    from p2pnode.chat.contacts import Directory
    from p2pnode.chat.links import Links
    from p2pnode.chat.mail.service import Mail
    from p2pnode.chat.members import HallKeeper
    from p2pnode.chat.ports import NodePort
    from p2pnode.chat.store import ChatStore

__all__ = ["Contacting"]


class Contacting:
    """`Chat` sets what is declared here."""

    node: NodePort
    store: ChatStore
    directory: Directory
    hall: HallKeeper
    links: Links
    mail: Mail

    def now_ms(self) -> int:
        raise NotImplementedError

    def _conversation(self, target: Party | None) -> Party:
        raise NotImplementedError

    async def add_contact(self, target: Party | None, name: str | None = None) -> Contact:
        """Add a contact, or accept a request. `name`: the petname; None keeps it. Raise StorageError."""
        party = self._person(target)
        contact = await self.store.put_contact(party, "accepted", now_ms=self.now_ms(), petname=name)
        self.directory.put(contact)
        self.links.welcome(party)
        return contact

    async def rename_contact(self, target: Party | None, name: str) -> Contact:
        """Give a contact another petname. Raise NotFoundError."""
        return self._changed(await self.store.rename_contact(self._person(target), name))

    async def verify_contact(self, target: Party | None, *, verified: bool = True) -> Contact:
        """Note that the safety numbers were compared. Raise NotFoundError."""
        return self._changed(await self.store.verify_contact(self._person(target), verified=verified))

    async def remove_contact(self, target: Party | None) -> None:
        """Forget a contact; the history stays. Raise NotFoundError."""
        party = self._person(target)
        await self.store.remove_contact(party)
        self.directory.remove(party)

    async def block(self, target: Party | None, *, blocked: bool = True) -> Contact:
        """Take nothing from somebody any more, and end the sessions; or (False) take messages again."""
        party = self._person(target)
        state = "blocked" if blocked else "accepted"
        contact = await self.store.put_contact(party, state, now_ms=self.now_ms())  # type: ignore[arg-type]
        self.directory.put(contact)
        if blocked:
            for peer in self.directory.devices_of(party):
                self.hall.lost(peer)
                self.links.drop(peer)
                self.mail.forget(peer)
            self.node.refuse_when(self.directory.is_blocked)
        else:
            for peer in self.directory.devices_of(party):
                self.links.resume(peer)
        return contact

    def _person(self, target: Party | None) -> UserId | PeerId:
        party = self._conversation(target)
        if isinstance(party, Hall):
            raise InvalidPeerError(f"The {party} is no contact.")
        return party

    def _changed(self, contact: Contact) -> Contact:
        self.directory.put(contact)
        return contact
