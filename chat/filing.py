"""`\\file` of the input language: what is typed becomes a call of `chat.files` and lines to show."""

from __future__ import annotations

import os
import shlex

from p2pnode import P2PError
from p2pnode.chat.files.text import is_personal, other_side, short, size_text, state_text
from p2pnode.chat.model import Hall, Party, RoomId, Transfer
from p2pnode.chat.service import Chat

__all__ = ["file_lines"]

_USAGE = "! \\file [NAME] PATH, \\file list, \\file accept ID, \\file refuse ID, \\file cancel ID"
LISTED = 20


async def file_lines(chat: Chat, party: Party, argument: str) -> list[str]:
    """Do what stands after `\\file`; `party`: the current conversation. Raise P2PError."""
    word, _, rest = argument.partition(" ")
    files, rest = chat.files, rest.strip()
    if not argument or argument == "list":
        found = await files.transfers(LISTED)
        return [line for transfer in found for line in _lines(chat, transfer)] or [
            "* No files yet; \\file NAME PATH sends one."
        ]
    if word == "accept":
        transfer = await files.accept(rest)
        return [f"* {transfer.name} comes; \\file shows how far it is."]
    if word == "refuse":
        transfer = await files.refuse(rest)
        return [f"* {transfer.name} is not taken."]
    if word == "cancel":
        transfer = await files.cancel(rest)
        return [f"* {transfer.name} is given up."]
    if word == "send":
        argument = rest
    to, path = _target(chat, party, argument)
    if not path:
        return [_USAGE]
    if isinstance(to, Hall) and not isinstance(to, RoomId):
        return ["! A file goes to a person or a room: \\file NAME PATH, or \\chat NAME before."]
    transfer = await files.send(to, _whole(path))
    return [f"* {transfer.name} ({size_text(transfer.size)}) is offered to {chat.display_name(to)}."]


def _target(chat: Chat, party: Party, argument: str) -> tuple[Party, str]:
    """Return whom and what `[NAME] PATH` means. A path that is there as it stands goes to the conversation."""
    whole = _unquoted(argument)
    if (isinstance(party, RoomId) or not isinstance(party, Hall)) and os.path.exists(os.path.expanduser(whole)):
        return party, whole
    name, _, rest = argument.partition(" ")
    while rest:
        try:
            return chat.resolve(name), _unquoted(rest.strip())
        except P2PError:
            more, _, rest = rest.partition(" ")
            name = f"{name} {more}"
    return party, whole


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _unquoted(text: str) -> str:
    """A path may stand in quotes, as terminals paste it."""
    text = text.strip()
    if text[:1] in ("'", '"'):
        try:
            parts = shlex.split(text)
        except ValueError:
            return text
        return parts[0] if len(parts) == 1 else text
    return text


def _lines(chat: Chat, transfer: Transfer) -> list[str]:
    """Return one line, and one for each member of a room that has not said no."""
    way = "to" if transfer.outgoing else "from"
    who = chat.display_name(other_side(transfer, chat.user_of))
    if not transfer.outgoing and not is_personal(transfer):
        who += f" in {chat.display_name(transfer.party)}"
    first = f"  {short(transfer)}  {transfer.name}  {size_text(transfer.size)}  {way} {who}  {state_text(transfer)}"
    return [
        first,
        *(
            f"          {chat.display_name(other_side(each, chat.user_of))}  {state_text(each)}"
            for each in transfer.receivers
        ),
    ]
