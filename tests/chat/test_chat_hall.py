"""The hall: everybody who joined through one another or met on the LAN."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.chat_fakes import FakeWorld, Person

from p2pnode import Address, InvalidPeerError, PeerId, SessionOpened, UserId
from p2pnode.chat import HALL, ChatSettings, HallChanged, Member
from p2pnode.chat.hall import Roster
from p2pnode.chat.protocol import MAX_MEMBERS, MemberEntry, Members
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def hall_of(world: FakeWorld, *names: str) -> list[Person]:
    """Each enters through the one before."""
    people: list[Person] = []
    for name in names:
        person = await Person(world, name).start()
        if people:
            person.chat.enter_hall(people[-1].node.peer_id, [people[-1].node.address])
            await asyncio.sleep(0.5)
        people.append(person)
    return people


def test_five_who_joined_through_one_another_are_one_hall() -> None:
    """Everybody knows everybody, and what one says arrives at the four others once."""

    async def main(world: FakeWorld) -> None:
        people = await hall_of(world, "alice", "bob", "carol", "dave", "erin")
        for person in people:
            assert {m.peer for m in person.chat.members()} == {p.node.peer_id for p in people if p is not person}
            assert {m.name for m in person.chat.members()} == {p.node.settings.name for p in people if p is not person}
        await asyncio.gather(*(p.chat.send(HALL, f"{p.node.settings.name} {n}") for p in people for n in range(5)))
        await asyncio.sleep(1)
        for person in people:
            for other in people:
                name = other.node.settings.name
                assert [t for t in await person.texts(HALL) if t.startswith(name)] == [f"{name} {n}" for n in range(5)]

    run(main)


def test_people_on_one_lan_meet_without_being_asked() -> None:
    """Both see each other at the same time; each enters once."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        for _ in range(3):
            alice.node.meet_on_lan(bob.node)
            bob.node.meet_on_lan(alice.node)
            await asyncio.sleep(1)
        for one, other in ((alice, bob), (bob, alice)):
            changes = one.of_type(HallChanged)
            assert [[m.peer for m in c.joined] for c in changes] == [[other.node.peer_id]]
        assert (await alice.chat.send(HALL, "hi")).devices == 1

    run(main)


def test_direct_messages_between_members_still_ask_first() -> None:
    """A hall is open to whoever joins; writing to one person alone is a request."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await hall_of(world, "alice", "bob")
        await bob.chat.send(alice.node.user_id, "psst")
        assert (await bob.chat.send(alice.node.user_id, "psst")).reason == "request_pending"
        assert (await bob.chat.send(HALL, "hello all")).delivered

    run(main)


def test_leaving_is_noticed_at_once() -> None:
    """A clean exit says goodbye."""

    async def main(world: FakeWorld) -> None:
        alice, bob, carol = await hall_of(world, "alice", "bob", "carol")
        await bob.stop()
        await asyncio.sleep(0.5)
        for person in (alice, carol):
            assert [[m.name for m in c.left] for c in person.of_type(HallChanged) if c.left] == [["bob"]]
            assert len(person.chat.members()) == 1

    run(main)


def test_vanishing_is_noticed_within_half_a_minute() -> None:
    """A crash says nothing; two failed attempts end the membership, and with it what was queued for the hall."""

    async def main(world: FakeWorld) -> None:
        alice, bob, _carol = await hall_of(world, "alice", "bob", "carol")
        await bob.crash()
        await alice.chat.send(HALL, "anybody?")
        await asyncio.sleep(30)
        assert [m.name for m in alice.chat.members()] == ["carol"]
        assert await alice.store.outbox_devices() == []

    run(main)


@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 3.5, 4.5])
@pytest.mark.parametrize("reason", ["duplicate", "replaced", "lost"])
def test_an_entry_survives_the_end_of_its_first_connection(moment: float, reason: str) -> None:
    """Of two connections that cross one ends at once, and with it what was said there: it is said again."""

    async def main(world: FakeWorld) -> None:
        people = await hall_of(world, "alice", "bob")
        carol = await Person(world, "carol").start()
        connected = asyncio.Event()
        carol.node.subscribe(lambda event: connected.set() if isinstance(event, SessionOpened) else None)
        carol.chat.enter_hall(people[-1].node.peer_id, [people[-1].node.address])
        await connected.wait()
        await asyncio.sleep(moment * world.delay)
        for session in carol.node.sessions():
            session.break_off(reason)
        await asyncio.sleep(10)
        for person in (*people, carol):
            assert len(person.chat.members()) == 2

    run(main)


def test_idle_sessions_do_not_end_a_membership() -> None:
    """A quiet hall stays a hall; the next message opens the sessions again."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await hall_of(world, "alice", "bob")
        alice.node.sessions()[0].break_off("idle")
        await asyncio.sleep(1000)
        assert alice.node.sessions() == []
        assert len(alice.chat.members()) == len(bob.chat.members()) == 1
        assert (await alice.chat.send(HALL, "still there?")).delivered

    run(main)


