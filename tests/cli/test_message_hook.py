"""`join --on-message COMMAND` with real processes: what the command gets, and that nothing of it is left behind."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.processes import Processes, eventually, processes

pytestmark = pytest.mark.slow

HOSTILE = 'hi\'; touch "$PWD/owned" #\n$(touch owned) `touch owned` \u00e9'


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as running:
        yield running


def runs(pid: int) -> bool:
    """A zombie does not: where nothing adopts it, it stays in the table."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_command_gets_each_message_as_json_and_no_shell_reads_it(started: Processes, tmp_path: Path) -> None:
    """The line of `join --headless`; a failing command is logged, the next message has its own."""
    got = tmp_path / "got.jsonl"
    boot = started.bootstrap("b")
    command = f'cd "{tmp_path}" && cat >> "{got}" && echo "no speaker" >&2 && exit 3'
    bob = started.join("bob", "--on-message", command, bootstrap=[boot])
    alice = started.join("alice", bootstrap=[boot])
    bob.ready()
    assert bob.cli("contacts", "add", alice.user).code == 0  # of a stranger only the first message is taken
    for text in (HOSTILE, "and another one"):
        assert alice.cli("send", bob.id, text, "--json").code == 0
    eventually(lambda: got.exists() and got.read_text().count("\n") == 2, what="the second line")
    lines = sorted((json.loads(line) for line in got.read_text().splitlines()), key=lambda each: str(each["sent_at"]))
    assert [line["text"] for line in lines] == [HOSTILE, "and another one"]
    assert {(line["event"], line["from"], line["from_name"]) for line in lines} == {("message", alice.id, "alice")}
    assert not (tmp_path / "owned").exists()
    eventually(lambda: "no speaker" in bob.log(), what="the warning")


def test_a_command_that_never_ends_goes_with_the_node(started: Processes, tmp_path: Path) -> None:
    """SIGTERM: the node leaves within its two seconds, and what the command started is gone."""
    pid = tmp_path / "pid"
    boot = started.bootstrap("b")
    bob = started.join("bob", "--on-message", f'sleep 1000 & echo $! > "{pid}"; wait', bootstrap=[boot])
    alice = started.join("alice", bootstrap=[boot])
    alice.ready()
    assert alice.cli("send", bob.id, "wake up", "--json").code == 0
    eventually(lambda: pid.exists() and pid.read_text().strip() != "", what="the command")
    assert bob.stop() == 0
    eventually(lambda: not runs(int(pid.read_text())), what="the end of the command")
