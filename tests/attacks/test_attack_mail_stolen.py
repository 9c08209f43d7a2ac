"""A thief has every file of the reader's home, and every letter that ever lay in the network (security.md P2)."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders

from p2pnode.chat import MessageReceived
from p2pnode.chat.database import Database
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.granting import ROTATE_S
from p2pnode.chat.mail.letters import Slot
from p2pnode.chat.mail.service import ERASE_S
from p2pnode.chat.schema import MIGRATIONS
from p2pnode.simulations.virtual import VirtualLoop

LETTERS = 24


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=1e7)  # type: ignore[arg-type]


async def friends(world: FakeWorld, folder: Path) -> tuple[Person, Person]:
    """Two contacts with the means to leave each other mail, out of each other's reach."""
    alice, bob = await Person(world, "alice").start(), await Person(world, "bob", folder / "chat.db").start()
    await befriend(alice, bob)
    await alice.chat.send(bob.node.user_id, "first", wait=5.0)
    await asyncio.sleep(1.0)
    part(world, alice, bob)
    return alice, bob


def part(world: FakeWorld, one: Person, other: Person) -> None:
    world.walls.add(frozenset((one.node, other.node)))
    for session in [*one.node.sessions(), *other.node.sessions()]:
        session.break_off("lost")


def stolen(folder: Path) -> dict[str, bytes]:
    """Return all files of a home: the database, its log and index, copies."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def found(files: dict[str, bytes], secrets: dict[str, bytes]) -> list[str]:
    return [f"{what} in {name}" for name, data in files.items() for what, secret in secrets.items() if secret in data]


async def read_letters(alice: Person, bob: Person, count: int) -> dict[str, bytes]:
    """Alice writes letters, Bob reads them; return the secrets that opened them."""
    [given, *_] = await bob.store.database.read(tables.given)
    before = len(bob.of_type(MessageReceived))
    for number in range(count):
        await alice.chat.send(bob.node.user_id, f"{number} " + "x" * 400 * (number % 3))
        await asyncio.sleep(10.0)
    await until(bob, lambda: len(bob.of_type(MessageReceived)) == before + count, timeout=600.0)
    slots = [Slot(given.secret).next(steps) for steps in range(count)]
    return {f"slot {number}": slot.secret for number, slot in enumerate(slots)}


@pytest.mark.slow
def test_attack_p2_a_stolen_home_holds_no_secret_of_a_letter_that_was_read(tmp_path: Path) -> None:
    """Neither in the database, nor in its free pages, nor in its log; and after a rotation no key of the old chain."""

    async def main(world: FakeWorld) -> None:
        (home := tmp_path / "bob").mkdir()
        alice, bob = await friends(world, home)
        secrets = await read_letters(alice, bob, LETTERS)
        [before] = await bob.store.database.read(tables.given)
        await asyncio.sleep(2 * ERASE_S)
        kept = found(stolen(home), secrets)
        print(f"P2: of {len(secrets)} secrets of letters that were read {len(kept)} are in the files")
        assert kept == []
        world.walls.clear()
        await asyncio.sleep(ROTATE_S)
        assert (await alice.chat.send(bob.node.user_id, "we meet", wait=60.0)).delivered
        await asyncio.sleep(2 * ERASE_S)
        [after] = await bob.store.database.read(tables.given)
        assert after.id != before.id
        secrets |= {"private key": before.private, "next slot": before.secret}
        assert found(stolen(home), secrets) == []

    run(main)


@pytest.mark.slow
def test_attack_p2_the_copy_for_an_older_program_opens_no_letter(tmp_path: Path) -> None:
    """The database is copied before it is brought up. Its secrets would open all until a rotation."""

    async def main(world: FakeWorld) -> None:
        (home := tmp_path / "bob").mkdir()
        alice, bob = await friends(world, home)
        [before] = await bob.store.database.read(tables.given)
        taken = await bob.store.database.read(lambda c: tables.taken(c, alice.node.peer_id))
        assert taken is not None
        await bob.stop()
        newer = [*MIGRATIONS, ("CREATE TABLE later (x)",)]
        database = await Database.open(home / "chat.db", migrations=newer)
        [now] = await database.read(tables.given)
        await database.close()
        copy = home / f"chat-v{len(MIGRATIONS)}.db"
        secrets = {"slot": before.secret, "private key": before.private, "writer's slot": taken.secret}
        assert found({"copy": copy.read_bytes()}, secrets) == []
        assert now == before
        old = sqlite3.connect(shutil.copy(copy, tmp_path / "again.db"))
        assert old.execute("SELECT count(*) FROM messages").fetchone() == (1,)
        old.close()

    run(main)
