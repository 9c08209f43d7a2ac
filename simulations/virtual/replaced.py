"""Functions of libraries, or our own, replaced while a virtual loop runs: in simulations, and nowhere else.

Nothing is replaced unless one runs, and all of it is taken back when the last one ends. Whoever replaces asks whether
the calling thread runs a virtual loop at that moment: a node on a real loop in another thread gets the original.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Replacement", "Replacements"]

Replacement = tuple[Any, str, Callable[..., Any]]
"""An object, the name of its attribute, and what stands there meanwhile."""


class Replacements:
    """What `make` returns, in place while anybody is inside `installed`. `make` is called for the first of them."""

    def __init__(self, make: Callable[[], Iterable[Replacement]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._undo: list[Callable[[], None]] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Keep them in place; several threads may at once."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                for owner, name, replacement in self._make():
                    original = vars(owner)[name]  # not what a class makes of it for its callers
                    self._undo.append(functools.partial(setattr, owner, name, original))
                    setattr(owner, name, replacement)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    while self._undo:
                        self._undo.pop()()
