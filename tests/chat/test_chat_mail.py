"""Mail between fake nodes in virtual time: states, exactly once, order, what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders

from p2pnode.chat import Conversation, MessageReceived, MessageStateChanged
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.sending import MAX_LETTERS
from p2pnode.chat.mail.service import FETCH_S, PATIENCE_S
from p2pnode.simulations.virtual import VirtualLoop

DAY_S = 86_400.0


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 100 * DAY_S) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=until)  # type: ignore[arg-type]


async def friends(world: FakeWorld, *paths: Path) -> tuple[Person, Person]:
    """Two contacts who have met, so that each can leave the other mail."""
    alice = await Person(world, "alice", paths[0] if paths else None).start()
    bob = await Person(world, "bob", paths[1] if paths else None).start()
    await befriend(alice, bob)
    await alice.chat.send(bob.node.user_id, "first", wait=5.0)
    await asyncio.sleep(1.0)
    return alice, bob


def grants(person: Person) -> Awaitable[list[tables.Given]]:
    return person.store.database.read(tables.given)


def states(person: Person) -> list[str]:
    return [event.state for event in person.of_type(MessageStateChanged)][2:]


def test_mail_is_stored_fetched_at_the_next_start_and_known_as_delivered(tmp_path: Path) -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path / "alice.db", tmp_path / "bob.db")
        await bob.stop()
        sent = await alice.chat.send(bob.node.user_id, "are you there?")
        assert (sent.state, sent.delivered, sent.devices) == ("stored", False, 0)
        assert (await alice.store.message(sent.id)).state == "stored"
        assert states(alice) == ["queued", "stored"]
        alice.chat.links.drop(bob.node.peer_id)  # she tries no more: they never meet again
        await asyncio.sleep(DAY_S)
        began = asyncio.get_running_loop().time()
        bob = await Person(world, "bob", tmp_path / "bob.db").start()
        await until(bob, lambda: bool(bob.of_type(MessageReceived)), timeout=5.0)
        print(f"appears {asyncio.get_running_loop().time() - began:.2f} s after the start")
        assert await bob.texts(alice.node.user_id) == ["first", "are you there?"]
        await until(alice, lambda: states(alice)[-1] == "delivered", timeout=2 * 3600)
        await asyncio.sleep(1.0)
        assert (await alice.store.message(sent.id)).state == "delivered"
        assert await alice.store.outbox_devices() == []
        assert world.holders is not None
        assert world.holders.letters() == []
        assert await alice.store.database.read(lambda c: tables.open_letters(c, bob.node.peer_id)) == 0
        await asyncio.sleep(2 * FETCH_S)
        assert await bob.texts(alice.node.user_id) == ["first", "are you there?"]

    run(main)


def test_the_direct_way_and_the_mail_bring_a_message_once(tmp_path: Path) -> None:
    """The recipient is back and meets the sender at once; the letter is read as well, and shows nothing twice."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path / "alice.db", tmp_path / "bob.db")
        await bob.stop()
        texts = [f"number {number}" for number in range(30)]
        for text in texts:
            assert (await alice.chat.send(bob.node.user_id, text)).state == "stored"
        bob = await Person(world, "bob", tmp_path / "bob.db").start()
        alice.chat.links.came(None)
        await until(bob, lambda: len(bob.of_type(MessageReceived)) == 30, timeout=60.0)
        await asyncio.sleep(600.0)
        assert await bob.texts(alice.node.user_id) == ["first", *texts]
        assert [event.message.text for event in bob.of_type(MessageReceived)] == texts
        assert world.holders is not None
        assert world.holders.letters() == []
        assert (await alice.chat.send(bob.node.user_id, "direct again", wait=5.0)).state == "delivered"

    run(main)


