"""`\\add`: whom it means, as lines to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode import NotFoundError, P2PError, clean_name, parse_peer
from p2pnode.chat.model import Party
from p2pnode.chat.names.console import name_lines

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["add_lines"]


async def add_lines(chat: Chat, argument: str) -> list[str]:
    """Add `NAME|PEER [PETNAME]` to the contacts; of a name that nobody known has, show who in the network claims it.
    Raise what `parse_peer`, `Chat.resolve` and `Chat.add_contact` do."""
    who, _, petname = argument.partition(" ")
    if not who:
        return ["! \\add NAME or \\add PEER: who?"]
    party: Party | None
    if (party := chat.names.chosen(argument)) is not None:
        petname = argument.rpartition("~")[0]
    elif (party := chat.names.chosen(who)) is not None:
        petname = petname or who.rpartition("~")[0]
    else:
        try:
            party, petname = chat.resolve(argument), ""
        except P2PError:
            spec = parse_peer(who)
            try:
                party = chat.directory.resolve_spec(spec)
            except NotFoundError as exc:
                if spec.name is None or spec.is_prefix:
                    raise
                return [f"! {exc.message}", *await name_lines(chat, who)]
    contact = await chat.add_contact(party, clean_name(petname) or None)
    return [f"* {chat.display_name(contact.party)} is a contact now."]
