"""First letters: what a stranger leaves somebody who is away, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, until
from support.chat_mail import FakeHolders

from p2pnode.chat import MessageReceived, MessageStateChanged, RequestReceived
from p2pnode.chat.database import Database
from p2pnode.chat.mail import epochs
from p2pnode.chat.mail.pool import FIRST_S, LOOK_S
from p2pnode.simulations.virtual import VirtualLoop

pytestmark = pytest.mark.slow

DAY_S = 86_400.0


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=1e8)  # type: ignore[arg-type]


def stolen(folder: Path) -> bytes:
    """Return all that is in a home's files."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def strangers(world: FakeWorld, folder: Path) -> tuple[Person, Person]:
    """Alice is here; Bob was, and went. They never met."""
    alice = await Person(world, "alice", folder / "alice.db").start()
    bob = await Person(world, "bob", folder / "bob.db").start()
    await asyncio.sleep(60.0)
    await bob.stop()
    return alice, bob


async def back(world: FakeWorld, folder: Path) -> Person:
    return await Person(world, "bob", folder / "bob.db").start()


def test_a_first_message_waits_for_somebody_who_is_away_and_is_a_request(tmp_path: Path) -> None:
    """By user id and by device id; the author is gone when the reader is back. Accepted, they go on as others do."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await strangers(world, tmp_path)
        carol = await Person(world, "carol", tmp_path / "carol.db").start()
        sent = await alice.chat.send(bob.node.user_id, "do you remember me?")
        assert sent.state == "stored"
        assert (await carol.chat.send(bob.node.peer_id, "and me?")).state == "stored"
        assert (await alice.store.message(sent.id)).state == "stored"
        assert (await alice.chat.send(bob.node.user_id, "a second one")).state == "queued"
        await alice.stop()
        await carol.stop()
        await asyncio.sleep(DAY_S / 2)
        bob, began = await back(world, tmp_path), asyncio.get_running_loop().time()
        await until(bob, lambda: len(bob.of_type(RequestReceived)) == 2, timeout=5.0)
        print(f"requests {asyncio.get_running_loop().time() - began:.1f} s after the start")
        assert sorted(event.message.text for event in bob.of_type(RequestReceived)) == [
            "and me?",
            "do you remember me?",
        ]
        assert {contact.state for contact in bob.chat.directory.contacts()} == {"request"}
        await bob.chat.add_contact(alice.node.user_id)
        alice = await Person(world, "alice", tmp_path / "alice.db").start()
        await until(alice, lambda: "delivered" in [e.state for e in alice.of_type(MessageStateChanged)], timeout=120.0)
        await asyncio.sleep(120.0)
        assert await bob.texts(alice.node.user_id) == ["do you remember me?", "a second one"]
        assert (await alice.store.message(sent.id)).state == "delivered"

    run(main)


def test_blocked_and_waiting_people_get_nothing_more_through(tmp_path: Path) -> None:
    """A letter of somebody blocked shows nothing; nor does another one of somebody whose request waits."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await strangers(world, tmp_path)
        assert (await alice.chat.send(bob.node.user_id, "first")).state == "stored"
        [item] = await alice.store.outbox(bob.node.peer_id)
        bob = await back(world, tmp_path)
        await until(bob, lambda: len(bob.of_type(RequestReceived)) == 1, timeout=60.0)
        await bob.stop()
        for drop in ("waits", "blocked"):
            await alice.store.database.write(lambda c: c.execute("DELETE FROM mail_left"))  # she forgets the limit
            alice.chat.mail.pool._tried.clear()
            assert await alice.chat.mail.pool.leave(bob.node.peer_id, replace(item, id=drop.encode().ljust(16)))
            bob = await back(world, tmp_path)
            if drop == "blocked":
                await bob.chat.block(alice.node.user_id)
            await asyncio.sleep(60.0)
            assert bob.of_type(MessageReceived) == []
            await bob.stop()
        bob = await back(world, tmp_path)
        assert await bob.texts(alice.node.user_id) == ["first"]

    run(main)


