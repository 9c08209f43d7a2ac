"""What contacts say of themselves reaches those who are here, and through them those whom both know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import MessageTooLongError
from p2pnode.chat import Conversation, PresenceSeen, StatusChanged
from p2pnode.chat.people import People
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def meet(*people: Person) -> None:
    """All are contacts of each other, and have been here together."""
    for number, one in enumerate(people):
        for other in people[number + 1 :]:
            await befriend(one, other)
            await one.chat.send(other.node.user_id, "hi")
    await asyncio.sleep(5)


def part(world: FakeWorld, one: Person, other: Person) -> None:
    """From now on these two reach each other no more, nor hear of each other from the network."""
    world.walls.add(frozenset((one.node, other.node)))
    for session in one.node.sessions():
        if session.peer == other.node.peer_id:
            session.break_off("lost")


def test_a_status_is_seen_by_contacts_and_survives_restarts(tmp_path: Path) -> None:
    """At once by those who are here, with the next session by the others; nobody else sees it."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice", tmp_path / "a.db").start()
        bob, carol = await Person(world, "bob", tmp_path / "b.db").start(), await Person(world, "carol").start()
        await meet(alice, bob)
        await alice.chat.send(carol.node.user_id, "who are you?")  # no contact of hers
        assert await alice.chat.gossip.set_text("  gone\u202e fishing ") == "gone fishing"
        await asyncio.sleep(2)
        assert bob.chat.gossip.status_of(alice.node.user_id) == "gone fishing"
        assert [e.text for e in bob.of_type(StatusChanged)][-1] == "gone fishing"
        assert carol.chat.gossip.status_of(alice.node.user_id) == ""
        assert any("gone fishing" in line for line in await People(bob.chat).lines("users"))
        for person in (alice, bob):
            await person.stop()
        await bob.start()
        assert bob.chat.gossip.status_of(alice.node.user_id) == "gone fishing"
        told = bob.chat.gossip.told_of(alice.node.user_id)
        assert told is not None
        assert told.state == "offline"  # she took leave
        await alice.start()
        assert alice.chat.gossip.text == "gone fishing"
        await alice.chat.gossip.set_text("")
        await bob.chat.send(alice.node.user_id, "back?")
        await asyncio.sleep(2)
        assert bob.chat.gossip.status_of(alice.node.user_id) == ""
        with pytest.raises(MessageTooLongError):
            await alice.chat.gossip.set_text("x" * 141)

    run(main)


def test_who_is_there_is_heard_from_mutual_contacts() -> None:
    """Bob tells Alice of Carol, whom both know: her coming, her status and her leaving, and nobody looks her up."""

    async def main(world: FakeWorld) -> None:
        alice, bob, carol = [await Person(world, name).start() for name in ("alice", "bob", "carol")]
        await meet(alice, bob, carol)
        part(world, alice, carol)
        carol.node.listed = False
        alice.events.clear()
        await asyncio.sleep(1_000)
        told = alice.chat.gossip.told_of(carol.node.user_id)
        assert told is not None
        assert told.state == "last_seen"
        await carol.chat.gossip.set_text("in Rome")
        await asyncio.sleep(2)
        seen = alice.of_type(PresenceSeen)[-1]
        assert (seen.peer, seen.online, seen.evidence) == (carol.node.peer_id, True, "contact")
        assert alice.chat.gossip.status_of(carol.node.user_id) == "in Rome"
        assert People(alice.chat).glance(carol.node.user_id) == "online"
        lines = await People(alice.chat).lines("online")
        assert any("carol" in line and "in Rome" in line for line in lines)
        await carol.stop()
        await asyncio.sleep(2)
        assert People(alice.chat).glance(carol.node.user_id) == "offline"
        assert alice.of_type(PresenceSeen)[-1].state == "offline"

    run(main)


def test_only_mutual_contacts_hear_of_each_other() -> None:
    """Bob knows Alice and Carol; as long as one of these two has not the other as a contact, neither hears a word."""

    async def main(world: FakeWorld) -> None:
        alice, bob, carol = [await Person(world, name).start() for name in ("alice", "bob", "carol")]
        await meet(alice, bob)
        await meet(bob, carol)
        await alice.chat.add_contact(carol.node.user_id)  # one-sided
        await carol.chat.gossip.set_text("secret")
        await asyncio.sleep(5)
        assert alice.chat.gossip.told_of(carol.node.user_id) is None
        await carol.chat.add_contact(alice.node.user_id)
        await alice.chat.send(carol.node.user_id, "now we are two")
        await asyncio.sleep(5)
        assert alice.chat.gossip.status_of(carol.node.user_id) == "secret"
        part(world, alice, carol)
        await carol.chat.block(alice.node.user_id)
        await asyncio.sleep(5)
        await carol.chat.gossip.set_text("without Alice")
        await asyncio.sleep(5)
        assert bob.chat.gossip.status_of(carol.node.user_id) == "without Alice"
        assert alice.chat.gossip.status_of(carol.node.user_id) == "secret"

    run(main)


def test_invisible_looks_offline_survives_a_restart_and_still_writes(tmp_path: Path) -> None:
    """Contacts see a goodbye; who is written to sees that we are here; back again, everybody does."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice", tmp_path / "a.db").start()
        bob, carol = await Person(world, "bob").start(), await Person(world, "carol").start()
        await meet(alice, bob, carol)
        await alice.chat.gossip.set_invisible(True)
        await asyncio.sleep(1)
        assert alice.node.invisible
        assert bob.node.session(alice.node.peer_id) is None
        assert People(bob.chat).glance(alice.node.user_id) == "offline"
        await alice.stop()
        await alice.start()
        assert alice.node.invisible
        assert alice.chat.gossip.invisible
        assert (await alice.chat.send(bob.node.user_id, "psst")).delivered
        await asyncio.sleep(5)
        told = bob.chat.gossip.told_of(alice.node.user_id)
        assert told is not None
        assert told.state == "offline"  # the session says more, but nobody passes that on
        assert People(carol.chat).glance(alice.node.user_id) == "offline"
        await alice.chat.gossip.set_invisible(False)
        assert not alice.node.invisible
        await bob.chat.send(alice.node.user_id, "there you are")
        await asyncio.sleep(2)
        told = bob.chat.gossip.told_of(alice.node.user_id)
        assert told is not None
        assert told.state == "online"

    run(main)


def test_what_is_typed_sets_a_status_and_hides() -> None:
    """`\\status`, `\\invisible`, `\\visible` in either face."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        bob = await Person(world, "bob").start()
        await meet(alice, bob)
        lines: list[str] = []
        console = Conversation(alice.chat, own_port=4747, show=lines.append)
        for line in ("\\status", "\\status back at five", "/invisible", "\\status", "\\visible", "\\status -"):
            await console.handle(line)
        await console.handle("\\status " + "x" * 141)
        assert lines == [
            "* You show no status; \\status TEXT sets one.",
            "* Contacts see: back at five",
            "* You are invisible: you look offline, messages still come and go; whom you write to sees you.",
            "* Contacts see: back at five",
            "* You are invisible: you look offline, messages still come and go; whom you write to sees you.",
            "* Contacts see that you are here.",
            "* You show no status; \\status TEXT sets one.",
            "! A status has at most 140 characters; this has 141.",
        ]
        console.close()

    run(main)
