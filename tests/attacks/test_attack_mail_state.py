"""Attacks on what mail remembers: restored databases, copies, hostile contacts (security.md P2, R3, W1)."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders

from p2pnode import NodeKey
from p2pnode.chat import MessageReceived, MessageStateChanged
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.letters import LetterMessage, Slot, seal
from p2pnode.chat.mail.postbox import Postbox
from p2pnode.simulations.virtual import VirtualLoop

DAY_S = 86_400.0


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=1e7)  # type: ignore[arg-type]


async def friends(world: FakeWorld, folder: Path) -> tuple[Person, Person]:
    """Two contacts with the means to leave each other mail."""
    alice = await Person(world, "alice", folder / "alice.db").start()
    bob = await Person(world, "bob", folder / "bob.db").start()
    await befriend(alice, bob)
    await alice.chat.send(bob.node.user_id, "first", wait=5.0)
    await asyncio.sleep(1.0)
    return alice, bob


async def again(world: FakeWorld, folder: Path) -> Person:
    """Start Alice once more; chance goes on, or the fake would draw the same message ids again."""
    alice = await Person(world, "alice", folder / "alice.db").start()
    alice.node.network.rng = random.Random(f"again {asyncio.get_running_loop().time()}")
    return alice


def part(world: FakeWorld, one: Person, other: Person) -> None:
    """They reach each other no more, but for mail."""
    world.walls.add(frozenset((one.node, other.node)))
    for session in [*one.node.sessions(), *other.node.sessions()]:
        session.break_off("lost")


def delivered(person: Person) -> list[str]:
    return [event.id for event in person.of_type(MessageStateChanged) if event.state == "delivered"]


def test_w1_a_restored_database_takes_no_earlier_letters_removal_for_its_own(tmp_path: Path) -> None:
    """Alice's disk of yesterday comes back: she writes where letters stood that Bob has read. Holders that missed the
    removal take the new letter; nothing is delivered that Bob does not have, and all of it comes."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path)
        await alice.stop()
        shutil.copy(tmp_path / "alice.db", tmp_path / "backup.db")
        alice = await again(world, tmp_path)
        part(world, alice, bob)
        for text in ("one", "two", "three"):
            assert (await alice.chat.send(bob.node.user_id, text)).state == "stored"
        await bob.chat.mail.fetch()
        assert await bob.texts(alice.node.user_id) == ["first", "one", "two", "three"]
        await alice.stop()
        shutil.copy(tmp_path / "backup.db", tmp_path / "alice.db")
        alice = await again(world, tmp_path)
        part(world, alice, bob)
        assert world.holders is not None
        holders, honest = world.holders, alice.node.put_mail
        before = dict(holders.records)

        async def put_mail(seed: bytes, part: int, value: bytes, *, final: bool = False) -> object:
            done = await honest(seed, part, value, final=final)
            if done.stored or not before:
                return done
            return type(done)(12, 20, done.expires)  # most of the holders have not heard of the removal

        alice.node.put_mail = put_mail  # type: ignore[method-assign, assignment]
        sent = await alice.chat.send(bob.node.user_id, "after the restore")
        await asyncio.sleep(3 * 3600.0)
        await bob.chat.mail.fetch()
        print("R3:", (await alice.store.message(sent.id)).state, await bob.texts(alice.node.user_id))
        assert (await bob.texts(alice.node.user_id))[-1] == "after the restore"
        await asyncio.sleep(3 * 3600.0)
        assert (await alice.store.message(sent.id)).state == "delivered"

    run(main)


