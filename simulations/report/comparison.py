"""What changed between two reports: absolute, relative, for better or worse, within or outside of chance.

Two single runs differ by chance as well as by what was changed, and nobody can tell which from them alone: there is no
verdict on chance then. With sweeps over seeds there is: between two sweeps by Welch's t test on the means, between a
sweep and a single run by the sweep's 95 % prediction interval.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from p2pnode import clean
from p2pnode.simulations.harness.errors import ScenarioFileError
from p2pnode.simulations.report.bands import Band, t_quantile
from p2pnode.simulations.report.model import Place, place_text
from p2pnode.simulations.report.text import columns
from p2pnode.simulations.report.units import MACHINE, direction, shown

__all__ = ["Change", "Comparison", "File", "Part", "as_json", "as_text", "compare", "read", "write"]

FILE_BYTES_MAX = 500_000_000
Verdict = str
"""Of a change: "beyond chance", "within chance", or "" when nobody can tell."""


class Point(msgspec.Struct):
    """One point of a sweep in a JSON file."""

    place: Place
    runs: int
    figures: dict[str, Band]


class SweepPart(msgspec.Struct):
    """The sweep in a JSON file, as far as it is compared."""

    points: list[Point]


class File(msgspec.Struct):
    """A report's JSON file, as far as it is compared; what `simulate --json` printed will do as well."""

    scenario: str
    figures: dict[str, float | None]
    command: str = ""
    nodes: int | None = None
    seed: int | None = None
    settings: dict[str, Any] = {}
    sweep: SweepPart | None = None
    path: str = ""


@dataclass(frozen=True)
class Change:
    """One figure in both. `relative`: None where the first is 0. `better`: None where the name does not tell."""

    name: str
    first: float | None
    second: float | None
    difference: float | None = None
    relative: float | None = None
    better: bool | None = None
    chance: Verdict = ""


@dataclass
class Part:
    """The figures of one point; of single runs there is one part."""

    title: str
    changes: list[Change]


