"""Who may write to whom, who is who: requests, blocking, devices, names, false claims."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.chat_fakes import FakeNode, FakeWorld, Person, befriend

from p2pnode import (
    Address,
    InvalidPeerError,
    NotFoundError,
    PeerBlockedError,
    PresenceChanged,
    RefusedError,
)
from p2pnode.chat import PresenceSeen, RequestReceived
from p2pnode.chat.people import People
from p2pnode.chat.protocol import CHAT_PROTOCOL, Ack, Hello, Refuse, TextMessage, device_proof, encode
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def pair(world: FakeWorld, *paths: Path | None) -> tuple[Person, Person]:
    one = await Person(world, "alice", paths[0] if paths else None).start()
    other = await Person(world, "bob", paths[1] if len(paths) > 1 else None).start()
    return one, other


def hello_of(node: FakeNode, *, hall: bool = False, name: str | None = None) -> Hello:
    proof = device_proof(node.account, node.peer_id)
    return Hello(1, node.user_id.raw, proof, node.settings.name if name is None else name, hall)


def test_first_message_of_a_stranger_is_a_request_and_more_wait_for_acceptance() -> None:
    """The second is queued at the sender and arrives soon after the request was accepted."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        assert (await alice.chat.send(bob.node.user_id, "may I?")).delivered
        waiting = await alice.chat.send(bob.node.user_id, "please", wait=60.0)
        assert (waiting.state, waiting.reason) == ("queued", "request_pending")
        assert [e.contact.party for e in bob.of_type(RequestReceived)] == [alice.node.user_id]
        await asyncio.sleep(300)
        assert await bob.texts(alice.node.user_id) == ["may I?"]
        await bob.chat.add_contact(alice.node.user_id, "Al")
        await asyncio.sleep(1)
        assert await bob.texts(alice.node.user_id) == ["may I?", "please"]

    run(main)


def test_answering_a_request_accepts_it() -> None:
    """Whoever writes back wants to talk."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await alice.chat.send(bob.node.user_id, "1")
        await alice.chat.send(bob.node.user_id, "2")
        await bob.chat.send(alice.node.user_id, "yes?")
        await asyncio.sleep(1)
        assert sorted(await bob.texts(alice.node.user_id)) == ["1", "2", "yes?"]
        assert (await bob.store.contacts())[0].state == "accepted"

    run(main)


def test_blocked_person_reaches_nobody_and_is_not_written_to() -> None:
    """Sessions end, messages stay with the sender, and sending names the block."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "1")
        await bob.chat.block(alice.node.user_id)
        assert bob.node.sessions() == []
        assert not (await alice.chat.send(bob.node.user_id, "2")).delivered
        with pytest.raises(PeerBlockedError):
            await bob.chat.send(alice.node.user_id, "no")
        await asyncio.sleep(200)
        assert await bob.texts(alice.node.user_id) == ["1"]
        await bob.chat.block(alice.node.user_id, blocked=False)
        await asyncio.sleep(200)
        assert await bob.texts(alice.node.user_id) == ["1", "2"]

    run(main)


def test_final_refusal_raises_and_is_remembered() -> None:
    """A peer that says `blocked` gets nothing more; the history says why."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await bob.store.put_contact(alice.node.user_id, "blocked", now_ms=1)
        with pytest.raises(RefusedError):
            await alice.chat.send(bob.node.user_id, "hello", wait=5.0)
        await asyncio.sleep(1)
        message = (await alice.store.history(bob.node.user_id))[0]
        assert (message.state, message.reason) == ("refused", "blocked")
        assert await alice.store.outbox_devices() == []

    run(main)


def test_message_goes_to_all_devices_of_a_user() -> None:
    """Delivered when one has it; the one that was away gets it later."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        phone = await Person(world, "bob", device="phone").start()
        laptop = await Person(world, "bob", account=phone.node.account, device="laptop").start()
        for device in (phone, laptop):
            await device.chat.add_contact(alice.node.user_id)
        laptop.node.up = False
        result = await alice.chat.send(phone.node.user_id, "hi", wait=5.0)
        assert result.delivered
        laptop.node.up = True
        await asyncio.sleep(80)
        assert await phone.texts(alice.node.user_id) == await laptop.texts(alice.node.user_id) == ["hi"]
        result = await alice.chat.send(phone.node.peer_id, "to one is to all")
        await asyncio.sleep(1)
        assert await laptop.texts(alice.node.user_id) == ["hi", "to one is to all"]

    run(main)


def test_message_to_a_bare_peer_id_joins_the_users_conversation() -> None:
    """The user is learned from the Hello; there is one conversation, not two."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        assert (await alice.chat.send(bob.node.peer_id, "hello", wait=5.0)).delivered
        await bob.chat.send(alice.node.peer_id, "hello yourself")
        await asyncio.sleep(1)
        assert await alice.texts(bob.node.user_id) == ["hello", "hello yourself"]
        assert [c.party for c in await alice.store.conversations()] == [bob.node.user_id]

    run(main)


def test_user_at_a_named_address_needs_no_lookup() -> None:
    """Who answers there must prove to be that user; another gets nothing."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        carol = await Person(world, "carol").start()
        bob.node.listed = False
        result = await alice.chat.send(bob.node.user_id, "hi", wait=5.0, addresses=[bob.node.address])
        assert result.delivered
        carol.node.listed = False
        wrong = await alice.chat.send(
            carol.node.user_id, "secret", addresses=[bob.node.address, Address("10.9.9.9", 1)]
        )
        assert not wrong.delivered
        await asyncio.sleep(30)
        assert await bob.texts(alice.node.user_id) == ["hi"]

    run(main)


