"""Strangers as users meet them: in terminals, and through a node that runs."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.processes import LAUNCH, QUIET, environment, processes
from support.terminals import Terminal, terminals

pytestmark = pytest.mark.long

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


class Talker:
    """A `p2pnode random --json` with pipes."""

    def __init__(self, home: Path, *arguments: str) -> None:
        home.mkdir(mode=0o700, exist_ok=True)
        self._process = subprocess.Popen(
            [*LAUNCH, "--home", str(home), "random", "--json", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait_for(self, **fields: str) -> dict[str, Any]:
        """Return the next event that has these fields."""
        while True:
            event = self._lines.get(timeout=SLOW_S)
            assert event is not None, f"it ended before {fields}"
            if all(event.get(name) == value for name, value in fields.items()):
                return event

    def end(self) -> int:
        """Close its input; return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(SLOW_S)
        finally:
            self._process.kill()
            self._process.wait()
        self._reader.join(SLOW_S)
        self._process.stdout.close()
        return code


def test_random_through_a_running_node_and_without_one_as_json(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        boot = running.bootstrap("boot")
        anna = running.join("anna", bootstrap=[boot])
        anna.ready(SLOW_S)
        through = ["--bootstrap", boot.ready(SLOW_S)["bootstrap"], "--listen", "127.0.0.1:0", *QUIET]
        one = Talker(anna.home)
        other = Talker(tmp_path / "bert", *through)
        try:
            assert one.wait_for(event="random", state="found")["path"] == "lan"
            other.wait_for(event="random", state="found")
            one.type("hello")
            assert other.wait_for(event="random_message", **{"from": "stranger"})["text"] == "hello"
            other.type("hello to you")
            assert one.wait_for(event="random_message", **{"from": "stranger"})["text"] == "hello to you"
            other.type("\\quit")
            assert one.wait_for(event="random", state="ended")["reason"] == "left"
            assert anna.wait_event(lambda event: event["event"] == "random" and event["state"] == "ended")
        finally:
            codes = other.end(), one.end()
        assert codes == (0, 0)
        assert anna.wait_event(lambda event: event["event"] == "random" and event["state"] == "off")
