"""What a figure's name tells: its unit, how to show it to people, and whether more of it is better.

`lookup_p50_s` is seconds, `sent_bytes_per_node` bytes per node, `lookup_success` a share. What follows `_at_` says
where it was measured (`lookup_p50_s_at_1000`) and is no part of the unit.
"""

from __future__ import annotations

import re

__all__ = ["COST", "MACHINE", "MINUTES_FROM_S", "direction", "is_share", "shown", "unit"]

MACHINE = ("real_s", "cpu_s", "rss_peak_bytes", "datagrams_per_real_s", "node_virtual_s_per_real_s")
"""Figures of every run that tell of the machine: two runs of one seed agree in all others."""
COST = ("virtual_s", "datagrams", *MACHINE)
"""Figures that every run has: what it took, rather than what it found."""
MINUTES_FROM_S = 180.0
_WHERE = re.compile(r"(_fit_error|_at_\w+?|_after_\w+?|_later|_under_\w+?)$")
_PER = re.compile(r"_per_([a-z0-9_]+)$")
_SIZES = ("B", "kB", "MB", "GB", "TB")
# Durations of the run itself: neither good nor bad. Rates of the machine are the exception: more is better.
_NEUTRAL = {"virtual_s", "datagrams"}
_MORE_IS_BETTER = {"node_virtual_s_per_real_s", "datagrams_per_real_s"}


def unit(name: str) -> tuple[str, str]:
    """Return (what is counted, per what): ("s", ""), ("bytes", "node"), ("share", ""), ("", "lookup"), ("", "")."""
    per = ""
    name = re.sub(r"_by_[a-z]+$", "", name)  # a curve over something
    base = _base(name)
    if not base:  # the unit may stand before what says where
        stripped = _WHERE.sub("", name)
        if stripped != name and (_base(stripped) or _PER.search(stripped)):
            name = stripped
    match = _PER.search(name)
    if match:
        per, name = match.group(1), re.sub(r"_(p\d+|max)$", "", name[: match.start()])
    return _base(name), per


def is_share(name: str) -> bool:
    """Whether it lies between 0 and 1, to be shown in percent."""
    return unit(name) == ("share", "")


def direction(name: str) -> int:
    """Return 1 when more is better, -1 when less is, 0 when the name does not tell."""
    if name in _NEUTRAL:
        return 0
    if name in _MORE_IS_BETTER:
        return 1
    kind, per = unit(name)
    if kind == "share":
        return 1 if "success" in name or name.startswith("held_") else 0
    if per:
        return -1 if kind in ("bytes", "s", "ms", "us") or "datagrams" in name else 0
    return -1 if kind in ("s", "ms", "us", "bytes") else 0


def shown(name: str, value: float | None, *, with_per: bool = True) -> str:
    """Return a value for people, with its unit."""
    if value is None:
        return "-"
    kind, per = unit(name)
    if per == "real_s":  # virtual seconds per real second: a number
        return _digits(value)
    suffix = f" / {per.replace('_', ' ')}" if per and with_per else ""
    return _value(kind, value) + suffix


def _base(name: str) -> str:
    for ending, kind in (
        ("_success", "share"), ("_share", "share"), ("_bytes", "bytes"), ("_ms", "ms"), ("_us", "us"), ("_s", "s"),
    ):  # fmt: skip
        if name.endswith(ending) or name == ending[1:]:
            return kind
    return ""


def _value(kind: str, value: float) -> str:
    match kind:
        case "share":
            percent = value * 100
            return f"{percent:.4g} %" if 90 <= percent < 100 else f"{_digits(percent)} %"  # 99.95 is not 100
        case "s":
            return _seconds(value)
        case "ms" | "us":
            return _seconds(value / (1e3 if kind == "ms" else 1e6))
        case "bytes":
            return _bytes(value)
    return _digits(value)


def _seconds(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    for limit, factor, name in ((1e-3, 1e6, "us"), (1, 1e3, "ms"), (MINUTES_FROM_S, 1, "s"), (3 * 3600, 1 / 60, "min")):
        if size < limit:
            return f"{_digits(value * factor)} {name}"
    return f"{_digits(value / 3600)} h"


def _bytes(value: float) -> str:
    size, index = abs(value), 0
    while size >= 1000 and index < len(_SIZES) - 1:
        size, value, index = size / 1000, value / 1000, index + 1
    return f"{_digits(value)} {_SIZES[index]}"


def _digits(value: float) -> str:
    """Return whole numbers whole, others with three digits."""
    size = abs(value)
    if value == int(value) and size < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"
