"""The control API's server: HTTP on a free port of 127.0.0.1, for this user's own programs.

uvicorn and starlette do HTTP; `guard` decides who may speak; the handlers are in `node_routes` and `chat_routes`. Port
and token are written to the home (0600) when it listens, and removed when it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING

from p2pnode import Home, P2PError
from p2pnode.api.http import MAX_CONNECTIONS, HttpServer
from p2pnode.api.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["ApiServer"]


class ApiServer:
    """Serves `service` until `stop`. `url` is valid after `start`."""

    def __init__(self, service: Service, home: Home) -> None:
        self._service = service
        self._home = home
        self._server: HttpServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, then write port and token to the home. Raise StorageError when that cannot be written."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(MAX_CONNECTIONS)  # now: whoever reads the card may connect before the server's task has run
        self.port = listener.getsockname()[1]
        token = self._service.node.network.token_bytes(32).hex()

        def application() -> ASGIApp:
            from p2pnode.api.application import Application

            return Application(self._service, port=self.port, token=token)

        self._server = HttpServer(application, listener, self._service.node.network.run_blocking)
        card = {"port": self.port, "token": token, "pid": os.getpid()}
        try:
            self._home.write_api_card(json.dumps(card).encode() + b"\n")
        except P2PError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening, cut off who is left after a second, remove the token. Harmless when not started."""
        with contextlib.suppress(OSError):
            self._home.api.unlink(missing_ok=True)
        if self._server is not None:
            await self._server.stop()
            self._server = None
