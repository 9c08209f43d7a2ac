"""The laboratory in tests: skip where it cannot be, find what it left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from support.require import require

from p2pnode import P2PError
from p2pnode.simulations.netns import LabSettings, check_possible
from p2pnode.simulations.netns.matrix import FULL, QUICK, Plan
from p2pnode.simulations.netns.report import matrix_text
from p2pnode.simulations.netns.scenarios import matrix_report
from p2pnode.simulations.report import Report

__all__ = ["PLAN", "WHOLE", "LabCommand", "lab_command", "measured_matrix", "require_lab", "until"]

WHOLE = os.environ.get("P2PNODE_LAB") == "full"
"""Whether everything is to run: `.ci/slow.d/20-lab`. The ordinary test command runs a part that tells most."""
# What the quick matrix lacks, one of each sort: a carrier, IPv6 behind a firewall, no UDP, one carrier for both
_MORE = (
    ("cgnat", "ipv6-firewall"), ("ipv6-firewall", "ipv6-firewall"), ("cgnat", "udp-blocked"),
    ("one-carrier", "one-carrier"),
)  # fmt: skip
PLAN = Plan(FULL.cells, samples=3) if WHOLE else Plan((*QUICK.cells, *_MORE))
"""The cells that the tests measure."""
_MARK = "LAB_TEST_MARK"


def require_lab() -> None:
    """Skip the calling test where no laboratory can be built."""
    try:
        check_possible()
    except P2PError as error:
        require(False, error.message)


@lru_cache(maxsize=1)
def measured_matrix() -> Report:
    """Return the report of `PLAN`, measured once for all tests of this process."""
    require_lab()
    report = matrix_report(LabSettings(), PLAN)
    print("\n" + "\n".join(matrix_text(report)))
    return report


def until(check: Callable[[], bool], timeout: float, what: str) -> float:
    """Wait for other processes; return the seconds it took."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() < began + timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.02)
    return time.monotonic() - began


class LabCommand:
    """`p2pnode lab ...` as a process of its own, with everything that it starts marked by a variable."""

    def __init__(self, directory: Path, *arguments: str, stdin: bytes | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.directory = directory
        kept = {k: v for k, v in os.environ.items() if not k.startswith("P2PNODE_")}
        # A shell's background job ignores Ctrl-C, and so would everything that the tests start there.
        heeding = ["env", "--default-signal=INT"]
        self.process = subprocess.Popen(
            [*heeding, sys.executable, "-m", "p2pnode", "--home", str(directory / "none"), "lab", *arguments],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**kept, _MARK: self.mark, "TMPDIR": str(directory), "NO_COLOR": "1", "SHELL": "/bin/sh"},
            start_new_session=True,
        )
        if stdin is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(stdin)
            self.process.stdin.close()
            self.process.stdin = None

    def processes(self) -> list[int]:
        """All living processes that carry the mark, the command itself included."""
        wanted = f"{_MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:  # it has just ended
                    continue
        return found

    def programs(self) -> list[str]:
        """Names of those processes."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        return found

    def files(self) -> list[Path]:
        """What the laboratory keeps on the disk."""
        return list(self.directory.glob("p2pnode-lab-*"))

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def gone(self) -> bool:
        """Whether nothing is left."""
        return not self.processes() and not self.files()


@contextmanager
def lab_command(directory: Path, *arguments: str, stdin: bytes | None = None) -> Iterator[LabCommand]:
    """Run the command; whatever happens, nothing of it is left afterwards."""
    command = LabCommand(directory, *arguments, stdin=stdin)
    try:
        yield command
    finally:
        for pid in command.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        command.process.communicate()
