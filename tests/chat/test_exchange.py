"""Export and import of the history and of contacts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode.chat import (
    HALL,
    BadLineError,
    ExportedContact,
    ExportedMessage,
    markdown_of,
    read_contact,
    read_line,
)
from p2pnode.chat.store import Outgoing
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 1e8) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


async def two(world: FakeWorld) -> tuple[Person, Person]:
    people = [await Person(world, name).start() for name in ("anna", "bert")]
    await befriend(*people)
    return people[0], people[1]


async def exported(person: Person) -> list[ExportedMessage]:
    return [message async for message in person.chat.keeping.export()]


def lines_of(messages: list[ExportedMessage]) -> list[bytes]:
    return [msgspec.json.encode(message) for message in messages]


async def talked(world: FakeWorld) -> tuple[Person, Person]:
    anna, bert = await two(world)
    anna.chat.enter_hall(bert.node.peer_id, [bert.node.address])
    await asyncio.sleep(1)
    for number in range(3):
        await anna.chat.send(bert.node.user_id, f"anna {number}\nsecond line")
        await bert.chat.send(anna.node.user_id, f"bert {number} \U0001f680")
        await bert.chat.send(HALL, f"hall {number}")
    return anna, bert


def test_an_export_can_be_imported_into_a_new_home_twice() -> None:
    """The same texts in the same order, nothing unread, nothing sent again; the second time nothing is new."""

    async def main(world: FakeWorld) -> None:
        anna, bert = await talked(world)
        found = [read_line(line) for line in lines_of(await exported(anna))]
        fresh = await Person(FakeWorld(), "anna").start()
        assert await fresh.chat.keeping.import_(found) == 9
        assert await fresh.chat.keeping.import_(found) == 0
        for party in (bert.node.user_id, HALL):
            assert await fresh.texts(party) == await anna.texts(party)
        assert await exported(fresh) == [msgspec.structs.replace(m, from_name="") for m in found]
        assert [each.unread for each in await fresh.store.conversations()] == [0, 0]
        assert await fresh.store.outbox_devices() == []
        assert [m.text for m in await fresh.store.history(bert.node.user_id, search="anna 2")] == [
            "anna 2\nsecond line"
        ]

    run(main)


def test_an_import_beside_newer_messages_puts_each_where_it_belongs() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await talked(world)
        old = await exported(anna)
        home = await Person(FakeWorld(), "anna").start()
        for number in (1, 2):
            await home.store.add_outgoing(
                Outgoing(
                    bytes([number]) * 16, home.node.peer_id, home.node.user_id, bert.node.user_id,
                    f"newer {number}", 1_800_000_000_000 + number, (bert.node.peer_id,),
                )
            )  # fmt: skip
        assert await home.chat.keeping.import_(old) == 9
        texts = await home.texts(bert.node.user_id)
        assert [t for t in texts if not t.startswith("bert")] == [
            *(f"anna {n}\nsecond line" for n in range(3)), "newer 1", "newer 2",
        ]  # fmt: skip
        assert len(await home.store.outbox(bert.node.peer_id)) == 2

    run(main)


def test_a_message_that_was_never_delivered_is_not_sent_by_importing_it() -> None:
    async def main(world: FakeWorld) -> None:
        anna, bert = await two(world)
        bert.node.go_down()
        await anna.chat.post(bert.node.user_id, "never sent")
        fresh = await Person(FakeWorld(), "anna").start()
        await fresh.chat.keeping.import_(await exported(anna))
        message = (await fresh.store.history(bert.node.user_id))[0]
        assert (message.state, message.reason) == ("refused", "imported")
        await fresh.chat.resolver._address(bert.node.user_id, [bert.node.peer_id])
        assert await fresh.store.outbox_devices() == []

    run(main)


GOOD = {
    "with": "hall", "id": "0" * 32, "from": "12D3KooWGzP", "direction": "in", "text": "x",
    "sent_at": "2026-01-01T00:00:00Z", "received_at": "2026-01-01T00:00:00Z", "state": "received", "sequence": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"id": "0"}, {"from": "12D3KooW"}, {"with": "user:00"}, {"with": "x:zz"}, {"sent_at": "yesterday"},
        {"sent_at": "2026-01-01T00:00:00"}, {"sequence": -1}, {"direction": "up"}, {"state": "new"}, {"text": None},
        {"from_user": "p2p1"}, {"told_by": "x"}, {"text": "x" * 20_000},
    ],
    ids=str,
)  # fmt: skip
def test_v1_lines_that_are_no_message_are_refused(change: dict[str, object]) -> None:
    author = str(Person(FakeWorld(), "anna").node.peer_id)
    good = {**GOOD, "from": author}
    read_line(msgspec.json.encode(good))
    with pytest.raises(BadLineError):
        read_line(msgspec.json.encode({**good, **change}))
    for junk in (b"", b"{}", b"[1]", b"\xff", b"[" * 100_000):
        with pytest.raises(BadLineError):
            read_line(junk)


def test_x1_markdown_shows_text_as_text() -> None:
    author = str(Person(FakeWorld(), "anna").node.peer_id)
    text = "# no heading\n<script>\n[link](http://x) `code` *bold*"
    message = read_line(msgspec.json.encode({**GOOD, "from": author, "from_name": "b*rt", "text": text}))
    shown = markdown_of(message, None, "the hall")
    assert shown.startswith("# the hall\n\n## 2026-01-01\n\n**b\\*rt** 00:00  \n")
    for special in ("\n# no", "<script>", "[link]", "`code`", "*bold*"):
        assert special not in shown.replace("\\" + special[0], "")
    assert "#" not in markdown_of(message, message, "the hall").replace("\\#", "")


def test_contacts_go_elsewhere_and_what_was_decided_there_stands() -> None:
    """Names for those who have none, new people, nobody renamed or unblocked; requests stay at home."""

    async def main(world: FakeWorld) -> None:
        anna = await Person(world, "anna").start()
        people = [await Person(world, name).start() for name in ("bert", "cora", "dora", "emil")]
        bert, cora, dora, emil = (person.node.user_id for person in people)
        await anna.chat.add_contact(bert, "Bertie")
        await anna.chat.verify_contact(bert)
        await anna.chat.add_contact(cora)
        await anna.chat.block(dora)
        await people[3].chat.send(anna.node.user_id, "may I?")
        found = await anna.chat.keeping.export_contacts()
        assert {(each.id, each.state) for each in found} == {
            (str(bert), "accepted"), (str(cora), "accepted"), (str(dora), "blocked"),
        }  # fmt: skip
        assert emil not in {each.id for each in found}
        other = await Person(FakeWorld(), "other").start()
        await other.chat.add_contact(bert, "Albert")
        await other.chat.block(cora)
        lines = [read_contact(msgspec.json.encode(each)) for each in found]
        assert await other.chat.keeping.import_contacts(lines) == 1
        assert await other.chat.keeping.import_contacts(lines) == 0
        contacts = {each.party: each for each in other.chat.directory.contacts()}
        assert (contacts[bert].petname, contacts[bert].verified) == ("Albert", False)
        assert (contacts[cora].state, contacts[dora].state) == ("blocked", "blocked")
        assert await other.chat.keeping.import_contacts(lines, verified=True) == 1
        assert {each.party: each.verified for each in other.chat.directory.contacts()}[bert]

    run(main)


@pytest.mark.parametrize("line", [b"", b"{}", b'{"id":"x"}', b'{"id":"p2p1x"}', b'{"id":"p2p1","state":"request"}'])
def test_v1_lines_that_are_nobody_are_refused(line: bytes) -> None:
    with pytest.raises(BadLineError):
        read_contact(line)
    with pytest.raises(BadLineError):
        read_contact(msgspec.json.encode(ExportedContact(id="p2p1", name="x" * 100)) + b" " * 5_000)
