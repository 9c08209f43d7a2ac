"""The tables of files (chat/schema.py): what is offered, under way and done. Same file and rules as the messages."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from p2pnode import NotFoundError, PeerId
from p2pnode.chat.database import Database
from p2pnode.chat.model import FileState, Party, party_columns, party_from_columns

__all__ = ["ENDED", "FileRecords", "Record", "Source"]

ENDED: tuple[FileState, ...] = ("done", "refused", "failed", "cancelled")
KEPT = 1000  # ended transfers that stay in the list; older ones are forgotten

_COLUMNS = (
    "position, id, author, outgoing, kind, key, taker, folder, name, size, count, manifest_size, root, source, place,"
    " state, reason, known, created_at, changed_at, parent"
)


# The row that holds list and sources of another: itself, or what goes to the whole room.
_HOLDER = "(SELECT CASE parent WHEN 0 THEN position ELSE parent END FROM files WHERE position = ?)"
_MANIFEST = f"SELECT manifest FROM files WHERE position = {_HOLDER}"  # noqa: S608 - our own texts
_BY_POSITION = f"SELECT {_COLUMNS} FROM files WHERE position = ?"  # noqa: S608 - our own texts


@dataclass(slots=True)
class Record:
    """A row of `files`. Times in Unix milliseconds. `parent`: the row of a room's, where this goes to one member."""

    id: bytes
    author: PeerId
    outgoing: bool
    party: Party
    folder: bool
    name: str
    size: int
    count: int
    manifest_size: int
    root: bytes
    state: FileState
    created_at: int
    changed_at: int
    source: str = ""
    place: str = ""
    reason: str = ""
    known: int = 0
    taker: PeerId | None = None
    position: int = 0
    parent: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Source:
    """A row of `file_sources`."""

    path: str
    size: int
    stamp: int
    leaves: bytes


