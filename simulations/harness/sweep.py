"""What a sweep is: axes as typed (`nodes=100,300` `seed=1..20`), their product as runs. Pure: nothing is run here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from p2pnode.simulations.harness.errors import SettingError
from p2pnode.simulations.harness.job import Job
from p2pnode.simulations.harness.scenario import Scenario
from p2pnode.simulations.harness.settings import (
    describe,
    nearest,
    read_nodes,
    read_seed,
    read_setting,
    read_settings,
    show,
    split_pair,
)

__all__ = ["RUNS_MAX", "Axis", "Plan", "plan", "read_axes"]

# Chosen by us: 50 settings of 100 seeds. More is a mistyped range rather than a plan.
RUNS_MAX = 5000
_RANGE = re.compile(r"^(-?\d{1,18})\.\.(-?\d{1,18})$")

Value = int | float | str


@dataclass(frozen=True)
class Axis:
    """One thing that differs: `nodes`, `seed` or a setting. `typed`: "1..20"; `texts`: each value of it."""

    name: str
    typed: str
    texts: list[str]


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep. `places[i]` says where `jobs[i]` stands."""

    axes: dict[str, list[Value]]
    places: list[dict[str, Value]]
    jobs: list[Job]


def read_axes(options: Sequence[str]) -> list[Axis]:
    """Read the `--sweep` options. Raise SettingError."""
    axes: list[Axis] = []
    size = 1
    for option in options:
        name, text = split_pair("--sweep", option)
        if any(axis.name == name for axis in axes):
            raise SettingError(f"--sweep {name} is given twice.")
        texts = _values(name, text, RUNS_MAX // size)
        size *= len(texts)
        axes.append(Axis(name, text, texts))
    return axes


def plan(scenario: Scenario, job: Job, axes: Sequence[Axis]) -> Plan:
    """Return all runs of the product, the first axis slowest; `job` gives what is not swept.

    Each value, and each combination, is tried against the scenario's settings. Raise SettingError.
    """
    known = describe(scenario.settings)
    for axis in axes:
        if axis.name in job.given:
            raise SettingError(f"{axis.name} is both in --set and in --sweep.")
        if axis.name not in known and axis.name not in ("nodes", "seed"):
            hint = nearest(axis.name, [*known, "nodes", "seed"])
            raise SettingError(f"{scenario.name} has no setting {axis.name[:60]!r} to sweep.{hint}")
        if axis.name in known and known[axis.name].many:
            raise SettingError(f"{axis.name} is a list; a list cannot be swept.")
    values = {axis.name: [_read(scenario, axis.name, text) for text in axis.texts] for axis in axes}
    for name, found in values.items():
        if len(set(found)) < len(found):
            raise SettingError(f"--sweep {name} has the same value twice.")
    jobs = []
    for texts in product(*(axis.texts for axis in axes)):
        given = {axis.name: text for axis, text in zip(axes, texts, strict=True)}
        nodes = read_nodes(scenario, given.pop("nodes"), "--sweep nodes") if "nodes" in given else job.nodes
        seed = read_seed(given.pop("seed"), "--sweep seed") if "seed" in given else job.seed
        given = {**job.given, **given}
        read_settings(scenario, given, "--sweep")
        jobs.append(Job(job.source, nodes, seed, given, job.log_level, job.log_format))
    places = [dict(zip(values, place, strict=True)) for place in product(*values.values())]
    return Plan(values, places, jobs)


def _values(name: str, text: str, most: int) -> list[str]:
    """Split `1..3,10`; a range is of whole numbers. `most`: what the product still allows."""
    texts: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        match = _RANGE.match(part)
        if match is None:
            if not part or ".." in part:
                raise SettingError(
                    f"--sweep {name}={text[:60]}: values go with commas, or FIRST..LAST of whole numbers."
                )
            texts.append(part)
            continue
        first, last = int(match[1]), int(match[2])
        if last < first:
            raise SettingError(f"--sweep {name}={part}: the range ends before it begins.")
        if last - first >= most:
            raise SettingError(_too_many())
        texts += [str(value) for value in range(first, last + 1)]
    if len(texts) > most:
        raise SettingError(_too_many())
    return texts


def _too_many() -> str:
    return f"That sweep has more than {RUNS_MAX:,} runs; take fewer values."


def _read(scenario: Scenario, name: str, text: str) -> Value:
    """Return a value as the report shows it and sorts by it."""
    if name == "nodes":
        return read_nodes(scenario, text, "--sweep nodes")
    if name == "seed":
        return read_seed(text, "--sweep seed")
    value = read_setting(scenario, name, text, "--sweep")  # without the check of the whole: another axis may be needed
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else show(value)
