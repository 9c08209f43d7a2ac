"""uvicorn within our bounds: connections, time, size of a head. One server each for the control API and the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MAX_CONNECTIONS", "REQUEST_S", "HttpServer"]

# Chosen by us: the clients are a few commands and one page. 64 connections with 16 KiB of head and 128 KiB of body
# each bound the memory at about 10 MB.
MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 16 * 1024
REQUEST_S = 10.0  # until a request is complete; who is slower is cut off


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


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (the command line has its own) and its ten wake-ups per second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stopping.wait()


class HttpServer:
    """Serves an application on a listening socket until `stop`."""

    def __init__(self, application: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        self._server = _Server(
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
        self._task = asyncio.ensure_future(self._server.serve(sockets=[listener]))

    async def stop(self) -> None:
        """Stop listening, cut off who is left after a second."""
        self._server.stopping.set()
        self._server.should_exit = True
        await asyncio.gather(self._task, return_exceptions=True)
