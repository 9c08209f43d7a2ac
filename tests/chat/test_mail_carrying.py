"""Where the network takes no letters, contacts whom both know carry them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders

from p2pnode import NodeKey, P2PError
from p2pnode.chat import MessageReceived, MessageStateChanged
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.carry_wire import (
    CARRY_PROTOCOL,
    LATER,
    NO,
    YES,
    Carry,
    FrameBuffer,
    Hand,
    Outcome,
    encode,
)
from p2pnode.chat.mail.carrying import LIFE_S, PER_GIVER
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 30 * 86_400.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]


async def three(world: FakeWorld, tmp_path: Path) -> tuple[Person, Person, Person]:
    """Alice, Bob and Carol, who all know each other and have met."""
    people = [await Person(world, name, tmp_path / f"{name}.db").start() for name in ("alice", "bob", "carol")]
    for number, one in enumerate(people):
        for other in people[number + 1 :]:
            await befriend(one, other)
            await one.chat.send(other.node.user_id, "hi")
            await other.chat.send(one.node.user_id, "hi")
    await asyncio.sleep(5)
    return people[0], people[1], people[2]


async def ask(person: Person, other: Person, frame: Carry | Hand) -> int | str:
    """What the other answers to a frame, or `reset`."""
    session = await person.node.connect(other.node.peer_id)
    stream = await session.open_stream(CARRY_PROTOCOL)
    try:
        await stream.write(encode(frame))
        buffer = FrameBuffer()
        while (answer := buffer.next_untrusted()) is None:
            buffer.add(await stream.read())
    except P2PError:
        return "reset"
    assert isinstance(answer, Outcome)
    return answer.code


def test_a_common_contact_carries_a_letter_and_both_restart_meanwhile(tmp_path: Path) -> None:
    """No holder is there. Alice goes; Carol comes back, meets Bob only, and has the messages in order, once."""

    async def main(world: FakeWorld) -> None:
        alice, bob, carol = await three(world, tmp_path)
        await carol.stop()
        await asyncio.sleep(1)
        first = await alice.chat.send(carol.node.user_id, "one")
        second = await alice.chat.send(carol.node.user_id, "two", wait=20.0)
        assert (first.state, second.state) == ("stored", "stored")
        await alice.stop()
        await bob.stop()
        await asyncio.sleep(3 * 86_400)
        bob = await Person(world, "bob", tmp_path / "bob.db").start()
        carol = await Person(world, "carol", tmp_path / "carol.db").start()
        await bob.node.connect(carol.node.peer_id)
        await until(carol, lambda: len(carol.of_type(MessageReceived)) == 2, timeout=10)
        assert await carol.texts(alice.node.user_id) == ["hi", "hi", "one", "two"]
        await asyncio.sleep(1)
        carried = await bob.store.database.read(lambda c: c.execute("SELECT count(*) FROM mail_carried").fetchone()[0])
        assert carried == 0
        alice = await Person(world, "alice", tmp_path / "alice.db").start()
        await until(
            alice, lambda: [e.state for e in alice.of_type(MessageStateChanged)].count("delivered") == 2, timeout=120
        )
        assert await carol.texts(alice.node.user_id) == ["hi", "hi", "one", "two"]  # not once more
        assert not [message for message in carol.of_type(MessageReceived)[2:] if message]

    run(main)


def test_nobody_carries_what_the_network_took(tmp_path: Path) -> None:
    """Carriers learn who writes to whom; the network's holders do not."""

    async def main(world: FakeWorld) -> None:
        world.holders = FakeHolders()
        alice, bob, carol = await three(world, tmp_path)
        await carol.stop()
        await asyncio.sleep(1)
        assert (await alice.chat.send(carol.node.user_id, "one")).state == "stored"
        assert await bob.store.database.read(lambda c: c.execute("SELECT * FROM mail_carried").fetchall()) == []

    run(main)


def test_attack_p2_carriers_take_letters_of_contacts_for_contacts_only_and_not_without_end(tmp_path: Path) -> None:
    """Each contact may leave 32, each reader has 64, all together 8 MB; they are forgotten after a week."""

    async def main(world: FakeWorld) -> None:
        alice, bob, carol = await three(world, tmp_path)
        mallory = await Person(world, "mallory").start()
        await mallory.chat.send(bob.node.user_id, "hello")
        await carol.stop()
        letter, reader = bytes(512), carol.node.peer_id.raw
        assert await ask(mallory, bob, Carry(reader, bytes(32), letter)) == "reset"
        stranger = NodeKey.generate(lambda count: bytes(range(count))).public_raw
        assert await ask(alice, bob, Carry(stranger, bytes(32), letter)) == NO
        assert await ask(alice, bob, Carry(alice.node.peer_id.raw, bytes(32), letter)) == NO
        outcomes = []
        for number in range(PER_GIVER + 10):
            outcomes.append(await ask(alice, bob, Carry(reader, number.to_bytes(32, "big"), letter)))
            await asyncio.sleep(1)
        assert outcomes == [YES] * PER_GIVER + [LATER] * 10
        for number in range(100):  # faster than anybody writes
            last = await ask(alice, bob, Carry(reader, number.to_bytes(32, "big"), letter))
        assert last == "reset"
        await bob.store.database.write(
            lambda c: c.execute("UPDATE mail_carried SET taken_at = taken_at - ?", (LIFE_S,))
        )
        await asyncio.sleep(60)
        assert await ask(alice, bob, Carry(reader, bytes(32), letter)) == YES
        left = await bob.store.database.read(lambda c: c.execute("SELECT count(*) FROM mail_carried").fetchone()[0])
        assert left == 1

    run(main)


def test_attack_m1_a_carrier_that_lies_changes_nothing(tmp_path: Path) -> None:
    """Invented, changed and foreign letters are dropped, and the true one is still read after them."""

    async def main(world: FakeWorld) -> None:
        alice, bob, carol = await three(world, tmp_path)
        await carol.stop()
        await asyncio.sleep(1)
        assert (await alice.chat.send(carol.node.user_id, "one", wait=20.0)).state == "stored"
        [(slot, letter)] = await bob.store.database.read(
            lambda c: c.execute("SELECT slot, letter FROM mail_carried").fetchall()
        )
        await bob.store.database.write(lambda c: c.execute("DELETE FROM mail_carried"))
        carol = await Person(world, "carol", tmp_path / "carol.db").start()
        world.walls.add(frozenset((alice.node, carol.node)))
        giver = alice.node.peer_id.raw
        assert await ask(bob, carol, Hand(giver, bytes(32), letter)) == NO  # no slot of hers
        assert await ask(bob, carol, Hand(bob.node.peer_id.raw, slot, letter)) == NO  # not Bob's
        before = await carol.store.database.read(tables.given)
        for at in (0, 1, 40, len(letter) - 1):  # changed: it costs the true one nothing
            changed = bytearray(letter)
            changed[at] ^= 1
            assert await ask(bob, carol, Hand(giver, slot, bytes(changed))) == NO
        assert await carol.store.database.read(tables.given) == before
        assert carol.of_type(MessageReceived) == []
        assert await ask(bob, carol, Hand(giver, slot, letter)) == YES
        assert await carol.texts(alice.node.user_id) == ["hi", "hi", "one"]
        await ask(bob, carol, Hand(giver, slot, letter))  # once more
        assert len(carol.of_type(MessageReceived)) == 1

    run(main)
