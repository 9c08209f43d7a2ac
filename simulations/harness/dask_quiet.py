"""Dask's scheduler and worker without their web pages: a sweep on this machine listens nowhere.

Without `start_http_server` distributed (2026.8) listens for its own protocol only, which within one process needs no
port. Needs the extra `simulations`.
"""

from __future__ import annotations

from typing import Any

from distributed import Scheduler, Worker

__all__ = ["QuietScheduler", "QuietWorker"]


class QuietScheduler(Scheduler):
    """A scheduler that serves no HTTP."""

    def start_http_server(self, *_args: Any, **_options: Any) -> None:
        """Serve nothing."""


class QuietWorker(Worker):
    """A worker that serves no HTTP."""

    def start_http_server(self, *_args: Any, **_options: Any) -> None:
        """Serve nothing."""
