"""HTTP servers, one each for the control API and the metrics, that load what speaks HTTP when somebody first asks.

uvicorn, starlette and what they import are 4 MB of resident memory and a tenth of a second: most nodes are never asked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from p2pnode.api.uvicorn_server import UvicornServer

__all__ = ["MAX_CONNECTIONS", "REQUEST_S", "HttpServer"]

# Chosen by us: the clients are a few commands and one page. 64 connections with 16 KiB of head and 128 KiB of body
# each bound the memory at about 10 MB.
MAX_CONNECTIONS = 64
REQUEST_S = 10.0  # until a request is complete; who is slower is cut off

log = structlog.get_logger(__name__)


class HttpServer:
    """Serves an application on a listening socket until `stop`. The system holds who connects until it is loaded.

    `application` makes it, and imports what it needs; called by `run_blocking`, outside the loop.
    """

    def __init__(
        self,
        application: Callable[[], ASGIApp],
        listener: socket.socket,
        run_blocking: Callable[..., Awaitable[Any]],
    ) -> None:
        self._application = application
        self._listener = listener
        self._run_blocking = run_blocking
        self._server: UvicornServer | None = None
        listener.setblocking(False)
        self._task = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        await _connection_waits(self._listener)
        try:
            server_type, application = await self._run_blocking(self._load)
        # A broken installation: the node goes on, and who asks it is refused rather than kept waiting.
        except Exception:
            log.exception("http_not_loaded")
            self._listener.close()
            return
        self._server = server_type(application)
        await self._server.serve(sockets=[self._listener])

    def _load(self) -> tuple[type[UvicornServer], ASGIApp]:
        from p2pnode.api.uvicorn_server import UvicornServer

        return UvicornServer, self._application()

    async def stop(self) -> None:
        """Stop listening, cut off who is left after a second."""
        if self._server is None:
            self._task.cancel()
        else:
            self._server.stop()
        await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()


async def _connection_waits(listener: socket.socket) -> None:
    """Return when somebody has connected; at once where the loop cannot tell (Windows)."""
    loop = asyncio.get_running_loop()
    waits = asyncio.Event()
    try:
        loop.add_reader(listener, waits.set)
    except NotImplementedError:
        return
    try:
        await waits.wait()
    finally:
        loop.remove_reader(listener)
