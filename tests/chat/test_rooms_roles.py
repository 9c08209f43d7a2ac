"""Owners of rooms, and lost devices of their members: who may what, what two say at once, who gets a key."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend
from support.rooms import eventually, garden, run, same_history

from p2pnode import AccountKey, NetworkChanged, NotFoundError, RefusedError
from p2pnode.chat.model import RoomChanged, RoomId
from p2pnode.chat.rooms.room import Room


def of(person: Person, room: RoomId) -> Room:
    return person.chat.rooms.rooms[room]


async def planted(world: FakeWorld, *names: str, open: bool = False) -> tuple[RoomId, list[Person]]:  # noqa: A002
    """A room whose members all know of each other."""
    room, people = await garden(world, *names, open=open)
    await eventually(lambda: all(of(one, room).info().members == len(names) for one in people))
    return room, people


def owners(person: Person, room: RoomId) -> set[str]:
    """By the names that the people of a test gave themselves."""
    members = person.chat.rooms.members(room)
    return {person.chat.display_name(m.user).partition("~")[0] for m in members if m.role == "owner"}


def apart(world: FakeWorld, one: list[Person], other: list[Person]) -> None:
    world.walls |= {frozenset((a.node, b.node)) for a in one for b in other}
    there = {b.node.peer_id for b in other}
    for person in one:
        for session in person.node.sessions():
            if session.peer in there:
                session.break_off("lost")


def together(world: FakeWorld, people: list[Person]) -> None:
    world.walls.clear()
    for person in people:
        person.node.emit(NetworkChanged((person.node.address,), "unknown"))


def test_second_owner_may_all_that_the_first_may_and_steps_down() -> None:
    """Made by the first: it invites and removes, cannot be removed, hands the role on and gives it back."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await planted(world, "alice", "bob", "carol")
        rooms = bob.chat.rooms
        with pytest.raises(RefusedError, match="Only an owner"):
            await rooms.make_owner(room, carol.node.user_id)
        with pytest.raises(NotFoundError):
            await alice.chat.rooms.make_owner(room, AccountKey.generate(random.Random(1).randbytes).user_id)
        with pytest.raises(RefusedError, match="last owner"):
            await alice.chat.rooms.step_down(room)
        await alice.chat.rooms.make_owner(room, bob.node.user_id)
        await eventually(lambda: rooms.all()[0].role == "owner")
        assert [e.user for e in carol.of_type(RoomChanged) if e.what == "owner"] == [bob.node.user_id]
        dave = await Person(world, "dave").start()
        await befriend(bob, dave)
        await rooms.invite(room, dave.node.user_id)
        await eventually(lambda: bool(dave.chat.rooms.all()))
        await dave.chat.rooms.join("garden")
        await rooms.remove(room, carol.node.user_id)
        await eventually(lambda: carol.chat.rooms.all()[0].state == "removed")
        for one, other in ((alice, bob), (bob, alice)):
            with pytest.raises(RefusedError, match="cannot be removed"):
                await one.chat.rooms.remove(room, other.node.user_id)
        await alice.chat.rooms.step_down(room)
        await eventually(lambda: alice.node.user_id.raw not in of(bob, room).log.roll.owners)
        assert [e.user for e in dave.of_type(RoomChanged) if e.what == "stepped_down"] == [alice.node.user_id]
        with pytest.raises(RefusedError):
            await alice.chat.rooms.remove(room, dave.node.user_id)
        await dave.chat.send(room, "and now?", wait=5.0)
        assert await same_history(room, [alice, bob, dave], 1) == ["and now?"]
        for one in (alice, dave):
            assert [m.user for m in one.chat.rooms.members(room) if m.role == "owner"] == [bob.node.user_id]
        await rooms.remove(room, alice.node.user_id)
        await eventually(lambda: alice.chat.rooms.all()[0].state == "removed")

    run(main)


