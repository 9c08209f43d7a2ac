"""Attacks on rooms: forged authors, two histories, who was removed, floods, entries of other rooms (X1, X3, R1, V2)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from support.chat_fakes import FakeWorld, Person
from support.room_authors import Author
from support.rooms import eventually, garden, run, same_history

from p2pnode import BadPacket
from p2pnode.chat.model import RoomChanged, RoomId
from p2pnode.chat.rooms import log as logs
from p2pnode.chat.rooms.entries import (
    MAX_SEQ,
    NO_HASH,
    NO_ROOM,
    Add,
    Create,
    Entry,
    Join,
    Rekey,
    Signed,
    Text,
    read_untrusted,
    seal_text,
    sign,
)
from p2pnode.chat.rooms.log import RoomLog
from p2pnode.chat.rooms.wire import Ask, Entries, EpochKey, Frame, Have, Invitation, Keys, Near, Position, Range, Want


def text(room: Signed, words: str = "x") -> Text:
    return Text(room.id, seal_text(bytes(32), bytes(12), room.room, room.device, words))


def test_v2_entry_in_anothers_name_is_refused() -> None:
    """Another's key, another's user, one changed bit anywhere: nothing of it is taken."""
    alice, mallory = Author("alice"), Author("mallory")
    first = alice.create()
    forged = sign(mallory.key, msgspec.structs.replace(alice.write(first.room, text(first)).entry))
    with pytest.raises(BadPacket, match="bad_signature"):
        read_untrusted(forged.raw).check_untrusted()
    stolen = mallory.write(first.room, Join(alice.user, mallory.proof, "alice"), [first])
    with pytest.raises(BadPacket, match="bad_proof"):
        read_untrusted(stolen.raw).check_untrusted()
    raw = alice.made[-1].raw
    for at in range(0, len(raw), 3):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(BadPacket):
            read_untrusted(bytes(changed)).check_untrusted()


def test_r1_entry_of_one_room_is_worth_nothing_in_another() -> None:
    alice, bob = Author("alice"), Author("bob")
    first, log = alice.create(), RoomLog(RoomId(bytes(32)))
    other = Author("carol").create()
    for signed in (first, bob.join(first.room, first)):
        with pytest.raises(BadPacket, match="other_room"):
            log.take(signed)
    log = RoomLog(other.room)
    log.take(other)
    with pytest.raises(BadPacket, match="other_room"):
        log.take(bob.made[0])
    assert log.count == 1


def test_v2_two_histories_of_one_device_count_for_nobody() -> None:
    """Each of two members got another one; both end with the same: neither, and all know of whom."""
    alice, bob = Author("alice"), Author("bob")
    first = alice.create()
    join = bob.join(first.room, first)
    good = bob.write(first.room, text(first))
    twin = Author("bob")
    twin.made = [join, good]
    one, other = bob.write(first.room, text(first, "yes")), twin.write(first.room, text(first, "no"))
    answer = alice.write(first.room, text(first), [one])
    views = []
    for mine, theirs in ((one, other), (other, one)):
        log = RoomLog(first.room)
        for signed in (first, join, good, mine):
            assert log.take(signed).applied == [signed]
        taken = log.take(theirs)
        assert taken.conflict == (bob.key.peer_id.raw, 3)
        assert log.fork(*taken.conflict) == 3
        assert log.fork(*taken.conflict) is None
        assert log.take(mine).refused == log.take(theirs).refused == "forked"
        for signed in log.again():
            log.take(signed)
        assert log.take(answer).applied == [answer]  # who answered to one of them is heard by all
        views.append(({d: log.length(d) for d in log.logs}, log.roll.states))
    assert views[0] == views[1]


def test_x3_huge_logs_are_bounded() -> None:
    """One device has its share; control entries, claimed depths and what waits have limits."""
    alice, bob = Author("alice"), Author("bob")
    first = alice.create()
    log = RoomLog(first.room)
    log.take(first)
    log.take(bob.join(first.room, first))
    size = 0
    words = "x" * 14_000
    while not (taken := log.take(bob.write(first.room, text(first, words)))).refused:
        size += len(taken.applied[0].raw)
    print(f"a device may write {size:,} bytes in texts of 14,000, {log.length(bob.key.peer_id.raw)} entries")
    assert taken.refused == "log_full"
    assert size <= logs.MAX_LOG_BYTES
    assert MAX_SEQ * 20 <= 1 << 20  # memory of a full log
    carol = Author("carol")
    log.take(carol.join(first.room, first))
    for number in range(logs.MAX_CONTROLS):
        if number:
            log.take(carol.write(first.room, Add(bob.user)))
    with pytest.raises(BadPacket, match="too_many_controls"):
        log.take(carol.write(first.room, Rekey(bytes(32))))
    dave = Author("dave")
    log.take(dave.join(first.room, first))
    with pytest.raises(BadPacket, match="bad_depth"):
        log.take(dave.write(first.room, text(first), deeper=1))
    erin = Author("erin")
    erin.join(first.room, first)
    missing = erin.write(first.room, text(first))
    assert missing.entry.seq == 2
    held = 0
    for _ in range(logs.MAX_WAITING + 50):
        held += not log.take(erin.write(first.room, text(first))).refused
    assert held <= logs.MAX_WAITING


def test_x3_removed_member_writes_on_and_nobody_shows_it() -> None:
    """Its entries are refused, links to them are kept harmless, it gets no key and no entry."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await garden(world, "alice", "bob", "carol")
        await bob.chat.send(room, "before", wait=5.0)
        await same_history(room, [alice, bob, carol], 1)
        hers = bob.chat.rooms.rooms[room]
        await alice.chat.rooms.remove(room, bob.node.user_id)
        await eventually(lambda: hers.row.state == "removed")
        await alice.chat.send(room, "secret", wait=5.0)
        # a program that does not care: it writes as if nothing had happened, and asks for everything
        epoch = next(iter(hers.keys))
        key = hers.keys[epoch]
        late = hers._sign(Text(epoch, seal_text(key, bytes(12), room, bob.node.peer_id, "I am still here")))
        heard: list[Frame] = []

        async def hear(peer: object, frame: Frame) -> None:
            heard.append(frame)

        bob.chat.rooms.heard = hear  # type: ignore[method-assign,assignment]
        for other in (alice, carol):
            send = bob.chat.rooms.send
            send(other.node.peer_id, Have(room.raw, True, []))
            send(other.node.peer_id, Entries(room.raw, False, False, [late.raw]))
            new = alice.chat.rooms.rooms[room].log.roll.epoch
            assert new is not None
            send(other.node.peer_id, Ask(room.raw, [new.id]))
            send(other.node.peer_id, Want(room.raw, True, [wanted(alice, room)]))
        await asyncio.sleep(30.0)
        assert not [frame for frame in heard if isinstance(frame, Entries | Keys)]
        for other in (alice, carol):
            assert await other.texts(room) == ["before", "secret"]
            assert other.chat.rooms.rooms[room].log.length(bob.node.peer_id.raw) == 2

    run(main)


