"""All links of a chat: what they ask and tell, and which of them live."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from p2pnode import Address, PeerBlockedError, PeerId, UserId, clean_name
from p2pnode.chat.link import CONNECT_TIMEOUT_S, Link
from p2pnode.chat.model import MessageState, MessageStateChanged
from p2pnode.chat.outbox import IN_MEMORY
from p2pnode.chat.ports import NodePort, SessionPort
from p2pnode.chat.protocol import VERSION, Hello, Welcome, device_proof
from p2pnode.chat.store import OutboxItem

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Links"]

log = structlog.get_logger(__name__)

MAX_IDLE_LINKS = 1024  # of 1 KB each; beyond it those without a stream and without work are dropped
MAX_HINTS = 1024


class Links:
    """The `LinkOwner` of a `Chat`."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.node: NodePort = chat.node
        self.proof = device_proof(chat.node.account, chat.node.peer_id)
        """Our account's word that this is its device."""
        self._links: dict[PeerId, Link] = {}
        self._hints: dict[PeerId, tuple[Address, ...]] = {}

    # for the parts of the chat

    def get(self, peer: PeerId) -> Link:
        """Return the link to a device, made when there is none."""
        found = self._links.get(peer)
        if found is None:
            if len(self._links) >= MAX_IDLE_LINKS:
                self._links = {p: link for p, link in self._links.items() if link.wanted or not link.idle}
            found = self._links[peer] = Link(peer, self)
        return found

    def resume(self, peer: PeerId) -> None:
        """Send what the outbox on disk holds for a device."""
        link = self.get(peer)
        link.direct.more_on_disk = link.hall.more_on_disk = True
        link.poke()

    def reload(self, peer: PeerId) -> None:
        """The outbox on disk holds older messages for a device than it did."""
        link = self.get(peer)
        link.direct.reload()
        link.poke()

    def came(self, peer: PeerId | None) -> None:
        """Somebody (None: perhaps anybody) can be reached: no pause stands in the way of what is queued."""
        links = list(self._links.values()) if peer is None else [self._links.get(peer)]
        for link in links:
            if link is not None:
                link.poke(retry_now=True)

    def drop(self, peer: PeerId) -> None:
        """Send nothing more to a device that was blocked; the outbox on disk stays."""
        link = self._links.pop(peer, None)
        if link is not None:
            link.direct.drop()
            link.hall.drop()
            link.forget_control()

    def hint(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        """Remember where `peer` was said to be, for the next attempt."""
        if addresses:
            self._hints.pop(peer, None)
            self._hints[peer] = addresses
            if len(self._hints) > MAX_HINTS:
                del self._hints[next(iter(self._hints))]

    def welcome(self, party: UserId | PeerId) -> None:
        """Tell somebody who waits for our decision that it may go on, if it can be told now."""
        for peer in self._chat.directory.devices_of(party):
            if self.node.session(peer) is not None:
                self.get(peer).tell(Welcome())
                self._chat.mail.look(peer)

    # for links

    def spawn(self, link: Link) -> asyncio.Task[None]:
        return self._chat.start_task(link.run(), f"chat-link {link.peer}")

    def own_hello(self, peer: PeerId) -> Hello:
        self._chat.devices.introduce(peer)
        name = clean_name(self.node.settings.name)
        return Hello(VERSION, self.node.user_id.raw, self.proof, name, self._chat.hall.includes(peer))

    def heard_hello(self, session: SessionPort, hello: Hello) -> None:
        self._chat.heard_hello(session, hello)

    async def connect(self, peer: PeerId) -> SessionPort:
        if self._chat.directory.is_blocked(peer):
            raise PeerBlockedError("You have blocked this contact.")
        session = self.node.session(peer)
        if session is not None and not session.closed:
            return session
        return await self.node.connect(peer, addresses=self._hints.get(peer, ()), timeout=CONNECT_TIMEOUT_S)

    async def load(self, peer: PeerId, after: int, *, hall: bool) -> tuple[list[OutboxItem], bool]:
        items = await self._chat.store.outbox(peer, after=after, limit=IN_MEMORY, hall=hall)
        return items, len(items) < IN_MEMORY

    def delivered(self, peer: PeerId, items: list[OutboxItem]) -> None:
        chat = self._chat
        chat.store.mark_delivered(peer, [item.position for item in items])
        for item in items:
            news, everywhere = chat.deliveries.delivered(item.id.hex(), peer)
            if news:
                chat.emit(MessageStateChanged(item.id.hex(), item.party, "delivered", "", everywhere))

    def delivered_otherwise(self, peer: PeerId, items: list[OutboxItem]) -> None:
        """A device has these messages, by another way than its link."""
        link = self.get(peer)
        link.direct.forget(item.id for item in items)
        self.delivered(peer, items)
        link.poke()

    def refused(self, peer: PeerId, item: OutboxItem, code: str, *, final: bool) -> None:
        chat, message_id = self._chat, item.id.hex()
        log.info("message_refused", peer=str(peer), reason=code, final=final)
        chat.deliveries.refused(message_id, peer, code, final=final)
        if final:
            chat.start_task(chat.store.mark_refused(peer, item.position, code), "chat-refused")
        else:
            chat.store.mark_attempt(peer, code)
        state: MessageState = "refused" if chat.deliveries.is_refused(message_id) else "queued"
        chat.emit(MessageStateChanged(message_id, item.party, state, code))

    def attempt_failed(self, peer: PeerId, failures: int, reason: str) -> None:
        if not self._chat.mail.attempt_failed(peer, reason):
            self._chat.deliveries.attempt_failed(peer, reason)
        self._chat.store.mark_attempt(peer, reason)
        self._chat.hall.attempt_failed(peer, failures)
        self._chat.table.attempt_failed(peer)
