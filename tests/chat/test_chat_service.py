"""The chat between fake nodes in virtual time: delivery, order, exactly once, requests, devices."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.chat_fakes import FakeNode, FakeWorld, Person, befriend

from p2pnode import (
    Address,
    InvalidPeerError,
    MessageTooLongError,
    NotFoundError,
    P2PError,
    PeerBlockedError,
    RefusedError,
)
from p2pnode.chat import MessageReceived, MessageStateChanged, PresenceSeen, RequestReceived
from p2pnode.chat.outbox import IN_MEMORY, DeviceQueue, retry_delay
from p2pnode.chat.protocol import CHAT_PROTOCOL, Ack, Hello, Refuse, TextMessage, device_proof, encode
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def pair(world: FakeWorld, *paths: Path | None) -> tuple[Person, Person]:
    one = await Person(world, "alice", paths[0] if paths else None).start()
    other = await Person(world, "bob", paths[1] if len(paths) > 1 else None).start()
    return one, other


def test_message_is_delivered_after_the_other_side_stored_it() -> None:
    """`send` says delivered exactly when it is in the other's history; one round trip on an open session."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        first = await alice.chat.send(bob.node.user_id, "hello", wait=5.0)
        assert (first.state, first.delivered, first.devices) == ("delivered", True, 1)
        assert await bob.texts(alice.node.user_id) == ["hello"]
        second = await alice.chat.send(bob.node.user_id, "again", wait=5.0)
        assert second.seconds == pytest.approx(2 * world.delay)
        assert [e.state for e in alice.of_type(MessageStateChanged)] == ["queued", "delivered"] * 2
        assert [e.message.text for e in bob.of_type(MessageReceived)] == ["hello", "again"]

    run(main)


def test_hundred_messages_each_way_arrive_in_order_once() -> None:
    """Both histories agree, whatever was written at the same time."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        await asyncio.gather(
            *(a.chat.send(b.node.user_id, f"{a.node.settings.name} {n}", wait=30.0)
              for n in range(100) for a, b in ((alice, bob), (bob, alice)))
        )  # fmt: skip
        for one, other in ((alice, bob), (bob, alice)):
            texts = [t for t in await one.texts(other.node.user_id) if t.startswith(other.node.settings.name)]
            assert texts == [f"{other.node.settings.name} {n}" for n in range(100)]

    run(main)


def test_peer_that_was_away_gets_everything_when_it_is_back() -> None:
    """The state is queued until then; nobody has to type anything again."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        await alice.chat.send(bob.node.user_id, "1")
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        result = await alice.chat.send(bob.node.user_id, "2")
        assert (result.state, result.delivered, result.reason) == ("queued", False, "peer_offline")
        await alice.chat.send(bob.node.user_id, "3", wait=0.0)
        await asyncio.sleep(100)
        bob.node.up = True
        await bob.chat.send(alice.node.user_id, "back")
        await asyncio.sleep(1)
        assert await bob.texts(alice.node.user_id) == ["1", "back", "2", "3"]

    run(main)


def test_attempts_are_spread_out_but_never_end() -> None:
    """1, 2, 4 ... 60 s with a fifth of spread; a peer away for an hour costs about 70 dials."""
    rng = random.Random(1)
    delays = [retry_delay(n, rng) for n in range(1, 100)]
    assert all(0.8 * min(60, 2 ** (n - 1)) <= d <= 72 for n, d in enumerate(delays, 1))

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        bob.node.up = False
        await alice.chat.send(bob.node.user_id, "hello")
        await asyncio.sleep(3600)
        assert 50 <= alice.node.dials <= 90

    run(main)


def test_outbox_survives_a_crash_of_the_sender(tmp_path: Path) -> None:
    """What `send` accepted is sent after the restart."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world, tmp_path / "a.db")
        bob.node.up = False
        await alice.chat.send(bob.node.user_id, "1")
        await alice.chat.send(bob.node.user_id, "2")
        await alice.crash()
        bob.node.up = True
        await bob.chat.add_contact(alice.node.user_id)
        alice = await Person(world, "alice", tmp_path / "a.db").start()
        await asyncio.sleep(5)
        assert await bob.texts(alice.node.user_id) == ["1", "2"]
        assert [m.state for m in await alice.store.history(bob.node.user_id)] == ["delivered"] * 2

    run(main)


@pytest.mark.parametrize("seed", range(6))
def test_crashes_at_random_moments_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Either side dies 8 times in the middle of traffic: all that was accepted is there, in order, once."""

    async def main(world: FakeWorld) -> None:
        rng = random.Random(seed)
        people = {n: await Person(world, n, tmp_path / f"{n}.db").start() for n in ("alice", "bob")}
        alice_id, bob_id = people["alice"].node.user_id, people["bob"].node.user_id
        await befriend(people["alice"], people["bob"])
        accepted: list[str] = []

        async def talk() -> None:
            number = 0
            while number < 200:
                try:
                    await people["alice"].chat.post(bob_id, str(number))
                except P2PError:  # just crashed; the message was not accepted, so it is typed again
                    await asyncio.sleep(0.01)
                    continue
                accepted.append(str(number))
                number += 1
                await asyncio.sleep(rng.uniform(0, 0.02))

        async def kill() -> None:
            for _ in range(8):
                await asyncio.sleep(rng.uniform(0.1, 0.4))
                name = rng.choice(["alice", "bob"])
                await people[name].crash()
                people[name] = await Person(world, name, tmp_path / f"{name}.db").start()

        await asyncio.gather(talk(), kill())
        await asyncio.sleep(120)
        assert accepted == [str(n) for n in range(200)]
        assert await people["bob"].texts(alice_id) == accepted
        assert {m.state for m in await people["alice"].store.history(bob_id, limit=1000)} == {"delivered"}

    run(main)


