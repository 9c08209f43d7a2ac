"""Long work: a moving line on a terminal, one line per 5 s elsewhere."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TextIO

__all__ = ["progress"]

EVERY_S = 5.0


@contextlib.contextmanager
def progress(what: str, stream: TextIO, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Say on `stream` that `what` is under way, while the block runs."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        with Console(file=stream, no_color="NO_COLOR" in os.environ).status(what):
            yield
        return
    done = threading.Event()

    def tell() -> None:
        seconds = 0.0
        while not done.wait(every_s):
            seconds += every_s
            with contextlib.suppress(OSError, ValueError):
                stream.write(f"{what} ({seconds:.0f} s)\n")
                stream.flush()

    thread = threading.Thread(target=tell, daemon=True)  # the main thread waits for an answer and cannot tell
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
