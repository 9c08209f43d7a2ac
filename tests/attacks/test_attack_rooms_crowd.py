"""A crowd of invented members in an open room (security.md X3): how many come, who keeps a place, how they go."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from support.chat_fakes import FakeWorld, Person
from support.room_authors import Author
from support.rooms import eventually, garden, run, same_history

from p2pnode import AccountKey, RefusedError
from p2pnode.chat.model import RoomId
from p2pnode.chat.protocol import device_proof
from p2pnode.chat.rooms import log as logs
from p2pnode.chat.rooms.entries import Add, Out, Signed, read_untrusted
from p2pnode.chat.rooms.exchange import INTRODUCED_BURST
from p2pnode.chat.rooms.log import RoomLog
from p2pnode.chat.rooms.ruling import CROWDED
from p2pnode.chat.rooms.wire import Entries


@pytest.mark.parametrize("part", [8, pytest.param(1, marks=pytest.mark.long)])
def test_x3_invented_members_leave_places_for_real_ones(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand (or an eighth of all bounds) who come by themselves: half of all places, also when they are removed
    again and again; whom the owner lets in has one, and one user cannot have them all."""
    for bound in ("MAX_LOGS", "MAX_STRANGERS", "MAX_STRANGERS_EVER"):
        monkeypatch.setattr(logs, bound, getattr(logs, bound) // part)
    alice = Author("alice")
    first = alice.create()
    log = RoomLog(first.room)
    log.take(first)
    reasons: Counter[str] = Counter()
    crowd = [Author(f"guest {number}") for number in range(logs.MAX_LOGS)]
    for guest in crowd:
        reasons[log.take(guest.join(first.room, first)).refused] += 1
    print(f"X3: of {len(crowd)} invented members {log.strangers()} are in; {dict(reasons)}")
    assert log.strangers() == logs.MAX_STRANGERS == reasons[""]
    assert reasons["too_many_strangers"] == len(crowd) - logs.MAX_STRANGERS
    for guest in crowd[: logs.MAX_STRANGERS]:
        log.take(alice.write(first.room, Out(guest.user, [], b"")))
    assert not log.strangers()
    for guest in crowd[logs.MAX_STRANGERS :]:
        log.take(guest.made[0])
    assert len(log.logs) == 1 + logs.MAX_STRANGERS_EVER
    friends = [Author(f"friend {number}") for number in range(logs.MAX_LOGS)]
    for friend in friends:
        log.take(friend.join(first.room, log.take(alice.write(first.room, Add(friend.user))).applied[0]))
    assert len(log.logs) == logs.MAX_LOGS
    assert sum(log.roll.is_member(friend.user) for friend in friends) == logs.MAX_LOGS - logs.MAX_STRANGERS_EVER - 1


def test_x3_one_user_cannot_fill_a_room_with_devices() -> None:
    """Of a stranger four, of a member whom the owner let in as many as a list of devices names."""
    alice, mallory = Author("alice"), AccountKey.generate(random.Random("mallory").randbytes)
    first = alice.create()
    for invited, most in ((False, logs.MAX_STRANGER_DEVICES), (True, logs.MAX_DEVICES)):
        log = RoomLog(first.room)
        log.take(first)
        if invited:
            log.take(Author("alice").again(first).write(first.room, Add(mallory.user_id.raw)))
        for number in range(40):
            device = Author(f"device {number}")
            device.account, device.proof = mallory, device_proof(mallory, device.key.peer_id)
            log.take(device.join(first.room, first))
        assert len(log.logs) == 1 + most


def test_x3_a_crowd_of_invented_members_is_let_in_slowly_and_swept_out() -> None:
    """A member brings hundreds of invented ones: they come slowly, talk goes on, who really is there is let in by the
    owner without being asked, and one word removes the others."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, mallory) = await garden(world, "alice", "bob", "mallory", open=True)
        crowd = [Author(f"guest {number}").join(room, of_owner(alice, room)).raw for number in range(300)]
        hers = alice.chat.rooms.rooms[room]
        for _ in range(2):
            mallory.chat.rooms.send(alice.node.peer_id, Entries(room.raw, False, False, crowd[:150]))
            mallory.chat.rooms.send(alice.node.peer_id, Entries(room.raw, False, False, crowd[150:]))
            await asyncio.sleep(1.0)
        print(f"X3: of {len(crowd)} invented members {hers.log.strangers() - 2} came within 2 s")
        assert hers.log.strangers() - 2 <= INTRODUCED_BURST + 2
        assert hers.log.strangers() >= CROWDED
        await bob.chat.send(room, "who are all these?", wait=5.0)
        await same_history(room, [alice, bob], 1)
        await asyncio.sleep(120.0)
        assert not hers.log.roll.is_stranger(bob.node.user_id.raw)
        with pytest.raises(RefusedError):
            await bob.chat.rooms.sweep(room)
        swept = await alice.chat.rooms.sweep(room)
        assert swept >= CROWDED - 2
        await asyncio.sleep(20.0)
        for one in (alice, bob):
            roll = one.chat.rooms.rooms[room].log.roll
            assert {u for u, state in roll.states.items() if state == "member"} <= {
                p.node.user_id.raw for p in (alice, bob, mallory)
            }
            assert not roll.stale
        await bob.chat.send(room, "better", wait=5.0)
        await same_history(room, [alice, bob], 2)

    run(main)


def of_owner(owner: Person, room: RoomId) -> Signed:
    """The entry that made the room."""
    raw = owner.chat.rooms.rooms[room].create
    assert raw is not None
    return read_untrusted(raw)


def test_x3_when_no_place_is_left_for_strangers_an_owner_lets_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes by itself is told in one sentence, and is in once it was invited."""
    monkeypatch.setattr(logs, "MAX_STRANGERS", 1)

    async def main(world: FakeWorld) -> None:
        room, (alice, bob) = await garden(world, "alice", "bob", open=True)
        carol = await Person(world, "carol").start()
        with pytest.raises(RefusedError, match="ask one of its owners"):
            await carol.chat.rooms.join("garden")
        assert carol.chat.rooms.all()[0].state == "joining"
        await alice.chat.rooms.invite(room, carol.node.user_id)
        await eventually(lambda: carol.chat.rooms.all()[0].state == "joined")
        await carol.chat.send(room, "thank you", wait=5.0)
        await same_history(room, [alice, bob, carol], 1)

    run(main)
