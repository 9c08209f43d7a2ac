"""uvicorn within our bounds: connections, time, size of a head. Loaded by `http` when the first request comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from p2pnode.api.http import MAX_CONNECTIONS, REQUEST_S

__all__ = ["UvicornServer"]

MAX_HEAD_BYTES = 16 * 1024


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 with two bounds that it lacks: connections, and the time until a first request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self.loop.call_later(REQUEST_S, self._first_request_due)

    def _first_request_due(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


class UvicornServer(uvicorn.Server):
    """uvicorn without its signal handlers (the command line has its own) and its ten wake-ups per second."""

    def __init__(self, application: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
            )
        )
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop listening, cut off who is left after a second."""
        self.stopping.set()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stopping.wait()
