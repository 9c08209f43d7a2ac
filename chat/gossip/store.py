"""What outlives a restart: our own status, and what contacts said last. In the chat's database."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from p2pnode.chat.database import Database
from p2pnode.chat.gossip.statements import Statement

__all__ = ["MAX_HEARD", "GossipStore", "Kept"]

MAX_HEARD = 2_000  # devices, 4 KB each at most; those heard of longest ago go first


@dataclass(slots=True)
class Kept:
    """`at`: of our last statement, Unix milliseconds. `heard`: oldest first."""

    text: str = ""
    invisible: bool = False
    at: int = 0
    heard: list[Statement] = field(default_factory=list)


class GossipStore:
    """Methods raise StorageError, CorruptFileError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Kept:
        def load(connection: sqlite3.Connection) -> Kept:
            connection.execute(
                "DELETE FROM gossip_heard WHERE device IN"
                " (SELECT device FROM gossip_heard ORDER BY at DESC LIMIT -1 OFFSET ?)",
                (MAX_HEARD,),
            )
            row = connection.execute("SELECT text, invisible, at FROM gossip_own").fetchone()
            if row is None:
                connection.execute("INSERT INTO gossip_own (text, invisible, at) VALUES ('', 0, 0)")
            kept = Kept() if row is None else Kept(row[0], bool(row[1]), row[2])
            for (packed,) in connection.execute("SELECT packed FROM gossip_heard ORDER BY at"):
                kept.heard.append(Statement.stored(packed))
            return kept

        return await self._database.write(load)

    async def put_own(self, text: str, *, invisible: bool) -> None:
        """Keep what the user set; it is on the disk when this returns."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE gossip_own SET text = ?, invisible = ?", (text, int(invisible)))

        await self._database.write(write)

    def said(self, at: int) -> None:
        """Note the time of our last statement, soon: after a loss the clock has gone on."""
        self._database.write_later(lambda connection: connection.execute("UPDATE gossip_own SET at = ?", (at,)))

    def heard(self, statement: Statement) -> None:
        """Keep it, soon: losing it is harmless, it is told again."""
        row = (statement.device.raw, statement.body.at, statement.packed)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO gossip_heard (device, at, packed) VALUES (?, ?, ?)", row)

        self._database.write_later(write)

    def forget(self, statement: Statement) -> None:
        """Its author is no contact any more."""
        device = statement.device.raw
        self._database.write_later(lambda c: c.execute("DELETE FROM gossip_heard WHERE device = ?", (device,)))
