"""What the console says about the static table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode.chat.model import TableChanged

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["table_event_lines", "table_lines"]

_STATES = {
    "waiting": "does not answer yet",
    "wrong_key": "another key answers there",
    "blocked": "blocked",
    "self": "you",
}


def table_event_lines(event: TableChanged) -> list[str]:
    """Return what an event means to the user."""
    if event.state == "wrong_key":
        return [f"! {event.why}"]
    if event.state == "waiting":
        return [f"* {event.name} does not answer at {event.place} yet; it is tried again."]
    if event.state == "known":
        return [f"* {event.name} is there; {event.name}/TEXT sends a message."]
    return []


def table_lines(chat: Chat) -> list[str]:
    """Return one line for everybody in the table."""
    entries = chat.table.entries()
    if not entries:
        return ["* There is no table; p2pnode join --peers FILE reads one (name, host, port, key on each line)."]
    lines = []
    for entry in entries:
        known = entry.peer is not None and chat.node.session(entry.peer) is not None
        state = _STATES.get(entry.state, "connected" if known else "known; no session just now")
        lines.append(f"  {entry.row.name:<24} {entry.row.place}  {state}")
    return lines
