"""A report as lines for people: figures with their units, tables, matrices, notes. Every text is made harmless."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from p2pnode import clean
from p2pnode.simulations.harness.scenario import Cell, Table
from p2pnode.simulations.report.model import Report, Sweep, place_text
from p2pnode.simulations.report.percentiles import PERCENTS, percentile
from p2pnode.simulations.report.units import shown

__all__ = ["as_text", "columns", "headline", "headline_names", "matrix_of", "sample_row"]

HEADLINES_MAX = 8
SAMPLE_COLUMNS = ("samples", "count", "mean", *(f"p{percent}" for percent in PERCENTS), "max")


def headline(report: Report) -> str:
    """Return what was run, in one line."""
    parts = []
    if report.nodes is not None:
        parts.append(f"{report.nodes:,} nodes")
    if report.seed is not None:
        parts.append(f"seed {report.seed}")
    if report.sweep is not None:
        runs = len(report.sweep.runs)
        parts.append(f"{runs} {'run' if runs == 1 else 'runs'}")
    if report.virtual_s is not None:
        parts.append(f"{shown('virtual_s', report.virtual_s)} of virtual time in {shown('real_s', report.real_s)}")
    else:
        parts.append(shown("real_s", report.real_s))
    if report.interrupted:
        parts.append("INTERRUPTED")
    return ", ".join(parts)


def headline_names(names: Sequence[str]) -> list[str]:
    """Pick the figures that one looks for first: what succeeded, the middle and the end of times, costs per lookup.

    What has a `_success` is what the scenario is about: its times and costs come before others.
    """
    plain = [name for name in names if not re.search(r"_(p\d+|max)(_|$)", name)]
    succeeded = [name for name in plain if name.endswith("_success")]
    stems = [name.removesuffix("_success") for name in succeeded]

    def main_first(found: Sequence[str]) -> list[str]:
        return sorted(found, key=lambda name: not any(stem in name for stem in stems))[:2]

    picked = [
        *succeeded[:2],
        *main_first([name for name in names if name.endswith("_p50_s")]),
        *main_first([name for name in names if name.endswith("_p99_s")]),
        *main_first([name for name in plain if "_per_" in name]),
        *plain,
    ]
    return list(dict.fromkeys(picked))[:HEADLINES_MAX]


def as_text(report: Report) -> list[str]:
    """Return lines for people."""
    found = report.found
    lines = [f"{_one(report.scenario)}: {_one(report.summary)}", headline(report)]
    if found.figures:
        lines += ["", *columns([(name, shown(name, value)) for name, value in found.figures.items()])]
    samples = {name: values for name, values in found.samples.items() if values}
    if samples:
        rows = [sample_row(name, values) for name, values in samples.items()]
        lines += ["", *columns([SAMPLE_COLUMNS, *rows], right=True)]
    for table in found.tables:
        lines += ["", _one(table.title), *columns([table.columns, *table_rows(table)], right=True)]
    for name, cells in found.matrices.items():
        lines += ["", _one(name), *_matrix_lines(cells)]
    if report.sweep is not None:
        lines += _sweep_lines(report.sweep)
    if found.notes:
        lines += ["", *(_one(note) for note in found.notes)]
    if report.cost:
        lines += ["", *columns([(name, shown(name, value)) for name, value in report.cost.items()])]
    return lines


def sample_row(name: str, values: Sequence[float]) -> tuple[str, ...]:
    """Return one line of the table of samples."""
    ordered = sorted(values)
    parts = [math.fsum(ordered) / len(ordered), *(percentile(ordered, percent) for percent in PERCENTS), ordered[-1]]
    return (name, f"{len(ordered):,}", *(shown(name, value, with_per=False) for value in parts))


def table_rows(table: Table) -> list[list[str]]:
    """Return a table's rows as texts: numbers with their column's unit."""
    return [
        [
            cell if isinstance(cell, str) else shown(column, cell)
            for column, cell in zip(table.columns, row, strict=False)
        ]
        for row in table.rows
    ]


def matrix_of(cells: Iterable[Cell]) -> tuple[list[str], list[str], dict[tuple[str, str], Cell]]:
    """Return rows, columns (as they first come) and the cells by place."""
    by_place = {(cell.row, cell.column): cell for cell in cells}
    rows = list(dict.fromkeys(row for row, _ in by_place))
    names = list(dict.fromkeys(column for _, column in by_place))
    return rows, names, by_place


def columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Return rows as aligned lines. `right`: all but the first column to the right, as numbers want it."""
    cells = [[_one(cell) for cell in row] for row in rows]
    count = max(len(row) for row in cells)
    for row in cells:
        row.extend([""] * (count - len(row)))
    widths = [max(len(row[i]) for row in cells) for i in range(count)]
    return [
        "  ".join(
            cell.rjust(width) if right and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _matrix_lines(cells: Sequence[Cell]) -> list[str]:
    rows, names, by_place = matrix_of(cells)
    marks = {True: "", False: " !", None: ""}

    def text(row: str, name: str) -> str:
        cell = by_place.get((row, name))
        return "" if cell is None else cell.text + marks[cell.good]

    lines = columns([["", *names], *([row, *(text(row, name) for name in names)] for row in rows)])
    bad = [cell for cell in cells if cell.good is False and cell.reason]
    return lines + [f"! {_one(cell.row)} x {_one(cell.column)}: {_one(cell.reason)}" for cell in bad]


def _sweep_lines(sweep: Sweep) -> list[str]:
    lines: list[str] = []
    for point in sweep.points:
        lines += ["", f"{_one(place_text(point.place))}: {point.runs} runs"]
        rows = [
            (
                name,
                shown(name, each.mean),
                "" if each.low is None else f"{shown(name, each.low)} to {shown(name, each.high)}",
            )
            for name, each in point.figures.items()
        ]
        if rows:
            lines += columns([("", "mean", "95 % interval"), *rows])
    if sweep.missing:
        lines += ["", f"{sweep.missing} runs were not made."]
    return lines


def _one(text: str) -> str:
    return clean(text, limit=300)
