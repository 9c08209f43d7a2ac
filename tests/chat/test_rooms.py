"""Rooms between fake nodes in virtual time: members, texts, order, history for latecomers, keys."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend
from support.rooms import eventually, garden, run, same_history

from p2pnode import AccountKey, InvalidPeerError, NetworkChanged, NotFoundError, RefusedError
from p2pnode.chat import MessageReceived, MessagesSynced, MessageStateChanged
from p2pnode.chat.model import RoomChanged


def test_three_in_a_room_by_invitation() -> None:
    """Invited, joined, written: all read the same; the sender hears that it arrived."""

    async def main(world: FakeWorld) -> None:
        room, people = await garden(world, "alice", "bob", "carol")
        alice, bob, carol = people
        result = await bob.chat.send(room, "hello garden", wait=5.0)
        assert result.delivered
        assert await same_history(room, people, 1) == ["hello garden"]
        assert [e.message.text for e in alice.of_type(MessageReceived)] == ["hello garden"]
        assert [e.state for e in bob.of_type(MessageStateChanged)] == ["queued", "delivered"]
        await alice.chat.send(room, "welcome", wait=5.0)
        assert await same_history(room, people, 2) == ["hello garden", "welcome"]
        members = carol.chat.rooms.members(room)
        assert [(m.role, m.state) for m in members] == [("owner", "member"), ("member", "member"), ("member", "member")]
        assert {str(e.message.party) for e in carol.of_type(MessageReceived)} == {str(room)}

    run(main)


def test_latecomer_gets_the_whole_history_from_any_member() -> None:
    """The owner is away: another member gives all entries and keys; what was written before is no news."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob) = await garden(world, "alice", "bob", open=True)
        for number in range(140):  # more than one answer holds
            await (alice, bob)[number % 2].chat.send(room, f"text {number}".ljust(1_000, "."), wait=5.0)
        before = await same_history(room, [alice, bob], 140)
        await alice.stop()
        carol = await Person(world, "carol").start()
        info = await carol.chat.rooms.join("garden")
        assert (info.state, info.role, info.members) == ("joined", "member", 3)
        assert await same_history(room, [bob, carol], 140) == before
        assert not carol.of_type(MessageReceived)
        assert sum(e.count for e in carol.of_type(RoomChanged) if e.what == "history") == 140
        await bob.chat.send(room, "now", wait=5.0)
        await eventually(lambda: [e.message.text for e in carol.of_type(MessageReceived)] == ["now"])
        [summary] = [s for s in await carol.store.conversations() if s.party == room]
        assert (summary.messages, summary.unread) == (141, 1)
        assert [m.text[:8] for m in await carol.store.history(room, search="XT 13")][-1] == "text 139"

    run(main)


def test_concurrent_texts_are_shown_in_one_order_everywhere() -> None:
    """Five write at once, and while apart: the same order on all, an answer never before what it answers to."""

    async def main(world: FakeWorld) -> None:
        room, people = await garden(world, "alice", "bob", "carol", "dave", "erin", open=True)
        alice, bob, *others = people
        await asyncio.gather(
            *(p.chat.send(room, f"{p.node.settings.name} {n}", wait=5.0) for n in range(10) for p in people)
        )
        await same_history(room, people, 50)
        apart = {frozenset((one.node, other.node)) for one in (alice, bob) for other in others}
        world.walls |= apart
        for one in (alice, bob):
            for session in one.node.sessions():
                if session.peer in {other.node.peer_id for other in others}:
                    session.break_off("lost")
        for number in range(5):
            await alice.chat.send(room, f"here {number}", wait=5.0)
            await others[0].chat.send(room, f"there {number}", wait=5.0)
        await same_history(room, [alice, bob], 55)
        world.walls -= apart
        for one in people:
            one.node.emit(NetworkChanged((one.node.address,), "unknown"))
        shown = await same_history(room, people, 60)
        for side in ("here", "there"):
            assert [text for text in shown if text.startswith(side)] == [f"{side} {n}" for n in range(5)]

    run(main)


