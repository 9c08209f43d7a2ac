"""Many runs as one report: those that differ only in their seed become one point with confidence bands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from p2pnode.simulations.harness.scenario import Cell, Recorder
from p2pnode.simulations.report.bands import Band, band
from p2pnode.simulations.report.model import Place, Sweep, SweepPoint, SweepRun
from p2pnode.simulations.report.percentiles import figures_of
from p2pnode.simulations.report.units import is_share

__all__ = ["SEED", "add_run", "finish", "merged_cells", "new_sweep", "run_figures"]

SEED = "seed"


def new_sweep(axes: dict[str, list[int | float | str]]) -> Sweep:
    """Return a sweep without runs; its points are the product of all axes but the seed's, the last axis fastest."""
    places: list[Place] = [{}]
    for axis, values in axes.items():
        if axis != SEED:
            places = [{**place, axis: value} for place in places for value in values]
    missing = math.prod(len(values) for values in axes.values())
    return Sweep(axes, [SweepPoint(place) for place in places], [], missing)


def add_run(sweep: Sweep, run: SweepRun, found: Recorder) -> None:
    """Enter a run that ended. A failed one is listed, but no part of the bands."""
    sweep.runs.append(run)
    sweep.missing -= 1
    if run.state != "done":
        return
    place = {axis: value for axis, value in run.place.items() if axis != SEED}
    point = next(each for each in sweep.points if each.place == place)
    point.runs += 1
    for name, values in found.samples.items():
        point.samples.setdefault(name, []).append(values)
    for name, curve in found.series.items():
        point.series.setdefault(name, []).append(curve)
    for name, cells in found.matrices.items():
        point.matrices.setdefault(name, []).append(cells)


def finish(sweep: Sweep) -> None:
    """Sort the runs as the axes have them, whatever order they ended in, and make the bands."""
    order = {axis: {value: at for at, value in enumerate(values)} for axis, values in sweep.axes.items()}
    sweep.runs.sort(key=lambda run: [order[axis][value] for axis, value in run.place.items()])
    for point in sweep.points:
        runs = [run for run in sweep.runs if run.state == "done" and point.place.items() <= run.place.items()]
        point.figures = _bands([run.figures for run in runs])


def _bands(figures: Sequence[dict[str, float]]) -> dict[str, Band]:
    names = dict.fromkeys(name for each in figures for name in each)
    return {name: band([each[name] for each in figures if name in each], share=is_share(name)) for name in names}


def merged_cells(runs: Iterable[Sequence[Cell]]) -> list[Cell]:
    """Merge a matrix of several runs: each cell tells in how many runs it was good; the first reason not to be."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cells in runs:
        for cell in cells:
            found.setdefault((cell.row, cell.column), []).append(cell)
    return [_merged(cells) for cells in found.values()]


def _merged(cells: Sequence[Cell]) -> Cell:
    first = cells[0]
    if len(cells) == 1:
        return first
    judged = [cell for cell in cells if cell.good is not None]
    bad = next((cell for cell in judged if not cell.good), None)
    texts = list(dict.fromkeys(cell.text for cell in cells))
    text = " / ".join(texts[:3]) + (" / ..." if len(texts) > 3 else "")
    if bad is not None:
        text += f" ({sum(bool(cell.good) for cell in judged)} of {len(judged)} good)"
    reason = bad.reason if bad is not None else first.reason
    return Cell(first.row, first.column, text, None if not judged else bad is None, reason)


def run_figures(found: Recorder, cost: dict[str, float]) -> dict[str, float]:
    """Return all figures of one run: the scenario's, the percentiles of its samples, the machine's."""
    return {**found.figures, **figures_of(found.samples), **cost}