def test_empty_hall_says_so() -> None:
    """Plain text without anybody to hear it is an error, not a message to nobody."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        with pytest.raises(InvalidPeerError, match="Nobody"):
            await alice.chat.send(HALL, "hello?")

    run(main)


def test_blocked_people_are_not_in_our_hall() -> None:
    """They neither hear us nor are heard."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await hall_of(world, "alice", "bob")
        await alice.chat.block(bob.node.user_id)
        await asyncio.sleep(1)
        assert alice.chat.members() == ()
        bob.chat.enter_hall(alice.node.peer_id)
        await asyncio.sleep(60)
        assert alice.chat.members() == ()

    run(main)


def test_hall_can_be_switched_off() -> None:
    """Without the hall, nobody gets in and the LAN is not greeted."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice", settings=ChatSettings(hall=False)).start()
        bob = await Person(world, "bob").start()
        alice.node.meet_on_lan(bob.node)
        bob.chat.enter_hall(alice.node.peer_id)
        await asyncio.sleep(5)
        assert alice.chat.members() == bob.chat.members() == ()

    run(main)


def key(number: int) -> bytes:
    return b"\x09" + number.to_bytes(31, "big")


def test_roster_takes_hearsay_only_as_a_hint() -> None:
    """Names of others are not believed, private addresses only from a teller in the same scope."""
    roster = Roster(PeerId(key(1)))
    teller = Member(PeerId(key(2)), UserId(key(3)), "t")
    addresses = [Address("10.0.0.9", 5).pack(), Address("1.1.1.1", 5).pack(), Address("127.0.0.1", 5).pack()]
    frame = Members([MemberEntry(key(9), key(10), "x", addresses), MemberEntry(key(1), key(1), "me", [])])
    [told] = roster.told_untrusted(frame, teller, Address("8.8.8.8", 1), 0.0)
    assert told.addresses == (Address("1.1.1.1", 5),)
    [told] = roster.told_untrusted(frame, teller, Address("10.0.0.2", 1), 0.0)
    assert told.addresses == (Address("10.0.0.9", 5), Address("1.1.1.1", 5))
    assert told.peer not in roster


def test_roster_is_bounded() -> None:
    """64 members; hearsay about 64 at once and then one per two seconds and teller."""
    roster = Roster(PeerId(key(1)))
    for number in range(200):
        roster.answered(Member(PeerId(key(1000 + number)), UserId(key(5)), "n"))
    assert len(roster.members()) == MAX_MEMBERS
    assert not roster.invite(PeerId(key(7)), 0.0)
    other = Roster(PeerId(key(1)))
    teller = Member(PeerId(key(2)), UserId(key(3)), "t")
    told = 0
    for turn in range(10):
        entries = [MemberEntry(key(10_000 + turn * 64 + n), key(4), "x", []) for n in range(64)]
        told += len(other.told_untrusted(Members(entries), teller, Address("8.8.8.8", 1), float(turn)))
    assert told <= 64 + 5
