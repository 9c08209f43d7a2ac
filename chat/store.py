"""Messages, outbox, contacts and devices in the database; every public method is one transaction.

Order. A conversation is shown by (ordinal, author_seq, position). A new message gets the highest ordinal plus one; one
that comes after a later message of the same author takes that later message's ordinal, and its own lower author_seq
puts it just before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from p2pnode import NotFoundError, PeerBlockedError, PeerId, UserId
from p2pnode.chat import queries, searching
from p2pnode.chat.database import Database, RunBlocking, run_inline
from p2pnode.chat.engine import DatabaseKey
from p2pnode.chat.model import HALL, Contact, ContactState, ConversationSummary, Hall, Message, Party, party_columns
from p2pnode.chat.schema import MIGRATIONS, Migration

__all__ = ["ChatStore", "DeviceRow", "Incoming", "OutboxItem", "Outgoing", "Received"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent. `id`: 16 bytes. `devices`: to whom; empty: the user's devices are not known yet."""

    id: bytes
    author: PeerId
    author_user: UserId
    party: Party
    text: str
    sent_at_ms: int
    devices: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that came. `sequence`: the author device's number of it, rising. Name and text already cleaned."""

    id: bytes
    author: PeerId
    author_user: UserId
    hall: bool
    sequence: int
    text: str
    sent_at_ms: int
    received_at_ms: int
    author_name: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """The verdict on an incoming message, already on the disk.

    `new`: stored now · `request`: stored, and its author is a stranger who now waits · `duplicate`: stored earlier,
    acknowledge again · `refused`: not stored, `code` says why.
    """

    kind: Literal["new", "request", "duplicate", "refused"]
    message: Message | None = None
    contact: Contact | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A message that a device has not acknowledged. `position`: its place in the history, rising as it was written."""

    position: int
    id: bytes
    hall: bool
    party: Party
    sequence: int
    sent_at_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device that proved whose it is."""

    peer: PeerId
    user: UserId | None
    name: str