def test_removed_member_reads_nothing_later_and_is_not_heard() -> None:
    """A new key for those who stay; what the removed one writes on is shown to nobody."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await garden(world, "alice", "bob", "carol")
        await bob.chat.send(room, "before", wait=5.0)
        await same_history(room, [alice, bob, carol], 1)
        old = bob.chat.rooms.rooms[room].log.roll.epoch
        info = await alice.chat.rooms.remove(room, bob.node.user_id)
        assert info.members == 2
        await eventually(lambda: bob.chat.rooms.all()[0].state == "removed")
        await alice.chat.send(room, "without bob", wait=5.0)
        await carol.chat.send(room, "indeed", wait=5.0)
        assert await same_history(room, [alice, carol], 3) == ["before", "without bob", "indeed"]
        assert await bob.texts(room) == ["before"]
        epoch = carol.chat.rooms.rooms[room].log.roll.epoch
        assert epoch is not None
        assert epoch != old
        assert epoch.id not in bob.chat.rooms.rooms[room].keys
        with pytest.raises(NotFoundError):
            await bob.chat.send(room, "let me in", wait=1.0)
        await alice.chat.rooms.invite(room, bob.node.user_id)
        await eventually(lambda: bob.chat.rooms.all()[0].state == "invited")
        await bob.chat.rooms.join("garden")
        assert await same_history(room, [alice, bob, carol], 3) == ["before", "without bob", "indeed"]

    run(main)


def test_who_was_away_when_removed_is_told_by_the_owner() -> None:
    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await garden(world, "alice", "bob", "carol")
        await carol.chat.send(room, "all here", wait=5.0)
        await same_history(room, [alice, bob, carol], 1)
        await asyncio.sleep(90.0)
        walls = {frozenset((bob.node, other.node)) for other in (alice, carol)}
        world.walls |= walls
        for session in bob.node.sessions():
            session.break_off("lost")
        await alice.chat.rooms.remove(room, bob.node.user_id)
        await carol.chat.send(room, "without bob", wait=20.0)
        world.walls -= walls
        bob.node.emit(NetworkChanged((bob.node.address,), "unknown"))
        await eventually(lambda: bob.chat.rooms.all()[0].state == "removed")
        assert await bob.texts(room) == ["all here"]
        assert [e.user for e in bob.of_type(RoomChanged) if e.what == "removed"] == [bob.node.user_id]

    run(main)


def test_leaver_is_out_and_the_key_is_renewed() -> None:
    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await garden(world, "alice", "bob", "carol")
        old = alice.chat.rooms.rooms[room].log.roll.epoch
        assert (await carol.chat.rooms.leave(room)).state == "left"
        await eventually(lambda: len([m for m in bob.chat.rooms.members(room) if m.state == "member"]) == 2)
        await eventually(lambda: bob.chat.rooms.rooms[room].log.roll.epoch not in (None, old))
        await bob.chat.send(room, "she is gone", wait=5.0)
        assert await same_history(room, [alice, bob], 1) == ["she is gone"]
        assert await carol.texts(room) == []
        with pytest.raises(RefusedError):
            await bob.chat.rooms.remove(room, alice.node.user_id)
        with pytest.raises(RefusedError):
            await bob.chat.rooms.invite(room, carol.node.user_id)

    run(main)


def test_room_survives_restarts(tmp_path: Path) -> None:
    """Killed in the middle: entries, keys and members are on the disk, the log goes on without a fork."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice", tmp_path / "alice.db").start()
        bob = await Person(world, "bob", tmp_path / "bob.db").start()
        room = (await alice.chat.rooms.create("garden", open=True)).id
        await bob.chat.rooms.join("garden")
        for number in range(3):
            await bob.chat.send(room, f"text {number}", wait=5.0)
        await bob.crash()
        await alice.chat.send(room, "bob?", wait=1.0)
        await bob.start()
        assert await same_history(room, [alice, bob], 4) == ["text 0", "text 1", "text 2", "bob?"]
        await bob.chat.send(room, "back", wait=5.0)
        assert (await same_history(room, [alice, bob], 5))[-1] == "back"
        await alice.stop()
        await bob.chat.send(room, "alone", wait=5.0)
        assert (await bob.store.history(room))[-1].state == "queued"
        await alice.start()
        await same_history(room, [alice, bob], 6)
        await eventually(lambda: bob.of_type(MessageStateChanged)[-1].state == "delivered")

    run(main)