class FileRecords:
    """Reads and writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: Record) -> None:
        """Store a new one and set its `position`."""

        def operation(connection: sqlite3.Connection) -> int:
            kind, key = party_columns(record.party)
            taker = None if record.taker is None else record.taker.raw
            cursor = connection.execute(
                f"INSERT INTO files ({_COLUMNS.removeprefix('position, ')})"  # noqa: S608 - our own texts
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.id, record.author.raw, record.outgoing, kind, key, taker, record.folder, record.name,
                    record.size, record.count, record.manifest_size, record.root, record.source, record.place,
                    record.state, record.reason, record.known, record.created_at, record.changed_at, record.parent,
                ),
            )  # fmt: skip
            connection.execute(
                "DELETE FROM files WHERE state IN ('done', 'refused', 'failed', 'cancelled') AND position <= "
                "(SELECT max(position) FROM files) - ?",
                (KEPT,),
            )
            return int(cursor.lastrowid or 0)

        record.position = await self._database.write(operation)

    async def save(self, record: Record) -> None:
        """Write what may change of one; on the disk when this returns."""
        await self._database.write(_saving(record))

    def save_later(self, record: Record) -> None:
        """Write how far it is and why it waits, with a later commit: which may come after one that ended it."""
        values = (record.known, record.reason, record.position, record.state)
        self._database.write_later(
            lambda c: (
                c.execute("UPDATE files SET known = ?, reason = ? WHERE position = ? AND state = ?", values).rowcount
            )
        )

    async def prepared(self, record: Record, manifest: bytes, sources: Sequence[Source]) -> None:
        """What is sent was looked through: list and sources, with the record, in one commit."""

        def operation(connection: sqlite3.Connection) -> None:
            _saving(record)(connection)
            connection.execute("UPDATE files SET manifest = ? WHERE position = ?", (manifest, record.position))
            connection.executemany(
                "INSERT OR REPLACE INTO file_sources (file, number, path, size, stamp, leaves)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(record.position, n, s.path, s.size, s.stamp, s.leaves) for n, s in enumerate(sources)],
            )

        await self._database.write(operation)

    async def set_manifest(self, position: int, manifest: bytes) -> None:
        await self._database.write(
            lambda c: c.execute("UPDATE files SET manifest = ? WHERE position = ?", (manifest, position)).rowcount
        )

    async def manifest(self, position: int) -> bytes | None:
        """Return the list of one; None while it is not here."""

        def operation(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(_MANIFEST, (position,)).fetchone()
            return row[0] if row is not None else None

        return await self._database.read(operation)

    async def source(self, position: int, number: int) -> Source:
        """Return what entry `number` of ours is. Raise NotFoundError."""

        def operation(connection: sqlite3.Connection) -> Source:
            row = connection.execute(
                f"SELECT path, size, stamp, leaves FROM file_sources WHERE file = {_HOLDER} AND number = ?",  # noqa: S608
                (position, number),
            ).fetchone()
            if row is None:
                raise NotFoundError("There is no such file.")
            return Source(*row)

        return await self._database.read(operation)

    async def set_devices(self, position: int, devices: dict[PeerId, str]) -> None:
        """Note what each device said. Those that are not named stay."""
        rows = [(position, device.raw, state) for device, state in devices.items()]
        await self._database.write(
            lambda c: (
                c.executemany(
                    "INSERT INTO file_devices (file, device, state) VALUES (?, ?, ?)"
                    " ON CONFLICT (file, device) DO UPDATE SET state = excluded.state",
                    rows,
                ).rowcount
            )
        )

    async def devices(self, position: int) -> dict[PeerId, str]:
        def operation(connection: sqlite3.Connection) -> dict[PeerId, str]:
            rows = connection.execute("SELECT device, state FROM file_devices WHERE file = ?", (position,))
            return {PeerId(device): state for device, state in rows}

        return await self._database.read(operation)

    async def untold(self) -> list[tuple[Record, PeerId]]:
        """Return (ended offer of ours, device that has not heard of its end)."""

        def operation(connection: sqlite3.Connection) -> list[tuple[Record, PeerId]]:
            rows = connection.execute(
                "SELECT file, device FROM file_devices WHERE state = 'untold' ORDER BY file DESC LIMIT 1000"
            ).fetchall()
            found = []
            for position, device in rows:
                row = connection.execute(_BY_POSITION, (position,)).fetchone()
                found.append((_record(row), PeerId(device)))
            return found

        return await self._database.read(operation)

    async def unended(self) -> list[Record]:
        """Return all that are not over, oldest first."""
        return await self._select("state NOT IN ('done', 'refused', 'failed', 'cancelled') ORDER BY position")

    async def newest(self, limit: int) -> list[Record]:
        """Return the newest, newest first, without what goes to single members of a room."""
        return await self._select("parent = 0 ORDER BY position DESC LIMIT ?", limit)

    async def parts(self, position: int) -> list[Record]:
        """Return what goes to the single members of a room."""
        return await self._select("parent = ? AND parent != 0 ORDER BY position", position)

    async def by_id(self, author: PeerId, offer: bytes) -> Record | None:
        """Return the one of this id; ids are chosen by their author."""
        found = await self._select("author = ? AND id = ?", author.raw, offer)
        return found[0] if found else None

    async def like(self, prefix: str) -> list[Record]:
        """Return those whose hex id begins with `prefix`, newest first, at most 3."""
        return await self._select("lower(hex(id)) LIKE ? || '%' ORDER BY position DESC LIMIT 3", prefix)

    async def _select(self, where: str, *values: Any) -> list[Record]:
        return await self._database.read(
            lambda c: [_record(row) for row in c.execute(f"SELECT {_COLUMNS} FROM files WHERE {where}", values)]  # noqa: S608 - our own texts
        )


def _saving(record: Record) -> Any:
    values = (
        None if record.taker is None else record.taker.raw, record.name, record.size, record.count,
        record.manifest_size, record.root, record.place, record.state, record.reason, record.known, record.changed_at,
        record.position,
    )  # fmt: skip

    def operation(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE files SET taker = ?, name = ?, size = ?, count = ?, manifest_size = ?, root = ?, place = ?,"
            " state = ?, reason = ?, known = ?, changed_at = ? WHERE position = ?",
            values,
        )

    return operation


def _record(row: Sequence[Any]) -> Record:
    (position, offer, author, outgoing, kind, key, taker, folder, name, size, count, manifest_size, root, source,
     place, state, reason, known, created_at, changed_at, parent) = row  # fmt: skip
    return Record(
        offer, PeerId(author), bool(outgoing), party_from_columns(kind, key), bool(folder), name, size, count,
        manifest_size, root, state, created_at, changed_at, source, place, reason, known,
        None if taker is None else PeerId(taker), position, parent,
    )  # fmt: skip
