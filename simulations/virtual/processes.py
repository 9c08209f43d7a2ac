"""Which program on which host owns a task or a timer: what a laptop lid stops and a crash ends.

Every task and timer of asyncio carries the context in which it was made. A `Process` has a context of its own that
names it: what runs there belongs to it, and so do the tasks and timers made there, and theirs in turn. Handlers of its
sockets are called in that context; a program is started in it by `VirtualNetwork.run`. What runs outside (the scenario
itself, the wires, the routers) belongs to no process.

- Asleep: its timers are taken out of the loop's heap, and what becomes ready is parked. As on Linux, CLOCK_MONOTONIC
  stands still meanwhile: after waking, `loop.time()` inside the process is behind the world by the time slept, and a
  timer that had 7 s to go has 7 s to go.
- Dead: its tasks are cancelled and its timers dropped within one instant; its sockets are closed before, so that
  nothing that a `finally` does is heard of outside.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar
from typing import Any, Protocol

__all__ = ["RUNNING", "Process", "freeze", "kill", "owner_of", "thaw"]

RUNNING: ContextVar[Process | None] = ContextVar("RUNNING", default=None)
"""The process whose code runs, None outside of all."""
# Turns of the loop that a killed process gets to unwind. Each `await` in a `finally` costs one.
_UNWIND_TURNS = 1000


class Process:
    """A program on a host. `lag_s`: by how much its clock is behind the world's, the host having slept."""

    __slots__ = ("asleep", "context", "dead", "lag_s", "parked_ready", "parked_timers")

    def __init__(self, lag_s: float = 0.0) -> None:
        self.context = Context()
        self.context.run(RUNNING.set, self)
        self.lag_s = lag_s
        self.asleep = False
        self.dead = False
        self.parked_ready: list[asyncio.Handle] = []
        self.parked_timers: list[asyncio.TimerHandle] = []

    def world_time(self, when: float) -> float:
        """Return the first moment of the world at which the clock of the process shows at least `when`.

        Rounded down by a bit, a timer would be due before its time has come, and set itself again without end.
        """
        at = when + self.lag_s
        while at - self.lag_s < when:
            at = math.nextafter(at, math.inf)
        return at


class _Loop(Protocol):
    """What of a `VirtualLoop` is needed here. What becomes ready in a process asleep, the loop itself parks."""

    _ready: deque[asyncio.Handle]
    clocks_differ: bool
    sleepers: set[Process]

    def take_timers(self, wanted: Callable[[asyncio.TimerHandle], bool]) -> list[asyncio.TimerHandle]: ...
    def put_timer(self, timer: asyncio.TimerHandle) -> None: ...
    def pending_timers(self) -> list[asyncio.TimerHandle]: ...


def freeze(loop: Any, processes: Iterable[Process]) -> None:
    """Stop these processes where they are."""
    loop_: _Loop = loop
    for process in processes:
        process.asleep = True
        loop_.sleepers.add(process)
    for timer in loop_.take_timers(_is_asleep):
        process_or_none = owner_of(timer)
        assert process_or_none is not None  # noqa: S101 - _is_asleep
        process_or_none.parked_timers.append(timer)


def thaw(loop: Any, processes: Iterable[Process], slept_s: float) -> None:
    """Let these processes go on, their clock `slept_s` further behind the world's."""
    loop_: _Loop = loop
    for process in processes:
        process.asleep = False
        loop_.sleepers.discard(process)
        due = [(timer.when() - process.lag_s, timer) for timer in process.parked_timers if not timer.cancelled()]
        process.lag_s += slept_s
        loop_.clocks_differ = True
        for when, timer in due:
            timer._when = process.world_time(when)  # type: ignore[attr-defined]
            loop_.put_timer(timer)
        loop_._ready.extend(process.parked_ready)
        process.parked_timers, process.parked_ready = [], []


async def kill(loop: Any, processes: Iterable[Process]) -> None:
    """End these processes within this instant, whatever their code does about it. O(timers + tasks of the world).

    Raise RuntimeError when a task does not end although it is cancelled again and again.
    """
    doomed = set(processes)
    for process in doomed:
        process.dead = True
        if process.asleep:
            process.parked_timers = []
            thaw(loop, [process], 0.0)
    tasks = sorted((task for task in asyncio.all_tasks(loop) if getattr(task, "process", None) in doomed), key=hash)
    for turn in range(_UNWIND_TURNS):
        if turn % 10 == 0:  # a task that waits again, in a `finally`, is cancelled again
            _drop_timers(loop, doomed)
            for task in tasks:
                task.cancel()
        await asyncio.sleep(0)
        tasks = [task for task in tasks if not _has_ended(task)]
        if not tasks:
            _drop_timers(loop, doomed)
            return
    raise RuntimeError(f"killed, but still running: {', '.join(task.get_name() for task in tasks)}")


def owner_of(handle: asyncio.Handle) -> Process | None:
    """Return the process in whose context a handle runs."""
    return handle._context.get(RUNNING)  # type: ignore[attr-defined,no-any-return]


def _drop_timers(loop: Any, doomed: set[Process]) -> None:
    for timer in loop.pending_timers():
        if owner_of(timer) in doomed:
            timer.cancel()


def _is_asleep(handle: asyncio.Handle) -> bool:
    process = owner_of(handle)
    return process is not None and process.asleep


def _has_ended(task: asyncio.Task[Any]) -> bool:
    if not task.done():
        return False
    if not task.cancelled():
        task.exception()  # seen: nobody is left to care
    return True
