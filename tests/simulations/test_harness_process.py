"""A run in a process of its own: the same figures in any process, stopped within a second, never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import tiny_scenario
from support.tiny_scenario import SCENARIO, Settings

from p2pnode.simulations.harness.execution import Execution, Outcome, Standing
from p2pnode.simulations.harness.frames import decode, encode
from p2pnode.simulations.harness.job import Job
from p2pnode.simulations.harness.loading import source_of
from p2pnode.simulations.harness.process import RunLostError, RunProcess, run_in_process
from p2pnode.simulations.report.units import MACHINE


def job(**given: str) -> Job:
    return Job(source_of(tiny_scenario.__file__), 10, 3, given)


def until(process: RunProcess, wanted: type) -> Standing | Outcome:
    """The first message of a kind; every process says something four times a second."""
    while True:
        message = process.next(30)
        assert message is not None
        if isinstance(message, wanted):
            return message


def is_alive(pid: int) -> bool:
    """Whether it runs; one that waits to be collected by init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_process_of_its_own_gives_what_this_one_gives() -> None:
    """Two processes and this one agree in all but the machine's figures; progress was told meanwhile."""
    seen: list[Standing] = []
    ones = [run_in_process(job(spin_s="0.6"), seen.append), run_in_process(job())]
    here = Execution(SCENARIO, 10, 3, Settings()).execute()
    for outcome in ones:
        assert outcome.state == "done"
        assert outcome.found == here.found
        assert {n: v for n, v in outcome.cost.items() if n not in MACHINE} == {
            n: v for n, v in here.cost.items() if n not in MACHINE
        }
    assert seen
    assert seen[-1].phase == "stepping"
    assert 0 < seen[-1].steps <= seen[-1].total == 20
    assert ones[1].cost["rss_peak_bytes"] < 100e6


@pytest.mark.slow
def test_an_interrupted_run_hands_over_what_it_has() -> None:
    """Also while the scenario keeps the processor to itself."""
    with RunProcess(job(spin_s="100", steps="10000")) as process:
        while True:
            standing = until(process, Standing)
            if isinstance(standing, Standing) and standing.steps > 5:
                break
        began = time.monotonic()
        outcome = process.stop()
        print(f"handed over after {time.monotonic() - began:.3f} s")
    assert outcome.state == "interrupted"
    assert len(outcome.found.samples["lookup_s"]) > 5
    assert outcome.virtual_s > 5
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.slow
def test_a_killed_process_is_named() -> None:
    """By the signal, with a guess at the reason."""
    with pytest.raises(RunLostError, match="ended by SIGKILL; was there not enough memory") as caught:
        run_in_process(job(ends="killed"))
    assert caught.value.killed


@pytest.mark.slow
def test_no_process_outlives_its_parent() -> None:
    """The parent is killed without a word; the run's process sees the end of its pipe and goes."""
    code = (
        "import sys, time\n"
        "from support import tiny_scenario\n"
        "from p2pnode.simulations.harness.job import Job\n"
        "from p2pnode.simulations.harness.loading import source_of\n"
        "from p2pnode.simulations.harness.process import RunProcess\n"
        "job = Job(source_of(tiny_scenario.__file__), 10, 1, {'spin_s': '100', 'steps': '10000'})\n"
        "process = RunProcess(job)\n"
        "process.next(30)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    tests = str(Path(tiny_scenario.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_frames_survive_the_pipe() -> None:
    """Jobs, standings and outcomes with all that was recorded."""
    outcome = Execution(SCENARIO, 10, 1, Settings(ends="require")).execute()
    for message in (job(loss="0.2"), Standing("joining", 3, 7, 1.5, 0.2), outcome):
        assert decode(encode(message)[4:]) == message
