"""Rooms in the database: entries, keys, proofs, and the messages that entries become."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from p2pnode import PeerId, StorageError, UserId
from p2pnode.chat import queries
from p2pnode.chat.database import Database
from p2pnode.chat.model import Message, RoomId
from p2pnode.chat.rooms.entries import TEXT_KIND, Signed, kind_of, read_untrusted
from p2pnode.chat.rooms.log import RoomLog

__all__ = ["Opened", "RoomRecords", "RoomRow", "Stored"]


@dataclass(slots=True)
class RoomRow:
    """A room as the user has it. `state`: `invited`, `joined`, `left`, `removed`. `via`: who told us of it."""

    id: RoomId
    name: str
    open: bool
    state: str
    via: PeerId | None
    made_at_ms: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A text that is to be shown. `user`: its author's. `outgoing`: our user's. `state`: as of a message."""

    signed: Signed
    user: UserId
    text: str
    outgoing: bool
    state: str
    received_at_ms: int


@dataclass(slots=True)
class Stored:
    """What one write puts on the disk, all or nothing. `names`: (device, user, name) of newcomers."""

    room: RoomId
    entries: Sequence[Signed] = ()
    texts: Sequence[Opened] = ()
    keys: Sequence[tuple[bytes, bytes]] = ()
    names: Sequence[tuple[PeerId, UserId, str]] = ()
    hide: Sequence[tuple[bytes, int]] = ()
    cut: tuple[bytes, int, bytes, bytes] | None = None
    state: str = ""


class RoomRecords:
    """The tables of `chat.schema._ROOMS`. Every method is one transaction; raises StorageError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rooms(self) -> list[RoomRow]:
        rows = await self._database.read(
            lambda c: c.execute("SELECT id, name, open, state, via, made_at FROM rooms ORDER BY made_at").fetchall()
        )
        return [RoomRow(RoomId(r[0]), r[1], bool(r[2]), r[3], PeerId(r[4]) if r[4] else None, r[5]) for r in rows]

    async def put_room(self, row: RoomRow) -> None:
        values = (row.id.raw, row.name, row.open, row.state, row.via.raw if row.via else b"", row.made_at_ms)

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO rooms (id, name, open, state, via, made_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name, open = excluded.open, state = excluded.state,"
                " via = excluded.via",
                values,
            )
            if row.state == "joined":
                queries.conversation_id(connection, row.id)  # it is among the conversations before anybody wrote

        await self._database.write(operation)

    async def drop_room(self, room: RoomId) -> None:
        """Forget a room that was never joined, or that nothing of is wanted any more; its messages stay."""

        def operation(connection: sqlite3.Connection) -> None:
            for table in ("room_entries", "room_keys", "room_forks", "room_invitations"):
                connection.execute(f"DELETE FROM {table} WHERE room = ?", (room.raw,))  # noqa: S608 - our own names
            connection.execute("DELETE FROM rooms WHERE id = ?", (room.raw,))

        await self._database.write(operation)

    async def load(self, log: RoomLog) -> dict[bytes, bytes]:
        """Fill a log with what is on the disk; return the keys by epoch."""
        room = (log.room.raw,)

        def operation(connection: sqlite3.Connection) -> tuple[list[Any], ...]:
            return tuple(
                connection.execute(sql, room).fetchall()
                for sql in (
                    "SELECT device, id, depth, length(raw) FROM room_entries WHERE room = ? ORDER BY device, seq",
                    f"SELECT raw FROM room_entries WHERE room = ? AND kind != {TEXT_KIND} ORDER BY depth, id",  # noqa: S608
                    "SELECT device, seq FROM room_forks WHERE room = ?",
                    "SELECT epoch, key FROM room_keys WHERE room = ?",
                )
            )

        entries, controls, forks, keys = await self._database.read(operation)
        for device, entry_id, depth, size in entries:
            log.load(device, entry_id, depth, size)
        for row in controls:
            log.load_control(read_untrusted(row[0]))
        for row in forks:
            log.roll.forget_from(row[0], row[1])
        log.load_heads()
        return {row[0]: row[1] for row in keys}

    async def store(self, what: Stored) -> list[Message]:
        """Put it on the disk; return the messages that are in the history now, in order."""
        return await self._database.write(lambda connection: _store(connection, what))

    async def raws(self, room: RoomId, wanted: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Return entries as they travel, those that are there."""
        pairs = list(wanted)

        def operation(connection: sqlite3.Connection) -> list[bytes]:
            sql = "SELECT raw FROM room_entries WHERE room = ? AND device = ? AND seq = ?"
            rows = [connection.execute(sql, (room.raw, *pair)).fetchone() for pair in pairs]
            return [row[0] for row in rows if row is not None]

        return await self._database.read(operation)

    async def locked(self, room: RoomId, limit: int = 100_000) -> list[bytes]:
        """Return the texts that are in no history, as they travel, in order."""
        return await self._database.read(
            lambda c: [
                row[0]
                for row in c.execute(
                    f"SELECT raw FROM room_entries WHERE room = ? AND kind = {TEXT_KIND} AND message IS NULL"  # noqa: S608
                    " ORDER BY depth, id LIMIT ?",
                    (room.raw, limit),
                )
            ]
        )

    async def forks(self, room: RoomId) -> list[tuple[bytes, bytes]]:
        """Return all proofs: pairs of entries."""
        return await self._database.read(
            lambda c: c.execute("SELECT one, other FROM room_forks WHERE room = ?", (room.raw,)).fetchall()
        )

    async def undelivered(self, room: RoomId, own: PeerId) -> list[tuple[int, str, int]]:
        """Return (number, message id, position) of our texts that nobody else was seen to have."""
        rows = await self._database.read(
            lambda c: c.execute(
                "SELECT e.seq, e.id, e.message FROM room_entries AS e JOIN messages AS m ON m.position = e.message"
                " WHERE e.room = ? AND e.device = ? AND m.state = 'queued'",
                (room.raw, own.raw),
            ).fetchall()
        )
        return [(row[0], row[1].hex(), row[2]) for row in rows]

    def mark_delivered(self, positions: Sequence[int]) -> None:
        """Note it with a later commit: what is lost is seen again."""
        self._database.write_later(
            lambda c: c.executemany(
                "UPDATE messages SET state = 'delivered' WHERE position = ?", [(p,) for p in positions]
            )
        )

    async def invite(self, room: RoomId, user: UserId, *, told: bool) -> None:
        """Note that somebody is to be told of a room, or was."""
        sql = (
            "DELETE FROM room_invitations WHERE room = ? AND user = ?"
            if told
            else "INSERT OR IGNORE INTO room_invitations (room, user) VALUES (?, ?)"
        )
        await self._database.write(lambda c: c.execute(sql, (room.raw, user.raw)))

    async def untold(self) -> list[tuple[RoomId, UserId]]:
        rows = await self._database.read(lambda c: c.execute("SELECT room, user FROM room_invitations").fetchall())
        return [(RoomId(room), UserId(user)) for room, user in rows]

    def mark_seen(self, room: RoomId, position: int) -> None:
        self._database.write_later(lambda c: queries.mark_seen(c, room, position))


