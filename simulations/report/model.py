"""What a report shows: data only."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import Any

from p2pnode import __version__
from p2pnode.simulations.harness.scenario import Recorder

__all__ = ["Report", "versions"]


def versions() -> dict[str, str]:
    """Return what ran: p2pnode, Python, the system."""
    return {
        "p2pnode": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


@dataclass
class Report:
    """One run (or sweep) to be written down. All texts may come from users: they are escaped wherever they are shown.

    `found`: figures, samples, series, matrices, tables, notes and failures, as scenarios record them; its figures
    include the percentiles of its samples only after `write_report` or `as_dict` made them.
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
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the JSON file (the laboratory's `cells`); not shown on the page."""
