"""The console: line mode on a pipe, the prompt on prompt_toolkit's pipe, and what each macro says."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, until

from p2pnode.chat import HALL, Conversation, MessageReceived
from p2pnode.cli.console import LineSplitter, _completer, run_console, run_prompt
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]]) -> None:
    VirtualLoop().run(main(FakeWorld()), until=10_000.0)  # type: ignore[arg-type]  # async functions give coroutines


class Console:
    """A conversation and what it showed."""

    def __init__(self, person: Person) -> None:
        self.lines: list[str] = []
        self.conversation = Conversation(person.chat, own_port=4747, show=self.lines.append)

    async def type(self, *lines: str) -> list[str]:
        """Type lines, let things happen for two seconds, return what was shown since."""
        self.lines.clear()
        for line in lines:
            await self.conversation.handle(line)
        await asyncio.sleep(2)
        return list(self.lines)


async def three(world: FakeWorld) -> tuple[list[Person], list[Console]]:
    people = [await Person(world, name).start() for name in ("alice", "bob", "carol")]
    consoles = [Console(person) for person in people]
    for person in people[1:]:
        person.chat.enter_hall(people[0].node.peer_id)
        await asyncio.sleep(0.5)
    return people, consoles


def shown(person: Person) -> str:
    return f"{person.node.settings.name}~{str(person.node.user_id)[-6:]}"


def test_plain_text_goes_to_the_hall_until_chat_names_somebody() -> None:
    """`\\chat NAME` changes the conversation, `\\chat` leads back, the prompt tells which it is."""

    async def main(world: FakeWorld) -> None:
        (alice, bob, carol), (a, b, c) = await three(world)
        assert a.conversation.prompt == "hall> "
        for console in (a, b, c):
            console.lines.clear()
        await a.type("hello all")
        for console in (b, c):
            assert [line[6:] for line in console.lines] == [f"{shown(alice)}: hello all"]
        await a.type("\\chat bob", "just you")
        assert a.conversation.prompt == f"{shown(bob)}> "
        assert b.lines[-1].endswith(f"{shown(alice)} (to you): just you")
        assert len(c.lines) == 1
        await a.type("\\chat", "all again")
        assert c.lines[-1].endswith("all again")
        assert await carol.texts(HALL) == ["hello all", "all again"]

    run(main)


def test_name_slash_message_keeps_the_conversation() -> None:
    """And a name that nobody has sends nothing, but says what was perhaps meant."""

    async def main(world: FakeWorld) -> None:
        (alice, bob, _carol), (a, b, c) = await three(world)
        assert await a.type("bob/psst") == []
        assert b.lines[-1].endswith("(to you): psst")
        assert a.conversation.prompt == "hall> "
        [line] = await a.type("bbo/secret")
        assert "did you mean bob/" in line
        [line] = await a.type("and/or")
        assert "begin it with a space" in line
        assert await bob.texts(HALL) == []
        await a.type(" and/or", "//etc")
        assert await bob.texts(HALL) == ["and/or", "/etc"]
        assert await bob.texts(alice.node.user_id) == ["psst"]
        assert c.lines[-1].endswith("/etc")

    run(main)


def test_users_online_and_offline_tell_who_is_here() -> None:
    """Members and contacts, with the age of the evidence for those who are away."""

    async def main(world: FakeWorld) -> None:
        (alice, bob, carol), (a, _b, _c) = await three(world)
        await alice.chat.add_contact(carol.node.user_id, "Caro")
        await carol.stop()
        await asyncio.sleep(20)
        assert [line.split()[0] for line in await a.type("\\users")] == [shown(bob), "Caro"]
        [online] = await a.type("\\online")
        assert online.split(None, 1) == [shown(bob), "here now, in the hall"]
        [offline] = await a.type("/offline")
        assert offline.split(None, 1) == ["Caro", "offline, seen 1 s ago"]
        await bob.stop()
        await asyncio.sleep(1)
        assert await a.type("\\online") == ["* Nobody known is online."]

    run(main)


def test_add_accepts_a_request_and_gives_a_petname() -> None:
    """What waited arrives at once."""

    async def main(world: FakeWorld) -> None:
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        a, b = Console(alice), Console(bob)
        remarks = await a.type(f"{bob.node.user_id}/one", f"{bob.node.user_id}/two")
        assert any("waits until it is accepted" in line for line in remarks)
        assert f"\\add {shown(alice)}" in b.lines[0]
        lines = await b.type("\\add alice Alicia")
        assert lines[0] == "* Alicia is a contact now."
        assert lines[1].endswith("Alicia (to you): two")
        assert "who" in (await b.type("\\add"))[0]

    run(main)


def test_ping_tells_who_answers_and_joins_through_it() -> None:
    """Without a port: our own; nobody there or nonsense: one sentence."""

    async def main(world: FakeWorld) -> None:
        (_alice, bob, _carol), (a, _b, _c) = await three(world)
        [line] = await a.type(f"\\ping {bob.node.address.ip}")
        assert str(bob.node.peer_id) in line
        assert (await a.type("\\ping 10.9.9.9"))[0].startswith("! Nobody answers")
        for wrong in ("\\ping", "\\ping 10.0.0.2 99999", "\\ping 10.0.0.2 x"):
            assert "1 to 65535" in (await a.type(wrong))[0]

    run(main)


def test_every_input_is_answered_in_one_sentence() -> None:
    """Unknown macros suggest the nearest; too long, unknown people, an empty hall are told; nothing is raised."""

    async def main(world: FakeWorld) -> None:
        zoe = await Person(world, "zoe").start()
        a = Console(zoe)
        assert "did you mean \\help?" in (await a.type("\\hlep"))[0]
        assert "\\help lists" in (await a.type("\\xyzzy"))[0]
        assert "Nobody else is in the hall" in (await a.type("hello?"))[0]
        assert "known" in (await a.type("\\chat nobody"))[0]
        assert "is not the id" in (await a.type("\\chat 12D3KooW" + "1" * 44))[0]
        assert await a.type("", "   ") == []
        people, _ = await three(world)
        zoe.chat.enter_hall(people[0].node.peer_id)
        await asyncio.sleep(1)
        assert "at most 15,000" in (await a.type("x" * 15_001))[0]
        assert len(await a.type("\\help")) >= 11
        await a.type(":q")
        assert a.conversation.finished

    run(main)


def test_greeting_has_the_line_to_copy() -> None:
    """Own id, port, and what to type elsewhere."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        a = Console(alice)
        a.conversation.greet(addresses=("10.0.0.1:4747",), bootstrap="12D3KooWx@10.0.0.1:4747", alone=True)
        text = "\n".join(a.lines)
        assert str(alice.node.user_id) in text
        assert "p2pnode join NAME 12D3KooWx@10.0.0.1:4747" in text
        assert "port 4747" in text

    run(main)