def test_a_letter_that_was_sealed_to_the_key_of_yesterday_is_read(tmp_path: Path) -> None:
    """Whoever asks holders that are behind has an older key; whose clock is an hour wrong too, no time is compared."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await strangers(world, tmp_path)
        assert world.holders is not None
        place = (bob.node.peer_id.raw, 0)
        old = world.holders.records[place]
        bob = await back(world, tmp_path)
        [first] = await bob.store.database.read(epochs.epochs)
        await asyncio.sleep(DAY_S + LOOK_S * 2)
        kept = await bob.store.database.read(epochs.epochs)
        assert [each.private for each in kept][1:] == [first.private]
        world.walls.add(frozenset((alice.node, bob.node)))
        world.holders.records[place] = old
        assert (await alice.chat.send(bob.node.user_id, "sealed to the old one")).state == "stored"
        await asyncio.sleep(LOOK_S * 1.3)
        assert await bob.texts(alice.node.user_id) == ["sealed to the old one"]
        [letter] = world.holders.pools.values()
        assert len(letter.value) == 792

    run(main)


def test_keys_are_destroyed_when_no_letter_can_need_them_and_are_in_no_file_then(tmp_path: Path) -> None:
    """A new one each day; a note lives a week, a letter that was sealed to it another one. Clocks may jump."""
    day = epochs.ROTATE_S

    async def main() -> None:
        database = await Database.open(tmp_path / "chat.db")
        keys = {number: random.Random(number).randbytes(32) for number in range(60)}
        for number, private in keys.items():
            now = number * day
            await database.write(lambda c, now=now: epochs.destroy(c, now))  # type: ignore[misc]
            kept = await database.read(epochs.epochs)
            assert epochs.current(kept, now) is None
            epoch = epochs.Epoch(private, now, now)
            await database.write(lambda c, epoch=epoch: epochs.put_epoch(c, epoch))  # type: ignore[misc]
            assert epochs.current(await database.read(epochs.epochs), now + day - 1) == epoch
            needed = {each for each in range(number) if now - each * day <= epochs.NOTE_S + epochs.LETTER_S}
            assert needed <= {next(n for n, key in keys.items() if key == each.private) for each in kept}
            assert len(kept) <= epochs.KEEP_S / day + 1
        assert await database.erase()
        data = stolen(tmp_path)
        found = [number for number, private in keys.items() if private in data]
        print(f"of 60 daily keys {len(found)} are in the files")
        assert found == [number for number in keys if (59 - number) * day <= epochs.KEEP_S]
        late = epochs.Epoch(bytes(32), 400 * day, 400 * day)  # the clock was wrong by a year, then mended
        await database.write(lambda c: epochs.put_epoch(c, late))
        assert epochs.current(await database.read(epochs.epochs), 60 * day) is None
        await database.write(lambda c: epochs.destroy(c, 60 * day))
        assert late not in await database.read(epochs.epochs)
        await database.close()

    asyncio.run(main())


def test_a_device_list_that_has_ended_is_found_for_a_week(tmp_path: Path) -> None:
    """Bob's account says nothing any more: what he left as mail names his device, which names him."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await strangers(world, tmp_path)
        assert await alice.chat.mail.pool.devices_of(bob.node.user_id) == (bob.node.peer_id,)
        assert alice.chat.directory.user_of(bob.node.peer_id) == bob.node.user_id
        assert world.holders is not None
        mallory = await Person(world, "mallory", tmp_path / "mallory.db").start()
        await asyncio.sleep(60.0)
        stolen = world.holders.records[bob.node.user_id.raw, 0]
        world.holders.records[mallory.node.user_id.raw, 0] = stolen  # a list that names somebody else's device
        assert await alice.chat.mail.pool.devices_of(mallory.node.user_id) == ()
        await asyncio.sleep(FIRST_S)

    run(main)


def test_a_failure_to_reach_a_strange_device_of_the_hall_is_told_at_once(tmp_path: Path) -> None:
    """Nothing of the hall goes into letters, so nobody waits for any."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await strangers(world, tmp_path)
        assert not alice.chat.mail.attempt_failed(bob.node.peer_id, "peer_offline")
        await alice.chat.post(bob.node.peer_id, "hello")
        assert alice.chat.mail.attempt_failed(bob.node.peer_id, "peer_offline")

    run(main)
