"""Contacts and messages as the API shows them, read from the chat's database.

Works on the store alone, so that reading commands give the same answers when no node runs.
"""

from __future__ import annotations

from p2pnode import NotFoundError, PeerId, UserId, clean, safety_number
from p2pnode.api import types as t
from p2pnode.chat import ChatStore, Contact, Message, Party
from p2pnode.chat.model import Hall

__all__ = [
    "contact_answer",
    "contacts_answer",
    "display_name",
    "history_answer",
    "message_answer",
    "messages_answer",
    "no_contact",
    "petnames",
]


def display_name(contact: Contact | None) -> str:
    """Return the petname, else the self-chosen name, else nothing."""
    return "" if contact is None else contact.petname or contact.name


def contact_answer(contact: Contact, own: UserId | None = None) -> t.Contact:
    """Return a contact; with its safety number (a few milliseconds) when `own` is given."""
    party = contact.party
    number = safety_number(own, party) if own is not None and isinstance(party, UserId) else None
    return t.Contact(
        name=display_name(contact),
        user=str(party) if isinstance(party, UserId) else None,
        peer=str(party) if isinstance(party, PeerId) else (str(contact.devices[0]) if contact.devices else None),
        state=contact.state,
        verified=contact.verified,
        added_at=t.rfc3339(contact.added_at),
        safety_number=number,
        mail=contact.mail,
    )


async def contacts_answer(store: ChatStore) -> t.Contacts:
    """Return all contacts and requests, by name."""
    return t.Contacts([contact_answer(c) for c in await store.contacts()])


def message_answer(message: Message, own: PeerId, names: dict[UserId | PeerId, str]) -> t.Message:
    """Return one message. `names`: petnames by party; they win over the author's own name."""
    author: UserId | PeerId = message.author_user or message.author
    return t.Message(
        id=message.id,
        from_=str(message.author),
        from_user=None if message.author_user is None else str(message.author_user),
        from_name=names.get(author) or message.author_name,
        to=_to(message, own),
        text=clean(message.text, limit=20_000, newline=True),
        sent_at=t.rfc3339(message.sent_at),
        received_at=None if message.outgoing else t.rfc3339(message.received_at),
        direction="out" if message.outgoing else "in",
        state=message.state,
        told_by=None if message.told_by is None else str(message.told_by),
        everywhere=message.everywhere,
    )


def _to(message: Message, own: PeerId) -> str:
    if isinstance(message.party, Hall):
        return str(message.party)
    return str(message.party) if message.outgoing else str(own)


async def petnames(store: ChatStore) -> dict[UserId | PeerId, str]:
    """Return the names that the user gave, by party."""
    return {c.party: c.petname for c in await store.contacts() if c.petname}


async def messages_answer(store: ChatStore, own: PeerId, *, party: Party | None, limit: int) -> t.Messages:
    """Return the newest `limit` messages of all conversations or of one, oldest first."""
    if party is not None:
        found = await store.history(party, limit=limit)
    else:
        found = await store.messages(after=max(0, await store.last_position() - limit), limit=limit)
    names = await petnames(store)
    return t.Messages([message_answer(m, own, names) for m in found])


async def history_answer(store: ChatStore, own: PeerId, party: Party, *, search: str | None, limit: int) -> t.Messages:
    """Return a conversation, oldest first; with `search` only the messages that contain it, in whatever case."""
    found = await store.history(party, limit=limit, search=search or None)
    names = await petnames(store)
    return t.Messages([message_answer(m, own, names) for m in found])


def no_contact() -> NotFoundError:
    """Return the error for somebody who is not in the contacts."""
    return NotFoundError("This is not one of your contacts; add it with: p2pnode contacts add ID --name NAME")
