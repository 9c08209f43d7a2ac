"""The part of the page that a sweep has: what came out at each point, and all runs."""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.simulations.report.bands import Band
from p2pnode.simulations.report.model import Sweep, SweepPoint, place_text
from p2pnode.simulations.report.parts import Grid, Item, Line, Section, number_item
from p2pnode.simulations.report.text import headline_names
from p2pnode.simulations.report.units import COST, shown

__all__ = ["sweep_section"]

POINTS_UNFOLDED_MAX = 2


def sweep_section(sweep: Sweep) -> Section:
    """Return tables of means and intervals, by point, and a list of all runs."""
    section = Section("Results", ["Means of the runs with their 95 % interval, by Student's t, over the seeds."])
    if sweep.missing:
        section.texts.append(f"{sweep.missing} runs were not made.")
    names = headline_names(list(dict.fromkeys(n for p in sweep.points for n in p.figures if n not in COST)))
    if len(sweep.points) > 1 and names:
        rows = [_point_line(point, names) for point in sweep.points]
        section.grids.append(Grid("By setting", ["setting", "runs", *names], rows))
    for point in sweep.points:
        section.grids.append(_point_grid(point, folded=len(sweep.points) > POINTS_UNFOLDED_MAX))
    section.grids.append(_runs_grid(sweep))
    return section


def _point_line(point: SweepPoint, names: Sequence[str]) -> Line:
    cells = [Item(place_text(point.place)), Item(str(point.runs), "number")]
    for name in names:
        found = point.figures.get(name)
        cells.append(
            Item("-", "number") if found is None else Item(_plus_minus(name, found), "number", repr(found.mean))
        )
    return Line(cells)


def _point_grid(point: SweepPoint, *, folded: bool) -> Grid:
    rows = [
        Line([
            Item(name), number_item(name, each.mean), number_item(name, each.low), number_item(name, each.high),
            number_item(name, each.sd), Item(str(each.n), "number"),
        ])
        for name, each in point.figures.items()
    ]  # fmt: skip
    title = f"All figures of {place_text(point.place)} ({point.runs} runs)"
    return Grid(title, ["figure", "mean", "low", "high", "standard deviation", "runs"], rows, folded=folded)


def _runs_grid(sweep: Sweep) -> Grid:
    rows = [
        Line(
            [Item(place_text(run.place)), Item(run.state, "text"), Item(run.error or run.command, "text")],
            "" if run.state == "done" else "worse",
        )
        for run in sweep.runs
    ]
    return Grid(f"All {len(rows)} runs", ["run", "state", "command, or what went wrong"], rows, folded=True)


def _plus_minus(name: str, found: Band) -> str:
    if found.low is None or found.high is None:
        return shown(name, found.mean)
    return f"{shown(name, found.mean)} ± {shown(name, (found.high - found.low) / 2, with_per=False)}"