def test_last_owner_who_leaves_hands_the_room_to_somebody() -> None:
    """A contact goes before others; the heir makes the new key. Alone, the room ends with its owner."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await planted(world, "alice", "bob", "carol", open=True)
        await befriend(alice, carol)
        old = of(carol, room).log.roll.epoch
        assert (await alice.chat.rooms.leave(room)).state == "left"
        await eventually(lambda: carol.chat.rooms.all()[0].role == "owner")
        await eventually(lambda: of(bob, room).log.roll.epoch not in (None, old) and not of(bob, room).log.roll.stale)
        await bob.chat.send(room, "her garden now", wait=5.0)
        assert await same_history(room, [bob, carol], 1) == ["her garden now"]
        assert await alice.texts(room) == []
        await bob.chat.rooms.leave(room)
        await carol.chat.rooms.leave(room)
        assert carol.chat.rooms.all()[0].state == "left"

    run(main)


@pytest.mark.parametrize("case", ["both remove", "owner or out", "both leave"])
def test_two_owners_who_say_something_else_at_once_end_with_the_same(case: str) -> None:
    """Apart, they remove different members, one is made owner there and removed here, or both leave: all devices agree
    once they meet, and the key is one that nobody has who is out."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol, dave) = await planted(world, "alice", "bob", "carol", "dave")
        await alice.chat.rooms.make_owner(room, bob.node.user_id)
        people = [alice, bob, carol, dave]
        await eventually(lambda: all(owners(one, room) >= {"bob"} or one is bob for one in people))
        await asyncio.sleep(2.0)
        apart(world, [alice, carol], [bob, dave])
        if case == "both remove":
            await alice.chat.rooms.remove(room, dave.node.user_id)
            await bob.chat.rooms.remove(room, carol.node.user_id)
        elif case == "owner or out":
            await alice.chat.rooms.make_owner(room, dave.node.user_id)
            await bob.chat.rooms.remove(room, dave.node.user_id)
        else:
            await alice.chat.rooms.leave(room)
            await bob.chat.rooms.leave(room)
        await asyncio.sleep(5.0)
        together(world, people)
        await asyncio.sleep(10.0)
        if case == "owner or out" and of(alice, room).log.roll.is_member(dave.node.user_id.raw):
            await eventually(lambda: dave.chat.rooms.all()[0].state == "invited", timeout=60.0)
            await dave.chat.rooms.join("garden")
        await asyncio.sleep(50.0)
        staying = {"both remove": [alice, bob], "owner or out": [alice, bob, carol], "both leave": [carol, dave]}[case]
        rolls = [of(one, room).log.roll for one in staying]
        for roll in rolls:
            assert (roll.states, roll.owners, roll.epoch) == (rolls[0].states, rolls[0].owners, rolls[0].epoch)
        if case == "both leave":
            assert not [each for each in rolls[0].owners if rolls[0].is_owner(each)]
            return
        assert not rolls[0].stale
        epoch = rolls[0].epoch
        assert epoch is not None
        await alice.chat.send(room, "only us", wait=5.0)
        for one in people:
            is_in = rolls[0].is_member(one.node.user_id.raw)
            assert (epoch.id in of(one, room).keys) == is_in, one.node.settings.name
            assert await one.texts(room) == (["only us"] if is_in else [])

    run(main)


def test_roles_survive_a_restart(tmp_path: Path) -> None:
    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice", tmp_path / "alice.db").start()
        bob = await Person(world, "bob", tmp_path / "bob.db").start()
        room = (await alice.chat.rooms.create("garden", open=True)).id
        await bob.chat.rooms.join("garden")
        await eventually(lambda: of(alice, room).info().members == 2)
        await alice.chat.rooms.make_owner(room, bob.node.user_id)
        await eventually(lambda: bob.chat.rooms.all()[0].role == "owner")
        bob_told = [e for e in bob.of_type(RoomChanged) if e.what == "owner"]
        await bob.crash()
        await bob.start()
        assert bob.chat.rooms.all()[0].role == "owner"
        assert [e for e in bob.of_type(RoomChanged) if e.what == "owner"] == bob_told
        await alice.chat.rooms.step_down(room)
        await eventually(lambda: not of(bob, room).log.roll.is_owner(alice.node.user_id.raw))

    run(main)
