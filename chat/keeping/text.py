"""`\\keep` and `\\disappear`: spans of time as people type and read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode import InvalidPeerError
from p2pnode.chat.keeping.wire import MAX_SECONDS
from p2pnode.chat.model import Party, TimerChanged

if TYPE_CHECKING:
    from p2pnode.chat.keeping.tables import Timer
    from p2pnode.chat.service import Chat

__all__ = ["days_of", "disappear_lines", "keep_lines", "keep_text", "seconds_of", "span_text", "timer_event_lines"]

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
MIN_SECONDS = 5  # shorter than anybody reads


def seconds_of(text: str) -> int:
    """Read a span: 30s, 5m, 1h, 1d, 4w, off. Raise ValueError, which says what is wrong."""
    text = text.strip().casefold()
    if text in ("off", "never", "0"):
        return 0
    match = re.fullmatch(r"([0-9]{1,9}) ?(s|min|m|h|d|w)", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError("a time is 30s, 5m, 1h, 1d or 4w (5 seconds to a year), or off")
    return seconds


def days_of(text: str) -> int | None:
    """Read how long to keep: a number of days, forever (0), default (None). Raise ValueError."""
    text = text.strip().casefold()
    if text in ("forever", "0"):
        return 0
    if text == "default":
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 36_500:
        raise ValueError("a history is kept for a number of days (1 to 36,500), forever, or default")
    return int(text)


def span_text(seconds: int) -> str:
    for size, unit in ((604_800, "weeks"), (86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit[:-1] if count == 1 and unit.endswith('s') else unit}"
    return f"{seconds} s"


def keep_text(keep: int | None, default: int) -> str:
    """Return how long a conversation is kept. `keep`: its own setting, `default`: that for all."""
    days = default if keep is None else keep
    how = "for ever" if days == 0 else f"{days} day{'s' if days != 1 else ''}"
    return f"{how} (as set for all)" if keep is None else how


async def keep_lines(chat: Chat, party: Party, argument: str) -> list[str]:
    """Do `\\keep`. Raise P2PError."""
    if argument:
        await chat.keeping.keep(party, _read(days_of, argument))
    state = (await chat.keeping.states()).get(party)
    keep = None if state is None else state.keep
    return [f"* Messages with {chat.display_name(party)} are kept {keep_text(keep, chat.keeping.keep_days)}."]


async def disappear_lines(chat: Chat, party: Party, argument: str) -> list[str]:
    """Do `\\disappear`. Raise P2PError."""
    timer = chat.keeping.timer(party)
    if argument:
        timer = await chat.keeping.disappear(party, _read(seconds_of, argument) or 0)
    return [_timer_line(chat, party, timer)]


def timer_event_lines(chat: Chat, event: TimerChanged) -> list[str]:
    """Return what an event means to the user."""
    who = chat.display_name(event.party)
    if event.by is not None:
        what = "messages here stay again" if not event.seconds else _rule(event.seconds)
        return [f"* {who} has set: {what}."]
    if event.agreed:
        return [f"* {who}'s program does the same."]
    return []


def _timer_line(chat: Chat, party: Party, timer: Timer) -> str:
    if not timer.seconds:
        return f"* Messages with {chat.display_name(party)} stay; \\disappear 1d lets new ones disappear on both sides."
    who = chat.display_name(party)
    agreed = f"{who}'s program does the same" if timer.agreed else f"{who} learns of it at the next meeting"
    return f"* From now on {_rule(timer.seconds)}; {agreed}."


def _rule(seconds: int) -> str:
    return f"messages here disappear {span_text(seconds)} after they were read, and the author's own after delivery"


def _read(read: Callable[[str], int | None], argument: str) -> int | None:
    try:
        found = read(argument)
    except ValueError as exc:
        raise InvalidPeerError(f"{str(exc)[:1].upper()}{str(exc)[1:]}.") from exc
    return found
