"""`\\file` of the input language: what is typed becomes a call of `chat.files` and lines to show."""

from __future__ import annotations

import os
import shlex

from p2pnode import P2PError
from p2pnode.chat.files.text import short, size_text, state_text
from p2pnode.chat.model import Hall, Party, Transfer
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
        return [_line(chat, transfer) for transfer in found] or ["* No files yet; \\file NAME PATH sends one."]
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
    if isinstance(to, Hall):
        return ["! A file goes to one person: \\file NAME PATH, or \\chat NAME before."]
    transfer = await files.send(to, _whole(path))
    return [f"* {transfer.name} ({size_text(transfer.size)}) is offered to {chat.display_name(to)}."]


def _target(chat: Chat, party: Party, argument: str) -> tuple[Party, str]:
    """Return whom and what `[NAME] PATH` means. A path that is there as it stands goes to the conversation."""
    whole = _unquoted(argument)
    if not isinstance(party, Hall) and os.path.exists(os.path.expanduser(whole)):
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


def _line(chat: Chat, transfer: Transfer) -> str:
    way = "to" if transfer.outgoing else "from"
    return (
        f"  {short(transfer)}  {transfer.name}  {size_text(transfer.size)}  {way} {chat.display_name(transfer.party)}  "
        f"{state_text(transfer)}"
    )
