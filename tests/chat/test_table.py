"""The static table: people at fixed addresses, without any discovery; the first key counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, until

from p2pnode import AccountKey, HelloResult, InvalidConfigError, NotFoundError, PeerOfflineError, WrongKeyError
from p2pnode.chat import ChatSettings, Conversation, MessageReceived, RequestReceived, TableChanged, TableRow
from p2pnode.chat.table.rows import MAX_ROWS, parse_table
from p2pnode.simulations.virtual import VirtualLoop

NAMES = ("anna", "bert", "cora", "dora", "emil")


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


def rows(*people: Person) -> tuple[TableRow, ...]:
    return tuple(TableRow(p.node.settings.name, p.node.address.ip, p.node.address.port) for p in people)


def stranger(seed: str) -> AccountKey:
    return AccountKey.generate(random.Random(seed).randbytes)


def alone(
    world: FakeWorld, name: str, *, device: str = "", path: Path | None = None, account: AccountKey | None = None
) -> Person:
    """Somebody that no look-up finds."""
    person = Person(world, name, path, device=device, account=account)
    person.node.listed = False
    return person


def with_table(person: Person, table: tuple[TableRow, ...]) -> Person:
    person._settings = ChatSettings(hall=False, table=table)
    return person


async def everybody(world: FakeWorld) -> list[Person]:
    people = [alone(world, name) for name in NAMES]
    for person in people:
        await with_table(person, rows(*people)).start()
    for person in people:
        await until(person, lambda p=person: states(p) == {**dict.fromkeys(NAMES, "known"), name_of(p): "self"}, 60)
    return people


def states(person: Person) -> dict[str, str]:
    return {entry.row.name: entry.state for entry in person.chat.table.entries()}


def name_of(person: Person) -> str:
    return person.node.settings.name


def console(person: Person) -> tuple[Conversation, list[str]]:
    lines: list[str] = []
    return Conversation(person.chat, own_port=1, show=lines.append), lines


async def texts(person: Person, count: int) -> list[str]:
    await until(person, lambda: len(person.of_type(MessageReceived)) >= count)
    return sorted(event.message.text for event in person.of_type(MessageReceived))


def test_five_with_one_table_reach_each_other_by_name() -> None:
    """Everybody has the same file, own line included; nobody is a stranger to anybody."""

    async def main(world: FakeWorld) -> None:
        people = await everybody(world)
        for person in people:
            talk, lines = console(person)
            for name in NAMES:
                if name != name_of(person):
                    await talk.handle(f"{name}/from {name_of(person)} to {name}")
            assert not lines
        for person in people:
            others = sorted(f"from {name} to {name_of(person)}" for name in NAMES if name != name_of(person))
            assert await texts(person, 4) == others
            assert not person.of_type(RequestReceived)

    run(main)


def test_idle_sessions_are_opened_again_by_the_next_message() -> None:
    """The address of the table is enough: nobody can be looked up."""

    async def main(world: FakeWorld) -> None:
        people = await everybody(world)
        for person in people:
            for session in person.node.sessions():
                session.break_off("idle")
        assert not people[0].node.sessions()
        await asyncio.sleep(400)
        talk, _ = console(people[0])
        await talk.handle("emil/are you still there?")
        assert await texts(people[4], 1) == ["are you still there?"]

    run(main)


def test_who_comes_later_is_found_and_until_then_a_message_says_so() -> None:
    """Without a key nothing can be kept for somebody; with one it waits."""

    async def main(world: FakeWorld) -> None:
        anna, bert, cora = alone(world, "anna"), alone(world, "bert"), alone(world, "cora")
        keyed = TableRow("cora", cora.node.address.ip, cora.node.address.port, peer=cora.node.peer_id)
        await with_table(anna, (*rows(bert), keyed)).start()
        talk, lines = console(anna)
        await talk.handle("bert/too early")
        assert "bert does not answer at 10.0.0.2:4747 yet" in lines[-1]
        with pytest.raises(PeerOfflineError):
            await anna.chat.table.resolve("bert")
        with pytest.raises(NotFoundError):
            anna.chat.resolve("bert")
        await talk.handle("cora/for later")
        for late in (bert, cora):
            await with_table(late, rows(anna)).start()
        await until(anna, lambda: states(anna) == {"bert": "known", "cora": "known"}, 120)
        await talk.handle("bert/now")
        assert await texts(bert, 1) == ["now"]
        assert await texts(cora, 1) == ["for later"]

    run(main)


def test_v3_another_key_than_the_first_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    """The key is remembered on the disk; whoever sits at the address later gets nothing."""

    async def main(world: FakeWorld) -> None:
        anna, bert = alone(world, "anna", path=tmp_path / "chat.db"), alone(world, "bert")
        table = rows(bert)
        await bert.start()
        await with_table(anna, table).start()
        await until(anna, lambda: states(anna) == {"bert": "known"}, 60)
        await anna.stop()
        await bert.stop()
        thief = alone(world, "bert", device="other", account=stranger("thief"))
        thief.node.address = bert.node.address
        del world.nodes[bert.node.peer_id]
        await thief.start()
        anna = with_table(alone(world, "anna", path=tmp_path / "chat.db"), table)
        await anna.start()
        await until(anna, lambda: states(anna) == {"bert": "wrong_key"}, 60)
        talk, lines = console(anna)
        await talk.handle("bert/secret")
        assert f"another key ({thief.node.peer_id}) than answered there before for bert" in lines[-1]
        with pytest.raises(WrongKeyError):
            await anna.chat.send(bert.node.user_id, "secret")
        assert not thief.of_type(MessageReceived)
        assert [event.state for event in anna.of_type(TableChanged)] == ["wrong_key"]
        # the user writes the new key into the table: it is believed
        await anna.stop()
        fresh = TableRow("bert", table[0].host, table[0].port, peer=thief.node.peer_id)
        anna = await with_table(alone(world, "anna", path=tmp_path / "chat.db"), (fresh,)).start()
        await until(anna, lambda: states(anna) == {"bert": "known"}, 60)

    run(main)


def test_v3_a_stranger_cannot_take_a_name_of_the_table() -> None:
    """Somebody who calls himself as a line of the table is not that person."""

    async def main(world: FakeWorld) -> None:
        anna, bert, mallory = (
            alone(world, "anna"),
            alone(world, "bert"),
            alone(world, "bert", device="x", account=stranger("mallory")),
        )
        await with_table(anna, rows(bert)).start()
        await mallory.start()
        await mallory.chat.send(anna.node.user_id, "hi", addresses=[anna.node.address])
        world.nodes[anna.node.peer_id].listed = True
        await mallory.chat.send(anna.node.user_id, "hi again", wait=1.0)
        await until(anna, lambda: bool(anna.of_type(RequestReceived)), 60)
        talk, lines = console(anna)
        await talk.handle("bert/secret")
        assert "does not answer" in lines[-1]
        assert not mallory.of_type(MessageReceived)

    run(main)


def test_relay_only_dials_no_address_of_the_table() -> None:
    """Whoever sits there would learn ours; a key in the table is found through the network."""

    async def main(world: FakeWorld) -> None:
        anna, bert, cora = alone(world, "anna"), alone(world, "bert"), alone(world, "cora")
        asked: list[str] = []

        async def hello(host: str, port: int, *, timeout: float = 3.0) -> HelloResult:
            asked.append(host)
            raise PeerOfflineError("not to be asked")

        anna.node.hello = hello  # type: ignore[method-assign]
        anna.node.settings = replace(anna.node.settings, relay_only=True)
        for person in (bert, cora):
            await person.start()
        place = cora.node.address
        await with_table(anna, (*rows(bert), TableRow("cora", place.ip, place.port, peer=cora.node.peer_id))).start()
        await until(anna, lambda: states(anna) == {"bert": "waiting", "cora": "known"}, 60)
        assert asked == []
        with pytest.raises(PeerOfflineError, match="write the key"):
            await anna.chat.table.resolve("bert")

    run(main)


@pytest.mark.parametrize(
    "text",
    [
        "anna 192.0.2.7 4747\nbert bert.example 4747",
        "# people\n\nanna\t192.0.2.7\t4747   # at home\nbert bert.example:4747",
        '\ufeffName,Host,Port,Key\nanna,192.0.2.7,4747,\n"bert", bert.example ,4747,,',
        "name;host;port\r\nanna;192.0.2.7;4747\r\nbert;bert.example;4747\r\n",
    ],
)
def test_tables_are_read_as_people_write_them(text: str) -> None:
    found = parse_table(text, "peers")
    assert [(row.name, row.host, row.port) for row in found] == [
        ("anna", "192.0.2.7", 4747),
        ("bert", "bert.example", 4747),
    ]


def test_a_key_may_stand_behind_or_before_the_address() -> None:
    world = FakeWorld()
    node = Person(world, "anna").node
    text = f"a [2001:db8::7]:4747 {node.peer_id}\nb 2001:db8::7 4748 {node.user_id}\nc {node.peer_id}@h.example:1"
    found = parse_table(text, "peers")
    assert [(row.host, row.port) for row in found] == [("2001:db8::7", 4747), ("2001:db8::7", 4748), ("h.example", 1)]
    assert [(row.peer, row.user) for row in found] == [
        (node.peer_id, None), (None, node.user_id), (node.peer_id, None),
    ]  # fmt: skip
    assert found[0].place == "[2001:db8::7]:4747"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("anna", 1, "after 'anna' come host and port"),
        ("# x\nanna 192.0.2.7 99999", 2, "not a port"),
        ("anna 192.0.2.7 4747\nAnna 192.0.2.8 4747", 2, "stands on line 1 already"),
        ("a/b 192.0.2.7 4747", 1, "is not a name"),
        ("anna 192.0.2.7 4747 secret", 1, "is no key"),
        ("anna 192.0.2.7 4747 x y", 1, "one field too many"),
        ("\n".join(f"p{n} 192.0.2.7 4747" for n in range(MAX_ROWS + 1)), MAX_ROWS + 1, "more than 1,000"),
    ],
)
def test_errors_name_file_and_line(text: str, line: int, why: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_table(text, "peers.txt")
    assert caught.value.message.startswith(f"peers.txt, line {line}: ")
    assert why in caught.value.message
