"""Sweeps as typed become runs: ranges and lists, their product, and every refusal before anything runs."""

import shlex

import pytest
from support import tiny_scenario
from support.tiny_scenario import SCENARIO

from p2pnode.simulations.harness.cluster import worker_count
from p2pnode.simulations.harness.errors import SettingError
from p2pnode.simulations.harness.job import Job
from p2pnode.simulations.harness.loading import Source
from p2pnode.simulations.harness.runner import sweep_command
from p2pnode.simulations.harness.sweep import RUNS_MAX, Plan, plan, read_axes

JOB = Job(Source(tiny_scenario.__file__, ""), 10, 1, {"steps": "5"})


def made(*options: str, job: Job = JOB) -> Plan:
    return plan(SCENARIO, job, read_axes(options))


def test_the_product_of_all_axes_is_run() -> None:
    """The first axis slowest; each run has its nodes, seed and settings, and the command that repeats it."""
    found = made("nodes=100,300", "seed=1..3", "loss=0,0.2")
    assert found.axes == {"nodes": [100, 300], "seed": [1, 2, 3], "loss": [0.0, 0.2]}
    assert len(found.jobs) == len(found.places) == 12
    assert found.places[7] == {"nodes": 300, "seed": 1, "loss": 0.2}
    assert (found.jobs[7].nodes, found.jobs[7].seed) == (300, 1)
    assert found.jobs[7].given == {"steps": "5", "loss": "0.2"}
    assert found.jobs[7].command == shlex.join(
        ["p2pnode", "simulate", JOB.source.target, "--nodes", "300", "--seed", "1", "--set", "steps=5", "--set",
         "loss=0.2"]
    )  # fmt: skip


def test_ranges_and_lists_mix() -> None:
    """`1..3,10`; negative ends; texts and truths as they are typed."""
    assert made("seed=1..3,10").axes == {"seed": [1, 2, 3, 10]}
    assert made("careful=yes,no").axes == {"careful": ["true", "false"]}
    assert made("ends=well,require").axes == {"ends": ["well", "require"]}


def test_a_command_repeats_the_whole_sweep() -> None:
    """Values that are swept are not given twice."""
    axes = read_axes(["seed=1..3", "loss=0,0.2"])
    command = sweep_command(Job(Source("./a b.py", ""), 10, 1, {"steps": "5"}), axes)
    assert shlex.split(command) == [
        "p2pnode", "simulate", "./a b.py", "--nodes", "10", "--set", "steps=5", "--sweep", "seed=1..3", "--sweep",
        "loss=0,0.2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["seed=1..1000000000000000"], "more than 5,000 runs"),
        (["seed=1..100", "nodes=1..51"], "more than 5,000 runs"),
        ([f"seed=1..{RUNS_MAX}", "careful=yes,no"], "more than 5,000 runs"),
        (["seed=3..1"], "ends before it begins"),
        (["seed=1,,2"], "commas"),
        (["seed="], "commas"),
        (["loss=0..0.5"], "of whole numbers"),
        (["seed=1,2", "seed=3"], "given twice"),
        (["seed=1,1"], "same value twice"),
        (["seed=1..3,2"], "same value twice"),
        (["loss=0,0.0"], "same value twice"),
        (["steps=1,2"], "both in --set and in --sweep"),
        (["lsos=0,1"], "Did you mean 'loss'"),
        (["node=1,2"], "Did you mean 'nodes'"),
        (["sizes=1,2"], "list cannot be swept"),
        (["nodes=1,9999"], "--sweep nodes 9999: tiny takes a whole number from 1 to 5,000"),
        (["loss=0,2"], "--sweep loss=2: loss is a number from 0 to 1"),
        (["delay_min_ms=1,80"], "delay_max_ms is below delay_min_ms"),
        (["seed"], "KEY=VALUE"),
    ],
    ids=str,
)
def test_impossible_sweeps_are_refused(options: list[str], said: str) -> None:
    """One sentence, at once, also for a range of 10^15 values and for combinations that do not fit."""
    with pytest.raises(SettingError) as caught:
        made(*options)
    assert said in caught.value.message


def test_combinations_are_judged_not_single_values() -> None:
    """Two settings that fit only each other may be swept together."""
    assert len(made("delay_min_ms=80,90", "delay_max_ms=100,200").jobs) == 4


def test_as_many_runs_at_once_as_cores_and_memory_allow() -> None:
    """Never none; no more than there are runs; one at a time when one fills the memory."""
    assert worker_count(10, 1) == 1
    assert worker_count(10, 1000) >= 1
    assert worker_count(100_000_000, 1000) == 1
