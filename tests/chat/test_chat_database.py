"""The file under the chat: private, durable, migrated, and honest about its failures."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from p2pnode import CorruptFileError, P2PError, PeerBlockedError, PeerId, StorageError, UserId
from p2pnode.chat import ChatStore
from p2pnode.chat.database import Database
from p2pnode.chat.schema import MIGRATIONS
from p2pnode.chat.store import Outgoing

RNG = random.Random("chat store")
ME, OTHER, OTHER2 = (PeerId(RNG.randbytes(32)) for _ in range(3))
MY_USER, FRIEND, STRANGER = (UserId(RNG.randbytes(32)) for _ in range(3))


def outgoing(text: str, *, party: Any = FRIEND, devices: tuple[PeerId, ...] = (OTHER,), at: int = 1000) -> Outgoing:
    return Outgoing(RNG.randbytes(16), ME, MY_USER, party, text, at, devices)


def with_store(work: Callable[[ChatStore], Awaitable[None]], path: Path | None = None) -> None:
    async def main() -> None:
        store = await ChatStore.open(path)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(main())


async def befriended(store: ChatStore) -> None:
    await store.put_contact(FRIEND, "accepted", now_ms=1)


async def caught(work: Awaitable[Any]) -> StorageError | None:
    try:
        await work
    except StorageError as exc:
        return exc
    return None


def test_new_database_is_private_and_has_the_current_version(tmp_path: Path) -> None:
    """The file is 0600, in WAL mode, and at the newest schema version."""
    path = tmp_path / "chat.db"

    async def work(store: ChatStore) -> None:
        await befriended(store)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.with_name("chat.db-wal").stat().st_mode) == 0o600

    with_store(work, path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_migration_is_applied_once_and_keeps_data(tmp_path: Path) -> None:
    """A file of an older version gets what it lacks; nothing is lost."""
    path = tmp_path / "chat.db"
    with_store(lambda store: store.add_outgoing(outgoing("kept")), path)  # type: ignore[arg-type,return-value]
    newer = (*MIGRATIONS, ("ALTER TABLE messages ADD COLUMN extra TEXT NOT NULL DEFAULT 'x'",))

    async def main() -> None:
        for _ in range(2):
            store = await ChatStore.open(path, migrations=newer)
            assert [m.text for m in await store.history(FRIEND)] == ["kept"]
            await store.close()

    asyncio.run(main())


def test_older_database_is_copied_and_counts_as_seen(tmp_path: Path) -> None:
    """Before a migration a copy is made that the older program can read; what was there before is not unread."""
    path = tmp_path / "chat.db"

    async def main() -> None:
        old = await ChatStore.open(path, migrations=MIGRATIONS[:1])
        await old.database.write(lambda c: c.execute("INSERT INTO conversations (kind, key) VALUES ('hall', x'')"))
        await old.database.write(
            lambda c: c.execute(
                "INSERT INTO messages (id, author, conversation, ordinal, author_seq, outgoing, text, sent_at,"
                " received_at, state) VALUES (zeroblob(16), ?, 1, 1, 1, 0, 'old', 0, 0, 'received')",
                (bytes([9] * 32),),
            )
        )
        await old.close()
        store = await ChatStore.open(path)
        assert [(s.messages, s.unread) for s in await store.conversations()] == [(1, 0)]
        await store.close()
        copy = await ChatStore.open(tmp_path / "chat-v1.db", migrations=MIGRATIONS[:1])
        texts = await copy.database.read(lambda c: c.execute("SELECT text FROM messages").fetchall())
        assert texts == [("old",)]
        await copy.close()

    asyncio.run(main())
    assert stat.S_IMODE((tmp_path / "chat-v1.db").stat().st_mode) == 0o600
    assert sorted(found.name for found in tmp_path.iterdir()) == ["chat-v1.db", "chat.db"]


def test_failing_migration_leaves_the_old_version(tmp_path: Path) -> None:
    """Half a migration is no migration: the file stays as it was and opens with the old program."""
    path = tmp_path / "chat.db"
    with_store(lambda store: store.add_outgoing(outgoing("kept")), path)  # type: ignore[arg-type,return-value]
    broken = (*MIGRATIONS, ("CREATE TABLE half (a)", "CREATE TABLE half (a)"))
    with pytest.raises(StorageError):
        asyncio.run(ChatStore.open(path, migrations=broken))
    with_store(befriended, path)


def test_newer_database_is_refused(tmp_path: Path) -> None:
    """A file of a newer program is not touched."""
    path = tmp_path / "chat.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    with pytest.raises(StorageError, match="newer"):
        asyncio.run(ChatStore.open(path))


def test_waiting_writes_share_one_commit() -> None:
    """A hundred messages that wait together cost a few commits, not a hundred."""

    async def work(store: ChatStore) -> None:
        before = store.database.commits
        await asyncio.gather(*(store.add_outgoing(outgoing(str(n))) for n in range(100)))
        assert store.database.commits - before <= 2
        assert [m.text for m in await store.history(FRIEND, limit=200)] == [str(n) for n in range(100)]

    with_store(work)


def test_one_failing_write_does_not_harm_the_others_of_its_commit() -> None:
    """Each caller gets its own outcome."""

    async def work(store: ChatStore) -> None:
        await store.put_contact(STRANGER, "blocked", now_ms=1)
        results = await asyncio.gather(
            store.add_outgoing(outgoing("a")),
            store.add_outgoing(outgoing("b", party=STRANGER)),
            store.add_outgoing(outgoing("c")),
            return_exceptions=True,
        )
        assert [isinstance(r, PeerBlockedError) for r in results] == [False, True, False]
        assert [m.text for m in await store.history(FRIEND)] == ["a", "c"]

    with_store(work)


def test_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    """What fits is kept, what does not is refused with StorageError, and room makes it work again."""
    path = tmp_path / "chat.db"

    async def work(store: ChatStore) -> None:
        def shrink(connection: sqlite3.Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        await store.database.read(lambda _: shrink(store.database._writer))
        results = [await caught(store.add_outgoing(outgoing("x" * 3000))) for _ in range(10)]
        stored = sum(result is None for result in results)
        assert stored < 10
        assert all("disk is full" in str(result) for result in results[stored:])
        assert len(await store.history(FRIEND)) == stored
        store.database._writer.execute("PRAGMA max_page_count = 100000")
        await store.add_outgoing(outgoing("y"))
        assert len(await store.history(FRIEND)) == stored + 1

    with_store(work, path)


@pytest.mark.parametrize("damage", ["header", "page", "text"])
def test_corrupt_database_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    """One sentence, and not a byte of the file changes."""
    path = tmp_path / "chat.db"

    async def fill(store: ChatStore) -> None:
        for number in range(50):
            await store.add_outgoing(outgoing("text " * 100 + str(number)))

    with_store(fill, path)
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[:16] = bytes(16)
    elif damage == "page":
        data[4096:12288] = b"\xff" * 8192
    else:
        data = bytearray(b"this is not a database, but somebody's notes\n" * 20)
    path.write_bytes(data)
    with pytest.raises(CorruptFileError) as caught:
        asyncio.run(ChatStore.open(path))
    assert str(path) in caught.value.message
    assert path.read_bytes() == data


def test_read_only_database_can_be_read_but_not_written(tmp_path: Path) -> None:
    """Reading commands work beside a running node or on a read-only home."""
    path = tmp_path / "chat.db"
    with_store(lambda store: store.add_outgoing(outgoing("kept")), path)  # type: ignore[arg-type,return-value]

    async def main() -> None:
        store = await ChatStore.open(path, read_only=True)
        assert [m.text for m in await store.history(FRIEND)] == ["kept"]
        with pytest.raises(StorageError, match="read-only"):
            await store.add_outgoing(outgoing("no"))
        await store.close()

    asyncio.run(main())


def test_folder_that_does_not_exist_is_a_storage_error(tmp_path: Path) -> None:
    """OSError never reaches the caller."""
    with pytest.raises(StorageError):
        asyncio.run(ChatStore.open(tmp_path / "missing" / "chat.db"))


def test_killed_writer_loses_no_committed_message(tmp_path: Path) -> None:
    """A process that dies by SIGKILL in the middle of writing leaves all it reported, in order, once."""
    path = tmp_path / "chat.db"
    script = """
        import asyncio, os, sys
        from pathlib import Path
        from p2pnode import PeerId, UserId
        from p2pnode.chat import ChatStore
        from p2pnode.chat.store import Outgoing

        async def main():
            store = await ChatStore.open(Path(sys.argv[1]))
            for n in range(100000):
                await store.add_outgoing(
                    Outgoing(os.urandom(16), PeerId(bytes([7] * 32)), UserId(bytes([8] * 32)), UserId(bytes([9] * 32)),
                             str(n), n, ())
                )
                os.write(1, b"%d\\n" % n)

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], stdout=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout is not None
        for _ in range(50):
            last = process.stdout.readline()
        process.kill()
        rest = process.stdout.read().split(b"\n")
    reported = max([int(last), *(int(line) for line in rest[:-1] if line)])

    async def work(store: ChatStore) -> None:
        texts = [m.text for m in await store.history(UserId(bytes([9] * 32)), limit=200_000)]
        assert texts == [str(n) for n in range(len(texts))]
        assert len(texts) > reported

    with_store(work, path)


def test_closed_database_refuses_politely() -> None:
    """Late callers get an error of ours."""

    async def main() -> None:
        database = await Database.open(None)
        await database.close()
        await database.close()
        with pytest.raises(P2PError):
            await database.write(lambda c: None)

    asyncio.run(main())


def test_nobody_reads_in_the_midst_of_a_write_in_memory() -> None:
    """There is one connection then. A thread in it that calls back into Python, and another that asks it something,
    stood still for ever."""
    writing, read = threading.Event(), threading.Event()

    def write(connection: sqlite3.Connection) -> bool:
        connection.execute("CREATE TABLE t (a)")
        writing.set()
        return read.wait(0.05)

    def look(connection: sqlite3.Connection) -> int:
        read.set()
        return len(connection.execute("SELECT * FROM t").fetchall())

    async def main() -> None:
        database = await Database.open(None, asyncio.to_thread)
        task = asyncio.create_task(database.write(write))
        await asyncio.to_thread(writing.wait, 5)
        assert await database.read(look) == 0
        assert not await task, "read before it was committed"
        await database.close()

    asyncio.run(main())
