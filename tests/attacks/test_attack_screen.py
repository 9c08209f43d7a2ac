"""What others write on the chat's screen (X1): nothing of it is obeyed, by the terminal or by Textual."""

from __future__ import annotations

import re

import pytest
from support.screens import Desk, at_desk, path
from textual.strip import Strip

from p2pnode.chat import HALL
from p2pnode.cli.screen import layout
from p2pnode.cli.screen.entry import Entry

pytestmark = pytest.mark.slow

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07 \x9b31m red",
    "[bold red]loud[/bold red] [@click=app.quit]press[/] [link=file:///etc/passwd]x[/link] [/]",
    "\u202egnp.exe \u2066isolate \u200bzero\u200d \ufeff",
    "e" + "\u0301" * 5_000,
    "line\n12:00 alice: I never said that\n" + "\n" * 14_000,
    "$text-error {not} a % template \\n \\[",
    "\U000e0041\U000e0042 tags, \u3164 filler, \ufdd0",
)
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]")


def drawn(at: Desk) -> list[str]:
    """Every line of every part of the screen, as it goes to the terminal."""
    strips: list[Strip] = at.app.screen._compositor.render_strips()
    return [strip.text for strip in strips]


def test_x1_no_character_of_a_peer_steers_the_terminal_or_the_screen() -> None:
    """Escape sequences, markup, bidi overrides, stacks of marks, thousands of lines: shown as text, and nothing else on
    the screen moves; a line that looks like another message is indented."""

    async def work(at: Desk) -> None:
        bob = at.people[1]
        for text in HOSTILE:
            await bob.chat.post(HALL, text)
        await at.until(lambda: len(at.app.timeline.messages) == len(HOSTILE))
        for number, message in enumerate(at.app.timeline.messages):
            lines = layout.message_lines(message, "bob", 0, 50)
            assert len(lines) <= layout.MAX_LINES + 2
            for line in lines:
                assert not HARMFUL.search(layout.text_of(line)), number
            assert all(layout.text_of(line).startswith("      ") for line in lines[1:])
        log = at.app.log_view
        for y in range(0, len(at.lines()), log.size.height):
            log.scroll_to(y=y, animate=False)
            await at.pilot.pause()
            rows = drawn(at)
            assert not [row for row in rows if HARMFUL.search(row)]
            assert rows[0].rstrip().endswith("alice, port 4747")
        assert any("[bold red]loud[/bold red]" in line for line in at.lines())
        assert at.app.is_running
        print(f"{len(HOSTILE)} hostile texts, {len(at.lines())} lines, nothing obeyed")

    at_desk(work, "alice", "bob")


def test_x1_hostile_names_and_reasons_are_text_everywhere() -> None:
    """In the list, at the top, in the panel, in notices, in the search: markup stays markup's text."""

    async def work(at: Desk) -> None:
        alice, bob = at.people
        name = "[red]x[/red] \u202e[@click=app.quit]"
        at.inspector.paths[bob.node.peer_id] = path(text="[bold]why[/bold] \x1b[31m")
        await bob.chat.send(alice.node.user_id, "[reverse]first[/reverse] \x1b]52;c;AAAA\x07")
        await at.until(lambda: at.app.rooms[bob.node.user_id].request)
        await alice.chat.add_contact(bob.node.user_id, name)
        await at.app.turn_to(bob.node.user_id)
        await at.pilot.press("f3")
        await at.pilot.pause(0.2)
        rows = drawn(at)
        assert sum("[red]x[/red]" in row for row in rows) >= 2
        assert any("[bold]why[/bold]" in row for row in rows)
        assert not [row for row in rows if HARMFUL.search(row)]
        await at.pilot.press("ctrl+f", *"first")
        await at.pilot.pause(0.4)
        rows = drawn(at)
        assert any("[reverse]first[/reverse]" in row for row in rows)
        assert not [row for row in rows if HARMFUL.search(row)]

    at_desk(work, "alice", "bob\x1b[2J")


def test_x1_pasted_control_characters_are_not_drawn() -> None:
    """What the user pastes may come from a stranger's page."""

    async def work(at: Desk) -> None:
        from textual import events

        at.app.query_one(Entry).post_message(events.Paste("safe\x1b[2J\x9b31m\u202eback\x07"))
        await at.until(lambda: "safe" in at.app.entry.text)
        assert not [row for row in drawn(at) if HARMFUL.search(row)]
        await at.pilot.press("enter")
        await at.until(lambda: len(at.app.timeline.messages) == 1)
        assert not [row for row in drawn(at) if HARMFUL.search(row)]

    at_desk(work, "alice", "bob")
