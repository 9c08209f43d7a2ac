"""`simulate`: scenarios of many nodes in virtual time, sweeps over their settings, and what changed between runs."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples

if TYPE_CHECKING:
    from p2pnode.simulations.harness.execution import Outcome
    from p2pnode.simulations.harness.job import Job
    from p2pnode.simulations.harness.scenario import Scenario
    from p2pnode.simulations.report import Report

__all__ = ["add"]

# Of the two seconds that Ctrl-C may take: waited this long for what draws to be loaded, and plots drawn for this long.
WARM_S, DRAW_S = 0.6, 0.6
WORKERS_MAX = 1024


class _Output:
    """Where a report goes. Made, and tried, before the run: an hour later it would be a pity."""

    def __init__(self, folder: str, *, png: bool) -> None:
        """Raise OSError, MissingPackageError."""
        from p2pnode.simulations.report import require_report_packages, warm_up

        require_report_packages()
        self.folder, self._png = Path(folder).expanduser(), png
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass
        # While the run goes on in a process of its own, so that a Ctrl-C need not wait for it.
        self._warming = threading.Thread(target=warm_up, daemon=True)
        self._warming.start()

    def write(self, report: Report) -> list[Path]:
        """Write the report; after Ctrl-C without the plots that there is no time for."""
        from p2pnode.simulations.report import write_report

        draw_until = float("inf")
        if report.interrupted:
            self._warming.join(WARM_S)
            draw_until = 0.0 if self._warming.is_alive() else time.monotonic() + DRAW_S
        return write_report(self.folder, report, png=self._png, draw_until=draw_until)


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        "simulate",
        epilog=examples(
            "p2pnode simulate --list                                  the scenarios, a line each",
            "p2pnode simulate lookup --list                           what can be set, with ranges",
            "p2pnode simulate lookup --nodes 1000 --set loss=0.2      the same answer every time",
            "p2pnode simulate lookup --seed 7 --output report         and a page with plots",
            "p2pnode simulate ./my.py                                 a scenario of your own",
            "p2pnode simulate lookup --sweep nodes=100,300,1000 --sweep seed=1..20 --output report",
            "p2pnode simulate --compare before/report.json after/report.json",
        ),
    )(_simulate)


def _simulate(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]", help="A name of --list, or a file of your own.", show_default=False),
    ] = None,
    nodes: Annotated[str | None, typer.Option("--nodes", metavar="N", help="How many nodes.")] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Of every random choice (default 1).")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; may be repeated.")
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="KEY=VALUES", help="All of 100,300,1000 or 1..20; several: their product."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Sweep on this Dask cluster.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N", help="Sweep in N processes (default: what fits).")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="Write report.html and report.json there.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="With --output: each plot as PNG, too.")] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the scenarios; with SCENARIO, its settings and their ranges.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show what changed between two JSON files: --compare A B.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Run a scenario of many nodes in virtual time: the same seed gives the same figures. Exit 1 when it failed."""
    from p2pnode.cli.output import usage_error
    from p2pnode.simulations.harness.errors import SettingError

    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    given = names or []
    try:
        if compare:
            raise typer.Exit(_compare(invocation, given, output))
        if len(given) > 1:
            raise SettingError(f"One scenario at a time, not {len(given)}.")
        if listing:
            _list(invocation, given[0] if given else None)
            return
        if not given:
            raise SettingError("Which scenario? --list shows them all.")
        if png and output is None:
            raise SettingError("--png goes with --output.")
        if (scheduler is not None or workers is not None) and not sweeps:
            raise SettingError("--scheduler and --workers go with --sweep.")
        job, scenario = _job(given[0], nodes, seed, sets or [], config["log-level"], config["log-format"])
        if sweeps:
            code = _sweep(invocation, job, scenario, sweeps, scheduler, workers, output, png=png)
        else:
            code = _one(invocation, job, scenario, None if output is None else _Output(output, png=png))
    except SettingError as error:
        raise usage_error(error.message) from error
    raise typer.Exit(code)


def _job(
    target: str, nodes: str | None, seed: str | None, sets: list[str], level: str, form: str
) -> tuple[Job, Scenario]:
    """Read what was typed. Raise SettingError, ScenarioFileError."""
    from p2pnode.simulations.harness.errors import SettingError
    from p2pnode.simulations.harness.job import Job
    from p2pnode.simulations.harness.loading import load, source_of
    from p2pnode.simulations.harness.settings import read_nodes, read_seed, read_settings, split_pair

    source = source_of(target)
    scenario = load(source)
    given: dict[str, str] = {}
    for text in sets:
        key, value = split_pair("--set", text)
        if key in given:
            raise SettingError(f"--set {key} is given twice.")
        given[key] = value
    read_settings(scenario, given)
    return Job(source, read_nodes(scenario, nodes), read_seed(seed), given, level, form), scenario