class ChatStore:
    """The chat's database of one home."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seen_changed: Callable[[Party], None] = lambda _party: None
        """Called when the user has seen more of a conversation."""

    @classmethod
    async def open(
        cls,
        path: Path | None,
        *,
        run_blocking: RunBlocking = run_inline,
        read_only: bool = False,
        migrations: Sequence[Migration] = MIGRATIONS,
        key: DatabaseKey | None = None,
    ) -> ChatStore:
        """Open or create the database (None: in memory). Raise CorruptFileError or StorageError, one sentence each."""
        return cls(await Database.open(path, run_blocking, read_only=read_only, migrations=migrations, key=key))

    async def close(self) -> None:
        await self.database.close()

    # messages

    async def add_outgoing(self, outgoing: Outgoing, *, accept: bool = True) -> tuple[Message, OutboxItem]:
        """Put a message into history and outbox, both or neither, and on the disk when this returns.

        Writing to somebody accepts them as a contact (`accept`). Raise PeerBlockedError for one that we blocked.
        """

        def operation(connection: sqlite3.Connection) -> tuple[Message, OutboxItem]:
            if accept and not isinstance(outgoing.party, Hall):
                state = queries.contact_state(connection, outgoing.party)
                if state == "blocked":
                    raise PeerBlockedError("You have blocked this contact; unblock it to write.")
                if state is None:
                    queries.put_contact(connection, outgoing.party, "accepted", outgoing.sent_at_ms)
                elif state == "request":
                    queries.set_contact_state(connection, outgoing.party, "accepted")
            conversation = queries.conversation_id(connection, outgoing.party)
            sequence = queries.next_sequence(connection, outgoing.sent_at_ms)
            position = queries.insert_message(
                connection,
                message_id=outgoing.id,
                author=outgoing.author,
                author_user=outgoing.author_user,
                conversation=conversation,
                sequence=sequence,
                outgoing=True,
                text=outgoing.text,
                sent_at_ms=outgoing.sent_at_ms,
                received_at_ms=outgoing.sent_at_ms,
                state="queued",
            )
            for device in [d.raw for d in outgoing.devices] or [b""]:
                connection.execute("INSERT INTO outbox (device, message) VALUES (?, ?)", (device, position))
            message = queries.message_at(connection, position)
            item = OutboxItem(
                position,
                outgoing.id,
                isinstance(outgoing.party, Hall),
                outgoing.party,
                sequence,
                outgoing.sent_at_ms,
                outgoing.text,
            )
            return message, item

        return await self.database.write(operation)

    async def receive(self, incoming: Incoming, *, strangers: bool = True) -> Received:
        """Judge and store an incoming message. What comes back is on the disk: acknowledge `new` and `duplicate`.

        `strangers`: whether a first message of somebody unknown is taken just now (rate limits say).
        """
        return await self.database.write(lambda connection: _receive(connection, incoming, strangers))

    async def history(
        self,
        party: Party,
        *,
        limit: int = 100,
        before: int | None = None,
        after: int | None = None,
        search: str | None = None,
    ) -> list[Message]:
        """Return the last `limit` messages of a conversation in order of showing.

        `before`: only those shown before the message at that position (for paging back). `after`: the first `limit`
        that are shown after that one. `search`: only those that contain this text, in whatever case.
        """
        if search and before is None and after is None:
            return await self.database.read(lambda c: searching.found(c, party, limit, search))
        return await self.database.read(lambda c: queries.history(c, party, limit, before, search, after))

    async def messages(self, *, after: int = 0, limit: int = 1000, party: Party | None = None) -> list[Message]:
        """Return messages stored after position `after`, oldest first: what a follower has not seen."""
        return await self.database.read(lambda c: queries.messages_after(c, after, limit, party))

    async def last_position(self) -> int:
        """Return the position of the newest message, 0 when there is none."""
        return await self.database.read(queries.last_position)

    async def message(self, message_id: str) -> Message:
        """Return our own or a received message by its hex id. Raise NotFoundError."""

        def operation(connection: sqlite3.Connection) -> Message:
            found = queries.message_by_id(connection, message_id)
            if found is None:
                raise NotFoundError(f"There is no message {message_id[:40]!r}.")
            return found

        return await self.database.read(operation)

    async def conversations(self) -> list[ConversationSummary]:
        """Return all conversations, the one with the newest message first."""
        return await self.database.read(queries.conversations)

    def mark_seen(self, party: Party, position: int) -> None:
        """Note that the user has seen a conversation up to this position; with a later commit."""
        self.database.write_later(lambda c: queries.mark_seen(c, party, position))
        self.seen_changed(party)

    # outbox

    async def outbox_devices(self) -> list[PeerId]:
        """Return the devices that something is queued for."""
        return await self.database.read(queries.outbox_devices)

    async def outbox_unresolved(self) -> list[Party]:
        """Return the parties with messages for which no device is known yet."""
        return await self.database.read(queries.outbox_unresolved)

    async def outbox(self, device: PeerId, *, after: int = 0, limit: int = 128, hall: bool = False) -> list[OutboxItem]:
        """Return what `device` has not acknowledged, oldest first, from beyond position `after`.

        `hall`: messages to the hall, else all others.
        """
        rows = await self.database.read(lambda c: queries.outbox_rows(c, device, after, limit, hall))
        return [OutboxItem(*row) for row in rows]

    async def outbox_add_devices(
        self, author: PeerId, party: UserId, devices: Sequence[PeerId], *, since_ms: int
    ) -> None:
        """Address the undelivered messages that `author` (we) wrote to the user since `since_ms` to these devices too.

        Rows that waited for any device (unresolved) go to all of them, however old.
        """
        await self.database.write(lambda c: queries.add_devices_to_outbox(c, author, party, devices, since_ms))

    def mark_delivered(self, device: PeerId, positions: Sequence[int]) -> None:
        """Take acknowledged messages out of the outbox, with a later commit: if it is lost, they are sent and
        acknowledged again."""
        self.database.write_later(lambda c: queries.mark_delivered(c, device, positions))

    async def mark_refused(self, device: PeerId, position: int, reason: str) -> None:
        """Take a refused message out of the outbox; its state is `refused` unless another device has it or may yet."""
        await self.database.write(lambda c: queries.mark_refused(c, device, position, reason))

    def mark_attempt(self, device: PeerId, reason: str) -> None:
        """Note that sending to `device` failed once more, and why, for those who look at their queued messages."""
        self.database.write_later(lambda c: queries.mark_attempt(c, device, reason))

    async def forget_hall_outbox(self, device: PeerId | None, *, before_ms: int) -> None:
        """Drop hall messages older than `before_ms` that wait for `device` (None: for anybody): it has left."""
        await self.database.write(lambda c: queries.forget_hall_outbox(c, device, before_ms))

    # people

    async def contacts(self) -> list[Contact]:
        """Return all contacts and requests, by petname or name."""
        return await self.database.read(queries.contacts)

    async def put_contact(
        self, party: UserId | PeerId, state: ContactState, *, now_ms: int, petname: str | None = None
    ) -> Contact:
        """Add a contact or change its state; `petname` None keeps the one it has."""

        def operation(connection: sqlite3.Connection) -> Contact:
            if queries.contact_state(connection, party) is None:
                queries.put_contact(connection, party, state, now_ms)
            queries.set_contact_state(connection, party, state)
            if petname is not None:
                connection.execute(
                    "UPDATE contacts SET petname = ? WHERE kind = ? AND key = ?", (petname, *party_columns(party))
                )
            return queries.contact(connection, party)

        return await self.database.write(operation)

    async def rename_contact(self, party: UserId | PeerId, petname: str) -> Contact:
        """Give a contact another petname. Raise NotFoundError."""
        return await self._change_contact(party, "petname", petname)

    async def verify_contact(self, party: UserId | PeerId, *, verified: bool = True) -> Contact:
        """Note that the safety numbers were compared. Raise NotFoundError."""
        return await self._change_contact(party, "verified", int(verified))

    async def remove_contact(self, party: UserId | PeerId) -> None:
        """Forget the decision about somebody; the history stays. Raise NotFoundError."""

        def operation(connection: sqlite3.Connection) -> None:
            deleted = connection.execute("DELETE FROM contacts WHERE kind = ? AND key = ?", party_columns(party))
            if not deleted.rowcount:
                raise NotFoundError("This is not one of your contacts.")

        await self.database.write(operation)

    async def devices(self) -> list[DeviceRow]:
        """Return the devices of contacts and of people with messages, and their names."""
        rows = await self.database.read(queries.devices)
        return [DeviceRow(*row) for row in rows]

    async def device_count(self, party: Party) -> int:
        """Return how many devices of a user are known; 1 for all else."""
        return await self.database.read(lambda c: queries.device_count(c, party))

    async def learn_device(self, peer: PeerId, user: UserId | None, name: str, *, now_ms: int) -> None:
        """Remember whose device this proved to be. A conversation with the bare device becomes the user's."""
        await self.database.write(lambda c: queries.learn_device(c, peer, user, name, now_ms))

    async def _change_contact(self, party: UserId | PeerId, column: str, value: object) -> Contact:
        def operation(connection: sqlite3.Connection) -> Contact:
            changed = connection.execute(
                f"UPDATE contacts SET {column} = ? WHERE kind = ? AND key = ?",  # noqa: S608 - a literal of ours
                (value, *party_columns(party)),
            )
            if not changed.rowcount:
                raise NotFoundError("This is not one of your contacts.")
            return queries.contact(connection, party)

        return await self.database.write(operation)


