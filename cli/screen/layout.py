"""Messages as lines of so many cells: wrapped, indented, each piece with the role that decides its colour. Pure.

Texts of others pass `clean()` once more on their way here, whoever else did that. What a text says can never look like
another message: its lines are indented, and time and name have colours that no text can take.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache

from rich.cells import cell_len, chop_cells

from p2pnode import clean
from p2pnode.chat import Message

__all__ = [
    "MARKS",
    "MIN_WIDTH",
    "NAME_COLOURS",
    "Line",
    "day_line",
    "day_of",
    "message_lines",
    "remark_lines",
    "text_of",
    "unread_line",
    "wrap",
]

Piece = tuple[str, str]
"""Text and role: `time`, `own`, `name-0` ..., `text`, `mark`, `failed`, `remark`, `warning`, `rule`, `unread`."""

Line = tuple[Piece, ...]

INDENT = 6  # as wide as the time before a name
MIN_WIDTH = 12
NAME_COLOURS = 6
QUARTER_S = 900
MAX_LINES = 400  # of one message: 15,000 line ends are a message, but not a reason to scroll for an hour
MARKS = {
    "queued": "\u2026", "stored": "\u25e6", "delivered": "\u2713", "on all devices": "\u2713\u207a",
    "read": "\u2713\u2713", "refused": "\u2717",
}  # fmt: skip
"""What stands behind an own message, by its state."""

_WORDS = re.compile(r" +|[^ ]+")


def wrap(text: str, width: int, first: int | None = None) -> list[str]:
    """Cut text into lines of at most `width` cells, between words where possible; `first`: room on the first line."""
    lines: list[str] = []
    room = width if first is None else first
    for paragraph in text.split("\n"):
        lines += _paragraph(paragraph, width, room)
        room = width
    return lines


def message_lines(message: Message, name: str, colour: int, width: int, *, several: bool = False) -> list[Line]:
    """Lay a message out. `name`: whose; `colour`: which of NAME_COLOURS, for messages of others. `several`: the other
    side has several devices."""
    width = max(width, MIN_WIDTH)
    clock = time.strftime("%H:%M", time.localtime(message.received_at))
    name = clean(name, limit=80)
    name_role = "own" if message.outgoing else f"name-{colour}"
    text = clean(message.text, newline=True)
    room = width - INDENT - cell_len(name) - 2
    own_line = room < width // 3
    if own_line:  # a long name, a narrow window
        names = wrap(f"{name}:", width - INDENT)
        texts = wrap(text, width - INDENT)
    else:
        names = [f"{name}: "]
        texts = wrap(text, width - INDENT, room)
    if len(texts) > MAX_LINES:
        texts = [*texts[:MAX_LINES], f"({len(texts) - MAX_LINES} more lines)"]
    lines: list[list[Piece]] = [[(f"{clock} ", "time"), (names[0], name_role)]]
    lines += [[(" " * INDENT, "text"), (more, name_role)] for more in names[1:]]
    for index, part in enumerate(texts):
        if index == 0 and not own_line:
            lines[-1].append((part, "text"))
        else:
            lines.append([(" " * INDENT, "text"), (part, "text")])
    if message.outgoing:
        state = "on all devices" if several and message.everywhere and message.state == "delivered" else message.state
        mark = f" {MARKS.get(state, '')}"
        role = "failed" if message.state == "refused" else "mark"
        if sum(cell_len(piece) for piece, _ in lines[-1]) + cell_len(mark) > width:
            lines.append([(" " * (INDENT - 1), "text")])
        lines[-1].append((mark, role))
    return [tuple(line) for line in lines]


def remark_lines(text: str, width: int) -> list[Line]:
    """Lay out a line of the program's own."""
    text = clean(text, limit=20_000)
    indent = len(text) - len(text.lstrip(" "))
    role = "warning" if text.startswith("!") else "remark"
    hang = " " * min(indent + 2, max(width, MIN_WIDTH) // 3)
    parts = wrap(text.strip(), max(width, MIN_WIDTH) - len(hang))
    return [((" " * indent if index == 0 else hang, role), (part, role)) for index, part in enumerate(parts)]


def day_of(at: float) -> tuple[int, int]:
    """Return year and day of local time: what decides where a rule stands."""
    return _day_of_quarter(int(at // QUARTER_S))


@lru_cache(maxsize=1024)
def _day_of_quarter(number: int) -> tuple[int, int]:
    # Everywhere days begin at a full quarter of an hour of UTC, so asking the system once for each is enough.
    local = time.localtime(number * QUARTER_S)
    return local.tm_year, local.tm_yday


def day_line(at: float, width: int) -> Line:
    """Return the rule between two days."""
    return _rule(time.strftime(" %A, %d %B %Y ", time.localtime(at)), width, "rule")


def unread_line(width: int) -> Line:
    """Return the rule above what the user has not seen."""
    return _rule(" new ", width, "unread")


def text_of(line: Sequence[Piece]) -> str:
    return "".join(text for text, _ in line)


def _rule(title: str, width: int, role: str) -> Line:
    left = max(0, (width - cell_len(title)) // 2)
    return (("\u2500" * left + title + "\u2500" * max(0, width - left - cell_len(title)), role),)


def _paragraph(text: str, width: int, first: int) -> list[str]:
    if len(text) <= first and text.isascii():
        return [text]
    lines: list[str] = []
    line, used, room = "", 0, first
    for word in _WORDS.findall(text):
        size = cell_len(word)
        if used + size <= room:
            line, used = line + word, used + size
            continue
        if word[0] == " ":  # a line ends here: its spaces are not needed
            lines.append(line)
            line, used, room = "", 0, width
            continue
        if line.strip() or room < width:
            lines.append(line.rstrip(" "))
            line, used, room = "", 0, width
        *whole, line = chop_cells(word, width) or [""]
        lines += whole
        used = cell_len(line)
    return [*lines, line]
