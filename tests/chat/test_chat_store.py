"""The database of the chat: durable, migrated, exactly once, in order, and honest about its failures."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from p2pnode import CorruptFileError, NotFoundError, P2PError, PeerBlockedError, PeerId, StorageError, UserId
from p2pnode.chat import ChatStore
from p2pnode.chat.database import Database
from p2pnode.chat.schema import MIGRATIONS
from p2pnode.chat.store import Incoming, Outgoing, Received

RNG = random.Random("chat store")
ME, OTHER, OTHER2 = (PeerId(RNG.randbytes(32)) for _ in range(3))
MY_USER, FRIEND, STRANGER = (UserId(RNG.randbytes(32)) for _ in range(3))


def outgoing(text: str, *, party: Any = FRIEND, devices: tuple[PeerId, ...] = (OTHER,), at: int = 1000) -> Outgoing:
    return Outgoing(RNG.randbytes(16), ME, MY_USER, party, text, at, devices)


def incoming(text: str, sequence: int, *, user: UserId = FRIEND, hall: bool = False, id_: bytes = b"") -> Incoming:
    return Incoming(id_ or RNG.randbytes(16), OTHER, user, hall, sequence, text, 1000, 1001, "bob")


def with_store(work: Callable[[ChatStore], Awaitable[None]], path: Path | None = None) -> None:
    async def main() -> None:
        store = await ChatStore.open(path)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(main())


async def caught(work: Awaitable[Any]) -> StorageError | None:
    try:
        await work
    except StorageError as exc:
        return exc
    return None


async def befriended(store: ChatStore) -> None:
    await store.put_contact(FRIEND, "accepted", now_ms=1)


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


def test_message_is_stored_once_however_often_it_comes() -> None:
    """The same author and id is a duplicate; the same id of another author is not."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        first = incoming("hi", 1)
        kinds = [(await store.receive(first)).kind for _ in range(3)]
        assert kinds == ["new", "duplicate", "duplicate"]
        stolen = Incoming(first.id, OTHER2, FRIEND, False, 1, "other author", 1, 1)
        assert (await store.receive(stolen)).kind == "new"
        assert [m.text for m in await store.history(FRIEND)] == ["hi", "other author"]

    with_store(work)


def test_late_message_is_shown_before_later_ones_of_its_author() -> None:
    """Order is the author's, whatever the order of arrival; others' messages stay where they were."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        await store.receive(incoming("1", 1))
        await store.receive(incoming("3", 3))
        await store.add_outgoing(outgoing("mine"))
        await store.receive(incoming("4", 4))
        await store.receive(incoming("2", 2))
        assert [m.text for m in await store.history(FRIEND)] == ["1", "2", "3", "mine", "4"]

    with_store(work)


@pytest.mark.parametrize("seed", range(5))
def test_every_order_of_arrival_gives_the_order_of_writing(seed: int) -> None:
    """Shuffled and doubled arrivals of 30 messages end in order, once each."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        messages = [incoming(str(n), n) for n in range(1, 31)]
        arrivals = messages * 2
        random.Random(seed).shuffle(arrivals)
        await asyncio.gather(*(store.receive(m) for m in arrivals))
        assert [m.text for m in await store.history(FRIEND)] == [str(n) for n in range(1, 31)]

    with_store(work)


def test_first_message_of_a_stranger_is_a_request_and_the_second_is_refused() -> None:
    """Until the user decides; then they come."""

    async def work(store: ChatStore) -> None:
        first = await store.receive(incoming("hello", 1, user=STRANGER))
        assert first.kind == "request"
        assert first.contact is not None
        assert first.contact.name == "bob"
        assert (await store.receive(incoming("again", 2, user=STRANGER))).code == "request_pending"
        await store.put_contact(STRANGER, "accepted", now_ms=1)
        assert (await store.receive(incoming("again", 2, user=STRANGER))).kind == "new"
        assert (await store.receive(incoming("x", 3, user=MY_USER), strangers=False)).code == "busy"

    with_store(work)


