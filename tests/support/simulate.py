"""Real `p2pnode simulate` processes: started, watched, interrupted, always cleaned up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import tiny_scenario
from support.processes import LAUNCH, environment

__all__ = [
    "LAUNCH",
    "TINY",
    "dask",
    "finish",
    "interrupt",
    "is_alive",
    "listening",
    "network_figures",
    "runs_of",
    "started",
    "wait_until",
]

TINY = tiny_scenario.__file__


@contextmanager
def started(*arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """`p2pnode simulate ARGUMENTS` in a process group of its own, as a terminal would start it."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams}
    process = subprocess.Popen([*LAUNCH, "simulate", *arguments], env=environment(), process_group=0, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def dask(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler or worker of Dask, by the module of its command."""
    module, *rest = arguments
    command = [sys.executable, "-m", f"distributed.cli.dask_{module}", "--host", "127.0.0.1", "--no-dashboard", *rest]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[str, str]:
    """Wait for its end; return both outputs."""
    out, err = process.communicate(timeout=timeout)
    return out, err


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str, float]:
    """Ctrl-C as the terminal sends it, to the whole group; return both outputs and the seconds until its end."""
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = finish(process)
    return out, err, time.monotonic() - began


def runs_of(pid: int) -> list[int]:
    """The processes of runs that a process (any of its threads) started; libraries start others, for moments."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(word) for word in task.read_text().split()]
            found += [child for child in pids if b"harness.child" in Path(f"/proc/{child}/cmdline").read_bytes()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether it runs; one that waits to be collected by init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def listening(pid: int) -> list[str]:
    """Local TCP addresses (as in /proc/net/tcp) at which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(link)
        except FileNotFoundError:
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
    ]
    return [row[1] for row in rows if len(row) > 9 and row[3] == "0A" and row[9] in inodes]


def wait_until(check: Callable[[], Any], timeout: float = 60, what: str = "it") -> Any:
    """Return what `check` gives once it is true; other processes take real time."""
    deadline = time.monotonic() + timeout
    while not (found := check()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:g} s"
        time.sleep(0.02)
    return found


def network_figures(text: str) -> dict[str, dict[str, float]]:
    """Each run of a sweep's JSON by its place, with the figures that its seed decides; each is there once."""
    from p2pnode.simulations.report.units import MACHINE

    runs = json.loads(text)["sweep"]["runs"]
    found = {json.dumps(run["place"]): {n: v for n, v in run["figures"].items() if n not in MACHINE} for run in runs}
    assert len(found) == len(runs)
    return found