def wanted(owner: Person, room: RoomId) -> Range:
    return Range(owner.node.peer_id.raw, 1, owner.chat.rooms.rooms[room].log.length(owner.node.peer_id.raw))


def test_v2_fork_is_noticed_told_and_survives_a_restart() -> None:
    """A member shows different texts to two others: all three end with neither, and say so."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob, carol) = await garden(world, "alice", "bob", "carol", open=True)
        await bob.chat.send(room, "honest", wait=5.0)
        await same_history(room, [alice, bob, carol], 1)
        theirs = bob.chat.rooms.rooms[room]
        await eventually(lambda: len(theirs.exchange.neighbours.all) == 2)
        epoch = next(iter(theirs.keys))
        versions = [
            theirs._sign(Text(epoch, seal_text(theirs.keys[epoch], bytes(12), room, bob.node.peer_id, words)))
            for words in ("I agree", "I refuse")
        ]
        for other, signed in zip((alice, carol), versions, strict=True):
            bob.chat.rooms.send(other.node.peer_id, Entries(room.raw, False, False, [signed.raw]))
        for person in (alice, carol):
            await eventually(lambda: any(e.what == "forked" for e in person.of_type(RoomChanged)))  # noqa: B023
            assert await person.texts(room) == ["honest"]
        await alice.chat.send(room, "we saw that", wait=5.0)
        assert await same_history(room, [alice, carol], 2) == ["honest", "we saw that"]
        dave = await Person(world, "dave").start()
        await dave.chat.rooms.join("garden")
        await same_history(room, [alice, carol, dave], 2)
        await eventually(lambda: dave.chat.rooms.rooms[room].log.roll.forks == {bob.node.peer_id.raw: 3})

    run(main)


def test_x3_stranger_gets_nothing_of_a_room_by_invitation() -> None:
    """Who is not invited is told so, whatever it asks; invitations of strangers are not shown."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob) = await garden(world, "alice", "bob")
        await alice.chat.send(room, "private", wait=5.0)
        mallory = await Person(world, "mallory").start()
        heard: list[Frame] = []

        async def hear(peer: object, frame: Frame) -> None:
            heard.append(frame)

        mallory.chat.rooms.heard = hear  # type: ignore[method-assign,assignment]
        epoch = alice.chat.rooms.rooms[room].log.roll.epoch
        assert epoch is not None
        for frame in (
            Have(room.raw, True, []),
            Want(room.raw, True, [wanted(alice, room)]),
            Ask(room.raw, [epoch.id]),
            Keys(room.raw, [EpochKey(epoch.id, bytes(32))]),
            Have(room.raw, True, [Position(mallory.node.peer_id.raw, 5, bytes(8))]),
        ):
            mallory.chat.rooms.send(alice.node.peer_id, frame)
        author = Author("mallory's room")
        mallory.chat.rooms.send(alice.node.peer_id, Invitation(author.create().raw))
        mallory.chat.rooms.send(alice.node.peer_id, Near(room.raw, [bytes((n,)) + bytes(31) for n in range(2, 18)]))
        await asyncio.sleep(30.0)
        assert {type(frame).__name__ for frame in heard} == {"No"}
        assert {getattr(frame, "code", "") for frame in heard} == {"not_member", "request_pending"}
        assert not alice.chat.rooms.meeting._hints.get(room)
        assert [info.name for info in alice.chat.rooms.all()] == ["garden"]
        assert alice.chat.rooms.rooms[room].keys[epoch.id] != bytes(32)
        assert mallory.node.peer_id not in alice.chat.rooms.rooms[room].exchange.neighbours.all
        await bob.chat.send(room, "still here", wait=5.0)
        await same_history(room, [alice, bob], 2)

    run(main)


