"""What a new user does: two terminals, no option, no server; and a hall entered through any member."""

from __future__ import annotations

import re
from pathlib import Path

from support.terminals import Terminal, terminals


def port_of(terminal: Terminal) -> str:
    """The own port, as the screen shows it for the next one to join."""
    found = re.search(r"Listening on port (\d+)", terminal.wait_for("Listening on port"))
    assert found is not None, terminal.screen()
    return found.group(1)


def test_two_terminals_find_each_other_by_multicast_and_chat(tmp_path: Path) -> None:
    """Two homes on one machine, line mode; an arriving line leaves a half-typed one alone."""
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "--plain")
        bert = desk.open("bert", "join", "--plain")
        anna.wait_for("has entered the hall|In the hall: ")
        bert.wait_for("has entered the hall|In the hall: ")
        anna.type("hello from the first terminal")
        bert.wait_for("hello from the first terminal")
        anna.type("half a li", enter=False)
        bert.type("and from the second")
        screen = anna.wait_for("and from the second")
        assert screen.rstrip().endswith("half a li")
        anna.type("ne")
        bert.wait_for("half a line")
        for terminal in (anna, bert):
            terminal.type(r"\quit")
            terminal.wait_for("exit=0", timeout=5)


def test_five_in_a_hall_entered_through_any_member(tmp_path: Path) -> None:
    """No multicast: each joins through the one before it; all five read each other."""
    names = ("anna", "bert", "cora", "dora", "emil")
    with terminals(tmp_path) as desk:
        people = [desk.open("anna", "join", "anna", "--no-lan", "--plain")]
        for name in names[1:]:
            port = port_of(people[-1])
            people.append(desk.open(name, "join", name, "localhost", port, "--no-lan", "--plain"))
        for person, name in zip(people, names, strict=True):
            for other in names:
                if other != name:
                    person.wait_for(rf"{other}~\w+ has entered the hall|In the hall: .*{other}~")
        for person, name in zip(people, names, strict=True):
            person.type(f"{name} says good morning")
        for person, name in zip(people, names, strict=True):
            for other in names:
                if other != name:
                    screen = person.wait_for(f"{other} says good morning")
                    assert screen.count(f"{other} says good morning") == 1
        people[0].type(":q")
        people[0].wait_for("exit=0", timeout=5)
        people[1].type("dora/only for you")
        people[3].wait_for("only for you")
        people[3].wait_for_bell()
        assert "only for you" not in people[2].screen()
        fred = desk.open("fred", "join", "fred", "localhost", port_of(people[3]), "--no-lan", "--plain")
        fred.wait_for(r"bert~\w+( \(told by \w+~\w+\))?: bert says good morning")
        fred.type(r"\who")
        fred.wait_for(r"In the hall: you and \d more")
        fred.type(r"\leave")
        people[3].wait_for(r"fred~\w+ has left the hall")
