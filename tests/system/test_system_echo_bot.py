"""The bot of examples/, as somebody would try it: started, written to from a terminal on the same network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import environment
from support.terminals import terminals

pytestmark = pytest.mark.long

BOT = Path(__file__).parents[2] / "examples" / "echo_bot.py"


def test_echo_bot_says_back_what_it_is_told(tmp_path: Path) -> None:
    """By its user id, which it prints; found by multicast."""
    assert sum(bool(line.strip()) for line in BOT.read_text().splitlines()) < 25
    with terminals(tmp_path) as desk:
        command = [*desk._enter, sys.executable, str(BOT), str(tmp_path / "bot")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as bot:
            try:
                assert bot.stdout is not None
                user = next(line.strip() for line in bot.stdout if line.startswith("p2p1"))  # between lines of the log
                anna = desk.open("anna", "join", "anna", "--plain")
                anna.wait_for("hall>")
                anna.type(f"{user}/is there an echo?")
                anna.wait_for(r"echo~\w+ \(to you\): You said: is there an echo\?")
            finally:
                bot.terminate()
