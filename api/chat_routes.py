"""Operations on chat: send, read, follow, contacts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from p2pnode import UserId
from p2pnode.api import people
from p2pnode.api import types as t
from p2pnode.api.events import EventFeed
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.chat import Party

__all__ = ["ROUTES"]


async def send(service: Service, request: t.SendRequest) -> t.SendAnswer:
    """Send one message. It is on our disk when this answers, and on the other's when `delivered` is true."""
    started = service.now
    party, addresses = await service.conversation(request.peer)
    result = await service.chat.send(party, request.text, wait=request.wait, addresses=addresses)
    return t.SendAnswer(
        id=result.id,
        state=result.state,
        delivered=result.delivered,
        seconds=round(service.now - started, 4),
        devices=result.devices,
        reason=result.reason,
        everywhere=result.everywhere,
    )


async def list_messages(service: Service, request: t.MessagesQuery) -> t.Messages:
    """Return the newest messages, of all conversations or of one."""
    party = None if request.with_ is None else (await service.conversation(request.with_))[0]
    return await people.messages_answer(service.chat.store, service.node.peer_id, party=party, limit=request.limit)


async def follow_messages(service: Service, request: t.MessagesQuery) -> AsyncIterator[t.Message]:
    """Give each message, ours too, as it is stored; begin with those that come after the request."""
    party = None if request.with_ is None else (await service.conversation(request.with_))[0]
    feed = EventFeed(service)
    position = await service.chat.store.last_position()

    async def stream() -> AsyncIterator[t.Message]:
        nonlocal position
        async for event in feed:
            if event.event not in ("message", "state", "told", "synced"):
                continue
            names = await people.petnames(service.chat.store)
            for message in await service.chat.store.messages(after=position, party=party):
                position = message.position
                yield people.message_answer(message, service.node.peer_id, names)

    return stream()


async def history(service: Service, request: t.HistoryQuery) -> t.Messages:
    """Return a conversation, optionally only what contains a text."""
    party, _ = await service.conversation(request.peer)
    if (last := await service.chat.store.history(party, limit=1)) and service.chat.keeping.timer(party).seconds:
        service.chat.store.mark_seen(party, last[0].position)  # asked for by somebody who reads it: its time runs
    return await people.history_answer(
        service.chat.store, service.node.peer_id, party, search=request.search, limit=request.limit
    )


async def list_contacts(service: Service, _request: None) -> t.Contacts:
    """Return contacts and requests."""
    return await people.contacts_answer(service.chat.store)


async def add_contact(service: Service, request: t.ContactAdd) -> t.Contact:
    """Add a peer to the contacts, or accept its request."""
    party, _ = await service.conversation(request.peer)
    contact = await service.chat.add_contact(party, request.name or None)
    return people.contact_answer(contact, service.node.user_id)


async def change_contact(service: Service, request: t.ContactChange) -> t.Contact:
    """Give a contact another name, or note that the safety numbers were compared."""
    party = (await service.conversation(request.peer))[0]
    if request.name is not None:
        await service.chat.rename_contact(party, request.name)
    if request.verified is not None:
        await service.chat.verify_contact(party, verified=request.verified)
    return await _contact(service, party)


async def show_contact(service: Service, request: t.ContactQuery) -> t.Contact:
    """Return one contact with its safety number."""
    return await _contact(service, (await service.conversation(request.peer))[0])


async def remove_contact(service: Service, request: t.ContactQuery) -> t.Done:
    """Forget a contact; the history stays."""
    await service.chat.remove_contact((await service.conversation(request.peer))[0])
    return t.Done()


async def block_contact(service: Service, request: t.Block) -> t.Contact:
    """Block somebody: no session, no message; or end that."""
    party = (await service.conversation(request.peer))[0]
    await service.chat.block(party, blocked=request.blocked)
    return await _contact(service, party)


async def events(service: Service, _request: None) -> AsyncIterator[t.Event]:
    """Give every event from now on. The stream ends when its reader is 10,000 events behind."""
    return aiter(EventFeed(service))


async def _contact(service: Service, party: Party) -> t.Contact:
    contact = next((c for c in await service.chat.store.contacts() if c.party == party), None)
    if contact is None:
        raise people.no_contact()
    own = service.node.user_id if isinstance(party, UserId) else None
    return people.contact_answer(contact, own)


ROUTES = [
    Route("POST", "/v1/messages", "Send a message", send, t.SendRequest, t.SendAnswer),
    Route("GET", "/v1/messages", "Newest messages", list_messages, t.MessagesQuery, t.Messages),
    Route(
        "GET", "/v1/messages/follow", "Messages as they come", follow_messages, t.MessagesQuery, t.Message, stream=True
    ),
    Route("GET", "/v1/history", "A conversation", history, t.HistoryQuery, t.Messages),
    Route("GET", "/v1/contacts", "Contacts and requests", list_contacts, None, t.Contacts),
    Route("POST", "/v1/contacts", "Add or accept a contact", add_contact, t.ContactAdd, t.Contact),
    Route("PATCH", "/v1/contacts", "Rename or verify a contact", change_contact, t.ContactChange, t.Contact),
    Route("DELETE", "/v1/contacts", "Remove a contact", remove_contact, t.ContactQuery, t.Done),
    Route("GET", "/v1/contacts/one", "One contact, safety number included", show_contact, t.ContactQuery, t.Contact),
    Route("POST", "/v1/contacts/block", "Block or unblock", block_contact, t.Block, t.Contact),
    Route("GET", "/v1/events", "Events as they happen", events, None, t.Event, stream=True),
]
