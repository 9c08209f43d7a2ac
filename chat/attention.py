"""Whose coming and going the node is asked to tell: the devices of contacts, and the members of the hall."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from p2pnode import PeerId

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Attention"]

DEVICES_WATCHED = 5  # of one contact, those heard of last: one person must not fill the places of all others


class Attention:
    """Keeps the node's watches in step with contacts and hall. Changes that come together are looked at once."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._watched: set[PeerId] = set()
        self._due = False

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
                wanted |= dict.fromkeys(chat.directory.devices_of(contact.party)[-DEVICES_WATCHED:])
        wanted |= dict.fromkeys(chat.hall.peers())
        for peer in self._watched - wanted.keys():
            node.unwatch(peer)
        self._watched &= wanted.keys()
        self._watched |= {peer for peer in wanted if peer not in self._watched and node.watch(peer)}