def _one(invocation: Invocation, job: Job, scenario: Scenario, output: _Output | None) -> int:
    from p2pnode.simulations.harness.runner import make_one

    report, outcome = make_one(job, scenario, invocation.progress)
    error = _error_of(report, outcome, job)
    if outcome.traceback and job.log_level == "debug":
        invocation.note(outcome.traceback)
    return _hand_over(invocation, report, output, error)


def _error_of(report: Report, outcome: Outcome, job: Job) -> str:
    """Return the one sentence of a run that failed; "" otherwise."""
    failures = outcome.found.failures
    if not failures:
        return ""
    first = outcome.error or failures[0]
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"{report.scenario} failed with seed {job.seed}: {first}{more} To repeat: {job.command}"


def _sweep(
    invocation: Invocation,
    job: Job,
    scenario: Scenario,
    sweeps: list[str],
    scheduler: str | None,
    workers: str | None,
    output: str | None,
    *,
    png: bool,
) -> int:
    from p2pnode.simulations.harness.errors import SettingError, require_packages
    from p2pnode.simulations.harness.runner import make_sweep, sweep_command
    from p2pnode.simulations.harness.sweep import plan, read_axes

    axes = read_axes(sweeps)
    every = plan(scenario, job, axes)
    count = None
    if workers is not None:
        count = int(workers) if workers.isdecimal() and len(workers) < 6 else 0
        if not 1 <= count <= WORKERS_MAX:
            raise SettingError(f"--workers {workers[:40]}: a whole number from 1 to {WORKERS_MAX:,}.")
    require_packages("A sweep", "dask", "distributed")
    place = None if output is None else _Output(output, png=png)
    command = sweep_command(job, axes)
    report = make_sweep(every, scenario, job, command, invocation.progress, scheduler=scheduler, workers=count)
    failures = report.found.failures
    error = ""
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        error = f"{len(failures)} of {len(every.jobs)} runs failed: {failures[0]}{more}"
    return _hand_over(invocation, report, place, error)


def _hand_over(invocation: Invocation, report: Report, output: _Output | None, error: str) -> int:
    """Print and write the report; return the exit code."""
    from p2pnode import clean
    from p2pnode.simulations.report import as_json, as_text

    if error:
        report.extra["error"] = {"code": "scenario_failed", "message": error}
    if invocation.json:
        invocation.line(as_json(report))
    else:
        for line in as_text(report):
            invocation.line(line)
    if output is not None:
        paths = output.write(report)
        invocation.note(f"Written: {', '.join(str(path) for path in paths[:2])}{' and PNG' if len(paths) > 2 else ''}")
    if error:
        invocation.note(f"p2pnode: {clean(error, limit=2000)}")
    if report.interrupted:
        return 130
    return 1 if error else 0


def _list(invocation: Invocation, target: str | None) -> None:
    """Print the scenarios, or the settings of one."""
    import msgspec

    from p2pnode.cli.output import table
    from p2pnode.simulations.harness.loading import Source, load, names, source_of
    from p2pnode.simulations.harness.settings import describe

    if target is None:
        scenarios = [load(Source(name)) for name in names()]
        if invocation.json:
            listed = [{"name": each.name, "summary": each.summary, "nodes": each.nodes} for each in scenarios]
            invocation.line(msgspec.json.encode({"scenarios": listed}).decode())
            return
        for line in table([(each.name, each.summary) for each in scenarios]):
            invocation.line(line)
        return
    scenario = load(source_of(target))
    settings = describe(scenario.settings)
    limits = {"default": scenario.nodes, "least": scenario.nodes_min, "most": scenario.nodes_max}
    if invocation.json:
        data = {
            "name": scenario.name,
            "summary": scenario.summary,
            "nodes": limits,
            "settings": list(settings.values()),
        }
        invocation.line(msgspec.json.encode(data).decode())
        return
    rows = [("SETTING", "DEFAULT", "MAY BE", "")]
    rows.append(
        ("--nodes", f"{scenario.nodes:,}", f"a whole number from {scenario.nodes_min:,} to {scenario.nodes_max:,}", "")
    )
    rows += [(info.name, info.default, info.allowed, info.description) for info in settings.values()]
    invocation.line(f"{scenario.name}: {scenario.summary}")
    for line in table(rows):
        invocation.line(line)


def _compare(invocation: Invocation, files: list[str], output: str | None) -> int:
    from p2pnode.simulations.harness.errors import SettingError
    from p2pnode.simulations.report import comparison

    if len(files) != 2:
        raise SettingError(f"--compare takes two JSON files, not {len(files)}.")
    place = None if output is None else _Output(output, png=False)
    found = comparison.compare(*(comparison.read(Path(name).expanduser()) for name in files))
    if place is not None:
        invocation.note(f"Written: {', '.join(str(path) for path in comparison.write(place.folder, found))}")
    if invocation.json:
        invocation.line(comparison.as_json(found))
    else:
        for line in comparison.as_text(found):
            invocation.line(line)
    return 0
