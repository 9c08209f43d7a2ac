"""The chat's screen on real terminals (tmux), as two people use it."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from pathlib import Path

import pytest
from support.processes import LAUNCH, QUIET, Processes, environment, eventually, processes, run
from support.terminals import terminals

pytestmark = pytest.mark.long


def test_two_screens_chat_in_the_hall_and_alone(tmp_path: Path) -> None:
    """No option but --home, 80 columns and 24 rows: whoever just types after the welcome is understood; an arriving
    message leaves a half-typed one alone; leaving gives the terminal back as it was."""
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "anna", width=80, height=24)
        bert = desk.open("bert", "join", "bert", width=80, height=24)
        anna.wait_for("Welcome, anna")
        bert.wait_for("Welcome, bert")
        anna.press("Escape")
        anna.wait_for("# hall: 1 other")
        bert.press("Escape")
        bert.wait_for("# hall: 1 other")
        anna.type("hello from the first terminal")
        bert.wait_for(r"anna~\w+: hello from the first")
        anna.wait_for("you: hello from the first terminal \u2713")
        anna.type("half a li", enter=False)
        bert.type("and from the second")
        assert "half a li" in anna.wait_for(r"bert~\w+: and from the second")
        anna.type("ne")
        bert.wait_for("half a line")
        bert.type("anna/psst")
        anna.wait_for("bert~\\w+ +1 ")
        anna.press("C-n")
        anna.wait_for(r"bert~\w+: psst")
        anna.press("F3")
        anna.wait_for("Direct on the local network")
        anna.type(r"\who")
        anna.wait_for("waits for your answer")
        bert.press("F1")
        bert.wait_for("Commands")
        bert.press("Escape")
        bert.wait_for("# hall: 1 other")
        bert.type(r"\quit")
        bert.wait_for("exit=0", timeout=5)
        assert "hall" not in bert.screen()
        anna.press("C-c")
        anna.wait_for("exit=130", timeout=5)


def screen_on(terminal: int, running: Processes, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `join NAME` on a pseudo-terminal."""
    command = [*LAUNCH, "--home", str(running.root / name), "join", name, *QUIET, "--listen", "127.0.0.1:0", *arguments]
    with (running.root / f"{name}.err").open("wb") as log:
        return subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=log, env=environment(TERM="xterm"), start_new_session=True
        )


def test_terminal_that_takes_nothing_does_not_stop_the_node(tmp_path: Path) -> None:
    """A stalled ssh connection: nobody reads what is drawn while messages come. They are stored and acknowledged, the
    node answers its command line, and leaves within its two seconds."""
    controller, terminal = pty.openpty()
    with processes(tmp_path) as running:
        boot = running.bootstrap("boot")
        node = screen_on(terminal, running, "alice", "--bootstrap", boot.ready()["bootstrap"])
        try:
            bob = running.join("bob", bootstrap=[boot])
            eventually(lambda: run(tmp_path / "alice", "status").code == 0, what="alice's start")
            alice = run(tmp_path / "alice", "id", "--json").json["user_id"]
            assert run(tmp_path / "alice", "contacts", "add", bob.user, "--name", "bob").code == 0
            os.write(controller, b"\x1b")
            for number in range(4):
                for _ in range(20):  # each key is a drawing, which the terminal does not take
                    os.write(controller, b"x")
                    time.sleep(0.02)
                assert bob.cli("send", alice, f"{number} {'x' * 2000}", "--json").json["delivered"]
            assert len(run(tmp_path / "alice", "history", "bob", "--json").json["messages"]) == 4
            node.terminate()
            assert node.wait(5) == 0
        finally:
            node.kill()
            node.wait()
            os.close(controller)
            os.close(terminal)
