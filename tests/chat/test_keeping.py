"""Retention, disappearing messages, export and import."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import InvalidPeerError
from p2pnode.chat import (
    HALL,
    ChatSettings,
    Conversation,
    MessageReceived,
    MessagesGone,
    TimerChanged,
)
from p2pnode.chat.keeping import service, tables
from p2pnode.chat.keeping.wire import TIMER_PROTOCOL, Set, encode
from p2pnode.chat.store import Incoming, Outgoing
from p2pnode.simulations.virtual import VirtualLoop

DAY = 86_400


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 1e8) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def two(world: FakeWorld, **settings: int) -> tuple[Person, Person]:
    people = [
        await Person(world, name, settings=ChatSettings(**settings)).start()  # type: ignore[arg-type]
        for name in ("anna", "bert")
    ]
    await befriend(*people)
    return people[0], people[1]


def read_all(person: Person, other: Person) -> None:
    for event in person.of_type(MessageReceived):
        person.store.mark_seen(other.node.user_id, event.message.position)


async def fleeting(person: Person) -> int:
    return int(await person.store.database.read(lambda c: c.execute("SELECT count(*) FROM fleeting").fetchone()[0]))


def console(person: Person) -> tuple[Conversation, list[str]]:
    lines: list[str] = []
    return Conversation(person.chat, own_port=1, show=lines.append), lines


# disappearing


def test_messages_disappear_on_both_sides_each_from_its_own_moment() -> None:
    """The author's from delivery, the reader's from reading; what was there before stays."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await anna.chat.send(bert.node.user_id, "stays")
        await anna.chat.keeping.disappear(bert.node.user_id, 60)
        await asyncio.sleep(1)
        assert anna.chat.keeping.timer(bert.node.user_id).agreed
        assert bert.chat.keeping.timer(anna.node.user_id).seconds == 60
        assert [e.by for e in bert.of_type(TimerChanged)] == [anna.node.peer_id]
        await anna.chat.send(bert.node.user_id, "goes")
        await bert.chat.send(anna.node.user_id, "goes too")
        await asyncio.sleep(50)
        assert await anna.texts(bert.node.user_id) == ["stays", "goes", "goes too"]
        await asyncio.sleep(20)
        assert await anna.texts(bert.node.user_id) == ["stays", "goes too"]  # not read yet
        assert await bert.texts(anna.node.user_id) == ["stays", "goes"]
        assert [(e.party, len(e.positions)) for e in anna.of_type(MessagesGone)] == [(bert.node.user_id, 1)]
        read_all(anna, bert)
        read_all(bert, anna)
        await asyncio.sleep(50)
        assert len(await bert.texts(anna.node.user_id)) == 2
        await asyncio.sleep(20)
        for one, other in ((anna, bert), (bert, anna)):
            assert await one.texts(other.node.user_id) == ["stays"]
            assert await fleeting(one) == 0

    run(main)


def test_who_is_away_hears_of_the_timer_first_and_messages_wait_until_they_are_handed_over() -> None:
    """A message of a minute that waits for a day is delivered, and only then begins to disappear."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await anna.chat.send(bert.node.user_id, "hello")
        bert.node.go_down()
        await bert.chat.stop()
        await anna.chat.keeping.disappear(bert.node.user_id, 60)
        assert not anna.chat.keeping.timer(bert.node.user_id).agreed
        await anna.chat.post(bert.node.user_id, "secret")
        await asyncio.sleep(DAY)
        assert await anna.texts(bert.node.user_id) == ["hello", "secret"]
        bert = await Person(world, "bert").start()
        await bert.chat.add_contact(anna.node.user_id)
        await anna.node.connect(bert.node.peer_id)
        await asyncio.sleep(30)
        assert await bert.texts(anna.node.user_id) == ["secret"]
        assert anna.chat.keeping.timer(bert.node.user_id).agreed
        assert await fleeting(bert) == 1
        read_all(bert, anna)
        await asyncio.sleep(100)
        assert await bert.texts(anna.node.user_id) == []
        assert await anna.texts(bert.node.user_id) == ["hello"]

    run(main)


def test_the_newer_timer_wins_and_both_end_with_the_same() -> None:
    """Both set one while they cannot reach each other."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await anna.chat.send(bert.node.user_id, "hello")
        world.walls.add(frozenset((anna.node, bert.node)))
        for session in anna.node.sessions():
            session.break_off("lost")
        await anna.chat.keeping.disappear(bert.node.user_id, 60)
        await asyncio.sleep(5)
        await bert.chat.keeping.disappear(anna.node.user_id, 3600)
        await asyncio.sleep(5)
        world.walls.clear()
        await anna.node.connect(bert.node.peer_id)
        await asyncio.sleep(5)
        for one, other in ((anna, bert), (bert, anna)):
            timer = one.chat.keeping.timer(other.node.user_id)
            assert (timer.seconds, timer.agreed) == (3600, True)
        # off again, and after a restart the same
        await anna.chat.keeping.disappear(bert.node.user_id, 0)
        await asyncio.sleep(2)
        assert bert.chat.keeping.timer(anna.node.user_id).seconds == 0
        await bert.chat.send(anna.node.user_id, "stays again")
        assert await fleeting(anna) == 0

    run(main)


