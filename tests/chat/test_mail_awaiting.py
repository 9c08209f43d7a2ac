"""Whoever is here is told of letters by their holders, and looks for them seldom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from support.chat_fakes import FakeWorld, Person, befriend, until
from support.chat_mail import FakeHolders
from support.dht_network import DhtNode, make_network

from p2pnode import Mailing
from p2pnode.chat import MessageReceived
from p2pnode.chat.mail.letters import Slot
from p2pnode.chat.mail.postbox import Postbox
from p2pnode.chat.mail.service import FETCH_S, PATIENCE_S, THOROUGH_EVERY
from p2pnode.simulations.virtual import VirtualLoop, VirtualWorld, run_virtual


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld(holders=FakeHolders())), until=1e7)  # type: ignore[arg-type]


async def apart(world: FakeWorld) -> tuple[Person, Person]:
    """Two contacts with the means to leave each other mail; both are here, and neither reaches the other."""
    alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
    await befriend(alice, bob)
    await alice.chat.send(bob.node.user_id, "first", wait=5.0)
    await asyncio.sleep(1.0)
    world.walls.add(frozenset((alice.node, bob.node)))
    for session in bob.node.sessions():
        session.break_off("lost")
    await asyncio.sleep(60.0)
    return alice, bob


def test_who_is_here_has_a_letter_within_a_second_of_its_storing() -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await apart(world)
        loop = asyncio.get_running_loop()
        for number in range(1, 4):  # each in another slot, which is watched anew
            began = loop.time()
            await alice.chat.post(bob.node.user_id, str(number))
            await until(bob, lambda count=number: len(bob.of_type(MessageReceived)) == count + 1, timeout=30.0)  # type: ignore[misc]
            print(f"after {loop.time() - began:.2f} s")
            assert loop.time() - began < PATIENCE_S + 2.0
            await asyncio.sleep(5.0)
        assert await bob.texts(alice.node.user_id) == ["first", "1", "2", "3"]

    run(main)


def test_a_letter_whose_parts_come_one_after_the_other_is_read_whole() -> None:
    """The notice names the first part; the last one is stored seconds later."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await apart(world)
        honest = alice.node.put_mail

        async def put_mail(seed: bytes, part: int, value: bytes, *, final: bool = False) -> object:
            await asyncio.sleep(3.0 * bool(part))
            return await honest(seed, part, value, final=final)

        alice.node.put_mail = put_mail  # type: ignore[method-assign, assignment]
        await alice.chat.post(bob.node.user_id, "x" * 10_000)
        await until(bob, lambda: len(bob.of_type(MessageReceived)) == 2, timeout=30.0)

    run(main)


def test_who_is_told_looks_seldom_and_who_is_blocked_is_watched_no_more() -> None:
    async def main(world: FakeWorld) -> None:
        alice, bob = await apart(world)
        asked = 0
        honest = bob.node.get_mail

        async def get_mail(seed: bytes, part: int) -> object:
            nonlocal asked
            asked += 1
            return await honest(seed, part)

        bob.node.get_mail = get_mail  # type: ignore[method-assign, assignment]
        await asyncio.sleep(4 * THOROUGH_EVERY * FETCH_S)
        print(f"{asked} looks in {4 * THOROUGH_EVERY * FETCH_S / 3600:.0f} hours")
        assert 6 <= asked <= 10
        assert world.holders is not None
        assert sum(len(watches) for watches in world.holders.watches.values()) == 2
        await bob.chat.block(alice.node.user_id)
        await asyncio.sleep(2.0)
        assert sum(len(watches) for watches in world.holders.watches.values()) == 1

    run(main)


class Post(Mailing):
    """The mail calls of a node of which only the DHT runs."""

    def __init__(self, node: DhtNode) -> None:
        self.dht, self.network = node.dht, node.network


@pytest.mark.slow
def test_holders_tell_of_a_letter_within_a_second() -> None:
    """A real DHT in virtual time: told of the letter and of its removal, and of nothing after the watch has ended."""

    async def main(world: VirtualWorld) -> None:
        nodes = await make_network(world, 24)
        await asyncio.sleep(30.0)
        rng = random.Random(5)
        writer, reader = Post(nodes[3]), Post(nodes[17])
        slot, told = Slot(rng.randbytes(32)), list[float]()
        reader.watch_mail(slot.seed, 0, lambda: told.append(world.loop.time()))
        await asyncio.sleep(10.0)
        assert reader.mail_watchers(slot.seed, 0) == 3
        letter = b"\0" + rng.randbytes(511)
        began = world.loop.time()
        assert await Postbox(writer).store(slot.seed, letter)
        await asyncio.sleep(5.0)
        print(f"told after {told[0] - began:.2f} s")
        assert len(told) == 1
        assert told[0] - began < 1.0
        await Postbox(reader).remove(slot.seed, letter)
        await asyncio.sleep(5.0)
        assert len(told) == 2
        reader.unwatch_mail(slot.seed, 0)
        assert reader.mail_watchers(slot.seed, 0) == 0
        await asyncio.sleep(1.0)
        await Postbox(writer).skip(slot.seed)
        await asyncio.sleep(5.0)
        assert len(told) == 2

    run_virtual(main, until=10_000.0)
