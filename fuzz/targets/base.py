"""What a target is: how bytes are read, what must hold for what was read, and how long it may take.

`read` may raise the documented error and nothing else; `hold` may raise nothing at all. Both together may take `CPU_S`
of processor time, the best of three tries: another process on the machine, or a garbage collection, is no finding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from p2pnode.core.errors import BadPacket

__all__ = ["CPU_S", "Target", "TooSlowError", "check"]

CPU_S = 0.05
TRIES = 3


class TooSlowError(AssertionError):
    """An input took more processor time than any input may."""


@dataclass(frozen=True)
class Target:
    """One parser.

    `read(data)`: the parser. `hold(data, result)`: the properties of what it returned. `errors`: what `read` may raise.
    `max_bytes`: longest input that is tried; a bit above the parser's own limit. `cpu_s`: seconds per input; above
    `CPU_S` only where a target makes a whole node for each input.
    """

    name: str
    read: Callable[[bytes], Any]
    hold: Callable[[bytes, Any], None] | None = None
    errors: tuple[type[Exception], ...] = (BadPacket,)
    max_bytes: int = 1_300
    cpu_s: float = CPU_S


def check(target: Target, data: bytes) -> bool:
    """Give one input to a target; return whether it was a message. Raise what must not be raised, TooSlowError."""
    seconds = []
    for _ in range(TRIES):
        started = time.thread_time()
        accepted = _once(target, data)
        seconds.append(time.thread_time() - started)
        if seconds[-1] <= target.cpu_s:
            return accepted
    raise TooSlowError(f"{target.name}: {len(data)} bytes took {min(seconds) * 1000:.0f} ms of processor time")


def _once(target: Target, data: bytes) -> bool:
    try:
        result = target.read(data)
    except target.errors:
        return False
    if target.hold is not None:
        try:
            target.hold(data, result)
        except target.errors as exc:
            raise AssertionError(f"{target.name}: what was read cannot be written and read again: {exc!r}") from exc
    return True
