"""What a report shows: data only."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import Any

from p2pnode import __version__
from p2pnode.simulations.harness.scenario import Cell, Recorder
from p2pnode.simulations.report.bands import Band

__all__ = ["Place", "Report", "Sweep", "SweepPoint", "SweepRun", "place_text", "versions"]

Place = dict[str, int | float | str]
"""Where a run stands in a sweep: axis to value."""


def versions() -> dict[str, str]:
    """Return what ran: p2pnode, Python, the system."""
    return {
        "p2pnode": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def place_text(place: Place) -> str:
    """Return "nodes=100, loss=0.2"; "all runs" when nothing but the seed differs."""
    return ", ".join(f"{axis}={_short(value)}" for axis, value in place.items()) or "all runs"


def _short(value: float | str) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


@dataclass
class SweepRun:
    """One run of a sweep. `state`: done, failed, interrupted (no figures then). `error`: why it failed."""

    place: Place
    state: str
    figures: dict[str, float]
    command: str
    error: str = ""


@dataclass
class SweepPoint:
    """The runs that differ in their seed only. Lists hold one item per run that ended."""

    place: Place
    """Without the seed."""
    runs: int = 0
    figures: dict[str, Band] = field(default_factory=dict)
    samples: dict[str, list[list[float]]] = field(default_factory=dict)
    series: dict[str, list[list[tuple[float, float]]]] = field(default_factory=dict)
    matrices: dict[str, list[list[Cell]]] = field(default_factory=dict)


@dataclass
class Sweep:
    """The product of `axes`, the seed's included. `missing`: runs that never ended (interrupted)."""

    axes: dict[str, list[int | float | str]]
    points: list[SweepPoint]
    runs: list[SweepRun]
    missing: int = 0


@dataclass
class Report:
    """One run, or one sweep, to be written down. All texts may come from users: they are escaped wherever shown.

    `found`: figures, samples, series, matrices, tables, notes and failures, as scenarios record them. Percentiles are
    made of the samples here: leave them out of the figures.
    """

    scenario: str
    """Name: `lookup`; of the laboratory `lab matrix`."""
    summary: str
    """One sentence: what was asked."""
    command: str
    """What to type to get the same again."""
    found: Recorder = field(default_factory=Recorder)
    nodes: int | None = None
    seed: int | None = None
    virtual_s: float | None = None
    """None where time is real."""
    real_s: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    """Figures of the machine (`cpu_s`, `rss_peak_bytes`), apart from those of the network."""
    versions: dict[str, str] = field(default_factory=versions)
    interrupted: bool = False
    sweep: Sweep | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the JSON file (the laboratory's `cells`); not shown on the page."""
