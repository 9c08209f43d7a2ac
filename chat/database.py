"""SQLite, durable, with one writer and group commit.

Rules. `synchronous=FULL` in WAL mode: what `write` returned is on the disk, also after a loss of power. All writes that
wait while a commit is under way share the next one. `write_later` is for what may be lost (and is then done again):
it rides along with the next commit, or goes alone after a tenth of a second, and so never stands before a message.
A damaged file is never written to: it is looked at through a read-only connection first.

SQLite's own files are a named exception from "all I/O goes through Network"; the calls that may block do not run on the
event loop but through `run_blocking`, serialised here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from p2pnode import CorruptFileError, P2PError, StorageError
from p2pnode.chat import engine
from p2pnode.chat.engine import DatabaseKey
from p2pnode.chat.schema import MIGRATIONS, Migration, migrate

__all__ = ["Database", "RunBlocking", "run_inline"]

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Runs inside a transaction, perhaps in a thread, perhaps twice; touches nothing but the connection."""

# Chosen by us.
BATCH_MAX = 128  # operations per commit: bounds what one failing operation makes run again, and for how long a thread
# competes with the loop; 128 are 5,000 messages/s on an ordinary disk
WAKE_UP = 16  # callers at a time
LATER_S = 0.1  # how long a write that may be lost waits for company
SECRET_TABLES = frozenset({"mail_missing", "mail_given", "mail_taken", "mail_epochs"})  # what opens letters (chat/mail)
CHECK_MAX_BYTES = 32 * 1024 * 1024  # files up to this size are checked page by page at start (about 0.1 s)


class RunBlocking(Protocol):
    """`Network.run_blocking`."""

    def __call__(self, function: Callable[..., T], *args: object) -> Awaitable[T]: ...


async def run_inline(function: Callable[..., T], *args: object) -> T:
    """Run in the caller's thread: for command line tools without a running node."""
    return function(*args)


