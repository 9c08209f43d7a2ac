"""The input language of the console (docs/cli.md), as a pure parser: one line in, one command out.

    hello all            -> Say("hello all")
    //etc/hosts          -> Say("/etc/hosts")
    bob/are you there?   -> SayTo("bob", "are you there?")
    \\chat bob, /chat bob -> Macro("chat", "bob")
    :q, :quit            -> Macro("quit")

A line whose part before the first `/` cannot be a name (it ends in a space, is a number, is longer than a name, goes
over a line end) is plain text, and so is any line that begins with a space: the way to send `and/or` as it is. Text may
have several lines where it was pasted, or typed on the screen.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

__all__ = ["MACROS", "Command", "Empty", "Macro", "Say", "SayTo", "Unknown", "parse_line"]

MACROS: dict[str, tuple[str, str]] = {
    "help": ("", "this list"),
    "chat": ("[NAME]", "talk to NAME from now on, to all of NAME's sessions; without a name: to the hall"),
    "users": ("", "everybody known: the hall, contacts, requests"),
    "online": ("", "those of them who are here now"),
    "offline": ("", "those who are not, and when they were last seen"),
    "who": ("", "who reads what you type now"),
    "leave": ("", "leave the hall; \\chat leads back, and you hear what was said meanwhile"),
    "status": ("[TEXT]", "what contacts see beside your name; -: nothing"),
    "invisible": ("", "look offline, while messages still come and go"),
    "visible": ("", "be seen again"),
    "find": ("NAME", "who in the network calls itself NAME; you choose whom to \\add"),
    "add": ("NAME|PEER [PETNAME]", "make somebody a contact, or accept a request"),
    "block": ("NAME", "take nothing from NAME any more; \\add NAME takes it back"),
    "verify": ("NAME [yes]", "the safety number to compare with NAME's; yes: they are the same"),
    "file": ("[NAME] PATH", "send a file or folder; \\file lists all, \\file accept|refuse|cancel ID"),
    "room": ("list|create NAME [open]|join NAME", "group chat; \\room invite|remove [ROOM] WHO, members, leave"),
    "disappear": ("[1h|1d|1w|off]", "let new messages of this conversation disappear, on both sides"),
    "keep": ("[DAYS|forever|default]", "how long this conversation is kept here"),
    "search": ("TEXT", "messages of this conversation that contain TEXT"),
    "table": ("", "the people of your table (--peers), and who of them was found"),
    "trace": ("[NAME]", "by which path NAME is reached, how fast, and why so"),
    "devices": ("[link|revoke ID]", "your devices; link: a code for a new one, revoke: ID is none of yours any more"),
    "ping": ("IP [PORT]", "is there a node, and who; it becomes a way into the network"),
    "random": ("[relay-only]", "talk to a stranger; relay-only hides your address"),
    "next": ("", "another stranger"),
    "report": ("", "leave this stranger, and tell those who may meet it next"),
    "quit": ("", "leave the stranger, or else the program (also :q, :quit)"),
    "exit": ("", "leave the program"),
}
"""name -> (arguments, what it does)."""

MAX_NAME = 64  # an id (62 characters) may stand before the slash


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing was typed."""


@dataclass(frozen=True, slots=True)
class Say:
    """Text for the current conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class SayTo:
    """Text for somebody, without changing the conversation. `line`: as it was typed."""

    name: str
    text: str
    line: str


@dataclass(frozen=True, slots=True)
class Macro:
    """A known macro; `argument`: the rest of the line, trimmed."""

    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A macro that does not exist; `nearest`: one that does and is spelled alike."""

    name: str
    nearest: str | None


Command = Empty | Say | SayTo | Macro | Unknown


def parse_line(line: str) -> Command:
    """Read one line. Never fails: what means nothing is `Unknown`."""
    line = line.rstrip("\r\n")
    if not line.strip():
        return Empty()
    if line[0].isspace():
        return Say(line.strip())
    line = line.rstrip()
    if line.startswith("//"):
        return Say(line[1:])
    if line in (":q", ":quit"):
        return Macro("quit")
    if line[0] in "\\/":
        return _macro(line[1:])
    name, slash, text = line.partition("/")
    if slash and text.strip() and _can_be_name(name):
        return SayTo(name, text.strip(), line)
    return Say(line)


def _macro(rest: str) -> Command:
    name, _, argument = rest.partition(" ")
    name = name.casefold()
    if name in MACROS:
        return Macro(name, argument.strip())
    close = difflib.get_close_matches(name, MACROS, n=1, cutoff=0.5)
    prefixed = [macro for macro in MACROS if name and macro.startswith(name)]
    return Unknown(name, prefixed[0] if len(prefixed) == 1 else close[0] if close else None)


def _can_be_name(text: str) -> bool:
    one_line = "\n" not in text and text == text.strip()
    return one_line and len(text) <= MAX_NAME and not text.isdigit() and ":" not in text
