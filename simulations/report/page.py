"""The report as one self-contained page: inline style, inline SVG, no script, nothing fetched.

Every text passes through jinja2's escaping: names of files and settings, and what scenarios found, come from users.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from typing import Any

from p2pnode.simulations.harness.scenario import Cell, Table
from p2pnode.simulations.report.charts import Chart
from p2pnode.simulations.report.model import Report, place_text
from p2pnode.simulations.report.parts import Grid, Item, Line, Section, interval_text, number_item
from p2pnode.simulations.report.plots import draw_svg
from p2pnode.simulations.report.sweep_page import sweep_section
from p2pnode.simulations.report.sweeping import merged_cells, run_figures
from p2pnode.simulations.report.text import SAMPLE_COLUMNS, headline, headline_names, matrix_of, sample_row, table_rows
from p2pnode.simulations.report.units import COST, shown

__all__ = ["page_of", "render"]

CARDS_MAX = 8


def page_of(report: Report, charts: Sequence[Chart], *, draw_until: float = float("inf")) -> str:
    """Return the page. `draw_until`: `time.monotonic()` after which no further plot is drawn (somebody waits)."""
    sections = [_matrices(report), _plots(charts, draw_until), _tables(report), _notes(report)]
    sections.insert(1, sweep_section(report.sweep) if report.sweep else _figures(report))
    return render(
        title=report.scenario,
        summary=report.summary,
        headline=headline(report),
        command=report.command,
        marks=_marks(report),
        failures=report.found.failures,
        cards=_cards(report),
        sections=[*sections, _setting(report)],
        footer=", ".join(f"{name} {version}" for name, version in report.versions.items()),
    )


def render(*, title: str, sections: Sequence[Section], **context: Any) -> str:
    """Fill the template. Further names: summary, headline, command, marks, failures, cards, footer."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape

    folder = resources.files("p2pnode.simulations.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    # Names of figures are long words of parts: a line may end after an underscore.
    environment.filters["breakable"] = lambda text: escape(text).replace("_", Markup("_<wbr>"))
    template = environment.from_string(folder.joinpath("page.html.j2").read_text(encoding="utf-8"))
    css = Markup(folder.joinpath("page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return template.render(title=title, css=css, sections=[each for each in sections if each], **context)


def figure_grid(title: str, figures: dict[str, float], *, folded: bool = False) -> Grid:
    """Return a table of figures: name, value, the exact number."""
    rows = [
        Line([Item(name), number_item(name, value), Item(f"{value!r}", "number")]) for name, value in figures.items()
    ]
    return Grid(title, ["figure", "value", "exact"], rows, folded=folded)


def _marks(report: Report) -> list[dict[str, Any]]:
    marks = []
    if report.interrupted:
        marks.append({"text": "Interrupted: what was found until then", "bad": False})
    if report.found.failures:
        marks.append({"text": "Failed", "bad": True})
    return marks


def _cards(report: Report) -> list[dict[str, str]]:
    """The few figures that one looks for first; of a sweep with one point, with their interval."""
    if report.sweep is None:
        figures = run_figures(report.found, {})
        return [_card(name, figures[name], "") for name in headline_names(list(figures))]
    if len(report.sweep.points) != 1:
        return []
    bands = report.sweep.points[0].figures
    names = headline_names([name for name in bands if name not in COST])
    return [_card(name, bands[name].mean, interval_text(name, bands[name])) for name in names]


def _card(name: str, value: float, small: str) -> dict[str, str]:
    return {"name": name, "text": shown(name, value, with_per=False), "exact": repr(value), "small": small}


def _figures(report: Report) -> Section:
    section = Section("Figures")
    if report.found.figures:
        section.grids.append(figure_grid("Figures of the scenario", report.found.figures))
    samples = {name: values for name, values in report.found.samples.items() if values}
    if samples:
        lines = []
        for name, values in samples.items():
            first, *parts = sample_row(name, values)
            lines.append(Line([Item(first), *(Item(part, "number") for part in parts)]))
        section.grids.append(Grid("Samples (percentiles by nearest rank)", list(SAMPLE_COLUMNS), lines))
    return section


def _matrices(report: Report) -> Section:
    section = Section("Matrix")
    section.matrices = [_matrix(name, cells) for name, cells in report.found.matrices.items()]
    for point in report.sweep.points if report.sweep else ():
        for name, runs in point.matrices.items():
            title = name if not point.place else f"{name} ({place_text(point.place)})"
            section.matrices.append(_matrix(title, merged_cells(runs)))
    return section


def _matrix(title: str, cells: Sequence[Cell]) -> dict[str, Any]:
    rows, columns, by_place = matrix_of(cells)
    kinds = {True: "good", False: "bad", None: ""}

    def item(row: str, column: str) -> dict[str, str] | None:
        cell = by_place.get((row, column))
        if cell is None:
            return None
        return {"text": cell.text, "kind": kinds[cell.good], "reason": cell.reason, "column": column}

    lines = [{"name": row, "cells": [item(row, column) for column in columns]} for row in rows]
    return {"title": title, "columns": columns, "rows": lines}


def _plots(charts: Sequence[Chart], draw_until: float) -> Section:
    from markupsafe import Markup

    section = Section("Plots")
    for number, chart in enumerate(charts):
        if time.monotonic() > draw_until:
            section.texts.append(f"{len(charts) - number} plots were not drawn.")
            break
        svg = Markup(draw_svg(chart))  # noqa: S704 - matplotlib escaped the texts in it
        section.plots.append({"title": chart.title, "svg": svg, "caption": chart.caption})
    return section


def _tables(report: Report) -> Section:
    return Section("Tables", grids=[_table(table) for table in report.found.tables])


def _table(table: Table) -> Grid:
    rows = [
        Line([_table_item(text, value) for text, value in zip(texts, values, strict=False)])
        for texts, values in zip(table_rows(table), table.rows, strict=True)
    ]
    return Grid(table.title, table.columns, rows)


def _table_item(text: str, value: str | float | None) -> Item:
    if isinstance(value, str):
        return Item(text, "text")
    return Item(text, "number", "" if value is None else repr(value))


def _notes(report: Report) -> Section:
    return Section("Notes", texts=list(report.found.notes))


def _setting(report: Report) -> Section:
    section = Section("What was run, and what it cost")
    if report.settings:
        rows = [Line([Item(name), Item(str(value), "text")]) for name, value in report.settings.items()]
        section.grids.append(Grid("Settings", ["setting", "value"], rows))
    if report.cost:
        section.grids.append(figure_grid("Cost", report.cost))
    return section
