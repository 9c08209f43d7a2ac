"""People in rooms, on fake nodes in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode.chat.model import RoomId
from p2pnode.simulations.virtual import VirtualLoop

__all__ = ["eventually", "garden", "run", "same_history"]


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def eventually(holds: Callable[[], bool], timeout: float = 30.0) -> None:
    """Wait in virtual time. Raise TimeoutError."""
    async with asyncio.timeout(timeout):
        while not holds():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)


async def same_history(room: RoomId, people: Sequence[Person], count: int, timeout: float = 30.0) -> list[str]:
    """Wait until all show the same `count` texts; return them."""
    histories: list[list[str]] = []
    try:
        async with asyncio.timeout(timeout):
            while True:
                histories = [await person.texts(room) for person in people]
                if all(history == histories[0] and len(history) == count for history in histories):
                    return histories[0]
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"histories: {[len(h) for h in histories]} of {count}") from None


async def garden(world: FakeWorld, *names: str, open: bool = False) -> tuple[RoomId, list[Person]]:  # noqa: A002
    """The first of these owns a room, the others are in."""
    people = [await Person(world, name).start() for name in names]
    owner = people[0]
    room = (await owner.chat.rooms.create("garden", open=open)).id
    for other in people[1:]:
        if not open:
            await befriend(owner, other)
            await owner.chat.rooms.invite(room, other.node.user_id)
            await eventually(lambda: any(info.id == room for info in other.chat.rooms.all()))  # noqa: B023
        await other.chat.rooms.join("garden")
    return room, people
