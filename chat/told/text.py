"""How a message's author is named where it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode.chat.model import Message, short_id

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["author_label"]


def author_label(chat: Chat, message: Message) -> str:
    """Return who wrote it, `you` for us, and who told us where that is somebody else."""
    if message.outgoing:
        return "you"
    name = chat.display_name(message.author_user or message.author)
    if message.told_by is None:
        return name
    if name.startswith("~") and message.author_name:
        name = f"{message.author_name}~{short_id(message.author)}"
    return f"{name} (told by {chat.display_name(message.told_by)})"