def _store(connection: sqlite3.Connection, what: Stored) -> list[Message]:
    room = what.room.raw
    for signed in what.entries:
        _insert_entry(connection, room, signed)
    connection.executemany(
        "INSERT OR IGNORE INTO room_keys (room, epoch, key) VALUES (?, ?, ?)", [(room, *pair) for pair in what.keys]
    )
    if what.cut is not None:
        device, seq, one, other = what.cut
        _hide(connection, room, device, seq)
        connection.execute("DELETE FROM room_entries WHERE room = ? AND device = ? AND seq >= ?", (room, device, seq))
        connection.execute(
            "INSERT OR REPLACE INTO room_forks (room, device, seq, one, other) VALUES (?, ?, ?, ?, ?)",
            (room, device, seq, one, other),
        )
    for device, last in what.hide:
        _hide(connection, room, device, last + 1)
    if what.state:
        connection.execute("UPDATE rooms SET state = ? WHERE id = ?", (what.state, room))
    for peer, user, name in what.names:
        now = what.entries[-1].entry.sent_at if what.entries else 0
        queries.learn_device(connection, peer, user, name, now)
    found = []
    for opened in what.texts:
        position = _insert_message(connection, what.room, opened)
        if position is not None:
            found.append(queries.message_at(connection, position))
    return found


def _insert_entry(connection: sqlite3.Connection, room: bytes, signed: Signed) -> None:
    entry = signed.entry
    last = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM room_entries WHERE room = ? AND device = ?", (room, entry.device)
    ).fetchone()[0]
    if last != entry.seq - 1:  # the one before it could not be written: this one must not stand alone
        raise StorageError("An entry of a room could not be stored: the one before it is missing.")
    connection.execute(
        "INSERT INTO room_entries (room, device, seq, id, depth, kind, raw) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (room, entry.device, entry.seq, signed.id, entry.depth, kind_of(entry.body), signed.raw),
    )


def _insert_message(connection: sqlite3.Connection, room: RoomId, opened: Opened) -> int | None:
    """Show a text; return its position, None when it is there. Its place is the same on every device: by depth, then by
    hash (`Signed.order`)."""
    entry, entry_id = opened.signed.entry, opened.signed.id
    author = opened.signed.device
    if queries.has_message(connection, author, entry_id):  # or it was removed by the user, and stays so
        return None
    position = queries.insert_message(
        connection,
        message_id=entry_id,
        author=author,
        author_user=opened.user,
        conversation=queries.conversation_id(connection, room),
        sequence=entry.seq,
        outgoing=opened.outgoing,
        text=opened.text,
        sent_at_ms=entry.sent_at,
        received_at_ms=opened.received_at_ms,
        state=opened.state,
        ordinal=entry.depth << 32 | int.from_bytes(entry_id[:4]),
    )
    connection.execute(
        "UPDATE room_entries SET message = ? WHERE room = ? AND device = ? AND seq = ?",
        (position, room.raw, entry.device, entry.seq),
    )
    return position


def _hide(connection: sqlite3.Connection, room: bytes, device: bytes, first: int) -> None:
    """Take the texts of a device from `first` on out of the history."""
    connection.execute(
        "DELETE FROM messages WHERE position IN"
        " (SELECT message FROM room_entries WHERE room = ? AND device = ? AND seq >= ? AND message IS NOT NULL)",
        (room, device, first),
    )
    connection.execute(
        "UPDATE room_entries SET message = NULL WHERE room = ? AND device = ? AND seq >= ?", (room, device, first)
    )
