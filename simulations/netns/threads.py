"""Calls in parallel that a Ctrl-C does not wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["call_each"]

T = TypeVar("T")
R = TypeVar("R")


def call_each(function: Callable[[T], R], items: Iterable[T], *, at_a_time: int) -> list[R]:
    """Call `function` for each item on threads, and return the results in the order of the items.

    The first error is raised at once, as is a Ctrl-C: what is under way then goes on and is forgotten. (A
    ThreadPoolExecutor would be waited for, at the latest when the program ends.)
    """
    work = list(items)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | None, BaseException | None]] = queue.SimpleQueue()
    for number in range(len(work)):
        waiting.put(number)

    def run() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, function(work[number]), None))
            except BaseException as exc:  # noqa: BLE001 - raised again in the caller
                done.put((number, None, exc))

    for _ in range(min(at_a_time, len(work))):
        threading.Thread(target=run, daemon=True).start()
    results: dict[int, R] = {}
    for _ in work:
        number, result, error = done.get()
        if error is not None:
            while not waiting.empty():
                waiting.get_nowait()
            raise error
        results[number] = result  # type: ignore[assignment]  # R may be Optional itself
    return [results[number] for number in range(len(work))]
