"""The chat's screen under Textual's pilot: people of a fake world, one of whom has a screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.chat_fakes import FakeWorld, Person, until
from textual.pilot import Pilot

from p2pnode import Address, PeerId
from p2pnode.chat import OwnDetails, PathDetails
from p2pnode.cli.screen.app import ChatApp
from p2pnode.cli.screen.dialogs import Whereabouts
from p2pnode.cli.screen.entry import Entry
from p2pnode.cli.screen.layout import text_of
from p2pnode.cli.screen.run import make_app
from p2pnode.cli.screen.timeline import Timeline


@dataclass
class FakeInspector:
    """Says of each device what a test puts there."""

    paths: dict[PeerId, PathDetails] = field(default_factory=dict)

    def path(self, peer: PeerId) -> PathDetails | None:
        return self.paths.get(peer)

    def own(self) -> OwnDetails:
        return OwnDetails("endpoint-independent", ("192.0.2.7:4747",), "believed", len(self.paths))


@dataclass
class Desk:
    """A screen, and the people it can talk to. `people[0]` sits at it."""

    people: list[Person]
    app: ChatApp
    pilot: Pilot[bool]
    inspector: FakeInspector

    @property
    def own(self) -> Person:
        return self.people[0]

    def lines(self) -> list[str]:
        """What the open conversation shows, without ends of lines."""
        return [text_of(line).rstrip() for line in self.app.log_view._lines]

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.lines())

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let the screen work until something holds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - a screen has no event for what it shows
                await asyncio.sleep(0.01)
        await self.pilot.pause()

    @property
    def timeline(self) -> Timeline:
        return self.app.timeline

    async def type(self, text: str, *, enter: bool = True) -> None:
        """Put a text into the input where the cursor is, at once, and press Enter."""
        entry = self.app.query_one(Entry)
        entry.insert(text)
        await self.pilot.pause()
        if enter:
            await self.pilot.press("enter")
        assert entry.has_focus


@asynccontextmanager
async def desk(
    *names: str, size: tuple[int, int] = (80, 24), hall: bool = True, first: bool = False, alone: bool = False
) -> AsyncIterator[Desk]:
    """People, all in one hall (`hall`), the first of them at a screen. `first`: the welcome is left open."""
    world = FakeWorld(delay=0.0, lookup_s=0.0)
    people = [await Person(world, name).start() for name in names]
    for person in people[1:] if hall else ():
        person.chat.enter_hall(people[0].node.peer_id)
    for person in people if hall else ():
        await until(person, lambda person=person: len(person.chat.members()) == len(names) - 1)  # type: ignore[misc]
    own = people[0]
    where = Whereabouts(4747, ("192.0.2.7:4747",), f"{own.node.peer_id}@192.0.2.7:4747", alone)
    inspector = FakeInspector()
    app = await make_app(own.chat, where, inspector=inspector)
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            if not first:
                await pilot.press("escape")
                await pilot.pause()
            yield Desk(people, app, pilot, inspector)
    finally:
        app.conversation.close()
        for person in people:
            await person.stop()


def at_desk(work: Callable[[Desk], Awaitable[None]], *names: str, **options: object) -> None:
    """Run a test at a desk, on an ordinary loop."""

    async def main() -> None:
        async with desk(*names, **options) as ready:  # type: ignore[arg-type]
            await work(ready)

    asyncio.run(main())


def path(kind: str = "punched", *, rtt_s: float = 0.0123, text: str = "Direct through both routers.") -> PathDetails:
    """A session's details."""
    where = Address("198.51.100.4" if kind == "relay" else "192.0.2.9", 4747)
    return PathDetails(kind, str(where), rtt_s, kind, text, steps=((0.0, "lookup", "started"),))
