"""What the user is called for, by the bell and on the desktop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode.chat import HALL, HallTold, MessageReceived, notice_of
from p2pnode.cli.notices import MAX_FAILURES, Calls, Notices
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


class Screen:
    """A desktop. `broken`: it fails, as one without a notification service does."""

    def __init__(self, *, broken: bool = False) -> None:
        self.shown: list[tuple[str, str]] = []
        self.tried = 0
        self.broken = broken

    async def send(self, title: str, message: str) -> None:
        self.tried += 1
        if self.broken:
            raise OSError("no bus")
        self.shown.append((title, message))


async def two(world: FakeWorld) -> tuple[Person, Person]:
    anna, bert = await Person(world, "anna").start(), await Person(world, "bert").start()
    await befriend(anna, bert)
    return anna, bert


async def hall(anna: Person, bert: Person) -> None:
    anna.chat.enter_hall(bert.node.peer_id, [bert.node.address])
    await asyncio.sleep(1)


def test_the_bell_rings_for_what_is_said_to_the_user_alone_or_names_him() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await hall(anna, bert)
        rings: list[float] = []
        loop = asyncio.get_running_loop()
        task = loop.create_task(Notices(anna.chat, bell=lambda: rings.append(loop.time())).run())
        await asyncio.sleep(0)
        for text, rung in (("nothing for you", 0), ("annabel is here", 0), ("is Anna there?", 1)):
            await bert.chat.send(HALL, text)
            await asyncio.sleep(5)
            assert len(rings) == rung, text
        await bert.chat.send(anna.node.user_id, "psst")
        assert len(rings) == 2
        for _ in range(10):
            await bert.chat.send(anna.node.user_id, "and again")
        assert len(rings) == 2  # at most every two seconds
        told = anna.of_type(MessageReceived)[0].message
        assert notice_of(HallTold(bert.node.peer_id, (told,)), anna.chat.directory, "anna") is None
        task.cancel()

    run(main)


def test_the_conversation_before_the_users_eyes_does_not_ring() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        rings: list[int] = []
        notices = Notices(anna.chat, bell=lambda: rings.append(1), watched=lambda: bert.node.user_id)
        task = asyncio.get_running_loop().create_task(notices.run())
        await asyncio.sleep(0)
        await bert.chat.send(anna.node.user_id, "you see this anyway")
        assert rings == []
        task.cancel()

    run(main)


def test_x1_the_desktop_shows_text_never_markup_and_shares_floods() -> None:
    """What comes while one is shown is counted in the next; tags and control characters are text."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        screen = Screen()
        task = asyncio.get_running_loop().create_task(Notices(anna.chat, desktop=screen).run())
        await asyncio.sleep(0)
        await bert.chat.send(anna.node.user_id, "<a href='http://x'>click</a>\x1b[31m " + "long " * 100)
        for number in range(50):
            await bert.chat.send(anna.node.user_id, f"flood {number}")
        await asyncio.sleep(30)
        who = anna.chat.display_name(bert.node.user_id)
        assert [title for title, _ in screen.shown] == [who] * len(screen.shown)
        assert len(screen.shown) <= 3
        first = screen.shown[0][1]
        assert "\x1b" not in first
        assert "\n" not in first
        assert len(first) < 300
        if sys.platform == "linux":
            assert "<" not in first
        assert screen.shown[-1][1].startswith("flood 49 (")
        task.cancel()

    run(main)


def test_names_only_tells_who_and_a_desktop_that_is_not_there_is_left_alone() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        screen, broken = Screen(), Screen(broken=True)
        rings: list[int] = []
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(Notices(anna.chat, desktop=screen, show_text=False).run()),
            loop.create_task(Notices(anna.chat, desktop=broken, bell=lambda: rings.append(1)).run()),
        ]
        await asyncio.sleep(0)
        for number in range(MAX_FAILURES + 3):
            await bert.chat.send(anna.node.user_id, f"secret {number}")
            await asyncio.sleep(10)
        assert [text for _, text in screen.shown] == ["sent a message"] * (MAX_FAILURES + 3)
        assert broken.tried == MAX_FAILURES
        assert len(rings) == MAX_FAILURES + 3  # the bell goes on
        for task in tasks:
            task.cancel()

    run(main)


def test_both_can_be_switched_off() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        rings: list[int] = []
        calls = Calls(bell=False, desktop="off")
        task = asyncio.get_running_loop().create_task(calls.follow(anna.chat, lambda: rings.append(1)))
        await asyncio.sleep(0)
        await bert.chat.send(anna.node.user_id, "hello")
        assert rings == []
        task.cancel()

    run(main)
