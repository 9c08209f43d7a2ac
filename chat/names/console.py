"""Who claims a name, as lines to show."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from p2pnode.chat.names.service import Claimant

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["claimant_line", "name_lines"]

COMMON_SHOWN = 5


async def name_lines(chat: Chat, name: str) -> list[str]:
    """Look a name up, and show all who claim it. Raise InvalidPeerError."""
    found = await chat.names.look_up(name)
    if not found.answered:
        return ["* Nobody in the network could be asked; it takes other nodes that are reached."]
    if not found.claimants:
        return [f"* Nobody in the network calls itself {name}."]
    many = len(found.claimants) > 1
    lines = [
        f"* {len(found.claimants)} in the network {'call themselves' if many else 'calls itself'} so; anybody can:"
    ]
    lines += [f"  {claimant_line(chat, found.name, each)}" for each in found.claimants]
    if not found.complete:
        lines.append("  ... and others.")
    first = found.claimants[0]
    return [*lines, f"  \\add {found.name}~{first.fingerprint} makes one a contact; then compare numbers: \\verify"]


def claimant_line(chat: Chat, name: str, claimant: Claimant) -> str:
    """One claimant: fingerprint, age, presence, who of ours knows it, the whole id."""
    notes = ["your contact"] if claimant.state == "accepted" else []
    if claimant.presence:
        notes.append({"last_seen": "here a moment ago"}.get(claimant.presence, claimant.presence))
    notes.append(f"since {time.strftime('%Y-%m-%d', time.localtime(claimant.since))}, as it says")
    known = [chat.display_name(each) for each in claimant.common]
    others = " and others" if len(known) > COMMON_SHOWN else ""
    notes.append(f"known to {', '.join(known[:COMMON_SHOWN])}{others}" if known else "nobody of yours here knows it")
    return f"{f'{name}~{claimant.fingerprint}':<24} {'; '.join(notes)}  {claimant.user}"
