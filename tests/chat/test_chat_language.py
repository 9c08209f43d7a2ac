"""The input language, as a table."""

from __future__ import annotations

import pytest

from p2pnode.chat.language import MACROS, Command, Empty, Macro, Say, SayTo, Unknown, parse_line

TABLE: list[tuple[str, Command]] = [
    ("", Empty()),
    ("   \r\n", Empty()),
    ("hello all", Say("hello all")),
    ("hello all\n", Say("hello all")),
    ("//etc/hosts", Say("/etc/hosts")),
    ("//", Say("/")),
    (":q", Macro("quit")),
    (":quit", Macro("quit")),
    (":quite", Say(":quite")),
    (":-)", Say(":-)")),
    ("\\help", Macro("help")),
    ("/help", Macro("help")),
    ("/HELP", Macro("help")),
    ("\\chat bob", Macro("chat", "bob")),
    ("\\chat   old bob  ", Macro("chat", "old bob")),
    ("\\chat", Macro("chat")),
    ("\\ping 10.0.0.1 4747", Macro("ping", "10.0.0.1 4747")),
    ("\\quit", Macro("quit")),
    ("\\exit", Macro("exit")),
    ("\\add bob Bobby", Macro("add", "bob Bobby")),
    ("\\hlep", Unknown("hlep", "help")),
    ("/onlin", Unknown("onlin", "online")),
    ("/off", Unknown("off", "offline")),
    ("\\xyzzy", Unknown("xyzzy", None)),
    ("\\", Unknown("", None)),
    ("bob/hi there", SayTo("bob", "hi there", "bob/hi there")),
    ("bob/ hi/ho ", SayTo("bob", "hi/ho", "bob/ hi/ho")),
    ("old bob/hi", SayTo("old bob", "hi", "old bob/hi")),
    ("bob/", Say("bob/")),
    ("bob /hi", Say("bob /hi")),
    (" and/or", Say("and/or")),
    (" \\help", Say("\\help")),
    ("1/2 of it", Say("1/2 of it")),
    ("http://example.org/x", Say("http://example.org/x")),
    ("x" * 65 + "/hi", Say("x" * 65 + "/hi")),
]


@pytest.mark.parametrize(("line", "command"), TABLE, ids=[repr(line)[:30] for line, _ in TABLE])
def test_line_means(line: str, command: Command) -> None:
    """Each line of the table means what stands beside it."""
    assert parse_line(line) == command


@pytest.mark.parametrize("name", MACROS)
@pytest.mark.parametrize("sign", ["\\", "/"])
def test_every_macro_is_known_with_either_sign(name: str, sign: str) -> None:
    """`\\` and `/` are the same."""
    assert parse_line(f"{sign}{name} x") == Macro(name, "x")