def _confirm(connection: sqlite3.Connection, incoming: Incoming) -> None:
    """The author's own word takes the place of what another told of it."""
    key = (incoming.author.raw, incoming.id)
    found = "SELECT position, text FROM messages JOIN told ON message = position WHERE author = ? AND id = ?"
    row = connection.execute(found, key).fetchone()
    if row is None:
        return
    position, text = row
    index = "INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', ?, fold(?))"
    connection.execute(index, (position, text))
    connection.execute("INSERT INTO messages_text (rowid, text) VALUES (?, fold(?))", (position, incoming.text))
    connection.execute(
        "UPDATE messages SET text = ?, sent_at = ?, author_seq = ?, author_user = ? WHERE position = ?",
        (incoming.text, incoming.sent_at_ms, incoming.sequence, incoming.author_user.raw, position),
    )
    connection.execute("DELETE FROM told WHERE message = ?", (position,))


def _receive(connection: sqlite3.Connection, incoming: Incoming, strangers: bool) -> Received:
    if queries.has_message(connection, incoming.author, incoming.id):
        _confirm(connection, incoming)
        return Received("duplicate")
    state = queries.contact_state(connection, incoming.author_user) or queries.contact_state(
        connection, incoming.author
    )
    if state == "blocked":
        return Received("refused", code="blocked")
    is_request = not incoming.hall and state is None
    if not incoming.hall and state == "request":
        return Received("refused", code="request_pending")
    if is_request and not strangers:
        return Received("refused", code="busy")
    party: Party = HALL if incoming.hall else incoming.author_user
    if is_request:
        queries.put_contact(connection, incoming.author_user, "request", incoming.received_at_ms)
    queries.learn_device(
        connection, incoming.author, incoming.author_user, incoming.author_name, incoming.received_at_ms
    )
    conversation = queries.conversation_id(connection, party)
    position = queries.insert_message(
        connection,
        message_id=incoming.id,
        author=incoming.author,
        author_user=incoming.author_user,
        conversation=conversation,
        sequence=incoming.sequence,
        outgoing=False,
        text=incoming.text,
        sent_at_ms=incoming.sent_at_ms,
        received_at_ms=incoming.received_at_ms,
        state="received",
    )
    message = queries.message_at(connection, position)
    if is_request:
        return Received("request", message, queries.contact(connection, incoming.author_user))
    return Received("new", message)
