"""What the console says about paths, the own node, safety numbers and found messages, as lines.

The node's side of it comes through an `Inspector`, which the program that made the node brings: of paths chat itself
needs to know only that somebody can tell.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from p2pnode import PeerId, UserId, safety_number
from p2pnode.chat.model import Hall, Message, Party, RoomId, short_id

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = [
    "Inspector",
    "OwnDetails",
    "PathDetails",
    "author_of",
    "moment",
    "search_lines",
    "trace_lines",
    "verify_lines",
]

FOUND_MAX = 20  # messages that \search shows


@dataclass(frozen=True, slots=True)
class PathDetails:
    """The session with one device. `path`, `reason`: as in `connect --json`; `text`: why the path is what it is.

    `steps`: how it came to be: (seconds, step, result), the last ones.
    """

    path: str
    remote: str
    rtt_s: float | None
    reason: str
    text: str
    bytes_sent: int = 0
    bytes_received: int = 0
    steps: tuple[tuple[float, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OwnDetails:
    """This node. `nat`: as in `status --json`; `mapping`: in a word what routers did about a port, or why not;
    `sessions`: open ones, `relayed`: how many of them go through a relay."""

    nat: str
    addresses: tuple[str, ...]
    mapping: str
    sessions: int
    relayed: int = 0


class Inspector(Protocol):
    """What a node can tell about itself and its sessions."""

    def path(self, peer: PeerId) -> PathDetails | None: ...
    def own(self) -> OwnDetails: ...


def trace_lines(chat: Chat, inspector: Inspector | None, party: Party) -> list[str]:
    """Return by which path each device of somebody is reached, and why; of the hall or a room, all in a line each."""
    if isinstance(party, RoomId):
        devices = tuple(chat.rooms.room(party).exchange.neighbours.all)
    elif isinstance(party, Hall):
        devices = tuple(member.peer for member in chat.members())
    else:
        devices = chat.attention.devices_of(party)
    lines = []
    for device in devices:
        details = inspector.path(device) if inspector is not None else None
        who = f"{chat.display_name(device)}, device {short_id(device)}"
        if details is None:
            lines.append(f"* {who}: no session now; the next message opens one.")
            continue
        rtt = "round trip unknown" if details.rtt_s is None else f"round trip {details.rtt_s * 1000:.1f} ms"
        lines.append(f"* {who}: {details.path}, {rtt}, {details.remote}")
        if not isinstance(party, Hall):
            lines.append(f"  {details.text}")
            lines += [f"    {at:6.3f} s  {step}: {result}" for at, step, result in details.steps]
    return lines or ["* No device is known yet: nobody answered."]


def verify_lines(chat: Chat, party: UserId | PeerId) -> list[str]:
    """Return the safety number that both sides compare, and whether that was done."""
    name = chat.display_name(party)
    if isinstance(party, PeerId):
        return [f"! The user of {name} is not known yet; exchange a message first."]
    contact = chat.directory.contact(party)
    compared = "  It was compared: the same."
    asked = "  Compare it by another way (a call, in person): it must be the same there."
    return [
        f"* Safety number with {name}: {safety_number(chat.node.user_id, party)}",
        compared if contact is not None and contact.verified else f"{asked} Then: \\verify {name} yes",
    ]


async def search_lines(chat: Chat, party: Party, text: str) -> list[str]:
    """Return the last messages of a conversation that contain `text`, a line each."""
    found = await chat.store.history(party, search=text, limit=FOUND_MAX)
    if not found:
        return [f"* Nothing in this conversation contains {text[:40]!r}."]
    return [f"  {moment(m.received_at)} {author_of(chat, m)}: {' '.join(m.text.split())[:200]}" for m in found]


def author_of(chat: Chat, message: Message) -> str:
    """Return `you`, or the name under which the author is shown."""
    return "you" if message.outgoing else chat.display_name(message.author_user or message.author)


def moment(at: float) -> str:
    """Return day and minute of local time; `at`: Unix seconds."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