def test_unknown_user_stays_queued_until_found() -> None:
    """The reason is told; the message goes out when the network knows a device."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        bob.node.listed = False
        result = await alice.chat.send(bob.node.user_id, "hi")
        assert (result.state, result.reason) == ("queued", "peer_not_found")
        bob.node.listed = True
        await asyncio.sleep(60)
        assert await bob.texts(alice.node.user_id) == ["hi"]

    run(main)


def test_presence_of_contacts_is_told() -> None:
    """Known people only."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        alice.node.emit(PresenceChanged(bob.node.peer_id, True, 1.0))
        assert alice.of_type(PresenceSeen) == []
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "hi")
        alice.node.emit(PresenceChanged(bob.node.peer_id, False, 3.0))
        seen = alice.of_type(PresenceSeen)[-1]
        assert (seen.peer, seen.user, seen.online, seen.age_s) == (bob.node.peer_id, bob.node.user_id, False, 3.0)

    run(main)


def test_people_are_found_by_name_and_prefix() -> None:
    """Petname, own name, name with id, prefix; several of one name are named; nearest name suggested."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "hi")
        chat, user = alice.chat, bob.node.user_id
        assert chat.display_name(user) == f"bob~{str(user)[-6:]}"
        for text in ("bob", "BOB", f"bob~{str(user)[-6:]}", f"~{str(user)[-6:]}", str(user), str(user)[:14],
                     str(bob.node.peer_id), str(bob.node.peer_id)[:16]):  # fmt: skip
            assert chat.resolve(text) == user, text
        with pytest.raises(NotFoundError, match="bob"):
            chat.resolve("bop")
        await chat.rename_contact(user, "Robert")
        assert chat.display_name(user) == "Robert"
        assert chat.resolve("robert") == user
        twin = await Person(world, "bob", device="2", account=Person(world, "other bob").node.account).start()
        await twin.chat.send(alice.node.user_id, "I am bob, too")
        await chat.remove_contact(user)
        with pytest.raises(InvalidPeerError, match="Several"):
            chat.resolve("bob")

    run(main)


def test_false_claims_about_the_user_end_the_stream() -> None:
    """A device cannot pass for somebody else's: the account's signature is missing."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        mallory = FakeNode(world, "mallory")
        mallory.go_up()
        session = await mallory.connect(bob.node.peer_id)
        stream = await session.open_stream(CHAT_PROTOCOL)
        proof = device_proof(mallory.account, mallory.peer_id)
        await stream.write(encode(Hello(1, alice.node.user_id.raw, proof, "alice", False)))
        await stream.write(encode(TextMessage(bytes(16), False, 1, 1, "I am alice")))
        await asyncio.sleep(1)
        assert bob.chat.drops["bad_proof"] == 1
        assert await bob.texts(alice.node.user_id) == []
        assert bob.chat.user_of(mallory.peer_id) is None

    run(main)


def test_answers_of_a_lying_receiver_change_nothing_else() -> None:
    """Acks and refusals for messages that were not sent to it are ignored."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        bob.node.up = False
        queued = await alice.chat.send(bob.node.user_id, "for bob", wait=0.0)
        liar = FakeNode(world, "liar")
        liar.go_up()

        async def lie(_session: Any, stream: Any) -> None:
            message_id = bytes.fromhex(queued.id)
            await stream.write(
                encode(hello_of(liar)) + encode(Ack([message_id])) + encode(Refuse(message_id, "blocked"))
            )

        liar.handle(CHAT_PROTOCOL, lie)
        await alice.chat.send(liar.user_id, "for the liar", wait=1.0)
        await asyncio.sleep(1)
        assert (await alice.store.message(queued.id)).state == "queued"

    run(main)


def test_contacts_and_hall_members_are_watched() -> None:
    """Devices of accepted contacts, from the start and as they become known; not strangers, nor who was removed."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        carol = await Person(world, "carol").start()
        assert alice.node.watched == set()
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "hi")
        await asyncio.sleep(1)
        assert alice.node.watched == {bob.node.peer_id}
        alice.chat.enter_hall(carol.node.peer_id)
        await asyncio.sleep(5)
        assert alice.node.watched == {bob.node.peer_id, carol.node.peer_id}
        await alice.chat.remove_contact(bob.node.user_id)
        await asyncio.sleep(1)
        assert bob.node.peer_id not in alice.node.watched

    run(main)


def test_a_contact_never_met_is_watched_once_the_network_knows_its_devices() -> None:
    """Added by its user id alone: looked up in the background, again when it was not there."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        bob.node.listed = False
        await alice.chat.add_contact(bob.node.user_id)
        await asyncio.sleep(60)
        assert alice.node.watched == set()
        bob.node.listed = True
        await asyncio.sleep(700)
        assert alice.node.watched == {bob.node.peer_id}

    run(main)


def test_users_shows_what_the_watch_knows() -> None:
    """Nobody is looked up who is watched: the state and its age come from the node's board."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "hi")
        await asyncio.sleep(200)  # what he said of himself is older than what the board says
        alice.node.sessions_by_peer.clear()
        people = People(alice.chat)
        peer = bob.node.peer_id
        figures = []
        for state, online, age in (("last_seen", True, 7.0), ("offline", False, 120.0), ("online", True, 90.0)):
            alice.node.known[peer] = PresenceChanged(peer, online, age, state=state)
            figures.append([(p.online, p.presence) for p in await people.all()])
            figures[-1] += [line.split("  ")[-1].strip() for line in await people.lines("users")]
        assert [each[0] for each in figures] == [(True, "last_seen"), (False, "offline"), (True, "online")]
        assert [each[1].split(", in the hall")[0] for each in figures] == [
            "last seen 7 s ago",
            "offline, seen 2 min ago",
            "online, seen 2 min ago",
        ]

    run(main)
