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
    InvalidPeerError,
    MessageTooLongError,
    NetworkChanged,
    P2PError,
)
from p2pnode.chat import MessageReceived, MessageStateChanged
from p2pnode.chat.outbox import IN_MEMORY, DeviceQueue, retry_delay
from p2pnode.chat.protocol import CHAT_PROTOCOL, Hello, TextMessage, device_proof, encode
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


def test_another_network_is_a_reason_to_try_at_once() -> None:
    """Nobody waits out a pause that belongs to the network of before."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await pair(world)
        await befriend(alice, bob)
        bob.node.up = False
        for session in bob.node.sessions():
            session.break_off("lost")
        await alice.chat.send(bob.node.user_id, "hello", wait=0.0)
        await asyncio.sleep(300)
        bob.node.up = True
        dials = alice.node.dials
        alice.node.emit(NetworkChanged((), "unknown"))
        await asyncio.sleep(1)
        assert alice.node.dials == dials + 1
        assert await bob.texts(alice.node.user_id) == ["hello"]

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


@pytest.mark.slow
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


@pytest.mark.slow
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
