"""Plain text for people: aligned columns, ages, sizes. No colour: these lines are read by scripts as well."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO

import typer

from p2pnode import clean

__all__ = ["age", "fold", "size", "steps", "table", "usage_error"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines; every cell is made harmless for a terminal (X1)."""
    cells = [[clean(cell, limit=400) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def fold(text: str, stream: TextIO, *, indent: str = "") -> list[str]:
    """Return text as lines that fit a terminal; one line where `stream` is none, for scripts. Made harmless (X1)."""
    text = clean(text, limit=1000)
    if not stream.isatty():
        return [indent + text]
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def steps(rows: Sequence[tuple[str, str, str]], stream: TextIO) -> list[str]:
    """Return rows of time, step and result as aligned lines; on a narrow terminal the result goes below the step."""
    lines = table(rows)
    if not stream.isatty() or max(map(len, lines), default=0) <= shutil.get_terminal_size().columns:
        return lines
    found = []
    for at, step, result in rows:
        found += [f"{at}  {clean(step, limit=400)}", *fold(result, stream, indent=" " * (len(at) + 4))]
    return found


def age(seconds: float) -> str:
    """Return 12 s, 3 min, 5 h or 2 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def size(count: int) -> str:
    """Return a number of bytes as B, kB, MB or GB."""
    value = float(count)
    for name in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {name}" if name == "B" else f"{value:.1f} {name}"
        value /= 1000
    return f"{value:.1f} GB"


def usage_error(message: str) -> Exception:
    """Return the error of wrong usage: exit code 2."""
    return typer.BadParameter(message)
