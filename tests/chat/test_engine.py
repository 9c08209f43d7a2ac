"""The database encrypted at rest, and its change from plain to encrypted and back."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
from pathlib import Path

import pytest
from support.require import require

from p2pnode import CorruptFileError, NodeKey, StorageError, UserId
from p2pnode.chat import HALL, ChatStore, DatabaseKey, encryption_available, engine
from p2pnode.chat.schema import MIGRATIONS
from p2pnode.chat.store import Incoming

SECRET = "the zebra walks at midnight"
KEY = NodeKey.generate(random.Random("engine").randbytes)
AUTHOR = NodeKey.generate(random.Random("author").randbytes).peer_id
AUTHOR_USER = UserId(AUTHOR.raw)


@pytest.fixture(autouse=True)
def _cipher() -> None:
    require(encryption_available(), "sqlcipher3 is not installed (extra `encryption`)")


def key(*, wanted: bool = True, node: NodeKey = KEY) -> DatabaseKey:
    return DatabaseKey.of(node, wanted=wanted)


async def filled(path: Path, database_key: DatabaseKey | None, count: int = 20) -> None:
    store = await ChatStore.open(path, key=database_key)
    await asyncio.gather(*(store.receive(incoming(number)) for number in range(count)))
    await store.close()


def incoming(number: int) -> Incoming:
    return Incoming(
        number.to_bytes(16, "big"), AUTHOR, AUTHOR_USER, True, number, f"{SECRET} {number}", 0, 0, "zoephoebe"
    )


async def read(path: Path, database_key: DatabaseKey | None, *, read_only: bool = False) -> list[str]:
    store = await ChatStore.open(path, key=database_key, read_only=read_only)
    try:
        texts = [message.text for message in await store.history(HALL, limit=1000)]
        assert [m.text for m in await store.history(HALL, search="ZEBRA walks")] == texts
        index = "SELECT count(*) FROM messages_text WHERE messages_text MATCH '\"zeb\"'"
        assert await store.database.read(lambda c: c.execute(index).fetchone()[0]) == len(texts)
        return texts
    finally:
        await store.close()


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_nothing_of_an_encrypted_file_can_be_read_not_even_its_log(tmp_path: Path) -> None:
    """No text, name, key or header in file, write-ahead log and copies; mode 0600."""

    async def main() -> None:
        path = tmp_path / "chat.db"
        store = await ChatStore.open(path, key=key())
        await asyncio.gather(*(store.receive(incoming(number)) for number in range(20)))
        data = everything(tmp_path)
        assert data.count(b"zeb") < 5  # a word of the index, in each message; three bytes meet by chance in ciphertext
        for needle in (b"zebra", b"zoephoebe", b"messages", b"SQLite format", AUTHOR.raw, AUTHOR_USER.raw):
            assert needle not in data
        assert modes(tmp_path) == {0o600}
        await store.close()
        assert len(await read(path, key())) == 20
        assert len(await read(path, key(), read_only=True)) == 20

    asyncio.run(main())


def test_z1_a_wrong_key_or_damage_is_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "chat.db"
        await filled(path, key())
        before = path.read_bytes()
        other = NodeKey.generate(random.Random("other").randbytes)
        for wrong in (key(node=other), key(node=other, wanted=False), None):
            with pytest.raises(CorruptFileError):
                await ChatStore.open(path, key=wrong)
        assert path.read_bytes() == before
        damaged = bytearray(before)
        damaged[5000] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError):
            await ChatStore.open(path, key=key())
        assert path.read_bytes() == damaged

    asyncio.run(main())


def test_a_passphrase_encrypts_what_is_there_with_its_copies_and_its_end_makes_it_plain(tmp_path: Path) -> None:
    """Messages, search, triggers and version stay; the next start does it, whoever opens it only to read does not."""

    async def main() -> None:
        path = tmp_path / "chat.db"
        old = sqlite3.connect(tmp_path / "chat-v1.db")
        old.execute("CREATE TABLE t (x)")
        old.execute("INSERT INTO t VALUES (?)", (SECRET,))
        old.commit()
        old.close()
        await filled(path, None)
        assert b"zebra" in everything(tmp_path)
        texts = await read(path, key(), read_only=True)
        assert engine.is_plain(path)
        assert await read(path, key()) == texts
        assert b"zebra" not in everything(tmp_path)
        assert names(tmp_path) == ["chat-v1.db", "chat.db"]
        store = await ChatStore.open(path, key=key())
        assert (await store.receive(incoming(3))).kind == "duplicate"
        assert (await store.receive(incoming(99))).kind == "new"
        await store.database.write(
            lambda c: c.execute("DELETE FROM messages WHERE id = ?", ((99).to_bytes(16, "big"),))
        )
        check = "INSERT INTO messages_text (messages_text, rank) VALUES ('integrity-check', 0)"
        await store.database.write(lambda c: c.execute(check))
        assert await store.database.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0]) == len(MIGRATIONS)
        assert await store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
        await store.close()
        assert await read(path, key(wanted=False)) == texts
        assert engine.is_plain(path)
        assert await read(path, None) == texts

    asyncio.run(main())


@pytest.mark.parametrize("step", ["export", "replace"])
def test_w1_a_change_that_breaks_off_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The power fails while the file is written anew, or just before it takes the old one's place."""

    class PowerCutError(BaseException):
        pass

    def cut(*_arguments: object) -> None:
        raise PowerCutError

    async def main() -> None:
        path = tmp_path / "chat.db"
        await filled(path, None)
        with monkeypatch.context() as patch:
            if step == "replace":
                patch.setattr(Path, "replace", cut)
            else:
                patch.setattr(os, "fsync", cut)
            with pytest.raises(PowerCutError):
                await ChatStore.open(path, key=key())
        assert len(await read(path, None)) == 20
        assert len(await read(path, key())) == 20
        assert not engine.is_plain(path)
        assert names(tmp_path) == ["chat.db"]

    asyncio.run(main())


def test_an_older_encrypted_file_is_migrated_and_its_copy_is_encrypted(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "chat.db"
        store = await ChatStore.open(path, key=key(), migrations=MIGRATIONS[:3])
        await store.close()
        await filled(path, key())
        copy = tmp_path / "chat-v3.db"
        assert copy.exists()
        assert not engine.is_plain(copy)
        assert len(await read(path, key())) == 20

    asyncio.run(main())


def test_without_the_extra_plain_files_work_and_encrypted_ones_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        encrypted, plain = tmp_path / "a" / "chat.db", tmp_path / "b" / "chat.db"
        for path, database_key in ((encrypted, key()), (plain, None)):
            path.parent.mkdir()
            await filled(path, database_key)
        monkeypatch.setattr(engine, "_cipher", lambda: None)
        assert len(await read(plain, key())) == 20
        assert engine.is_plain(plain)
        with pytest.raises(StorageError, match="pip install") as caught:
            await ChatStore.open(encrypted, key=key())
        assert caught.value.code == "missing_package"
        with pytest.raises(CorruptFileError):
            await ChatStore.open(encrypted, key=None)

    asyncio.run(main())


def test_z2_the_key_is_in_no_text_of_ours() -> None:
    """Nor is it the node's own, and each node has another."""
    made = key()
    assert made.raw.hex() not in repr(made) + str(made)
    assert repr(made.raw) not in repr(made)
    assert made.raw != KEY.seed
    assert made.raw != key(node=NodeKey.generate(random.Random("other").randbytes)).raw
    assert made.raw.hex() == "a943e0eac74ec9a5b31c70bdb034f2d374d0d31e4a9319559a77fa14649ae457"
