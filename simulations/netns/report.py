"""What the laboratory prints for people. Files and JSON are those of `simulations/report`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2pnode.simulations.harness.scenario import Table
from p2pnode.simulations.netns.kinds import KINDS
from p2pnode.simulations.netns.probes import Verdict
from p2pnode.simulations.report import Report
from p2pnode.simulations.report.percentiles import figures_of

__all__ = ["kinds_text", "matrix_text", "scenario_text"]


def matrix_text(report: Report) -> list[str]:
    """Return the table, then what is not as expected."""
    cells: list[dict[str, Any]] = report.extra["cells"]
    rows = [("A", "B", "PATH", "CONNECT", "SEND", "SEEN OUTSIDE", "")]
    for cell in cells:
        sent = "-" if cell["send_seconds"] is None else f"{cell['send_seconds']:.2f} s"
        rows.append(
            (
                cell["a"],
                cell["b"],
                "/".join(word for word in (cell["path"], cell["code"]) if word),
                f"{cell['seconds']:.2f} s",
                f"{sent}{'' if cell['delivered_once'] or sent == '-' else ', not once'}",
                "yes" if cell["witnessed"] else "-",
                "ok" if cell["as_expected"] else "NOT AS EXPECTED",
            )
        )
    figures, settings = report.found.figures, report.settings
    last = (
        f"{figures['cells_connected']:g} of {len(cells)} pairs connect, {figures['cells_as_expected']:g} are as"
        f" expected; {report.nodes} nodes, {settings['delay_ms']:g} ms and {settings['loss'] * 100:g} % loss on each"
        f" link, every network probed; {report.real_s:.0f} s"
    )
    return [*_table(rows), *report.found.failures, last]


def scenario_text(report: Report) -> list[str]:
    """Return tables, figures, notes and failures."""
    lines: list[str] = []
    for table in report.found.tables:
        lines += [f"{table.title}:", *(f"  {line}" for line in _table(_texts(table))), ""]
    figures = {**report.found.figures, **figures_of(report.found.samples)}
    lines += _table([(name, f"{value:g}") for name, value in figures.items()])
    lines += ["", *report.found.notes] if report.found.notes else []
    lines += ["", *(f"FAILED: {failure}" for failure in report.found.failures)] if report.found.failures else []
    return [*lines, "", f"{report.nodes} nodes; {report.real_s:.0f} s; again: {report.command}"]


def kinds_text(found: dict[str, Verdict]) -> list[str]:
    """Return one line per kind: what it is, and what was measured."""
    rows = [("KIND", "UDP", "MAPPING", "FILTERING", "PORTS", "HAIRPIN", "TCP", "IPV6", "IN WORDS")]
    rows += [
        (
            name,
            _yes(v.udp),
            v.mapping,
            v.filtering,
            v.allocation,
            _yes(v.hairpin),
            " ".join(map(str, v.tcp or ())) or "no",
            v.ipv6,
            KINDS[name].text,
        )
        for name, v in found.items()
    ]
    return _table(rows)


def _texts(table: Table) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [table.columns]
    rows += [[_shown(cell) for cell in row] for row in table.rows]
    return rows


def _shown(value: str | float | int | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:g}"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