def test_splitter_cuts_lines_and_names_too_long_ones() -> None:
    """However the bytes come; memory stays at one line."""
    splitter = LineSplitter(10)
    assert splitter.feed(b"ab") == []
    assert splitter.feed(b"c\r\nd\n\nef") == [b"abc", b"d", b""]
    assert splitter.feed(b"x" * 100) == []
    assert splitter.feed(b"x" * 100) == []
    assert splitter.feed(b"\nok\n") == [None, b"ok"]
    assert splitter.feed(b"last") == []
    assert splitter.end() == [b"last"]
    assert splitter.end() == []


def on_real_loop(typed: bytes | Path) -> tuple[list[str], Person]:
    """Run line mode on `typed` (through a pipe, or a file) with bob in the hall."""
    out = io.StringIO()

    async def main() -> Person:
        world = FakeWorld(delay=0.0, lookup_s=0.0)
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        bob.chat.enter_hall(alice.node.peer_id)
        for person in (alice, bob):
            await until(person, lambda person=person: bool(person.chat.members()))  # type: ignore[misc]
        if isinstance(typed, Path):
            fd = os.open(typed, os.O_RDONLY)
        else:
            fd, write_end = os.pipe()
            thread = threading.Thread(target=lambda: (os.write(write_end, typed), os.close(write_end)))
            thread.start()
        try:
            await run_console(alice.chat, own_port=4747, input_fd=fd, output=out)
        finally:
            os.close(fd)
        bob.events.append(await bob.texts(HALL))  # type: ignore[arg-type]  # the result, for the caller
        await alice.stop()
        await bob.stop()
        return bob

    bob = asyncio.run(main())
    return out.getvalue().splitlines(), bob


@pytest.mark.parametrize("as_file", [False, True])
def test_line_mode_sends_each_line_and_leaves_at_the_end(tmp_path: Path, as_file: bool) -> None:
    """A line that is not UTF-8 is one sentence; those before and after it arrive, the last without a line end too."""
    typed = b"one\n\xff\xfe\ntwo\n" + b"y" * 70_000 + b"\nthree"
    source: bytes | Path = typed
    if as_file:
        source = tmp_path / "typed"
        source.write_bytes(typed)
    lines, bob = on_real_loop(source)
    assert bob.events[-1] != []
    texts = next(e for e in reversed(bob.events) if isinstance(e, list))
    assert texts == ["one", "two", "three"]
    assert sum("not UTF-8" in line for line in lines) == 1
    assert sum("65,536" in line for line in lines) == 1


def test_line_mode_ends_at_quit() -> None:
    """What follows `:q` is not sent."""
    _, bob = on_real_loop(b"one\n:q\ntwo\n")
    assert next(e for e in reversed(bob.events) if isinstance(e, list)) == ["one"]


@pytest.mark.slow
def test_arriving_line_leaves_a_half_typed_one_alone() -> None:
    """On the screen: typed half, a message arrives, typed the rest: the whole line is sent."""
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    async def main() -> list[str]:
        world = FakeWorld(delay=0.0, lookup_s=0.0)
        alice, bob = await Person(world, "alice").start(), await Person(world, "bob").start()
        bob.chat.enter_hall(alice.node.peer_id)
        conversation = Conversation(alice.chat, own_port=4747, show=print)
        for person in (alice, bob):
            await until(person, lambda person=person: bool(person.chat.members()))  # type: ignore[misc]
        async with asyncio.timeout(10):
            with create_pipe_input() as typed:
                screen = asyncio.ensure_future(
                    run_prompt(conversation, lambda: None, terminal_input=typed, terminal_output=DummyOutput())
                )
                typed.send_text("half ")
                await bob.chat.send(HALL, "interrupting")
                typed.send_text("and half\r")
                typed.send_text("\\quit\r")
                await screen
        await until(bob, lambda: bool(bob.of_type(MessageReceived)))
        texts = await bob.texts(HALL)
        await alice.stop()
        await bob.stop()
        return texts

    assert asyncio.run(main()) == ["interrupting", "half and half"]


def test_completion_offers_macros_and_names() -> None:
    """The first word: macros and NAME/; after a macro: names."""
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    async def main(world: FakeWorld) -> None:
        (_alice, _bob, _carol), (a, _b, _c) = await three(world)
        completer = _completer(a.conversation)

        def offered(text: str) -> list[str]:
            return [c.text for c in completer.get_completions(Document(text), CompleteEvent())]

        assert offered("\\of") == ["\\offline"]
        assert offered("bo") == ["bob/"]
        assert offered("\\chat c") == ["carol"]
        assert offered("hello b") == []
        assert offered("") == []

    run(main)
