"""What a page is made of: sections of tables, matrices and plots; texts only, which the template escapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from p2pnode.simulations.report.bands import Band
from p2pnode.simulations.report.units import shown

__all__ = ["Grid", "Item", "Line", "Section", "interval_text", "number_item"]


@dataclass(frozen=True)
class Item:
    """A cell of a table. `kind`: its class (number, text). `exact`: shown on hover."""

    text: str
    kind: str = ""
    exact: str = ""


@dataclass(frozen=True)
class Line:
    """A row; `mark`: better, worse or nothing."""

    cells: list[Item]
    mark: str = ""


@dataclass
class Grid:
    """A table. `folded`: opened by the reader."""

    title: str
    columns: list[str]
    rows: list[Line]
    folded: bool = False


@dataclass
class Section:
    """A heading and what is beneath it."""

    title: str
    texts: list[str] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    matrices: list[dict[str, Any]] = field(default_factory=list)
    plots: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.texts or self.grids or self.matrices or self.plots)


def number_item(name: str, value: float | None) -> Item:
    return Item(shown(name, value), "number", "" if value is None else repr(value))


def interval_text(name: str, found: Band) -> str:
    """Return "1.2 s to 1.4 s"; "" of a single run."""
    return "" if found.low is None else f"{shown(name, found.low)} to {shown(name, found.high)}"
