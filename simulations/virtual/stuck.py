"""Why a run in virtual time cannot go on: the errors, and sentences that name tasks and callbacks with their places."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = [
    "VirtualBlockedError",
    "VirtualDeadlockError",
    "VirtualLivelockError",
    "VirtualTimeLimitError",
    "describe_callback",
    "describe_running",
    "describe_spinning",
    "describe_waiting",
    "place",
]

NAMED_MAX = 10  # tasks or callbacks named in one sentence


class VirtualDeadlockError(RuntimeError):
    """Nothing is ready and no timer is set, but the main coroutine has not finished: it waits for ever."""


class VirtualLivelockError(RuntimeError):
    """The loop turned a million times at one instant: something calls itself without letting time pass."""


class VirtualTimeLimitError(RuntimeError):
    """Virtual time reached `until` before the main coroutine finished."""


class VirtualBlockedError(RuntimeError):
    """One callback, or one step of a task, held the loop for seconds of real time; it was broken off."""


def describe_waiting(now: float, tasks: Sequence[asyncio.Task[Any]]) -> str:
    """Return one sentence that names the tasks that wait, and where (the first ten). `now`: virtual seconds."""
    names = [f"{task.get_name()} in {_describe_coroutine(task.get_coro())}" for task in tasks[:NAMED_MAX]]
    if len(tasks) > NAMED_MAX:
        names.append(f"and {len(tasks) - NAMED_MAX} more")
    return f"at {now:.6f} s waiting: {', '.join(names) or 'nothing'}"


def describe_spinning(turns: int, callbacks: Iterable[Callable[..., object]]) -> str:
    """Return half a sentence that names what is called again and again."""
    spinning = dict.fromkeys(describe_running(each) for each in itertools.islice(callbacks, 100 * NAMED_MAX))
    names = ", ".join(itertools.islice(spinning, NAMED_MAX))
    return f"{turns} turns at one instant, again and again {names or 'nothing that can be named'}"


def describe_running(callback: Callable[..., object] | None) -> str:
    """Name what a loop calls: a task by its name and coroutine, anything else by its function and place."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"the task {owner.get_name()} ({_describe_coroutine(owner.get_coro())})"
    return f"the callback {describe_callback(callback)}"


def describe_callback(callback: Any) -> str:
    """Return function name and place; for what is not written in Python its repr."""
    function = getattr(callback, "func", callback)  # functools.partial
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return place(code, code.co_firstlineno) if isinstance(code, CodeType) else repr(callback)


def place(code: CodeType, line: int) -> str:
    """Return e.g. `Store.add (chat/store.py:210)`."""
    return f"{code.co_qualname} ({'/'.join(Path(code.co_filename).parts[-2:])}:{line})"


def _describe_coroutine(coroutine: Any) -> str:
    """Return where a coroutine stands, and where the innermost one stands that it awaits."""
    found: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            found.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return " awaiting ".join(found[:1] + found[1:][-1:]) or "?"
