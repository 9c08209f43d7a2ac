"""The records of a node on disk, so that one that was restarted, or killed, still holds them. For bootstrap nodes.

`RecordStorage` in memory stays the index and the judge; this file follows it. What changed is written in batches, a
second later, outside the loop: a killed process loses at most the last two seconds, and nothing that was written before
(SQLite's write-ahead log, `synchronous=NORMAL`: a power failure may cost more, and the other holders have it).

At the start each record is judged anew, as if it had just come in: signature, expiry, quotas. What does not hold is
dropped and counted. A damaged file, or one of another version, is set aside with a warning and a new one begun; when
the disk refuses, the records stay in memory, and all are written as soon as it takes them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from p2pnode.core.address import Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Network
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage, StoreKey

__all__ = ["RecordFile"]

log = structlog.get_logger(__name__)

VERSION = 1
LOAD_WAIT = 1.0  # s that a start waits for the records
FLUSH_AFTER = 1.0  # s
RETRY_AFTER = 60.0  # s, when the disk refused
BATCH = 1_000  # records in one transaction: 4 ms to encode, which is the loop's part
CHUNK = 256  # records read and verified at once (25 ms, outside the loop); below what `records` remembers as verified
MAX_ROWS = 100_000  # read at most; the quota in memory is some 20,000
MAX_RECORD_BYTES = 1_100  # 800 of value, 32 of salt, 96 of key and signature, headers
MAX_PREFIX_BYTES = 16
MAX_DIRTY = 65_536  # keys that wait to be written, about 150 bytes each; beyond, all is written anew
PAGE_BYTES = 4_096
HEADER = b"SQLite format 3\0"

_SCHEMA = """
CREATE TABLE records (
    realm TEXT NOT NULL, key BLOB NOT NULL, prefix BLOB NOT NULL, expires REAL NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (realm, key)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_COLUMNS = "realm, key, prefix, expires, record"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SignedRecord)

Row = tuple[str, bytes, bytes, float, bytes]
"""Realm, key, prefix of who stored it, unix seconds until which it is kept, the record as MessagePack."""


class _Stored(NamedTuple):
    """A row that was read: its primary key as it stands there; `realm` and `record` are None when it does not hold."""

    row: tuple[Any, Any]
    realm: Realm | None = None
    prefix: bytes = b""
    expires: float = 0.0
    record: SignedRecord | None = None


class _UnusableFileError(Exception):
    """Not a file of ours, or no longer: to be set aside."""


class RecordFile:
    """Keeps one `RecordStorage` in one SQLite file."""

    def __init__(
        self, path: str, storage: RecordStorage, network: Network, network_tag: bytes, settings: DhtSettings,
        drops: Counter[str],
    ) -> None:  # fmt: skip
        """`drops`: where rows that do not hold are counted, as `kept_record`."""
        self._path, self._storage, self._network, self._tag = Path(path), storage, network, network_tag
        self._drops = drops
        self._max_pages = 4 * (settings.storage_bytes + settings.mail_bytes + settings.pool_bytes) // PAGE_BYTES + 256
        self._connection: sqlite3.Connection | None = None
        self._dirty: dict[StoreKey, None] = {}
        self._write_all = False
        self._failing = False
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._closing = False

    async def open(self) -> None:
        """Read the file into the storage, and follow the storage from now on. Never raises for a bad file or disk.

        A full one takes 5 s of a processor for its signatures: what is not in memory after a second comes behind.
        """
        self._storage.on_change = self._note
        self._task = asyncio.create_task(self._run(), name="dht-record-file")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOAD_WAIT):
                await self._loaded.wait()

    async def close(self) -> None:
        """Write what waits and close. Calling it twice is harmless."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._closing = True
        async with self._writing:  # not in the middle of a batch: its thread cannot be stopped
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._storage.on_change = None
        await self.flush()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._network.run_blocking(_close, connection)

    async def flush(self) -> None:
        """Write what has changed. Never raises: a disk that refuses is said once, and tried again."""
        async with self._writing:
            try:
                await self._write()
            except (sqlite3.Error, OSError) as exc:
                if not self._failing:
                    log.warning("records_not_kept", file=str(self._path), why=str(exc))
                self._failing = self._write_all = True
            else:
                if self._failing:
                    log.warning("records_kept_again", file=str(self._path))
                self._failing = False

    def _note(self, key: StoreKey) -> None:
        """The storage took a record in, or dropped one."""
        self._dirty[key] = None
        if len(self._dirty) > MAX_DIRTY:
            self._dirty.clear()
            self._write_all = True
        self._changed.set()

    async def _run(self) -> None:
        async with self._writing:
            try:
                await self._load()
            except (sqlite3.Error, OSError) as exc:
                log.warning("records_not_kept", file=str(self._path), why=str(exc))
                self._failing = self._write_all = True
            finally:
                self._loaded.set()
        while True:
            await self._changed.wait()
            await asyncio.sleep(RETRY_AFTER if self._failing else FLUSH_AFTER)
            self._changed.clear()
            await self.flush()
            if self._failing:
                self._changed.set()

    async def _write(self) -> None:
        run = self._network.run_blocking
        if self._connection is None:
            self._connection, _ = await run(_open, self._path, self._max_pages)
            self._write_all = True
        if self._write_all:
            await run(_empty, self._connection)
            self._dirty = dict.fromkeys(key for key, _ in self._storage)
            self._write_all = False
        while self._dirty:
            keys = [key for key, _ in zip(self._dirty, range(BATCH), strict=False)]
            for key in keys:
                del self._dirty[key]
            wall_ahead = self._network.wall() - self._network.monotonic()
            puts: list[Row] = []
            gone: list[tuple[str, bytes]] = []
            for realm, name in keys:
                held = self._storage.get((realm, name))
                if held is None:
                    gone.append((realm.value, name))
                else:
                    record = _encoder.encode(held.record)
                    puts.append((realm.value, name, held.prefix, held.expires_at + wall_ahead, record))
            await run(_store, self._connection, puts, gone)

    async def _load(self) -> None:
        run = self._network.run_blocking
        connection, aside = await run(_open, self._path, self._max_pages)
        self._connection = connection
        if aside is not None:
            log.warning("record_file_set_aside", file=str(self._path), kept_as=aside[0], why=aside[1])
        after: tuple[Any, Any] | None = ("", b"")
        read = dropped = 0
        while after is not None and read < MAX_ROWS and not self._closing:
            rows, after = await run(_read_untrusted, connection, after, self._tag, self._network.wall())
            now, wall = self._network.monotonic(), self._network.wall()
            useless = [row.row for row in rows if not self._take(row, now, wall)]
            read += len(rows)
            if useless:
                dropped += len(useless)
                self._drops["kept_record"] += len(useless)
                await run(_store, connection, [], useless)
            await self._write()  # what came in meanwhile
        if after is not None and not self._closing:
            self._write_all = True  # what lies beyond is more than we can hold
            self._changed.set()
        log.info("records_loaded", file=str(self._path), kept=read - dropped, dropped=dropped)

    def _take(self, row: _Stored, now: float, wall: float) -> bool:
        """Keep a row's record in memory; return whether it is kept."""
        if row.realm is None or row.record is None:
            return False
        until = now + row.expires - wall
        if self._storage.store(row.record, row.realm, row.prefix, now, wall, until) is not None:
            return False
        self._dirty.pop((row.realm, row.record.key), None)  # as it is in the file
        return True


