"""`\\status`, `\\invisible` and `\\visible`, as lines to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["STATUS_MACROS", "status_lines"]

STATUS_MACROS = ("status", "invisible", "visible")
_HIDDEN = "* You are invisible: you look offline, messages still come and go; whom you write to sees you."


async def status_lines(chat: Chat, macro: str, text: str) -> list[str]:
    """Do what a macro says, and tell how it stands then. Raise MessageTooLongError, StorageError."""
    gossip = chat.gossip
    if macro == "status":
        if text:
            await gossip.set_text("" if text == "-" else text)
        shown = f"* Contacts see: {gossip.text}" if gossip.text else "* You show no status; \\status TEXT sets one."
        return [shown, _HIDDEN] if gossip.invisible else [shown]
    await gossip.set_invisible(macro == "invisible")
    return [_HIDDEN if gossip.invisible else "* Contacts see that you are here."]
