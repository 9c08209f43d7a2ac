"""One run as data: what is asked of a process, on this machine or another; and what it answers."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from p2pnode.simulations.harness.loading import Source, load
from p2pnode.simulations.harness.scenario import Scenario
from p2pnode.simulations.harness.settings import describe, read_settings, show

__all__ = ["Job", "settings_shown"]


@dataclass(frozen=True)
class Job:
    """A run to be made. `given`: settings as typed. `source.text` carries a user's file to wherever it runs."""

    source: Source
    nodes: int
    seed: int
    given: dict[str, str] = field(default_factory=dict)
    log_level: str = "warning"
    log_format: str = "auto"

    @property
    def command(self) -> str:
        """What to type to repeat it exactly."""
        words = ["p2pnode", "simulate", self.source.target, "--nodes", str(self.nodes), "--seed", str(self.seed)]
        for name, text in self.given.items():
            words += ["--set", f"{name}={text}"]
        return shlex.join(words)

    def prepare(self) -> tuple[Scenario, Any]:
        """Return the scenario and its settings. Raise ScenarioFileError, SettingError."""
        scenario = load(self.source)
        return scenario, read_settings(scenario, self.given)


def settings_shown(scenario: Scenario, settings: Any) -> dict[str, str]:
    """Return every setting with the value it has, as typed; the scenario's own first."""
    return {name: show(getattr(settings, name)) for name in describe(scenario.settings)}
