"""Sweeps with real processes: in parallel here and on a Dask cluster; lost workers; Ctrl-C; nothing stays behind."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.simulate import (
    TINY,
    dask,
    finish,
    interrupt,
    is_alive,
    listening,
    network_figures,
    runs_of,
    started,
    wait_until,
)

pytestmark = pytest.mark.slow

SWEEP = (TINY, "--sweep", "nodes=10,100", "--sweep", "seed=1..3", "--json")


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, float]]:
    """What each run gives when nothing goes wrong."""
    result = p2pnode("simulate", *SWEEP, "--workers", "2")
    assert result.code == 0, result.err
    data = result.json
    assert (data["nodes"], data["seed"]) == (None, None)
    assert data["sweep"]["missing"] == 0
    assert [point["runs"] for point in data["sweep"]["points"]] == [3, 3]
    for point in data["sweep"]["points"]:
        median = point["figures"]["lookup_p50_s"]
        assert median["n"] == 3
        assert median["low"] < median["mean"] < median["high"]
    figures = network_figures(result.out)
    assert len(figures) == 6
    return figures


def test_a_killed_run_is_made_again(undisturbed: dict[str, dict[str, float]]) -> None:
    """kill -9 of a run's process: every run is in the result exactly once, with the figures of its seed.

    Meanwhile the sweep listens nowhere.
    """
    with started(*SWEEP, "--workers", "2", "--set", "spin_s=0.7") as process:
        (victim, *_) = wait_until(lambda: runs_of(process.pid), what="the first run")
        assert listening(process.pid) == []
        os.kill(victim, signal.SIGKILL)
        out, err = finish(process)
    assert process.returncode == 0, err
    assert network_figures(out) == undisturbed


@dataclass
class DaskCluster:
    """A scheduler and two workers on loopback, each a process of its own."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Started by Dask's own commands, as on somebody's cluster."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    place = ("--no-nanny", "--nthreads", "1", "--local-directory", str(folder), "--scheduler-file", str(file))
    with ExitStack() as stack:
        stack.enter_context(dask("scheduler", "--port", "0", "--scheduler-file", str(file)))
        workers = [stack.enter_context(dask("worker", *place)) for _ in range(2)]
        wait_until(lambda: file.exists() and file.read_text().rstrip().endswith("}"), what="the scheduler")
        yield DaskCluster(json.loads(file.read_text())["address"], workers)


def test_a_lost_worker_costs_only_its_runs(cluster: DaskCluster, undisturbed: dict[str, dict[str, float]]) -> None:
    """One of two workers is killed at work; the user's file reached both by content; the run itself dies with it."""
    lost, other = cluster.workers
    with started(*SWEEP, "--scheduler", cluster.address, "--set", "spin_s=0.7") as process:
        run = wait_until(lambda: runs_of(lost.pid), what="a run on the first worker")[0]
        lost.kill()
        wait_until(lambda: not is_alive(run), what="the end of the lost worker's run")
        out, err = finish(process)
    assert process.returncode == 0, err
    assert network_figures(out) == undisturbed
    assert runs_of(other.pid) == []


def test_an_interrupted_cluster_is_left_idle(cluster: DaskCluster) -> None:
    """After Ctrl-C the workers' runs end, too: nobody waits for them."""
    with started(*SWEEP, "--scheduler", cluster.address, "--set", "spin_s=1000") as process:
        runs = wait_until(lambda: runs_of(cluster.workers[1].pid), what="a run")
        out, _, seconds = interrupt(process)
    print(f"Ctrl-C took {seconds:.2f} s")
    assert process.returncode == 130
    assert json.loads(out)["interrupted"] is True
    wait_until(lambda: not any(is_alive(run) for run in runs), what="the end of the run")


def test_no_scheduler_is_one_sentence() -> None:
    """Nobody listens there; and what is no address."""
    result = p2pnode("simulate", TINY, "--sweep", "seed=1,2", "--scheduler", "tcp://127.0.0.1:9")
    assert (result.code, result.out) == (1, "")
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in result.err
    result = p2pnode("simulate", TINY, "--sweep", "seed=1,2", "--scheduler", "carrier-pigeon://x")
    assert result.code == 2
    assert "carrier-pigeon" in result.err


def test_ctrl_c_keeps_the_runs_that_ended(tmp_path: Path) -> None:
    """Exit 130, the report marked and with what is finished, no process left."""
    folder = tmp_path / "o"
    arguments = (TINY, "--sweep", "seed=1..50", "--workers", "2", "--set", "spin_s=0.4", "--output", str(folder))
    with started(*arguments) as process:
        seen: set[int] = set()
        wait_until(lambda: len(seen.update(runs_of(process.pid)) or seen) >= 5, what="the fifth run")
        _, _, seconds = interrupt(process)
    print(f"Ctrl-C took {seconds:.2f} s")
    assert process.returncode == 130
    data = json.loads((folder / "report.json").read_text())
    assert data["interrupted"] is True
    assert 2 <= len(data["sweep"]["runs"]) < 50
    assert data["sweep"]["missing"] == 50 - len(data["sweep"]["runs"])
    assert "Interrupted" in (folder / "report.html").read_text()
    wait_until(lambda: not any(is_alive(pid) for pid in seen), what="the end of all runs")


def test_errors_of_one_run_do_not_lose_the_others(tmp_path: Path) -> None:
    """Three ways to end, two of them bad: exit 1, each failure with its command, the good ones have figures."""
    sweep = ("--sweep", "ends=well,error,killed", "--sweep", "seed=1,2")
    result = p2pnode("simulate", TINY, *sweep, "--output", str(tmp_path), "--json")
    assert result.code == 1
    data = result.json
    assert [run["state"] for run in data["sweep"]["runs"]] == ["done", "done", "failed", "failed", "failed", "failed"]
    assert [point["runs"] for point in data["sweep"]["points"]] == [2, 0, 0]
    assert len(data["failures"]) == 4
    assert "ends=error, seed=1: " in data["failures"][0]
    assert data["failures"][0].endswith(f"To repeat: p2pnode simulate {TINY} --nodes 10 --seed 1 --set ends=error")
    assert "ended by SIGKILL" in data["failures"][2]
    assert result.err.splitlines()[-1].startswith("p2pnode: 4 of 6 runs failed: ends=error, seed=1: ")
    assert "ValueError: no such thing" in (tmp_path / "report.html").read_text()
