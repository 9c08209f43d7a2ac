"""Operations on what is kept: conversations and how long, export and import."""

from __future__ import annotations

from collections.abc import AsyncIterator

from p2pnode import InvalidConfigError
from p2pnode.api import keeping_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.chat import BadLineError

__all__ = ["ROUTES"]


async def list_conversations(service: Service, _request: None) -> t.Conversations:
    """Return all conversations, and how long each is kept."""
    chat = service.chat
    states = await chat.keeping.states()
    found = []
    for each in await chat.store.conversations():
        state = states.get(each.party)
        timer = chat.keeping.timer(each.party)
        found.append(
            t.ConversationInfo(
                id=str(each.party),
                name=chat.display_name(each.party),
                messages=each.messages,
                unread=each.unread,
                keep_days=None if state is None else state.keep,
                disappear_s=timer.seconds,
                agreed=timer.agreed,
            )
        )
    return t.Conversations(found, chat.keeping.keep_days)


async def change_conversation(service: Service, request: t.ConversationChange) -> t.ConversationInfo:
    """Say how long a conversation is kept, or let its new messages disappear."""
    chat = service.chat
    party = (await service.conversation(request.peer))[0]
    if request.keep_days is not None:
        await chat.keeping.keep(party, None if request.keep_days < 0 else request.keep_days)
    if request.disappear_s is not None:
        await chat.keeping.disappear(party, request.disappear_s)
    found = [each for each in (await list_conversations(service, None)).conversations if each.id == str(party)]
    if found:
        return found[0]
    state, timer = (await chat.keeping.states()).get(party), chat.keeping.timer(party)
    keep = None if state is None else state.keep
    return t.ConversationInfo(
        id=str(party), name=chat.display_name(party), messages=0, unread=0, keep_days=keep,
        disappear_s=timer.seconds, agreed=timer.agreed,
    )  # fmt: skip


async def export_history(service: Service, request: t.ExportQuery) -> AsyncIterator[t.ExportedMessage]:
    """Give the history, in the order of showing, without what will disappear."""
    party = None if request.with_ is None else (await service.conversation(request.with_))[0]
    return service.chat.keeping.export(party)


async def import_history(service: Service, request: t.HistoryImport) -> t.Imported:
    """Take messages of an export; those that are here are passed over, none is sent."""
    try:
        return t.Imported(await service.chat.keeping.import_(request.messages))
    except BadLineError as exc:
        raise _invalid(exc) from exc


async def export_people(service: Service, _request: None) -> t.ExportedContacts:
    """Return contacts and blocked people."""
    return t.ExportedContacts(await service.chat.keeping.export_contacts())


async def import_people(service: Service, request: t.ContactsImport) -> t.Imported:
    """Add people; what the user decided here stands."""
    try:
        return t.Imported(await service.chat.keeping.import_contacts(request.contacts, verified=request.verified))
    except BadLineError as exc:
        raise _invalid(exc) from exc


def _invalid(exc: BadLineError) -> InvalidConfigError:
    error = InvalidConfigError(f"This is no line of an export: {exc}.")
    error.code = "invalid_request"
    return error


ROUTES = [
    Route("GET", "/v1/conversations", "Conversations, and how long each is kept", list_conversations, None,
          t.Conversations),
    Route("PATCH", "/v1/conversations", "Keep a conversation shorter or longer, or let it disappear",
          change_conversation, t.ConversationChange, t.ConversationInfo),
    Route("GET", "/v1/export", "The history, a message per line", export_history, t.ExportQuery, t.ExportedMessage,
          stream=True),
    Route("POST", "/v1/import", "Take messages of an export", import_history, t.HistoryImport, t.Imported),
    Route("GET", "/v1/contacts/export", "Contacts to take elsewhere", export_people, None, t.ExportedContacts),
    Route("POST", "/v1/contacts/import", "Take contacts of an export", import_people, t.ContactsImport, t.Imported),
]  # fmt: skip
