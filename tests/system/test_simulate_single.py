"""One run as a user meets it: Ctrl-C at any time, progress on a terminal and elsewhere, a scenario that prints."""

import contextlib
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from support.simulate import TINY, finish, interrupt, is_alive, runs_of, started, wait_until

pytestmark = pytest.mark.long


def test_ctrl_c_writes_the_report_so_far(tmp_path: Path) -> None:
    """Exit 130, within two seconds on an idle machine; JSON and page marked; the run's process is gone."""
    folder = tmp_path / "o"
    with started(TINY, "--set", "spin_s=1000", "--set", "steps=50000", "--output", str(folder)) as process:
        (run,) = wait_until(lambda: runs_of(process.pid), what="the run")
        wait_until(lambda: _line(process).startswith("tiny, 10 nodes: stepping"), what="a line of progress")
        out, _, seconds = interrupt(process)
    print(f"Ctrl-C took {seconds:.2f} s")
    assert process.returncode == 130
    assert "INTERRUPTED" in out
    data = json.loads((folder / "report.json").read_text())
    assert data["interrupted"] is True
    assert data["samples"]["lookup_s"]["count"] > 10
    assert "Interrupted" in (folder / "report.html").read_text()
    assert not is_alive(run)


def _line(process: subprocess.Popen[str]) -> str:
    """One line per 5 s where there is no terminal: phase, steps, both times, what is left. A busy machine may still be
    starting then."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert re.fullmatch(
        r"tiny, 10 nodes: (stepping [\d,]+ of 50,000, about [\d.]+ (s|min) left of it|starting);"
        r" [\d.,]+ (s|min) virtual, \d+ s real \(\d+ s\)\n",
        line,
    ), line
    return line


def test_ctrl_c_before_anything_ran() -> None:
    """While the run's process still starts: exit 130, no traceback."""
    with started(TINY, "--set", "spin_s=1000") as process:
        wait_until(lambda: runs_of(process.pid), what="the run's process")
        _, err, _ = interrupt(process)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_terminal_shows_what_moves() -> None:
    """A spinner, a bar, phase, steps, both times; taken away at the end, and nothing of it on stdout."""
    leader, follower = pty.openpty()
    with started(TINY, "--set", "spin_s=1.5", stderr=follower) as process:
        os.close(follower)
        seen = b""
        with contextlib.suppress(OSError):  # Linux: the other end has closed
            while chunk := os.read(leader, 65536):
                seen += chunk
        out, _ = finish(process)
    os.close(leader)
    text = seen.decode(errors="replace")
    assert re.search(r"tiny, 10 nodes: stepping \d+ of 20", text)
    assert "virtual" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert out.startswith("tiny: Nothing much.")


def test_what_a_scenario_prints_does_not_mix_with_the_result(tmp_path: Path) -> None:
    """print() goes to stderr: stdout is one JSON object."""
    path = tmp_path / "loud.py"
    text = (
        Path(TINY).read_text().replace('run.progress.phase("stepping"', 'print("hello"); run.progress.phase("stepping"')
    )
    path.write_text(text)
    with started(str(path), "--json") as process:
        out, err = finish(process)
    assert json.loads(out)["scenario"] == "tiny"
    assert "hello" in err
