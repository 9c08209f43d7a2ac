"""Long work: a moving line on a terminal, one line per 5 s elsewhere."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

__all__ = ["What", "progress"]

EVERY_S = 5.0
_BAR_WIDTH = 24

What = str | Callable[[], tuple[str, float | None]]
"""What is under way; or what tells it at any moment, with the share that is done (0..1; None: nobody knows)."""


@contextlib.contextmanager
def progress(what: What, stream: TextIO, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Say on `stream` that `what` is under way, while the block runs."""
    tell = _constant(what) if isinstance(what, str) else what
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.live import Live

        console = Console(file=stream, no_color="NO_COLOR" in os.environ)
        with Live(get_renderable=_Moving(tell), console=console, refresh_per_second=8, transient=True):
            yield
        return
    done = threading.Event()
    began = time.monotonic()

    def write() -> None:
        while not done.wait(every_s):
            text, _share = tell()
            with contextlib.suppress(OSError, ValueError):
                stream.write(f"{text} ({time.monotonic() - began:.0f} s)\n")
                stream.flush()

    thread = threading.Thread(target=write, daemon=True)  # the main thread waits for an answer and cannot tell
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _constant(text: str) -> Callable[[], tuple[str, float | None]]:
    return lambda: (text, None)


class _Moving:
    """What rich draws eight times a second: a spinner, a bar where a share is known, the text."""

    def __init__(self, tell: Callable[[], tuple[str, float | None]]) -> None:
        from rich.spinner import Spinner

        self._tell = tell
        self._spinner = Spinner("dots")

    def __call__(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        text, share = self._tell()
        line = Table.grid(padding=(0, 1))
        parts: list[Any] = [self._spinner]
        if share is not None:
            parts.append(ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH))
        parts.append(Text(text, overflow="ellipsis", no_wrap=True))
        line.add_row(*parts)
        return line