def test_r3_who_lost_count_of_its_slots_gets_others_at_the_next_meeting(tmp_path: Path) -> None:
    """Alice's older database comes back, they meet within a day of the grant: she writes in no slot that was read."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path)
        await alice.stop()
        shutil.copy(tmp_path / "alice.db", tmp_path / "backup.db")
        alice = await again(world, tmp_path)
        part(world, alice, bob)
        for text in ("one", "two"):
            await alice.chat.send(bob.node.user_id, text)
        await bob.chat.mail.fetch()
        [first] = await bob.store.database.read(tables.given)
        assert first.base == 2
        await alice.stop()
        shutil.copy(tmp_path / "backup.db", tmp_path / "alice.db")
        alice = await again(world, tmp_path)
        assert (await alice.chat.send(bob.node.user_id, "we meet", wait=30.0)).delivered
        await asyncio.sleep(2.0)
        held = await alice.store.database.read(lambda c: tables.taken(c, bob.node.peer_id))
        assert held is not None
        assert held.id != first.id
        part(world, alice, bob)
        assert (await alice.chat.send(bob.node.user_id, "by mail")).state == "stored"
        await bob.chat.mail.fetch()
        assert (await bob.texts(alice.node.user_id))[-1] == "by mail"

    run(main)


@pytest.mark.long
def test_p2_a_contact_that_leaves_out_slots_makes_nobody_look_for_thousands(tmp_path: Path) -> None:
    """A letter in each second slot: of the slots between them so many are looked for as letters may wait."""

    async def main(world: FakeWorld) -> None:
        mallory, bob = await friends(world, tmp_path)
        held = await mallory.store.database.read(lambda c: tables.taken(c, bob.node.peer_id))
        assert held is not None
        part(world, mallory, bob)
        slot, box = Slot(held.secret), Postbox(mallory.node)
        for number in range(200):
            ids = number.to_bytes(16, "big")
            message = LetterMessage(ids, number, 0, str(number))
            slot = slot.next()
            await box.store(
                slot.seed, seal(slot, bob.node.peer_id, held.key, mallory.node.key, [message], ids + bytes([1] * 16))
            )
            slot = slot.next()
        for _ in range(60):
            await bob.chat.mail.fetch()
            await asyncio.sleep(10.0)  # another round may have been at it
        [given] = await bob.store.database.read(tables.given)
        missing = await bob.store.database.read(lambda c: tables.missing(c, given.id))
        print(f"P2: {given.base} slots passed, {len(missing)} looked for")
        assert given.base == 400
        assert 0 < len(missing) <= tables.MAX_MISSING

    run(main)


def test_p2_devices_of_a_contact_that_are_known_no_more_leave_nothing(tmp_path: Path) -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path)
        [given] = await bob.store.database.read(tables.given)

        def fill(connection: sqlite3.Connection) -> None:
            for number in range(3 * tables.MAX_UNKNOWN):
                device = NodeKey.generate(random.Random(number).randbytes).peer_id
                tables.put_given(connection, replace(given, id=number.to_bytes(8, "big"), device=device))
                tables.put_taken(connection, tables.Taken(device, bytes(8), bytes(32), bytes(32), 0), number)

        await bob.store.database.write(fill)
        await bob.chat.mail.fetch()
        kept = await bob.store.database.read(tables.given)
        print(f"P2: {len(kept)} of {3 * tables.MAX_UNKNOWN + 1} chains are kept")
        assert len(kept) == tables.MAX_UNKNOWN + 1
        assert given in kept
        held = await bob.store.database.read(lambda c: c.execute("SELECT count(*) FROM mail_taken").fetchone()[0])
        assert held <= tables.MAX_UNKNOWN + 1
        assert await bob.store.database.read(lambda c: tables.taken(c, alice.node.peer_id)) is not None

    run(main)


def test_p2_a_reader_who_fills_all_slots_ahead_makes_its_writer_hurry_through_none_of_them(tmp_path: Path) -> None:
    """Bob leaves removals in 300 slots that Alice has yet to write in: she tries a few of them a minute."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path)
        [given] = await bob.store.database.read(tables.given)
        part(world, alice, bob)
        slot, box = Slot(given.secret), Postbox(bob.node)
        for _ in range(300):
            await box.skip(slot.seed)
            slot = slot.next()
        asked = 0
        honest = alice.node.put_mail

        async def put_mail(*args: object, **names: object) -> object:
            nonlocal asked
            asked += 1
            return await honest(*args, **names)  # type: ignore[arg-type]

        alice.node.put_mail = put_mail  # type: ignore[method-assign, assignment]
        assert (await alice.chat.send(bob.node.user_id, "for you")).state == "queued"
        await asyncio.sleep(600.0)
        held = await alice.store.database.read(lambda c: tables.taken(c, bob.node.peer_id))
        assert held is not None
        print(f"P2: {held.used} slots and {asked} stores in ten minutes")
        assert asked < 150
        world.walls.clear()
        await until(bob, lambda: len(bob.of_type(MessageReceived)) == 2, timeout=600.0)

    run(main)
