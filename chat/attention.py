"""Whose coming and going the node is asked to tell: the devices of contacts, and the members of the hall."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from p2pnode import P2PError, PeerId, UserId

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Attention"]

LOOKUP_TIMEOUT_S = 10.0
LOOKUP_PAUSE_S = 2.0  # between two contacts that are looked up: nobody waits for it
LOOK_AGAIN_S = 600.0  # for those that the network did not know
DEVICES_WATCHED = 5  # of one contact, those heard of last: one person must not fill the places of all others


class Attention:
    """Keeps the node's watches in step with contacts and hall. Changes that come together are looked at once."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._watched: set[PeerId] = set()
        self._due = False
        self._listed: dict[UserId, tuple[PeerId, ...]] = {}
        self._resolving = False

    def devices_of(self, party: UserId | PeerId) -> tuple[PeerId, ...]:
        """Return the devices that proved to be somebody's; of a contact never met, those that its account lists."""
        known = self._chat.directory.devices_of(party)
        return known or (self._listed.get(party, ()) if isinstance(party, UserId) else ())

    def look(self) -> None:
        """Contacts, their devices or the hall have changed."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        chat, node = self._chat, self._chat.node
        wanted: dict[PeerId, None] = {}
        for contact in chat.directory.contacts():
            if contact.state == "accepted":
                wanted |= dict.fromkeys(self.devices_of(contact.party)[-DEVICES_WATCHED:])
        wanted |= dict.fromkeys(chat.hall.peers())
        wanted |= dict.fromkeys(device.peer for device in chat.devices.own() if not device.this)
        chat.devices.syncing.news()  # what was decided about people, the other devices want to know
        for peer in self._watched - wanted.keys():
            node.unwatch(peer)
        self._watched &= wanted.keys()
        self._watched |= {peer for peer in wanted if peer not in self._watched and node.watch(peer)}
        if self._unlisted() and not self._resolving:
            self._resolving = True
            chat.start_task(self._resolve(), "chat-attention")

    def _unlisted(self) -> list[UserId]:
        """Return the contacts of whom no device is known."""
        contacts = [contact.party for contact in self._chat.directory.contacts() if contact.state == "accepted"]
        return [party for party in contacts if isinstance(party, UserId) and not self.devices_of(party)]

    async def _resolve(self) -> None:
        """Look up the devices of contacts whom we never met, one after the other, until all are known."""
        try:
            while users := self._unlisted():
                for user in users:
                    with contextlib.suppress(P2PError):
                        self._listed[user] = await self._chat.node.find_user(user, timeout=LOOKUP_TIMEOUT_S)
                        await self._chat.devices.found(user)
                        self.look()
                    await asyncio.sleep(LOOKUP_PAUSE_S)
                if self._unlisted():
                    await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            self._resolving = False