def test_names_of_rooms() -> None:
    """`#name` and `name` mean a room, two of one name are told apart by their ids, a person's name goes first."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        first = (await alice.chat.rooms.create("Garden", open=True)).id
        assert alice.chat.resolve("garden") == alice.chat.resolve("#GARDEN") == first
        second = (await bob.chat.rooms.create("garden", open=True)).id
        await asyncio.sleep(1.0)
        carol = await Person(world, "carol").start()
        with pytest.raises(InvalidPeerError, match=r"Several rooms have that name: .*~.* \(1 here\)"):
            await carol.chat.rooms.join("garden")
        info = await carol.chat.rooms.join(f"garden~{second.short}")
        assert info.id == second
        await carol.chat.rooms.join(f"garden~{first.short}")
        assert carol.chat.display_name(first) == f"#Garden~{first.short}"
        assert carol.chat.resolve(f"garden~{first.short}") == first
        with pytest.raises(NotFoundError):
            await carol.chat.rooms.join("no-such-room")
        for name in ("", "two words", "a/b", "#x", "12", "x" * 25):
            with pytest.raises(InvalidPeerError):
                await alice.chat.rooms.create(name)

    run(main)


def test_all_devices_of_a_user_are_in_the_room() -> None:
    """One joins, the other follows; each writes, both read; one leaves, both are out."""

    async def main(world: FakeWorld) -> None:
        account = AccountKey.generate(random.Random("two devices").randbytes)
        laptop = await Person(world, "alice", account=account, device="laptop").start()
        phone = await Person(world, "alice", account=account, device="phone").start()
        phone.node.adopt_devices(await laptop.node.change_devices(add=[phone.node.peer_id]))
        bob = await Person(world, "bob").start()
        await befriend(bob, laptop)
        room = (await bob.chat.rooms.create("garden")).id
        await bob.chat.rooms.invite(room, account.user_id)
        await eventually(lambda: bool(laptop.chat.rooms.all()))
        await laptop.node.connect(phone.node.peer_id)
        await laptop.chat.rooms.join("garden")
        await eventually(lambda: [info.state for info in phone.chat.rooms.all()] == ["joined"])
        await phone.chat.send(room, "from the phone", wait=5.0)
        await laptop.chat.send(room, "from the laptop", wait=5.0)
        assert await same_history(room, [laptop, phone, bob], 2) == ["from the phone", "from the laptop"]
        assert [message.outgoing for message in await phone.store.history(room)] == [True, True]
        await asyncio.sleep(1.0)
        assert [m.state for m in await laptop.store.history(room)] == ["delivered", "delivered"]
        assert [m.text for e in laptop.of_type(MessagesSynced) for m in e.messages] == ["from the phone"]
        assert not laptop.of_type(MessageReceived)
        assert len(bob.chat.rooms.members(room)) == 2
        await phone.chat.rooms.leave(room)
        await eventually(lambda: laptop.chat.rooms.all()[0].state == "left")
        await eventually(lambda: [m.state for m in bob.chat.rooms.members(room)] == ["member", "left"])

    run(main)


def test_invisible_members_do_not_announce_a_room() -> None:
    async def main(world: FakeWorld) -> None:
        room, (alice, bob) = await garden(world, "alice", "bob", open=True)
        await asyncio.sleep(1.0)
        announced = world.topics.entries["room/garden"]
        assert set(announced) == {alice.node.peer_id, bob.node.peer_id}
        await bob.chat.gossip.set_invisible(True)
        assert set(announced) == {alice.node.peer_id}
        await alice.chat.send(room, "can you read this?", wait=5.0)
        await same_history(room, [alice, bob], 1)
        await bob.chat.gossip.set_invisible(False)
        await eventually(lambda: bob.node.peer_id in announced)

    run(main)
