"""What outlives a restart: the device's secret, reports that we made, reports that we saw. Conversations do not."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pnode.chat.database import Database
from p2pnode.chat.strangers.judging import STALE_S

__all__ = ["Kept", "StrangerStore"]

MAX_KEPT = 10_000  # reports of others, 150 bytes each; the oldest go first
MAX_MADE = 500  # reports of ours
TIDY_EVERY = 100  # reports that come in


@dataclass(slots=True)
class Kept:
    """`made`: (reported device, start of the conversation, value) of our own reports. `seen`: by device, reporter."""

    secret: bytes
    made: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    seen: dict[bytes, dict[bytes, float]] = field(default_factory=dict)


class StrangerStore:
    """In the chat's database. Methods raise StorageError, CorruptFileError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._untidy = 0

    async def load(self, new_secret: bytes, now: float) -> Kept:
        """Return what is kept, without what is stale at `now`. `new_secret` (32 bytes): for a device that has none."""

        def load(connection: sqlite3.Connection) -> Kept:
            connection.execute("DELETE FROM stranger_reports WHERE at < ?", (int(now - STALE_S),))
            _tidy(connection)
            row = connection.execute("SELECT secret FROM stranger_device").fetchone()
            if row is None:
                connection.execute("INSERT INTO stranger_device (secret) VALUES (?)", (new_secret,))
            kept = Kept(new_secret if row is None else row[0])
            for device, reporter, at, value in connection.execute(
                "SELECT device, reporter, at, value FROM stranger_reports ORDER BY at"
            ):
                kept.seen.setdefault(device, {})[reporter] = float(at)
                if value is not None:
                    kept.made.append((device, at, value))
            return kept

        return await self._database.write(load)

    async def report(self, device: bytes, reporter: bytes, at: int, value: bytes) -> None:
        """Keep a report of ours; it is on the disk when this returns."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO stranger_reports (device, reporter, at, value) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (device, reporter) DO UPDATE SET value = excluded.value, at = excluded.at",
                (device, reporter, at, value),
            )

        await self._database.write(write)

    def saw(self, device: bytes, reports: Mapping[bytes, float]) -> None:
        """Keep others' reports, soon: losing them is harmless, they are read again."""
        rows = [(device, reporter, int(at)) for reporter, at in reports.items()]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO stranger_reports (device, reporter, at) VALUES (?, ?, ?)", rows
            )

        if rows:
            self._database.write_later(write)
            self._untidy += len(rows)
        if self._untidy >= TIDY_EVERY:
            self._untidy = 0
            self._database.write_later(_tidy)


def _tidy(connection: sqlite3.Connection) -> None:
    """Others' reports do not push out our own: whoever invents devices can invent reports of them, too."""
    for which, most in (("value IS NULL", MAX_KEPT), ("value IS NOT NULL", MAX_MADE)):
        connection.execute(
            "DELETE FROM stranger_reports WHERE (device, reporter) IN"  # noqa: S608 - literals of ours
            f" (SELECT device, reporter FROM stranger_reports WHERE {which} ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (most,),
        )
