"""History and contacts out of a store and into one, whether a node runs on it or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from p2pnode import UserId
from p2pnode.chat.keeping import exchange, people
from p2pnode.chat.keeping.exchange import ExportedMessage
from p2pnode.chat.keeping.people import ExportedContact
from p2pnode.chat.model import Party
from p2pnode.chat.store import ChatStore

__all__ = ["export_messages", "export_people", "import_messages", "import_people"]

PAGE = 500  # messages read at a time

Place = tuple[int, int, int, int]


async def export_messages(store: ChatStore, party: Party | None = None) -> AsyncIterator[ExportedMessage]:
    """Give all messages, or those of one conversation, but none that will disappear."""
    place: Place | None = exchange.START
    while place is not None:
        page, place = await _page(store, party, place)
        for message in page:
            yield message


async def _page(store: ChatStore, party: Party | None, place: Place) -> tuple[list[ExportedMessage], Place | None]:
    return await store.database.read(lambda c: exchange.export_page(c, party, place, PAGE))


async def import_messages(store: ChatStore, messages: Sequence[ExportedMessage], now_ms: int) -> int:
    """Take messages of an export; return how many were not here yet. Raise BadLineError, StorageError."""
    for message in messages:
        exchange.check(message)
    return await store.database.write(lambda c: exchange.import_lines(c, messages, now_ms))


async def export_people(store: ChatStore) -> list[ExportedContact]:
    """Return contacts and blocked people, by name."""
    return await store.database.read(people.export_contacts)


async def import_people(
    store: ChatStore, contacts: Sequence[ExportedContact], now_ms: int, *, own: UserId, verified: bool
) -> int:
    """Add people; return how many are new or changed. Raise BadLineError, StorageError."""
    for contact in contacts:
        people.check_contact(contact)
    return await store.database.write(lambda c: people.import_contacts(c, contacts, now_ms, own=own, verified=verified))