class Database:
    """One SQLite file. Make it with `Database.open`; end with `close`."""

    def __init__(self, writer: sqlite3.Connection, reader: sqlite3.Connection, run_blocking: RunBlocking) -> None:
        self._writer = writer
        self._reader = reader
        self._run_blocking = run_blocking
        self._waiting: deque[tuple[Operation[Any], asyncio.Future[Any]]] = deque()
        self._later: list[Operation[Any]] = []
        self._later_timer: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None
        self._read_lock = asyncio.Lock()
        # In memory there is one connection for both. Two threads in it at once would read what is not committed, and
        # stand still for ever: one waits in SQLite with the interpreter's lock for the other, which asks for that.
        self._write_lock = self._read_lock if writer is reader else asyncio.Lock()
        self._closed = False
        self.commits = 0
        self.lost_later = 0

    @classmethod
    async def open(
        cls,
        path: Path | None,
        run_blocking: RunBlocking = run_inline,
        *,
        read_only: bool = False,
        migrations: Sequence[Migration] = MIGRATIONS,
        key: DatabaseKey | None = None,
    ) -> Database:
        """Open or create the file (mode 0600); `path` None: in memory. `read_only`: never written, must exist.
        `key`: of an encrypted file, and whether it is to be one; None: plain.

        Raise CorruptFileError when it is damaged (it is left as it is), StorageError when the disk refuses or the
        file is from a newer program.
        """
        writer, reader = await run_blocking(_connect, path, read_only, migrations, key)
        return cls(writer, reader, run_blocking)

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation` in a transaction and return its result once that is on the disk.

        Order of calls is order of execution. Raise what `operation` raises (it alone is rolled back then),
        StorageError or CorruptFileError.
        """
        self._ensure_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        self._drain_soon()
        return await future

    def write_later(self, operation: Operation[Any]) -> None:
        """Run `operation` with some commit soon; losing it must be harmless. Its errors are only counted."""
        self._ensure_open()
        self._later.append(operation)
        if self._later_timer is None:
            self._later_timer = asyncio.get_running_loop().call_later(LATER_S, self._drain_soon)

    async def read(self, operation: Operation[T]) -> T:
        """Run `operation` on committed data; it must not write. Raise as `write`."""
        self._ensure_open()
        async with self._read_lock:
            return cast("T", await self._run_blocking(_run_read, self._reader, operation))

    async def erase(self) -> bool:
        """Leave nothing of what was deleted in the files: the write-ahead log, which holds pages as they were, is
        folded into the database and emptied. False: another process reads there, try later. Raise StorageError."""
        self._ensure_open()
        async with self._write_lock:
            if self._reader is self._writer:
                return await self._run_blocking(_fold_log, self._writer)
            async with self._read_lock:
                return await self._run_blocking(_fold_log, self._writer)

    async def close(self) -> None:
        """Commit what waits, fold the write-ahead log into the file, close. Calling it twice is harmless."""
        if self._closed:
            return
        if self._later_timer is not None:
            self._later_timer.cancel()
        while self._waiting or self._later or (self._draining is not None and not self._draining.done()):
            self._drain_soon()
            if self._draining is not None:
                await self._draining
        self._closed = True
        async with self._read_lock:
            await self._run_blocking(_close, self._writer, self._reader)

    def _ensure_open(self) -> None:
        if self._closed:
            raise StorageError("The database is closed.")

    def _drain_soon(self) -> None:
        if self._draining is None or self._draining.done():
            self._draining = asyncio.get_running_loop().create_task(self._drain(), name="chat-commit")

    async def _drain(self) -> None:
        while self._waiting or self._later:
            if self._later_timer is not None:
                self._later_timer.cancel()
                self._later_timer = None
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            later, self._later = self._later, []
            operations = [operation for operation, _ in batch] + later
            try:
                async with self._write_lock:
                    outcomes = await self._run_blocking(_commit, self._writer, operations)
            except BaseException:
                for _, future in batch:
                    future.cancel()  # whether it is on the disk is unknown: the loop or its threads are going down
                raise
            self.commits += 1
            await _resolve_all([(future, outcome) for (_, future), outcome in zip(batch, outcomes, strict=False)])
            self.lost_later += sum(isinstance(outcome, BaseException) for outcome in outcomes[len(batch) :])


async def _resolve_all(results: list[tuple[asyncio.Future[Any], object]]) -> None:
    """Wake up the callers, a few at a time: what else waits for the loop (a key) does not wait for all of them."""
    at = 0
    try:
        for at in range(0, len(results), WAKE_UP):
            if at:
                await asyncio.sleep(0)
            for future, outcome in results[at : at + WAKE_UP]:
                _resolve(future, outcome)
        at = len(results)
    finally:  # the loop is going down: it is on the disk all the same
        for future, outcome in results[at:]:
            _resolve(future, outcome)


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return  # its caller was cancelled; the write itself is done all the same
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _commit(connection: sqlite3.Connection, operations: list[Operation[Any]]) -> list[Any]:
    """Run all in one transaction; return their results, or each one's exception in its place.

    When one fails, all are rolled back and run again one by one, so that nobody suffers for another's failure.
    """
    try:
        return _transaction(connection, operations)
    except Exception as exc:  # noqa: BLE001 - whatever it is belongs to the caller of `write`, through its future
        if len(operations) == 1:
            return [_translated(exc)]
    outcomes: list[Any] = []
    for operation in operations:
        outcomes += _commit(connection, [operation])
    return outcomes


def _transaction(connection: sqlite3.Connection, operations: list[Operation[Any]]) -> list[Any]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [operation(connection) for operation in operations]
        connection.execute("COMMIT")
    except BaseException:
        # a full disk makes SQLite roll back by itself; the second failure would hide the first
        with contextlib.suppress(*engine.errors()):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return results


def _run_read(connection: sqlite3.Connection, operation: Operation[T]) -> T:
    with _mapped_errors():
        return operation(connection)


def _connect(
    path: Path | None, read_only: bool, migrations: Sequence[Migration], key: DatabaseKey | None
) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    if path is None:
        memory = _configure(engine.connect(":memory:", None))
        migrate(memory, migrations)
        return memory, memory
    with _mapped_errors(path):
        raw = engine.prepare(path, key, read_only=read_only)
        if read_only:
            reader = _configure(engine.connect(f"{path.absolute().as_uri()}?mode=ro", raw, uri=True))
            _check(reader, path)
            version = reader.execute("PRAGMA user_version").fetchone()[0]
            if version != len(migrations):
                raise StorageError(
                    "The message database has another version than this p2pnode; run `p2pnode join` to bring it up.",
                    version=version,
                )
            return reader, reader
        if path.exists() and path.stat().st_size > 0:
            _check_file(path, raw)
        else:
            # the write-ahead log and its index inherit the mode
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        writer = _configure(engine.connect(path, raw))
        try:
            writer.execute("PRAGMA journal_mode = WAL")
            _keep_older(writer, path, len(migrations), raw)
            migrate(writer, migrations)
            reader = _configure(engine.connect(path, raw))
            reader.execute("PRAGMA query_only = ON")
        except BaseException:
            writer.close()
            raise
    return writer, reader


def _keep_older(connection: sqlite3.Connection, path: Path, newest: int, raw: bytes | None) -> None:
    """Copy a file that is about to be migrated, to `chat-v1.db` beside `chat.db`: the way back to an older program."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 < version < newest:
        return
    copy = path.with_name(f"{path.stem}-v{version}{path.suffix}")
    part = copy.with_name(copy.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    target = _configure(engine.connect(part, raw))
    try:
        connection.backup(target)
        tables = {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in SECRET_TABLES & tables:  # or the copy opens letters for ever; contacts give each other new ones
            target.execute(f"DELETE FROM {table}")  # noqa: S608 - literals of ours
        target.execute("PRAGMA journal_mode = DELETE")
    finally:
        target.close()
    part.replace(copy)


def _configure(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(
        "PRAGMA secure_delete = ON"
    )  # keys that were thrown away stay neither in pages nor in freed ones
    connection.create_function("fold", 1, _fold, deterministic=True)
    return connection


def _fold(text: str) -> str:
    """Lower case for searching; SQLite's own knows only ASCII."""
    return text.casefold()


def _check_file(path: Path, raw: bytes | None) -> None:
    if raw is None and not engine.is_plain(path):
        raise _corrupt(path)
    connection = engine.connect(f"{path.absolute().as_uri()}?mode=ro", raw, uri=True)
    try:
        _check(connection, path)
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    check = "quick_check(1)" if path.stat().st_size <= CHECK_MAX_BYTES else "schema_version"
    row = connection.execute(f"PRAGMA {check}").fetchone()
    if isinstance(row[0], str) and row[0] != "ok":
        raise _corrupt(path)


def _fold_log(connection: sqlite3.Connection) -> bool:
    with _mapped_errors():
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def _close(writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    # a disk that refuses now has refused before, to somebody who heard of it; the log is folded in at the next start
    with contextlib.suppress(*engine.errors()):
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if reader is not writer:
        reader.close()
    writer.close()


def _corrupt(path: Path | None) -> CorruptFileError:
    name = "The message database" if path is None else f"The message database {path}"
    return CorruptFileError(
        f"{name} is damaged; it was left as it is: move it away to begin a new one, or restore a backup.",
        path=str(path),
    )


def _translated(exc: BaseException, path: Path | None = None) -> BaseException:
    """Return our error for one of SQLite's; others as they are."""
    if not isinstance(exc, engine.errors()):
        return exc
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    translated: P2PError
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        translated = _corrupt(path)
    elif code == sqlite3.SQLITE_FULL:
        translated = StorageError("The disk is full: nothing was stored. Make room and try again.", sqlite=str(exc))
    elif code == sqlite3.SQLITE_READONLY:
        translated = StorageError("The message database cannot be written: it is read-only.", sqlite=str(exc))
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        translated = StorageError("The message database is in use by another program.", sqlite=str(exc))
    else:
        translated = StorageError(
            "The message database cannot be used; see the log for SQLite's reason.", sqlite=str(exc)
        )
    translated.__cause__ = exc
    return translated


@contextlib.contextmanager
def _mapped_errors(path: Path | None = None) -> Iterator[None]:
    try:
        yield
    except engine.errors() as exc:
        raise _translated(exc, path) from exc
    except OSError as exc:
        raise StorageError(f"The message database cannot be opened: {exc.strerror}.", path=str(path)) from exc