def test_many_and_long_messages_keep_their_order() -> None:
    """200 messages, some of the greatest length, wait in letters of several parts."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        texts = [str(number) + ("x" * 14_000 if number % 20 == 7 else "") for number in range(200)]
        for text in texts:
            await alice.chat.post(bob.node.user_id, text)
        await until(alice, lambda: states(alice).count("stored") == 200, timeout=300.0)
        assert world.holders is not None
        print(f"{len(world.holders.letters())} records, {len({key for key, _ in world.holders.letters()})} letters")
        world.walls.add(frozenset((alice.node, bob.node)))
        bob.node.up = True
        await bob.chat.mail.fetch()
        assert await bob.texts(alice.node.user_id) == ["first", *texts]
        await until(alice, lambda: states(alice).count("delivered") == 200, timeout=2 * 3600)

    run(main)


def test_a_silent_peer_does_not_hold_the_mail_up() -> None:
    """Dialling takes long; after five seconds the message is in a letter, and `send` says so."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        bob.node.go_down()
        world.delay = 6.0  # one attempt is 12 s
        sent = await alice.chat.send(bob.node.user_id, "slow")
        assert (sent.state, round(sent.seconds)) == ("stored", round(PATIENCE_S))

    run(main)


def test_without_holders_a_message_stays_queued_and_is_stored_later() -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        assert world.holders is not None
        bob.node.go_down()
        world.holders.full = True
        sent = await alice.chat.send(bob.node.user_id, "no room")
        assert (sent.state, sent.reason) == ("queued", "peer_offline")
        world.holders.full = False
        await until(alice, lambda: states(alice)[-1] == "stored", timeout=300.0)

    run(main)


def test_mail_is_renewed_while_its_author_is_online() -> None:
    """A recipient who is away for nine days still finds it; with the author gone after a day, it is gone in eight."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        bob.node.go_down()
        await alice.chat.send(bob.node.user_id, "patience")
        alice.chat.links.drop(bob.node.peer_id)
        await asyncio.sleep(9 * DAY_S)
        world.walls.add(frozenset((alice.node, bob.node)))
        bob.node.up = True
        await bob.chat.mail.fetch()
        assert (await bob.texts(alice.node.user_id))[-1] == "patience"
        bob.node.up = False
        await alice.chat.send(bob.node.user_id, "too late")
        await alice.stop()
        await asyncio.sleep(8 * DAY_S)
        bob.node.up = True
        await bob.chat.mail.fetch()
        assert (await bob.texts(alice.node.user_id))[-1] == "patience"

    run(main)


def test_a_lost_letter_hides_none_behind_it_and_is_found_later() -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        assert world.holders is not None
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        for text in ("one", "two", "three"):
            await alice.chat.send(bob.node.user_id, text)
        lost = world.holders.letters()[1]
        kept = world.holders.records.pop(lost)
        world.walls.add(frozenset((alice.node, bob.node)))
        alice.node.up = False
        bob.node.up = True
        await bob.chat.mail.fetch()
        assert await bob.texts(alice.node.user_id) == ["first", "one", "three"]
        world.holders.records[lost] = kept
        await bob.chat.mail.fetch()
        assert await bob.texts(alice.node.user_id) == ["first", "one", "two", "three"]
        assert (
            await bob.store.database.read(
                lambda c: tables.missing(c, c.execute("SELECT id FROM mail_given").fetchone()[0])
            )
            == []
        )

    run(main)


def test_messages_of_the_last_run_are_stored_after_a_restart(tmp_path: Path) -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world, tmp_path / "alice.db", tmp_path / "bob.db")
        await bob.stop()
        await alice.chat.post(bob.node.user_id, "written in a hurry")
        await alice.crash()
        alice = await Person(world, "alice", tmp_path / "alice.db").start()
        await until(alice, lambda: "stored" in [e.state for e in alice.of_type(MessageStateChanged)], timeout=30.0)

    run(main)


def test_no_mail_for_the_hall_strangers_and_the_blocked() -> None:
    """Only accepted contacts get the means to leave mail; who is blocked loses them."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        bob = await Person(world, "bob").start()
        await alice.chat.send(bob.node.user_id, "hello stranger", wait=5.0)
        await asyncio.sleep(5.0)
        assert [given.device for given in await grants(alice)] == [bob.node.peer_id]  # she wrote: she accepts him
        assert await grants(bob) == []
        for number in range(5):
            await alice.chat.post(bob.node.user_id, f"still there? {number}")
        await asyncio.sleep(5.0)
        assert bob.chat.drops["mail_not_a_contact"] == 1  # she is not asked again with each message
        await bob.chat.add_contact(alice.node.user_id)
        await asyncio.sleep(5.0)
        assert [given.device for given in await grants(bob)] == [alice.node.peer_id]
        for one, other in ((alice, bob), (bob, alice)):
            taken = await one.store.database.read(lambda c, device=other.node.peer_id: tables.taken(c, device))
            assert taken is not None
        await asyncio.sleep(60.0)  # her other messages arrive
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        assert (await alice.chat.send(bob.node.user_id, "now it waits")).state == "stored"
        await bob.chat.block(alice.node.user_id)
        bob.node.up = True
        await bob.chat.mail.fetch()
        assert "now it waits" not in await bob.texts(alice.node.user_id)

    run(main)