def test_x1_hostile_names_and_texts_in_rooms_are_harmless() -> None:
    """Control characters and overrides in texts, names of rooms and members; devices of nobody as neighbours."""

    async def main(world: FakeWorld) -> None:
        room, (alice, bob) = await garden(world, "alice", "bob", open=True)
        theirs = bob.chat.rooms.rooms[room]
        await eventually(lambda: bool(theirs.keys))
        epoch = next(iter(theirs.keys))
        words = "\x1b]0;x\x07\u202eevil" + "e" + "\u0301" * 500
        sealed = seal_text(theirs.keys[epoch], bytes(12), room, bob.node.peer_id, words)
        await theirs.write(Text(epoch, sealed))
        await eventually(lambda: alice.chat.rooms.rooms[room].log.count == 3)
        await asyncio.sleep(1.0)
        [shown] = await alice.texts(room)
        assert "evil" in shown
        assert len(shown) < 40
        assert not set(shown) & set("\x1b\x07\u202e")
        author = Author("namer")
        body = Create("\x1b[2J \u202ehall/#~x", True, author.user, author.proof, "\x1b[2J", bytes(32))
        signed = sign(author.key, Entry(NO_ROOM, author.key.peer_id.raw, 1, NO_HASH, [], 1, 0, body))
        await bob.chat.add_contact(alice.node.user_id)
        await alice.chat.add_contact(bob.node.user_id)
        bob.chat.rooms.send(alice.node.peer_id, Invitation(signed.raw))
        await eventually(lambda: len(alice.chat.rooms.all()) == 2)
        name = alice.chat.display_name(signed.room)
        print(f"shown as {name!r}")
        assert not set(name.removeprefix("#")) & set("\x1b\u202e/#~ ")
        bob.chat.rooms.send(alice.node.peer_id, Near(room.raw, [bytes((n,)) + bytes(31) for n in range(2, 18)]))
        await asyncio.sleep(60.0)
        assert alice.node.dials < 60
        assert len(alice.chat.rooms.meeting._hints[room]) <= 64

    run(main)
