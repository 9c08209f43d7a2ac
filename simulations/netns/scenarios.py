"""Runs the laboratory's scenarios, each in a laboratory of its own, into a report."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

from p2pnode.simulations.harness.scenario import Cell as ReportCell
from p2pnode.simulations.harness.scenario import Recorder, Table
from p2pnode.simulations.netns.expectations import SHARED
from p2pnode.simulations.netns.kinds import KINDS
from p2pnode.simulations.netns.lab import Lab, LabSettings
from p2pnode.simulations.netns.matrix import Cell, Plan, run_matrix
from p2pnode.simulations.netns.probes import Verdict
from p2pnode.simulations.netns.scenario_names import SCENARIOS, LabScenario, scenario_named
from p2pnode.simulations.report import Report

__all__ = ["Tell", "matrix_report", "probe_kinds", "report_of_matrix", "run_scenario"]

Tell = Callable[[str], None]
"""Takes what is under way, for people."""


def _silent(_text: str) -> None:
    pass


def run_scenario(name: str, settings: LabSettings, tell: Tell = _silent) -> Report:
    """Run a scenario. What went wrong inside it stands in the report's failures; raise LabError."""
    scenario = scenario_named(name)
    run = importlib.import_module(f"p2pnode.simulations.netns.{scenario.module}").run
    began = time.monotonic()
    found = Recorder()
    with Lab(settings) as lab:
        run(lab, found, tell)
        nodes = len(lab.nodes)
    return _report(scenario, found, settings, nodes=nodes, real_s=time.monotonic() - began)


def matrix_report(settings: LabSettings, plan: Plan, options: str = "", tell: Tell = _silent) -> Report:
    """Run the matrix. `options`: what to type to get this plan again. Raise LabError."""
    began = time.monotonic()
    with Lab(settings) as lab:
        cells, verdicts = run_matrix(lab, plan, progress=tell)
        nodes, dropped = len(lab.nodes), lab.wire.dropped()
    report = report_of_matrix(cells, verdicts, settings, nodes=nodes, real_s=time.monotonic() - began, options=options)
    report.extra["dropped"] = dropped
    return report


def report_of_matrix(
    cells: list[Cell], verdicts: dict[str, Verdict], settings: LabSettings, *, nodes: int, real_s: float, options: str
) -> Report:
    """Return the report of cells, whichever laboratory they were measured in. `verdicts`: by name, as probed."""
    found = Recorder()
    for cell in cells:
        _record(cell, found)
    good = sum(cell.as_expected for cell in cells)
    found.figures |= {
        "cells": len(cells),
        "cells_connected": sum(all(t.connected for t in cell.attempts) for cell in cells),
        "cells_as_expected": good,
    }
    found.tables.append(_kinds_table(verdicts))
    scenario = SCENARIOS["matrix"]
    report = _report(scenario, found, settings, nodes=nodes, real_s=real_s, options=options)
    report.extra = {
        "cells": [cell.to_json() for cell in cells],
        "as_expected": good == len(cells),
        "kinds": {name: verdict.to_json() for name, verdict in verdicts.items()},
    }
    return report


def probe_kinds(names: Iterable[str] = KINDS) -> dict[str, Verdict]:
    """Build one network of each kind and probe it; by kind. Raise LabError."""
    with Lab() as lab:
        return lab.prove([lab.home(kind, kind) for kind in names])


def _record(cell: Cell, found: Recorder) -> None:
    data = cell.to_json()
    word = "/".join(each for each in (data["path"], data["code"]) if each)
    parts = [
        f"{data['seconds']:.2f} s",
        data["message"],
        data["reason"] and f"Expected: {data['reason']}.",
        None if cell.as_expected else "Not as expected.",
        "The wire saw no such path." if data["connected"] and not data["witnessed"] else None,
        "The message did not arrive once." if data["connected"] and not data["delivered_once"] else None,
    ]
    reason = " ".join(part for part in parts if part)
    title = "Hosts that share a router" if cell.a in SHARED else "Pairs of networks"
    for row, column in dict.fromkeys(((cell.a, cell.b), (cell.b, cell.a))):
        found.matrices.setdefault(title, []).append(ReportCell(row, column, word, data["connected"], reason))
    for attempt in cell.attempts:
        name = "connect_s" if attempt.connected else "refusal_s"
        found.samples.setdefault(name, []).append(round(attempt.seconds, 3))
        if attempt.send_seconds is not None:
            found.samples.setdefault("send_s", []).append(round(attempt.send_seconds, 3))
    if not cell.as_expected:
        found.failures.append(f"{cell.a} x {cell.b}: {word}; {reason}")


def _kinds_table(verdicts: dict[str, Verdict]) -> Table:
    columns = ["host", "udp", "mapping", "filtering", "allocation", "hairpin", "tcp", "ipv6"]
    rows: list[list[str | float | int | None]] = []
    for name, verdict in verdicts.items():
        data = asdict(verdict)
        tcp = " ".join(str(port) for port in verdict.tcp or ())
        rows.append([name, *(_word(data[column]) if column != "tcp" else tcp for column in columns[1:])])
    return Table("What was probed before anything was concluded", columns, rows)


def _word(value: object) -> str:
    return {True: "yes", False: "no", None: ""}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


def _report(
    scenario: LabScenario, found: Recorder, settings: LabSettings, *, nodes: int, real_s: float, options: str = ""
) -> Report:
    command = f"p2pnode lab {scenario.name}{options and ' '}{options}"
    for option, value, default in (
        ("--seed", settings.seed, LabSettings.seed),
        ("--delay", settings.delay_s * 1000, LabSettings.delay_s * 1000),
        ("--loss", settings.loss * 100, LabSettings.loss * 100),
    ):
        command += f" {option} {value:g}" if value != default else ""
    return Report(
        scenario=scenario.name,
        summary=scenario.summary,
        command=command,
        found=found,
        nodes=nodes,
        seed=settings.seed,
        real_s=round(real_s, 1),
        settings={
            "delay_ms": round(settings.delay_s * 1000, 3),
            "loss": settings.loss,
            "mapping_s": settings.mapping_s,
        },
    )
