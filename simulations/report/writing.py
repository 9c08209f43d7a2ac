"""A report as one JSON object, and as files."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from p2pnode.simulations.harness.errors import require_packages
from p2pnode.simulations.report.model import Report, Sweep, SweepPoint
from p2pnode.simulations.report.percentiles import PERCENTS, percentile
from p2pnode.simulations.report.sweeping import merged_cells, run_figures

__all__ = ["FORMAT", "as_dict", "as_json", "require_report_packages", "thinned", "warm_up", "write_report"]

FORMAT = 1
"""Of the JSON file (docs/simulate.md, "The JSON file"): raised when a field changes its meaning."""
# More raw values, or points of one curve, than this are thinned evenly in the file: 10,000 draw any curve.
RAW_MAX = 10_000


def require_report_packages() -> None:
    """Raise MissingPackageError now rather than when the work is done."""
    require_packages("A report", "matplotlib", "jinja2")


def warm_up() -> None:
    """Load what draws, and let it draw once: that takes a second, which nobody has after Ctrl-C."""
    import jinja2  # noqa: F401 - for its effect

    from p2pnode.simulations.report.charts import Chart, Curve
    from p2pnode.simulations.report.plots import draw_svg

    draw_svg(Chart("", "", "", "", [Curve("", [0.0, 1.0], [0.0, 1.0])]))


def as_dict(report: Report, *, raw: bool = False) -> dict[str, Any]:
    """Return the one object of `--json`; with `raw`, that of the JSON file: samples and curves as well.

    docs/simulate.md, "The JSON file".
    """
    found, sweep = report.found, report.sweep
    samples = {name: values for name, values in found.samples.items() if values}
    data: dict[str, Any] = {
        "format": FORMAT,
        "scenario": report.scenario,
        "summary": report.summary,
        "nodes": report.nodes,
        "seed": report.seed,
        "virtual_s": report.virtual_s,
        "real_s": report.real_s,
        "figures": run_figures(found, report.cost),
        "settings": report.settings,
        "command": report.command,
        "versions": report.versions,
        "interrupted": report.interrupted,
        "failures": found.failures,
        "notes": found.notes,
        "samples": {name: _sample(values, raw) for name, values in samples.items()},
        "tables": [asdict(table) for table in found.tables],
        "matrices": {name: [asdict(cell) for cell in cells] for name, cells in found.matrices.items()},
    }
    if raw:
        data["series"] = {name: thinned(points) for name, points in found.series.items()}
    if sweep is not None:
        data["sweep"] = _sweep(sweep)
    return {**data, **report.extra}


def as_json(report: Report, *, raw: bool = False) -> str:
    """Return the same as one line. Numbers that are none (nan) become null."""
    return msgspec.json.encode(as_dict(report, raw=raw)).decode()


def write_report(folder: Path, report: Report, *, png: bool, draw_until: float = float("inf")) -> list[Path]:
    """Write report.json and report.html (and PNG files) into an existing folder; return what was written.

    `draw_until`: `time.monotonic()` after which no further plot is drawn, because somebody waits (Ctrl-C).

    The JSON file is written first, so that nothing is lost when the page needs a package that is missing.
    Raise OSError, MissingPackageError.
    """
    paths = [folder / "report.json"]
    paths[0].write_text(as_json(report, raw=True) + "\n", encoding="utf-8")
    require_report_packages()
    from p2pnode.simulations.report.charts import charts_of
    from p2pnode.simulations.report.page import page_of
    from p2pnode.simulations.report.plots import draw_png

    charts = charts_of(report)
    paths.append(folder / "report.html")
    paths[-1].write_text(page_of(report, charts, draw_until=draw_until), encoding="utf-8")
    if png:
        for chart in charts:
            if time.monotonic() > draw_until:
                break
            paths.append(folder / f"{chart.file}.png")
            paths[-1].write_bytes(draw_png(chart))
    return paths


def thinned(values: Sequence[Any], most: int = RAW_MAX) -> list[Any]:
    """Return at most `most` of the values, evenly, the first and the last among them."""
    count = len(values)
    if count <= most:
        return list(values)
    return [values[at * (count - 1) // (most - 1)] for at in range(most)]


def _sample(values: Sequence[float], raw: bool) -> dict[str, Any]:
    ordered = sorted(values)
    data: dict[str, Any] = {"count": len(ordered), "mean": math.fsum(ordered) / len(ordered), "min": ordered[0]}
    data |= {f"p{percent}": percentile(ordered, percent) for percent in PERCENTS}
    data["max"] = ordered[-1]
    if raw:
        data["values"] = thinned(ordered)
    return data


def _sweep(sweep: Sweep) -> dict[str, Any]:
    return {
        "axes": sweep.axes,
        "missing": sweep.missing,
        "points": [_point(point) for point in sweep.points],
        "runs": [asdict(run) for run in sweep.runs],
    }


def _point(point: SweepPoint) -> dict[str, Any]:
    return {
        "place": point.place,
        "runs": point.runs,
        "figures": {name: asdict(each) for name, each in point.figures.items()},
        "matrices": {name: [asdict(cell) for cell in merged_cells(runs)] for name, runs in point.matrices.items()},
    }
