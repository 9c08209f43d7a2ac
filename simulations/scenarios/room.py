"""A room of many on a wire that loses a fifth: do all show the same history, how soon, and what does that cost?"""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta

from p2pnode import Node, P2PError
from p2pnode.chat import Chat, ChatEvent, ChatSettings, ChatStore, MessageReceived, RoomId
from p2pnode.simulations.harness.population import Member, Population, PopulationSettings
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]

NAME = "garden"
GIVE_UP_S = 300.0  # after the last text: whoever has not everything by then never will


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `room`."""

    loss: Annotated[float, Meta(ge=0, le=1, description="share of datagrams lost")] = 0.2
    join_s: Annotated[float, Meta(gt=0, description="seconds over which the members' nodes arrive, then join")] = 30.0
    rate: Annotated[float, Meta(gt=0, le=1_000, description="texts per second, of all members together")] = 5.0
    keep_s: Annotated[float, Meta(ge=1, description="seconds for which they write")] = 30.0
    text_bytes: Annotated[int, Meta(ge=1, le=15_000, description="length of a text")] = 80
    latecomers: Annotated[int, Meta(ge=0, description="members that join after the last text")] = 2
    within_s: Annotated[float, Meta(gt=0, description="seconds in which all must have everything")] = 10.0


class Person:
    """Somebody in the room. `got`: texts of it that are on its disk."""

    def __init__(self, run: Run[Settings], member: Member, node: Node) -> None:
        self.node, self.member = node, member
        self.chat: Chat
        self.got = 0
        self.joined = False
        self._run = run
        self._store: ChatStore

    async def open(self) -> None:
        self._store = await ChatStore.open(None, run_blocking=self.node.network.run_blocking)
        self.chat = Chat(self.node, self._store, ChatSettings(hall=False))
        self.chat.subscribe(self._event)
        await self.chat.start()

    def _event(self, event: ChatEvent) -> None:
        if isinstance(event, MessageReceived):
            self.got += 1
            self._run.sample("shown_s", self.node.network.wall() - event.message.sent_at)

    async def join(self) -> None:
        """Find the room by its name, and join it; again, until that works."""
        began = self._run.world.loop.time()
        for _ in range(5):
            try:
                await self.chat.rooms.join(NAME)
                self.joined = True
                self._run.sample("join_room_s", self._run.world.loop.time() - began)
                self._run.progress.advance()
                return
            except P2PError:
                await asyncio.sleep(2.0)

    async def texts(self, room: RoomId) -> list[str]:
        return [message.id for message in await self._store.history(room, limit=1_000_000)]

    async def close(self) -> None:
        await self.chat.stop()
        await self._store.close()


async def run(run: Run[Settings]) -> None:
    """Join, write for a while, wait until all have all; then latecomers join and read."""
    settings = run.settings
    population = Population(run)
    members = await population.grow(run.nodes + settings.latecomers + 3, seconds=settings.join_s)
    await population.settle(20.0)
    people = [Person(run, member, member.node) for member in members[3:] if member.node is not None]
    for person in people:
        await person.open()
    late = people[run.nodes :]
    people = people[: run.nodes]
    owner = people[0]
    room = (await owner.chat.rooms.create(NAME, open=True)).id
    owner.joined = True
    run.progress.phase("joining the room", len(people) - 1)
    moments = [run.rng.uniform(0, settings.join_s) for _ in people[1:]]
    await asyncio.gather(*(_after(moment, person) for moment, person in zip(moments, people[1:], strict=True)))
    outside = sum(not person.joined for person in people)
    run.require(not outside, f"{outside} could not join the room")
    await population.settle(20.0, "meeting")
    written = await _write(run, room, [person for person in people if person.joined])
    await _equal(run, room, people, written)
    _costs(run, room, people, written)
    if late:
        await _latecomers(run, room, owner, late)
    for person in people + late:
        await person.close()
    await population.stop()


async def _after(moment: float, person: Person) -> None:
    await asyncio.sleep(moment)
    await person.join()


async def _write(run: Run[Settings], room: RoomId, people: list[Person]) -> int:
    """Let them write at random moments; return how many texts there are."""
    settings = run.settings
    count = round(settings.rate * settings.keep_s)
    run.progress.phase("writing", count)
    posts: list[asyncio.Task[object]] = []
    before = {person: _traffic(person) for person in people}
    for number in range(count):
        person = run.rng.choice(people)
        text = f"{number} ".ljust(settings.text_bytes, "x")
        posts.append(asyncio.ensure_future(person.chat.post(room, text)))
        run.progress.advance()
        if number < count - 1:
            await asyncio.sleep(run.rng.expovariate(settings.rate))
    results = await asyncio.gather(*posts, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    run.require(not failed, f"{len(failed)} texts were not taken: {failed[:1]}")
    run.figure("texts", count - len(failed))
    sent = [_traffic(person) - before[person] for person in people]
    run.figure("dht_bytes_per_member_per_s", sum(sent) / len(sent) / settings.keep_s)
    return count - len(failed)


def _traffic(person: Person) -> int:
    return person.member.traffic_bytes


async def _equal(run: Run[Settings], room: RoomId, people: list[Person], written: int) -> None:
    """Wait until everybody has every text, then compare the histories as they are shown."""
    loop = run.world.loop
    last = loop.time()
    run.progress.phase("waiting for the last ones", len(people))
    while loop.time() < last + GIVE_UP_S:
        own = [_own(person, room) for person in people]
        if all(person.got + mine >= written for person, mine in zip(people, own, strict=True)):
            break
        await asyncio.sleep(0.1)
    took = loop.time() - last
    run.figure("equal_after_s", took)
    histories = [await person.texts(room) for person in people]
    same = sum(history == histories[0] and len(history) == written for history in histories)
    run.figure("same_history_share", same / len(people))
    run.require(same == len(people), f"{len(people) - same} of {len(people)} show another history")
    run.require(took <= run.settings.within_s, f"the last one had everything only after {took:.1f} s")


def _own(person: Person, room: RoomId) -> int:
    """Return how many texts a member wrote itself: its log without the entry that it joined by."""
    return person.chat.rooms.rooms[room].log.length(person.node.peer_id.raw) - 1


def _costs(run: Run[Settings], room: RoomId, people: list[Person], written: int) -> None:
    """What it cost: neighbours, entries that came more than once."""
    exchanges = [person.chat.rooms.rooms[room].exchange for person in people]
    degrees = [len(exchange.neighbours.all) for exchange in exchanges]
    run.figure("neighbours_mean", sum(degrees) / len(degrees))
    run.figure("neighbours_most", max(degrees))
    came = sum(exchange.came for exchange in exchanges)
    run.figure("copies_of_an_entry", came / max(1, written * (len(people) - 1)))
    drops: dict[str, int] = {}
    for person in people:
        for reason, count in person.chat.rooms.drops.items():
            drops[reason] = drops.get(reason, 0) + count
    if drops:
        run.note(f"Not taken: {', '.join(f'{reason} {count}' for reason, count in sorted(drops.items()))}.")


async def _latecomers(run: Run[Settings], room: RoomId, owner: Person, late: list[Person]) -> None:
    """Let them join at once; each must show the same history."""
    run.progress.phase("latecomers", len(late))
    began = run.world.loop.time()
    await asyncio.gather(*(person.join() for person in late))
    expected = await owner.texts(room)
    waiting = list(late)
    while waiting and run.world.loop.time() < began + GIVE_UP_S:
        await asyncio.sleep(0.5)
        waiting = [person for person in waiting if await person.texts(room) != expected]
    run.figure("latecomers_equal_after_s", run.world.loop.time() - began)
    run.require(not waiting, f"{len(waiting)} latecomers show another history")


SCENARIO = Scenario(
    name="room",
    summary="A room of many on a wire that loses a fifth: do all show the same history, how soon, at what cost?",
    run=run,
    settings=Settings,
    nodes=50,
    nodes_min=3,
)
