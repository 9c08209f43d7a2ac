"""What was said in the hall before somebody came, told by a member; leaving the hall and coming back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.chat_fakes import FakeWorld, Person

from p2pnode import InvalidPeerError, NetworkChanged, P2PError
from p2pnode.chat import HALL, Conversation, HallTold, Message, MessageReceived
from p2pnode.chat.told import service
from p2pnode.chat.told.wire import HALL_HISTORY_PROTOCOL, MAX_TOLD, Ask, Told, encode
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def enter(world: FakeWorld, name: str, through: Person | None) -> Person:
    person = await Person(world, name).start()
    if through is not None:
        person.chat.enter_hall(through.node.peer_id, [through.node.address])
    await asyncio.sleep(1)
    return person


async def history(person: Person) -> list[Message]:
    return await person.store.history(HALL, limit=1000)


def console(person: Person) -> tuple[Conversation, list[str]]:
    lines: list[str] = []
    return Conversation(person.chat, own_port=1, show=lines.append), lines


def test_a_latecomer_reads_what_was_said_from_any_member() -> None:
    """Also when those who said it have gone; each text once, in the order of the teller, marked."""

    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        cora = await enter(world, "cora", anna)
        for number in range(3):
            await anna.chat.send(HALL, f"anna {number}")
            await bert.chat.send(HALL, f"bert {number}")
        await anna.stop()
        await bert.stop()
        await asyncio.sleep(60)
        dora = await enter(world, "dora", cora)
        talk, lines = console(dora)
        found = await history(dora)
        assert [m.text for m in found] == [f"{name} {n}" for n in range(3) for name in ("anna", "bert")]
        assert {m.told_by for m in found} == {cora.node.peer_id}
        assert [len(event.messages) for event in dora.of_type(HallTold)] == [6]
        assert not dora.of_type(MessageReceived)  # a bot does not answer what was said before it came
        talk.on_event(dora.of_type(HallTold)[0])
        assert "anna~" in lines[0]
        assert "(told by cora~" in lines[0]
        await asyncio.sleep(1)
        assert (await dora.store.conversations())[0].unread == 0
        # the third in the chain tells it on, as its own word
        await cora.stop()
        emil = await enter(world, "emil", dora)
        assert [m.text for m in await history(emil)] == [m.text for m in found]
        assert {m.told_by for m in await history(emil)} == {dora.node.peer_id}

    run(main)


def test_what_the_teller_wrote_itself_is_not_marked_and_blocked_people_are_left_out() -> None:
    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        await anna.chat.send(HALL, "mine")
        await bert.chat.send(HALL, "bert's")
        dora = await Person(world, "dora").start()
        await dora.chat.block(bert.node.peer_id)
        dora.chat.enter_hall(anna.node.peer_id, [anna.node.address])
        await asyncio.sleep(2)
        assert [(m.text, m.told_by) for m in await history(dora)] == [("mine", None)]

    run(main)


def test_another_hall_is_not_told_of_the_one_before() -> None:
    """Whoever was in two halls one after the other tells neither of the other."""

    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        await bert.chat.send(HALL, "only for anna's hall")
        await bert.stop()
        await asyncio.sleep(service.EMPTY_S + 60)
        cora = await enter(world, "cora", anna)
        assert await history(cora) == []
        await cora.chat.send(HALL, "to nobody but anna")
        await cora.stop()
        await asyncio.sleep(60)
        anna.node.emit(NetworkChanged((), "unknown"))
        dora = await enter(world, "dora", anna)
        assert await history(dora) == []

    run(main)


def test_the_authors_own_word_takes_the_place_of_what_was_told() -> None:
    """A liar cannot suppress a message by telling another text under its id."""

    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        sent = await anna.chat.send(HALL, "the truth")
        message = await anna.store.message(sent.id)
        dora = await Person(world, "dora").start()
        lie = Told(bytes.fromhex(sent.id), anna.node.peer_id.raw, "anna", message.sequence, 0, "a lie, and searchable")
        await dora.chat.hall_history._store(bert.node.peer_id, [lie])
        assert [(m.text, m.told_by) for m in await history(dora)] == [("a lie, and searchable", bert.node.peer_id)]
        dora.chat.enter_hall(anna.node.peer_id, [anna.node.address])
        await asyncio.sleep(1)
        item = (await anna.store.history(HALL))[0]
        link = anna.chat.links.get(dora.node.peer_id)
        await anna.store.database.write(
            lambda c: c.execute("INSERT INTO outbox (device, message) VALUES (?, ?)", (dora.node.peer_id.raw, 1))
        )
        anna.chat.links.resume(link.peer)
        await asyncio.sleep(2)
        assert [(m.text, m.told_by) for m in await history(dora)] == [("the truth", None)]
        assert item.text == "the truth"
        assert [m.text for m in await dora.store.history(HALL, search="truth")] == ["the truth"]
        assert await dora.store.history(HALL, search="searchable") == []

    run(main)


def test_what_came_live_meanwhile_stays_behind_what_was_said_before() -> None:
    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        await anna.chat.send(HALL, "before")
        dora = await Person(world, "dora").start()
        handler = anna.node._handlers[HALL_HISTORY_PROTOCOL]

        async def slowly(session: object, stream: object) -> None:
            await asyncio.sleep(5)
            await handler(session, stream)  # type: ignore[arg-type]

        anna.node.handle(HALL_HISTORY_PROTOCOL, slowly)
        dora.chat.enter_hall(anna.node.peer_id, [anna.node.address])
        await asyncio.sleep(1)
        await bert.chat.send(HALL, "live 1")
        await anna.chat.send(HALL, "live 2")
        await asyncio.sleep(10)
        assert [m.text for m in await history(dora)] == ["before", "live 1", "live 2"]

    run(main)


def test_x3_floods_of_questions_and_answers_are_bounded() -> None:
    """Who is no member hears nothing; a member that asks too often neither; a giant answer is given up."""

    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        await anna.chat.send(HALL, "x" * 10_000)
        stranger = await Person(world, "mallory").start()
        assert await ask(stranger, anna) == -1
        answers = [await ask(bert, anna) for _ in range(10)]
        assert answers.count(-1) >= 10 - service.TELL_BURST
        dora = await Person(world, "dora").start()

        async def liar(_session: object, stream: object) -> None:
            author = bert.node.peer_id.raw
            for number in range(MAX_TOLD + 50):
                await stream.write(  # type: ignore[attr-defined]
                    encode(Told(number.to_bytes(16, "big"), author, "bert", number, 0, "y" * 10_000))
                )

        anna.node.handle(HALL_HISTORY_PROTOCOL, liar)
        dora.chat.enter_hall(anna.node.peer_id, [anna.node.address])
        await asyncio.sleep(30)
        assert [m.text for m in await history(dora) if m.text.startswith("y")] == []

    run(main)


async def ask(one: Person, other: Person) -> int:
    """Return how many bytes came as the answer, -1 where the stream was reset."""
    session = await one.node.connect(other.node.peer_id)
    stream = await session.open_stream(HALL_HISTORY_PROTOCOL)
    await stream.write(encode(Ask(MAX_TOLD)))
    size = 0
    try:
        while data := await stream.read():
            size += len(data)
    except P2PError:
        return -1
    return size


def test_leaving_the_hall_and_coming_back() -> None:
    """The others see it at once; greetings lead nobody back; \\chat does, and tells what was missed."""

    async def main(world: FakeWorld) -> None:
        anna = await enter(world, "anna", None)
        bert = await enter(world, "bert", anna)
        cora = await enter(world, "cora", bert)
        talk, lines = console(bert)
        await talk.handle(r"\who")
        assert lines[0] == "* In the hall: you and 2 more."
        await talk.handle(r"\leave")
        await asyncio.sleep(1)
        assert [m.name for m in anna.chat.members()] == ["cora"]
        with pytest.raises(InvalidPeerError, match="You have left the hall"):
            await bert.chat.send(HALL, "hello?")
        bert.node.meet_on_lan(anna.node)
        anna.node.meet_on_lan(bert.node)
        await asyncio.sleep(5)
        assert bert.chat.members() == ()
        await anna.chat.send(HALL, "said meanwhile")
        assert "said meanwhile" not in await bert.texts(HALL)
        await asyncio.sleep(120)
        await talk.handle(r"\chat")
        await asyncio.sleep(3)
        assert {m.name for m in bert.chat.members()} == {"anna", "cora"}
        assert "said meanwhile" in await bert.texts(HALL)
        assert (await bert.chat.send(HALL, "back")).devices == 2
        assert "back" in await cora.texts(HALL)

    run(main)
