"""From a job, or a plan of many, to a report; with progress, and with what there is when Ctrl-C comes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from p2pnode.simulations.harness.cluster import Cluster, worker_count
from p2pnode.simulations.harness.execution import Outcome, Standing, failed
from p2pnode.simulations.harness.job import Job, settings_shown
from p2pnode.simulations.harness.process import RunLostError, run_in_process
from p2pnode.simulations.harness.scenario import Recorder, Scenario
from p2pnode.simulations.harness.sweep import Axis, Plan
from p2pnode.simulations.report import Report
from p2pnode.simulations.report.model import SweepRun, place_text
from p2pnode.simulations.report.sweeping import add_run, finish, new_sweep, run_figures
from p2pnode.simulations.report.units import shown

__all__ = ["Show", "make_one", "make_sweep", "sweep_command"]

Tell = Callable[[], tuple[str, float | None]]
Show = Callable[[Tell], AbstractContextManager[None]]
"""Shows what is under way while its block runs: text, and the share that is done (None: nobody knows)."""


def make_one(job: Job, scenario: Scenario, show: Show) -> tuple[Report, Outcome]:
    """Make one run in a process of its own. Never raises for what happens within it."""
    _, settings = job.prepare()
    began = time.monotonic()
    standing = Standing()

    def watch(now: Standing) -> None:
        nonlocal standing
        standing = now

    with show(lambda: _telling(scenario, job, standing, time.monotonic() - began)):
        try:
            outcome = run_in_process(job, watch)
        except RunLostError as error:
            outcome = failed(job.nodes, job.seed, error.message)
            outcome.real_s = time.monotonic() - began
    return (
        Report(
            scenario=scenario.name,
            summary=scenario.summary,
            command=job.command,
            found=outcome.found,
            nodes=job.nodes,
            seed=job.seed,
            virtual_s=outcome.virtual_s,
            real_s=outcome.real_s,
            settings=settings_shown(scenario, settings),
            cost=outcome.cost,
            interrupted=outcome.state == "interrupted",
        ),
        outcome,
    )


def make_sweep(
    plan: Plan, scenario: Scenario, job: Job, command: str, show: Show, *, scheduler: str | None, workers: int | None
) -> Report:
    """Make all runs of a sweep in parallel. `job`: what is not swept. `workers`: of this machine; None: what it bears.

    Raise SettingError, ScenarioFailedError, MissingPackageError when there is nobody to make them.
    """
    _, settings = job.prepare()
    fixed = {name: value for name, value in settings_shown(scenario, settings).items() if name not in plan.axes}
    began = time.monotonic()
    sweep = new_sweep(plan.axes)
    report = Report(
        scenario=scenario.name,
        summary=scenario.summary,
        command=command,
        nodes=None if "nodes" in plan.axes else job.nodes,
        seed=None if "seed" in plan.axes else job.seed,
        virtual_s=0.0,
        settings=fixed,
        sweep=sweep,
    )
    count = workers or worker_count(max(each.nodes for each in plan.jobs), len(plan.jobs))
    where = _counted(count, "process", "processes") if scheduler is None else scheduler
    cost = dict.fromkeys(("cpu_s", "rss_peak_bytes", "datagrams"), 0.0)
    failures: dict[int, str] = {}
    notes: list[str] = []

    def tell() -> tuple[str, float | None]:
        done, real_s = len(sweep.runs), time.monotonic() - began
        left = f", about {_about(real_s / done * sweep.missing)} left" if done else ""
        text = f"{scenario.name}: {done} of {len(plan.jobs)} runs on {where}, {_about(report.virtual_s or 0.0)} virtual"
        return f"{text}, {_about(real_s)} real{left}", done / len(plan.jobs)

    with show(tell):
        try:
            with Cluster(scheduler, count) as cluster:
                if scheduler is not None:
                    where = f"{_counted(cluster.workers(), 'worker', 'workers')} at {scheduler}"
                    if others := cluster.other_versions():
                        notes.append(
                            f"Workers at {scheduler} had other versions of p2pnode: {', '.join(sorted(others))}."
                        )
                for number, outcome in cluster.make(plan.jobs):
                    _enter(report, plan, number, outcome, cost, failures)
        except KeyboardInterrupt:
            report.interrupted = True
    finish(sweep)
    report.found = Recorder(notes=notes, failures=[failures[number] for number in sorted(failures)])
    report.real_s = time.monotonic() - began
    report.cost = {"runs": float(len(sweep.runs)), "real_s": report.real_s, **cost}
    return report


def sweep_command(job: Job, axes: list[Axis]) -> str:
    """Return what to type to make the sweep again."""
    swept = [axis.name for axis in axes]
    words = ["p2pnode", "simulate", job.source.target]
    words += [] if "nodes" in swept else ["--nodes", str(job.nodes)]
    words += [] if "seed" in swept else ["--seed", str(job.seed)]
    for name, text in job.given.items():
        words += ["--set", f"{name}={text}"]
    for axis in axes:
        words += ["--sweep", f"{axis.name}={axis.typed}"]
    return shlex.join(words)


def _enter(
    report: Report, plan: Plan, number: int, outcome: Outcome, cost: dict[str, float], failures: dict[int, str]
) -> None:
    """Enter one run that ended into the report."""
    job, place = plan.jobs[number], plan.places[number]
    figures = run_figures(outcome.found, outcome.cost) if outcome.state == "done" else {}
    error = " ".join(outcome.found.failures)
    if report.sweep is not None:
        add_run(report.sweep, SweepRun(place, outcome.state, figures, job.command, error), outcome.found)
    if error:
        failures[number] = f"{place_text(place)}: {error} To repeat: {job.command}"
    report.virtual_s = (report.virtual_s or 0.0) + outcome.virtual_s
    cost["cpu_s"] += outcome.cost.get("cpu_s", 0.0)
    cost["datagrams"] += outcome.cost.get("datagrams", 0.0)
    cost["rss_peak_bytes"] = max(cost["rss_peak_bytes"], outcome.cost.get("rss_peak_bytes", 0.0))


def _telling(scenario: Scenario, job: Job, standing: Standing, real_s: float) -> tuple[str, float | None]:
    """Say how far a run is: phase, steps, both times, what is left of the phase."""
    share = standing.steps / standing.total if standing.total else None
    steps = f" {standing.steps:,} of {standing.total:,}" if standing.total else ""
    left = ""
    if share and share < 1:
        left = f", about {_about(standing.phase_real_s * (1 - share) / share)} left of it"
    text = f"{scenario.name}, {job.nodes:,} nodes: {standing.phase}{steps}"
    return f"{text}{left}; {_about(standing.virtual_s)} virtual, {_about(real_s)} real", share


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _about(seconds: float) -> str:
    return shown("s", float(round(seconds)))
