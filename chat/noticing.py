"""What the user is called for: a bell, a notification on the desktop. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode import PeerId, UserId, clean
from p2pnode.chat.files.text import is_personal, other_side
from p2pnode.chat.model import HALL, STRANGER, ChatEvent, FileChanged, MessageReceived, Party, StrangerChanged

if TYPE_CHECKING:
    from p2pnode.chat.contacts import Directory

__all__ = ["Notice", "notice_of"]

MAX_TEXT = 200  # characters of a message that are shown


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to call the user for. `title`: who; `text`: what, on one line, cleaned."""

    party: Party
    title: str
    text: str


def notice_of(event: ChatEvent, directory: Directory, own_name: str) -> Notice | None:
    """Return what to call the user for: what is said to nobody else, or names the user among many; files that are
    offered; a stranger that was found. None for all else, also for what was told of the time before we came."""
    if isinstance(event, MessageReceived):
        message = event.message
        alone = isinstance(message.party, UserId | PeerId)
        if not alone and not _names(message.text, own_name):
            return None
        who = directory.display_name(message.author_user or message.author)
        room = "the hall" if message.party is HALL else directory.display_name(message.party)
        title = who if alone else f"{who} in {room}"
        return Notice(message.party, clean(title, limit=80), clean(message.text, limit=MAX_TEXT))
    if isinstance(event, FileChanged):
        transfer = event.transfer
        if event.progress or transfer.outgoing or transfer.state != "offered":
            return None
        who = directory.display_name(other_side(transfer, directory.user_of))
        title = who if is_personal(transfer) else f"{who} in {directory.display_name(transfer.party)}"
        return Notice(transfer.party, clean(title, limit=80), clean(f"offers {transfer.name}", limit=MAX_TEXT))
    if isinstance(event, StrangerChanged) and event.phase == "found":
        return Notice(STRANGER, "A stranger", "is there")
    return None


def _names(text: str, name: str) -> bool:
    return bool(name) and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
