"""Textual's driver, drawing on standard output, and never making the node wait for a slow terminal.

Textual 8 draws on standard error (which may be a log file here), and its writer takes 30 pieces ahead; beyond that the
event loop would stand still, with it every session of the node, until a stalled ssh connection takes more. Here the
writer takes all, and `behind` says when to stop drawing. Private names of Textual are used: its version is pinned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from textual.driver import Driver

__all__ = ["behind", "driver_class"]

WAITING_MAX = 16  # pieces on their way to the terminal before drawing waits; one draw is one or two


def driver_class() -> type[Driver]:
    """Return the driver for this system."""
    if sys.platform == "win32":
        from textual.drivers.windows_driver import WindowsDriver

        return WindowsDriver
    from textual.drivers.linux_driver import LinuxDriver

    class StdoutDriver(LinuxDriver):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._file = sys.__stdout__

        def start_application_mode(self) -> None:
            super().start_application_mode()  # type: ignore[no-untyped-call]
            if self._writer_thread is not None:
                self._writer_thread._queue.maxsize = 0  # from now on `put` never waits

    return StdoutDriver


def behind(driver: Driver | None) -> bool:
    """Whether the terminal has not taken yet what was drawn."""
    thread = getattr(driver, "_writer_thread", None)
    waiting: Callable[[], int] | None = getattr(getattr(thread, "_queue", None), "qsize", None)
    return waiting is not None and waiting() > WAITING_MAX
