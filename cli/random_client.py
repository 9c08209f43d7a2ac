"""`p2pnode random` through the node that runs on the home: lines typed become calls, its events become lines."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from p2pnode import P2PError, clean
from p2pnode.api import types as t
from p2pnode.api.random_types import RandomBegin, RandomSay, RandomState, RandomStep
from p2pnode.chat.language import MACROS, Macro, Say, SayTo, parse_line
from p2pnode.chat.model import StrangerChanged, StrangerSaid
from p2pnode.chat.strangers.console import event_lines

if TYPE_CHECKING:
    from p2pnode.api.client import Client
    from p2pnode.cli.invocation import Invocation

__all__ = ["talk_through"]

_OURS = ("random", "next", "report", "quit", "help")


def talk_through(invocation: Invocation, client: Client, *, relay_only: bool) -> int:
    """Serve the user until he leaves; return the exit code. Raise P2PError."""
    events = client.follow("/v1/events", t.Event)
    threading.Thread(target=_show_events, args=(invocation, events), daemon=True).start()
    client.post("/v1/random", RandomState, RandomBegin(relay_only))
    try:
        for line in invocation.stdin:
            try:
                if not _handle(invocation, client, line):
                    break
            except P2PError as exc:
                if exc.code == "not_running":
                    raise
                invocation.note(f"! {exc.message}")
    finally:
        with contextlib.suppress(P2PError):
            client.delete("/v1/random", RandomState, RandomStep())
    return 0


def _handle(invocation: Invocation, client: Client, line: str) -> bool:
    """Do what a line says; False when the user leaves. Raise P2PError."""
    command = parse_line(line)
    if isinstance(command, Say):
        client.post("/v1/random/messages", t.Done, RandomSay(command.text))
    elif isinstance(command, SayTo):
        client.post("/v1/random/messages", t.Done, RandomSay(command.line))
    elif isinstance(command, Macro) and command.name in ("quit", "exit"):
        return False
    elif isinstance(command, Macro) and command.name in ("next", "report"):
        client.post(f"/v1/random/{command.name}", RandomState, RandomStep())
    elif isinstance(command, Macro) and command.name == "random":
        client.post("/v1/random", RandomState, RandomBegin(bool(command.argument)))
    elif line.strip():
        for name in _OURS:
            invocation.note(f"  \\{name:<10} {MACROS[name][1]}")
    return True


def _show_events(invocation: Invocation, events: Iterator[t.Event]) -> None:
    with contextlib.suppress(P2PError, OSError, ValueError):
        for event in events:
            if event.event not in ("random", "random_message"):
                continue
            if invocation.json:
                invocation.line(msgspec.json.encode(event).decode())
                continue
            for text in event_lines(_event_of(event), echo=False):
                invocation.line(clean(text, limit=20_000))


def _event_of(event: t.Event) -> StrangerChanged | StrangerSaid:
    if event.event == "random":
        return StrangerChanged(event.state or "", event.reason or "", event.path or "", event.age_s or 0.0)
    return StrangerSaid(event.text or "", event.from_ == "you", _unix(event.sent_at))


def _unix(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