def test_grants_rotate_and_old_keys_are_destroyed() -> None:
    """Who meets a day later gets a new chain and key; the old one is gone once nothing can come in it any more."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        [first] = await grants(bob)
        for session in bob.node.sessions():
            session.break_off("idle")
        assert (await alice.chat.send(bob.node.user_id, "the same day", wait=5.0)).delivered
        await asyncio.sleep(1.0)
        assert await grants(bob) == [first]
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        assert (await alice.chat.send(bob.node.user_id, "in the old chain")).state == "stored"
        alice.chat.links.drop(bob.node.peer_id)
        await asyncio.sleep(2 * DAY_S)
        bob.node.up = True
        alice.chat.links.resume(bob.node.peer_id)
        await asyncio.sleep(5.0)
        newest = await grants(bob)
        assert (newest[0].base, newest[0].used) == (0, None)
        assert newest[0].private != first.private
        assert {given.id for given in newest[1:]} <= {first.id}
        await bob.chat.mail.fetch()
        await asyncio.sleep(5.0)
        await bob.chat.mail.fetch()
        assert [given.id for given in await grants(bob)] == [newest[0].id]
        assert (await bob.texts(alice.node.user_id))[1:] == ["the same day", "in the old chain"]
        held = await alice.store.database.read(lambda c: tables.taken(c, bob.node.peer_id))
        assert held is not None
        assert (held.id, held.used) == (newest[0].id, 0)

    run(main)


def test_the_console_says_that_a_message_waits_in_the_network() -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        lines: list[str] = []
        console = Conversation(alice.chat, own_port=4747, show=lines.append)
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        await console.handle("bob/see you tomorrow")
        await asyncio.sleep(5.0)
        assert any("waits in the network" in line for line in lines), lines

    run(main)


def test_letters_to_one_device_are_bounded() -> None:
    """64 letters wait; what is beyond stays queued here, and goes when there is room or the peer is back."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await friends(world)
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        texts = [f"{number} " + "x" * 9_000 for number in range(MAX_LETTERS + 6)]
        for text in texts:
            await alice.chat.post(bob.node.user_id, text)
        await until(alice, lambda: states(alice).count("stored") == MAX_LETTERS, timeout=600.0)
        await asyncio.sleep(300.0)
        assert states(alice).count("stored") == MAX_LETTERS
        bob.node.up = True
        alice.chat.links.came(None)
        await until(bob, lambda: len(bob.of_type(MessageReceived)) == len(texts) + 1, timeout=60.0)
        assert await bob.texts(alice.node.user_id) == ["first", *texts]

    run(main)