@dataclass
class Comparison:
    """`differing`: what was asked for differently, (name, first, second)."""

    first: str
    second: str
    differing: list[tuple[str, str, str]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(path: Path) -> File:
    """Read a report's JSON file. Raise ScenarioFileError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ScenarioFileError(f"{path} is larger than any report.")
        file = msgspec.json.decode(path.read_bytes(), type=File)
    except OSError as exc:
        raise ScenarioFileError(f"{path} cannot be read: {exc.strerror}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ScenarioFileError(f"{path} is no report of `p2pnode simulate`: {exc}.") from exc
    file.path = str(path)
    return file


def compare(first: File, second: File) -> Comparison:
    """Compare figure by figure; of sweeps point by point."""
    found = Comparison(first.path, second.path, _differing(first, second))
    if first.scenario != second.scenario:
        found.notes.append(f"These are different scenarios: {first.scenario} and {second.scenario}.")
    ones, others = _points(first), _points(second)
    if len(ones) == len(others) == 1:
        pairs = [("", next(iter(ones.values())), next(iter(others.values())))]
    else:
        pairs = [(title, ones[title], others[title]) for title in ones if title in others]
        missing = [title for title in (*ones, *others) if title not in ones or title not in others]
        if missing:
            found.notes.append(f"Only in one of them: {'; '.join(missing)}.")
    for title, one, other in pairs:
        names = dict.fromkeys([*one, *other])
        found.parts.append(Part(title, [_change(name, one.get(name), other.get(name)) for name in names]))
    return found


def as_json(found: Comparison) -> str:
    """Return one object; docs/simulate.md, "What changed"."""
    return msgspec.json.encode(asdict(found)).decode()


def as_text(found: Comparison) -> list[str]:
    """Return lines for people: changes of the network first, those of the machine last, nothing that is equal."""
    lines = [clean(f"{found.first} -> {found.second}", limit=300)]
    lines += [clean(note, limit=300) for note in found.notes]
    if found.differing:
        lines += ["", *columns([("asked for", "first", "second"), *found.differing])]
    for part in found.parts:
        rows = [_row(change) for change in _in_order(part) if change.difference != 0]
        equal = len(part.changes) - len(rows)
        lines += ["", clean(part.title or "figures", limit=300)]
        if rows:
            lines += columns([("", "first", "second", "change", "", "", ""), *rows])
        lines.append(f"{equal} of {len(part.changes)} figures are equal.")
    return lines


def write(folder: Path, found: Comparison) -> list[Path]:
    """Write compare.html and compare.json. Raise OSError, MissingPackageError."""
    from p2pnode.simulations.report.page import render
    from p2pnode.simulations.report.parts import Grid, Item, Line, Section

    paths = [folder / "compare.json", folder / "compare.html"]
    paths[0].write_text(as_json(found) + "\n", encoding="utf-8")
    section = Section("What changed")
    names = ["figure", "first", "second", "change", "relative", "verdict", "by chance?"]
    for part in found.parts:
        rows = [
            Line(
                [Item(text, "number" if 0 < at < 5 else "text") for at, text in enumerate(_row(change))],
                _mark(change),
            )
            for change in _in_order(part)
        ]
        section.grids.append(Grid(part.title or "Figures", names, rows))
    asked = Section("Asked for differently")
    if found.differing:
        rows = [Line([Item(text, "text") for text in row]) for row in found.differing]
        asked.grids.append(Grid("Settings", ["setting", "first", "second"], rows))
    page = render(
        title="Comparison", summary=f"{found.first} → {found.second}", headline=" ".join(found.notes), command="",
        marks=[], failures=[], cards=[], sections=[asked, section], footer="p2pnode simulate --compare",
    )  # fmt: skip
    paths[1].write_text(page, encoding="utf-8")
    return paths


def _differing(first: File, second: File) -> list[tuple[str, str, str]]:
    ones = {"scenario": first.scenario, "nodes": first.nodes, "seed": first.seed, **first.settings}
    others = {"scenario": second.scenario, "nodes": second.nodes, "seed": second.seed, **second.settings}
    names = dict.fromkeys([*ones, *others])
    texts = [(name, str(ones.get(name, "-")), str(others.get(name, "-"))) for name in names]
    return [each for each in texts if each[1] != each[2]]


def _points(file: File) -> dict[str, dict[str, Band]]:
    if file.sweep is not None:
        return {place_text(point.place): point.figures for point in file.sweep.points}
    single = {name: Band(value, None, None, None, 1) for name, value in file.figures.items() if value is not None}
    return {place_text({}): single}


def _change(name: str, one: Band | None, other: Band | None) -> Change:
    if one is None or other is None:
        return Change(name, None if one is None else one.mean, None if other is None else other.mean)
    difference = other.mean - one.mean
    relative = difference / abs(one.mean) if one.mean else None
    which = direction(name)
    better = None if not which or not difference else (difference > 0) == (which > 0)
    return Change(name, one.mean, other.mean, difference, relative, better, _chance(one, other))


def _chance(one: Band, other: Band) -> Verdict:
    """Say whether the difference of two means is more than chance (95 %)."""
    if one.n < 2 and other.n < 2:
        return ""
    difference = abs(other.mean - one.mean)
    first, second = (one.sd or 0.0) ** 2 / one.n, (other.sd or 0.0) ** 2 / other.n
    if one.n < 2 or other.n < 2:  # a single run against a sweep: the prediction interval of one more run
        sweep = one if other.n < 2 else other
        half = t_quantile(sweep.n - 1) * (sweep.sd or 0.0) * math.sqrt(1 + 1 / sweep.n)
    elif first + second == 0:
        half = 0.0
    else:  # Welch (1947): degrees of freedom of two means with different variances
        freedom = (first + second) ** 2 / (first**2 / (one.n - 1) + second**2 / (other.n - 1))
        half = t_quantile(max(1.0, freedom)) * math.sqrt(first + second)
    # Sums of the same numbers in another order differ in their last digit.
    return "beyond chance" if difference > half + 1e-12 * abs(one.mean) else "within chance"


def _in_order(part: Part) -> list[Change]:
    return sorted(part.changes, key=lambda change: change.name in MACHINE)


def _mark(change: Change) -> str:
    if change.better is None or change.chance == "within chance":
        return ""
    return "better" if change.better else "worse"


def _row(change: Change) -> tuple[str, ...]:
    name = change.name
    if change.difference is None:
        return (name, shown(name, change.first), shown(name, change.second), "", "", "", "")
    sign = "+" if change.difference > 0 else ""
    relative = "" if change.relative is None else f"{change.relative * 100:+.1f} %"
    verdict = {True: "better", False: "worse", None: ""}[change.better]
    return (
        name, shown(name, change.first), shown(name, change.second),
        f"{sign}{shown(name, change.difference)}", relative, verdict, change.chance,
    )  # fmt: skip