def test_blocked_people_are_refused_in_both_directions() -> None:
    """Nothing is stored from them, nothing is sent to them."""

    async def work(store: ChatStore) -> None:
        await store.put_contact(FRIEND, "blocked", now_ms=1)
        assert (await store.receive(incoming("hi", 1))) == Received("refused", code="blocked")
        assert (await store.receive(incoming("hi", 1, hall=True))) == Received("refused", code="blocked")
        with pytest.raises(PeerBlockedError):
            await store.add_outgoing(outgoing("hi"))
        assert await store.history(FRIEND) == []

    with_store(work)


def test_outbox_survives_reopening_and_ends_with_the_acknowledgement(tmp_path: Path) -> None:
    """What was queued is there after a restart; what was acknowledged is not."""
    path = tmp_path / "chat.db"

    async def first(store: ChatStore) -> None:
        await store.add_outgoing(outgoing("one"))
        await store.add_outgoing(outgoing("two", devices=(OTHER, OTHER2)))

    async def second(store: ChatStore) -> None:
        items = await store.outbox(OTHER)
        assert [item.text for item in items] == ["one", "two"]
        store.mark_delivered(OTHER, [item.position for item in items])

    async def third(store: ChatStore) -> None:
        assert await store.outbox_devices() == [OTHER2]
        assert [m.state for m in await store.history(FRIEND)] == ["delivered", "delivered"]

    for work in (first, second, third):
        with_store(work, path)


def test_unresolved_messages_go_to_the_devices_once_known() -> None:
    """A message to a user without known devices waits, and is then addressed to each."""

    async def work(store: ChatStore) -> None:
        await store.add_outgoing(outgoing("hi", devices=()))
        assert await store.outbox_unresolved() == [FRIEND]
        await store.outbox_add_devices(FRIEND, [OTHER, OTHER2], since_ms=0)
        assert await store.outbox_unresolved() == []
        assert [i.text for d in (OTHER, OTHER2) for i in await store.outbox(d)] == ["hi", "hi"]

    with_store(work)


def test_conversation_with_a_device_becomes_its_users() -> None:
    """Once a device proves whose it is, its history, contact and petname are the user's."""

    async def work(store: ChatStore) -> None:
        await store.add_outgoing(outgoing("to the device", party=OTHER))
        await store.rename_contact(OTHER, "Bobby")
        await store.learn_device(OTHER, FRIEND, "bob", now_ms=5)
        assert [m.text for m in await store.history(FRIEND)] == ["to the device"]
        assert [(c.party, c.petname, c.state, c.devices) for c in await store.contacts()] == [
            (FRIEND, "Bobby", "accepted", (OTHER,))
        ]

    with_store(work)


def test_history_is_paged_and_searched_without_regard_to_case() -> None:
    """`before` pages back, `search` finds in any case of any script."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        for number, text in enumerate(["Straße 1", "two", "STRASSE 3", "100% done", "under_score"], 1):
            await store.receive(incoming(text, number))
        assert [m.text for m in await store.history(FRIEND, search="strasse")] == ["Straße 1", "STRASSE 3"]
        assert [m.text for m in await store.history(FRIEND, search="0% D")] == ["100% done"]
        last = await store.history(FRIEND, limit=2)
        assert [m.text for m in last] == ["100% done", "under_score"]
        assert [m.text for m in await store.history(FRIEND, limit=2, before=last[0].position)] == ["two", "STRASSE 3"]

    with_store(work)


def test_followers_see_each_message_once() -> None:
    """`messages(after=...)` continues where the last answer ended."""

    async def work(store: ChatStore) -> None:
        await befriended(store)
        await store.receive(incoming("1", 1))
        position = await store.last_position()
        await store.receive(incoming("3", 3))
        await store.receive(incoming("2", 2))
        assert [m.text for m in await store.messages(after=position)] == ["3", "2"]
        with pytest.raises(NotFoundError):
            await store.message("00" * 16)

    with_store(work)


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
