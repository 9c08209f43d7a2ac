"""Dask's scheduler and worker without their web pages: nothing of ours is to be read at a port.

Without `start_http_server` distributed (2026.8) listens for its own protocol only. Imported by the processes of local
workers as well; needs the extra `simulations`.
"""

from __future__ import annotations

import signal
from typing import Any

from distributed import Scheduler, Worker

__all__ = ["QuietScheduler", "QuietWorker"]


class QuietScheduler(Scheduler):
    """A scheduler that serves no HTTP."""

    def start_http_server(self, *_args: Any, **_options: Any) -> None:
        """Serve nothing."""


class QuietWorker(Worker):
    """A worker that serves no HTTP, and leaves Ctrl-C on the terminal to the process that started it."""

    async def start_unsafe(self) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return await super().start_unsafe()  # type: ignore[no-untyped-call]

    def start_http_server(self, *_args: Any, **_options: Any) -> None:
        """Serve nothing."""
