"""`--metrics HOST:PORT`: the counters for a Prometheus server elsewhere, and nothing else.

Read only, without the control API's token, on an address that the operator chose: the page names no peer, no address,
no content.
"""

from __future__ import annotations

import socket

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from p2pnode import Address, Node, PortInUseError
from p2pnode.api.guard import SECURITY_HEADERS
from p2pnode.api.http import MAX_CONNECTIONS, HttpServer
from p2pnode.api.metrics import CONTENT_TYPE, metrics_text

__all__ = ["MetricsServer"]


class MetricsServer:
    """Serves `GET /metrics` of a node until `stop`."""

    def __init__(self, node: Node, address: Address) -> None:
        self._node, self.address = node, address
        self._server: HttpServer | None = None

    async def start(self) -> None:
        """Listen. Raise PortInUseError."""
        listener = socket.socket(socket.AF_INET6 if self.address.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or a restart waits for old connections
        try:
            listener.bind(tuple(self.address))
        except OSError as exc:
            listener.close()
            raise PortInUseError(
                f"Metrics cannot be served at {self.address}: {exc.strerror}. Name another with --metrics HOST:PORT.",
                address=str(self.address),
            ) from exc
        listener.listen(MAX_CONNECTIONS)
        self.address = self.address._replace(port=listener.getsockname()[1])
        self._server = HttpServer(lambda: _Page(self._node), listener, self._node.network.run_blocking)

    async def stop(self) -> None:
        """Harmless when not started."""
        if self._server is not None:
            await self._server.stop()
            self._server = None


class _Page:
    """The ASGI application: one page."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await self._answer(Request(scope, receive))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.url.path != "/metrics":
            return PlainTextResponse("Only /metrics is here.\n", 404, SECURITY_HEADERS)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("Only GET is answered.\n", 405, {**SECURITY_HEADERS, "allow": "GET, HEAD"})
        return Response(metrics_text(self._node), headers=SECURITY_HEADERS, media_type=CONTENT_TYPE)
