"""Strangers as users meet them: in terminals, and through a node that runs."""

from __future__ import annotations

from pathlib import Path

from support.terminals import Terminal, terminals

SLOW_S = 90.0  # starting a node and finding each other, on a machine that does ten other things


def seen(terminal: Terminal, pattern: str) -> None:
    terminal.wait_for(pattern, timeout=SLOW_S)


def test_two_strangers_meet_in_their_terminals_and_go_on(tmp_path: Path) -> None:
    """One in line mode by `\\random`, one by `p2pnode random` without a node; a screen joins later."""
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "anna", "--plain")
        seen(anna, "hall>")
        anna.type("\\random")
        seen(anna, "Looking for a stranger")
        bert = desk.open("bert", "random")
        seen(anna, r"You are connected to a stranger \(found in .*, lan\)\. Say hi!")
        seen(bert, "You are connected to a stranger")
        seen(anna, "stranger>")
        anna.type("hello there")
        seen(bert, r"\d\d:\d\d stranger: hello there")
        bert.type("and/or hello to you")
        seen(bert, "Nobody known is called and")
        bert.type("hello to you")
        seen(anna, r"\d\d:\d\d stranger: hello to you")
        assert "anna" not in bert.screen()
        cleo = desk.open("cleo", "join", "cleo")
        seen(cleo, "hall")
        anna.type("\\report")
        seen(anna, "Reported: whoever is about to choose")
        seen(bert, r"The stranger has left \(after \d+")
        bert.type("are you there?")
        seen(bert, "The stranger has gone")
        cleo.press("Escape")
        cleo.type("\\random")
        seen(cleo, "Looking for a stranger")
        bert.type("\\next")
        seen(cleo, "You are connected to a stranger")
        seen(bert, r"(?s)connected.*connected to a stranger")
        cleo.type("hi from the screen")
        seen(bert, "stranger: hi from the screen")
        seen(cleo, "you: hi from the screen")
        bert.type("\\quit")
        seen(bert, "exit=0")
        seen(cleo, "The stranger has left")
        cleo.type("\\quit")
        seen(cleo, "# hall: ")
        anna.type("\\quit")
        seen(anna, "Plain text goes to hall again")
        anna.type("\\exit")
        seen(anna, "exit=0")
