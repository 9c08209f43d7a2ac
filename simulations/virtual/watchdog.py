"""Notices that one callback holds the virtual loop for seconds of real time, says where, and breaks it off.

A thread looks at what the loop runs; when that is the same for the whole limit, it takes down where the loop's thread
is, and interrupts it: by a signal where the loop runs in the main thread (this ends sleeps, locks and reads, too), else
by an exception that Python raises at the next instruction. Rules:

- The limit is counted in looks, not by a clock: a process that was stopped or suspended meanwhile is not blocked.
- No alarm while a debugger is at work.
- Compiled code that neither returns nor listens to signals cannot be interrupted: then the stacks of all threads go to
  standard error, once.
"""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from p2pnode.simulations.virtual.stuck import place

__all__ = ["LoopInterrupt", "Watchdog"]

LOOKS = 5  # within the limit: the alarm comes between the limit and a fifth more
FRAMES = 4  # innermost frames named in the message
_SIGNAL = getattr(signal, "SIGURG", None)  # nothing else uses it, and its default is to be ignored
_DEBUGGERS = ("bdb", "pdb", "pydevd", "debugpy")


class LoopInterrupt(KeyboardInterrupt):
    """Raised in the blocked callback. asyncio lets a KeyboardInterrupt through, and few programs swallow it."""


class Watchdog:
    """A context manager around the run of a loop."""

    def __init__(
        self,
        current: Callable[[], object],
        describe: Callable[[Any], str],
        limit_s: float,
        interrupted: Callable[[], None],
    ) -> None:
        """`current`: what runs now (None: nothing), the same object as long as it is the same step.

        `describe`: its name for the message. `limit_s`: real seconds. `interrupted`: called before the interrupt.
        """
        self.error: str | None = None
        """What was found, from then on."""
        self._current = current
        self._describe = describe
        self._limit_s = limit_s
        self._interrupted = interrupted
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="virtual-loop-watchdog", daemon=True)
        self._loop_thread = threading.get_ident()
        self._blocked: object = None
        self._dumped = False
        self._by_signal = _SIGNAL is not None and threading.current_thread() is threading.main_thread()
        self._previous: Any = None

    def __enter__(self) -> Self:
        if self._by_signal:
            assert _SIGNAL is not None  # noqa: S101 - _by_signal
            self._previous = signal.signal(_SIGNAL, self._on_signal)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._by_signal:
            assert _SIGNAL is not None  # noqa: S101 - _by_signal
            signal.signal(_SIGNAL, self._previous if self._previous is not None else signal.SIG_DFL)

    def _watch(self) -> None:
        seen: object = None
        looks = 0
        while not self._over.wait(self._limit_s / LOOKS):
            item = self._current()
            looks = looks + 1 if item is not None and item is seen else 0
            seen = item
            if looks >= LOOKS:
                looks = 0
                self._alarm(item)

    def _alarm(self, item: object) -> None:
        frames = _frames(sys._current_frames().get(self._loop_thread))
        if not frames or _is_debugged(frames):
            return
        again, self._blocked = self._blocked is item, item
        if self.error is None:
            where = ", called by ".join(place(frame.f_code, frame.f_lineno) for frame in frames[:FRAMES])
            self.error = f"{self._describe(item)} held the loop for more than {self._limit_s:g} real seconds: {where}"
        if again and not self._dumped and sys.__stderr__ is not None:
            self._dumped = True
            print(f"{self.error}; interrupting it did not help:", file=sys.__stderr__, flush=True)
            faulthandler.dump_traceback(file=sys.__stderr__)
        if self._by_signal:
            assert _SIGNAL is not None  # noqa: S101 - _by_signal
            signal.pthread_kill(self._loop_thread, _SIGNAL)
        elif self._current() is item:
            self._interrupted()
            thread = ctypes.c_ulong(self._loop_thread)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(LoopInterrupt))

    def _on_signal(self, *_: object) -> None:
        if self._blocked is not None and self._current() is self._blocked:  # else it has just ended by itself
            self._interrupted()
            raise LoopInterrupt


def _frames(innermost: FrameType | None) -> list[FrameType]:
    """Return the frames of the blocked callback, innermost first, without the loop's own and those below."""
    frames: list[FrameType] = []
    while innermost is not None and innermost.f_code.co_name != "_run_once":
        frames.append(innermost)
        innermost = innermost.f_back
    return frames


def _is_debugged(frames: list[FrameType]) -> bool:
    return any(
        frame.f_trace is not None or str(frame.f_globals.get("__name__")).split(".")[0] in _DEBUGGERS
        for frame in frames
    )
