"""Strangers as users meet them: in terminals, and through a node that runs."""

from __future__ import annotations

from pathlib import Path

from support.terminals import terminals


def test_two_strangers_meet_in_their_terminals_and_go_on(tmp_path: Path) -> None:
    """One in line mode by `\\random`, one by `p2pnode random` without a node; a screen joins later."""
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "anna", "--plain")
        anna.wait_for("hall>")
        anna.type("\\random")
        anna.wait_for("Looking for a stranger")
        bert = desk.open("bert", "random")
        anna.wait_for(r"You are connected to a stranger \(found in .*, lan\)\. Say hi!")
        bert.wait_for("You are connected to a stranger")
        anna.wait_for("stranger>")
        anna.type("hello there")
        bert.wait_for(r"\d\d:\d\d stranger: hello there")
        bert.type("and/or hello to you")
        bert.wait_for("Nobody known is called and")
        bert.type("hello to you")
        anna.wait_for(r"\d\d:\d\d stranger: hello to you")
        assert "anna" not in bert.screen()
        cleo = desk.open("cleo", "join", "cleo")
        cleo.wait_for("hall")
        anna.type("\\report")
        anna.wait_for("Reported: whoever is about to choose")
        bert.wait_for(r"The stranger has left \(after \d+")
        bert.type("are you there?")
        bert.wait_for("The stranger has gone")
        cleo.press("Escape")
        cleo.type("\\random")
        cleo.wait_for("Looking for a stranger")
        bert.type("\\next")
        cleo.wait_for("You are connected to a stranger")
        bert.wait_for(r"(?s)connected.*connected to a stranger")
        cleo.type("hi from the screen")
        bert.wait_for("stranger: hi from the screen")
        cleo.wait_for("you: hi from the screen")
        bert.type("\\quit")
        bert.wait_for("exit=0")
        cleo.wait_for("The stranger has left")
        cleo.type("\\quit")
        cleo.wait_for("# hall: ")
        anna.type("\\quit")
        anna.wait_for("Plain text goes to hall again")
        anna.type("\\exit")
        anna.wait_for("exit=0")