def test_more_than_fits_in_memory_is_sent_in_order() -> None:
    """A long outbox is read from the disk piece by piece."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        bob.node.up = False
        count = 3 * IN_MEMORY
        await asyncio.gather(*(alice.chat.post(bob.node.user_id, str(n)) for n in range(count)))
        bob.node.up = True
        await asyncio.sleep(70)
        assert await bob.texts(alice.node.user_id) == [str(n) for n in range(count)]

    run(main)


def test_repeated_and_reordered_frames_are_shown_once_in_order() -> None:
    """A sender that repeats itself over several streams, in any order, changes nothing."""

    async def main(world: FakeWorld) -> None:
        bob = await Person(world, "bob").start()
        mallory = FakeNode(world, "mallory")
        mallory.go_up()
        await bob.chat.add_contact(mallory.user_id)
        session = await mallory.connect(bob.node.peer_id)
        rng = random.Random(3)
        frames = [encode(TextMessage(bytes([n]) * 16, False, n, n, str(n))) for n in range(20)]
        for _ in range(3):
            rng.shuffle(frames)
            stream = await session.open_stream(CHAT_PROTOCOL)
            await stream.write(encode(hello_of(mallory)) + b"".join(frames))
        await asyncio.sleep(1)
        assert await bob.texts(mallory.user_id) == [str(n) for n in range(20)]
        assert len(bob.of_type(MessageReceived)) == 20

    run(main)


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


@pytest.mark.parametrize(
    ("text", "error"),
    [("x" * 15_001, MessageTooLongError), ("é" * 7_501, MessageTooLongError), ("", P2PError), (" \n", P2PError),
     ("\ud800", P2PError)],
)  # fmt: skip
def test_texts_that_cannot_be_sent_are_named(text: str, error: type[P2PError]) -> None:
    """Too long, empty, not UTF-8: one sentence, nothing stored."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        with pytest.raises(error):
            await alice.chat.send(bob.node.user_id, text)
        assert await alice.texts(bob.node.user_id) == []

    run(main)


def test_longest_text_arrives_whole() -> None:
    """15,000 bytes, 3 per character, line ends and emoji included."""
    text = "€" * 4_990 + "\n👩\u200d🚀 done"

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        assert (await alice.chat.send(bob.node.user_id, text, wait=5.0)).delivered
        assert await bob.texts(alice.node.user_id) == [text]

    run(main)


def test_own_id_is_refused() -> None:
    """Nobody writes to themselves by accident."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        for own in (alice.node.user_id, alice.node.peer_id):
            with pytest.raises(InvalidPeerError):
                await alice.chat.send(own, "hi")

    run(main)


def test_receiver_that_never_answers_gets_a_new_stream() -> None:
    """An acknowledgement that does not come within 20 s is not waited for any longer."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        mute = FakeNode(world, "mute")
        mute.go_up()
        opened = []

        async def swallow(_session: Any, stream: Any) -> None:
            opened.append(stream)
            await asyncio.Event().wait()

        mute.handle(CHAT_PROTOCOL, swallow)
        await alice.chat.send(mute.user_id, "hi", wait=0.0)
        await asyncio.sleep(60)
        assert 2 <= len(opened) <= 4

    run(main)


def test_presence_of_contacts_is_told() -> None:
    """Known people only."""

    async def main(world: FakeWorld) -> None:
        from p2pnode import PresenceChanged

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


def test_device_queue_holds_everything_behind_a_refused_message() -> None:
    """Order stays: while the first is not taken, the second is not tried; then one probe."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await alice.chat.send(bob.node.user_id, "request")
        for n in range(5):
            await alice.chat.send(bob.node.user_id, str(n), wait=0.0)
        await asyncio.sleep(600)
        stream = next(s for s in alice.node.sessions()[0].streams if s.written.count(b"request"))
        refused = bytes(stream.other.written).count(b"request_pending")
        assert 5 <= refused <= 25, "one probe per pause, not five"

    run(main)
    queue = DeviceQueue()
    assert not queue.pending
    assert queue.acknowledged([bytes(16)], 0.0) == []
    assert queue.refused(bytes(16), "busy", 0.0) == (None, False)


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