def test_what_has_disappeared_does_not_come_back() -> None:
    """A message that is sent once more, since its acknowledgement was lost, is acknowledged and not shown."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await anna.chat.keeping.disappear(bert.node.user_id, 5)
        await asyncio.sleep(1)
        await bert.chat.send(anna.node.user_id, "once")
        message = anna.of_type(MessageReceived)[0].message
        read_all(anna, bert)
        await asyncio.sleep(20)
        assert await anna.texts(bert.node.user_id) == []
        again = Incoming(
            bytes.fromhex(message.id), message.author, bert.node.user_id, False, message.sequence, "once", 0, 0
        )
        assert (await anna.store.receive(again)).kind == "duplicate"
        assert await anna.texts(bert.node.user_id) == []

    run(main)


def test_what_will_disappear_is_in_no_index_and_in_no_export() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await anna.chat.keeping.disappear(bert.node.user_id, 60)
        await anna.chat.send(bert.node.user_id, "zanzibar")
        matches = "SELECT count(*) FROM messages_text WHERE messages_text MATCH 'zan'"
        assert await anna.store.database.read(lambda c: c.execute(matches).fetchone()[0]) == 0
        assert [m.text for m in await anna.store.history(bert.node.user_id, search="zanzi")] == ["zanzibar"]
        assert [m async for m in anna.chat.keeping.export()] == []

    run(main)


def test_x3_strangers_and_floods_set_no_timer() -> None:
    """Only contacts may, not more often than people do, and not one that nobody could ever change."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        mallory = await Person(world, "mallory").start()
        await say(mallory, anna, Set(5, 1, 0))
        assert anna.of_type(TimerChanged) == []
        await say(bert, anna, Set(5, 2**62, 0))
        assert anna.of_type(TimerChanged) == []
        for version in range(1, 40):
            await say(bert, anna, Set(5, version, 0))
        assert len(anna.of_type(TimerChanged)) <= service.SET_BURST

    run(main)


async def say(one: Person, other: Person, frame: Set) -> None:
    session = await one.node.connect(other.node.peer_id)
    stream = await session.open_stream(TIMER_PROTOCOL)
    await stream.write(encode(frame))
    await asyncio.sleep(0.1)


def test_only_two_people_agree_on_a_timer() -> None:
    async def main(world: FakeWorld) -> None:
        anna, _ = await two(world)
        with pytest.raises(InvalidPeerError):
            await anna.chat.keeping.disappear(HALL, 60)

    run(main)


def test_the_console_sets_timers_and_retention() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        await anna.chat.send(bert.node.user_id, "hello")
        await bert.chat.send(anna.node.user_id, "hello")
        talk, lines = console(anna)
        theirs, heard = console(bert)
        await talk.handle("\\chat bert")
        await talk.handle("\\disappear 1h")
        await asyncio.sleep(1)
        assert any("disappear 1 h after" in line for line in lines)
        assert any("anna~" in line and "1 h" in line for line in heard)
        await theirs.handle("\\chat anna")
        await theirs.handle("\\disappear")
        assert "1 h after" in heard[-1]
        await talk.handle("\\keep 30")
        assert "30 days" in lines[-1]
        await talk.handle("\\keep forever")
        assert "for ever" in lines[-1]
        for wrong in ("\\keep soon", "\\disappear 1x", "\\disappear 3y"):
            await talk.handle(wrong)
            assert lines[-1].startswith("!")
        await talk.handle("\\disappear off")
        await asyncio.sleep(1)
        assert any("stay" in line for line in heard)

    run(main)


# retention


def test_what_is_older_than_it_is_kept_is_removed_but_not_what_is_still_to_be_sent() -> None:
    """Thirty days for all, two for bert, for ever in the hall."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world, keep_days=30)
        cora = await Person(world, "cora").start()
        keeping, now = anna.chat.keeping, anna.chat.now_ms()
        ages = (1, 3, 29, 31, 400)
        for author, hall in ((bert, False), (cora, False), (cora, True)):
            await anna.chat.add_contact(author.node.user_id)
            for age in ages:
                name = f"{author.node.settings.name} {age} {hall}"
                at = now - age * DAY * 1000
                await anna.store.receive(
                    Incoming(name.encode().ljust(16), author.node.peer_id, author.node.user_id, hall, at, name, at, at)
                )
        bert.node.go_down()
        old = Outgoing(
            bytes(16), anna.node.peer_id, anna.node.user_id, bert.node.user_id, "waits", now - 5 * DAY * 1000,
            (bert.node.peer_id,),
        )  # fmt: skip
        await anna.store.add_outgoing(old)
        await keeping.keep(HALL, 0)
        await keeping.keep(bert.node.user_id, 2)
        await keeping.remove_old()
        assert sorted(await anna.texts(bert.node.user_id)) == ["bert 1 False", "waits"]
        assert sorted(await anna.texts(cora.node.user_id)) == ["cora 1 False", "cora 29 False", "cora 3 False"]
        assert len(await anna.texts(HALL)) == 5
        assert await anna.store.history(bert.node.user_id, search="bert 3") == []
        assert [m.text for m in await anna.store.history(HALL, search="400")] == ["cora 400 True"]
        await keeping.keep(HALL, None)  # as set for all
        assert sorted(await anna.texts(HALL)) == ["cora 1 True", "cora 29 True", "cora 3 True"]
        integrity = "INSERT INTO messages_text (messages_text, rank) VALUES ('integrity-check', 0)"
        await anna.store.database.write(lambda c: c.execute(integrity))

    run(main)


def test_removing_goes_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        monkeypatch.setattr(tables, "BATCH", 10)
        for number in range(35):
            await anna.store.receive(
                Incoming(number.to_bytes(16, "big"), bert.node.peer_id, bert.node.user_id, False, number, "x", 0, 0)
            )
        await anna.chat.keeping.keep(bert.node.user_id, 1)
        assert await anna.texts(bert.node.user_id) == []
        assert len(anna.of_type(MessagesGone)) == 4

    run(main)