# -- what may block: run outside the loop, one at a time ---------------------------------------------------------------


def _open(path: Path, max_pages: int) -> tuple[sqlite3.Connection, tuple[str, str] | None]:
    """Return a connection, and what was set aside with the reason. Raise sqlite3.Error or OSError: the disk refuses."""
    try:
        return _connect(path, max_pages), None
    except _UnusableFileError as exc:
        aside = _set_aside(path)
        return _connect(path, max_pages), (str(aside), str(exc))


def _connect(path: Path, max_pages: int) -> sqlite3.Connection:
    """Open or create the file, mode 0600. Raise _UnusableFileError, sqlite3.Error, OSError."""
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(HEADER)) != HEADER:
                raise _UnusableFileError("not a database")
    else:
        # The write-ahead log and its index inherit the mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
    try:
        _check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA max_page_count = {max_pages}")
        connection.execute("PRAGMA journal_size_limit = 8388608")
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            connection.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
        connection.execute(f"SELECT {_COLUMNS} FROM records LIMIT 0")  # noqa: S608 - no outside text
    except BaseException as exc:
        connection.close()
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise _UnusableFileError(str(exc)) from exc
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version not in (0, VERSION) or (not version and tables):
        raise _UnusableFileError(f"its version is {version}, not {VERSION}")
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()  # 0.1 s for 30 MB
    if answer != "ok":
        raise _UnusableFileError(str(answer))


def _set_aside(path: Path) -> Path:
    """Rename the file, with its log, to a name that is free; nothing is overwritten."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged{f'-{number}' if number > 1 else ''}")).exists():
        number += 1
    os.rename(path, aside)
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path.with_name(path.name + end), aside.with_name(aside.name + end))
    return aside


def _read_untrusted(
    connection: sqlite3.Connection, after: tuple[Any, Any], tag: bytes, wall: float
) -> tuple[list[_Stored], tuple[Any, Any] | None]:
    """Return the next rows, judged, and where to go on; None at the end. Raise sqlite3.Error."""
    found: list[tuple[Any, ...]] = connection.execute(
        f"SELECT realm, key, prefix, expires, substr(record, 1, {MAX_RECORD_BYTES + 1}) FROM records"  # noqa: S608
        f" WHERE (realm, key) > (?, ?) ORDER BY realm, key LIMIT {CHUNK}",
        after,
    ).fetchall()
    rows = [_judge_untrusted(row, tag, wall) for row in found]
    return rows, (found[-1][0], found[-1][1]) if len(found) == CHUNK else None


def _judge_untrusted(row: tuple[Any, ...], tag: bytes, wall: float) -> _Stored:
    """Return a row as it may be believed. Never raises: who can write the file may have written anything."""
    realm, key, prefix, expires, encoded = row
    nothing = _Stored((realm, key))
    if not isinstance(prefix, bytes) or len(prefix) > MAX_PREFIX_BYTES or not isinstance(expires, float):
        return nothing
    try:
        record = _decoder.decode(encoded)
        if record.key != key:
            return nothing
        record.verify(tag, wall)
        return _Stored((realm, key), Realm(realm), prefix, expires, record)
    except (BadPacket, msgspec.DecodeError, RecursionError, TypeError, ValueError):
        return nothing


def _store(connection: sqlite3.Connection, puts: Iterable[Row], gone: Iterable[tuple[Any, Any]]) -> None:
    """Write a batch in one transaction. Raise sqlite3.Error."""
    with _transaction(connection):
        connection.executemany("DELETE FROM records WHERE realm = ? AND key = ?", gone)
        connection.executemany(f"INSERT OR REPLACE INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", puts)  # noqa: S608


def _empty(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        connection.execute("DELETE FROM records")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk makes SQLite roll back by itself
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _close(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
