"""The control API as an ASGI application: the table of routes, and what becomes of a request.

Loaded with uvicorn and starlette when the first request comes (`http`): a node that nobody asks does without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from p2pnode import P2PError, Trace, __version__
from p2pnode.api.chat_routes import ROUTES as CHAT_ROUTES
from p2pnode.api.device_routes import ROUTES as DEVICE_ROUTES
from p2pnode.api.file_routes import ROUTES as FILE_ROUTES
from p2pnode.api.guard import MAX_BODY_BYTES, SECURITY_HEADERS, Refusal, judge
from p2pnode.api.hall_routes import ROUTES as HALL_ROUTES
from p2pnode.api.http import REQUEST_S
from p2pnode.api.keeping_routes import ROUTES as KEEPING_ROUTES
from p2pnode.api.name_routes import ROUTES as NAME_ROUTES
from p2pnode.api.netcheck_routes import ROUTES as NETCHECK_ROUTES
from p2pnode.api.node_routes import ROUTES as NODE_ROUTES
from p2pnode.api.node_routes import trace_entries
from p2pnode.api.openapi import document
from p2pnode.api.presence_routes import ROUTES as PRESENCE_ROUTES
from p2pnode.api.random_routes import ROUTES as RANDOM_ROUTES
from p2pnode.api.room_routes import ROUTES as ROOM_ROUTES
from p2pnode.api.routing import Route, status_of
from p2pnode.api.service import Service
from p2pnode.api.topic_routes import ROUTES as TOPIC_ROUTES
from p2pnode.api.types import ErrorAnswer, ErrorBody, TraceEntry

__all__ = ["ROUTES", "Application"]

log = structlog.get_logger(__name__)


async def openapi(_service: Service, _request: None) -> dict[str, Any]:
    """Return this document."""
    return document(ROUTES, version=__version__)


ROUTES: list[Route] = [
    *NODE_ROUTES,
    *CHAT_ROUTES,
    *FILE_ROUTES,
    *DEVICE_ROUTES,
    *HALL_ROUTES,
    *KEEPING_ROUTES,
    *TOPIC_ROUTES,
    *NETCHECK_ROUTES,
    *RANDOM_ROUTES,
    *PRESENCE_ROUTES,
    *ROOM_ROUTES,
    *NAME_ROUTES,
    Route("GET", "/v1/openapi.json", "The OpenAPI document", openapi),
]


class Application:
    """The ASGI application: guard, route, parse, call, answer."""

    def __init__(self, service: Service, *, port: int, token: str) -> None:
        self._service = service
        self._port = port
        self._token = token
        self._routes = {(r.method, r.path): r for r in ROUTES}
        self._paths = {r.path for r in ROUTES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            response = _failure(refusal.status, refusal.code, refusal.message, close=refusal.close)
        except P2PError as error:
            trace = error.facts.get("trace")
            entries = trace_entries(trace) if isinstance(trace, Trace) else None
            response = _failure(status_of(error.code), error.code, error.message, trace=entries)
        except Exception:  # the boundary: one request's failure is logged and must not end the node
            log.exception("request_failed", path=request.url.path)
            response = _failure(500, "failed", "The node could not do this; its log says why.")
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            judge(request.method, dict(request.headers), port=self._port, token=self._token)
        except Refusal as refusal:
            # Who does not know the token keeps no connection: a second request, never ended, would hold it for good.
            raise Refusal(refusal.status, refusal.code, refusal.message, close=True) from refusal
        route = self._routes.get((request.method, request.url.path))
        if route is None:
            if request.url.path in self._paths:
                raise Refusal(405, "wrong_method", "This path takes another method.")
            raise Refusal(404, "unknown_route", "There is nothing here; see /v1/openapi.json.")
        argument = await _read(route, request)
        if route.stream:
            stream = await route.call(self._service, argument)
            return StreamingResponse(_lines(stream), headers=SECURITY_HEADERS, media_type="application/x-ndjson")
        answer = await route.call(self._service, argument)
        if route.text:
            return Response(answer, headers=SECURITY_HEADERS, media_type=route.text)
        return Response(msgspec.json.encode(answer), headers=SECURITY_HEADERS, media_type="application/json")


async def _read(route: Route, request: Request) -> msgspec.Struct | None:
    if route.takes is None:
        return None
    try:
        if route.in_query:
            return msgspec.convert(dict(request.query_params), route.takes, strict=False)
        return msgspec.json.decode(await _body(request), type=route.takes)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError) as exc:
        raise Refusal(400, "invalid_request", f"{exc}.") from exc
    except RecursionError as exc:
        raise Refusal(400, "invalid_request", "The body is nested too deep.") from exc


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(REQUEST_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Refusal(413, "too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")
    except TimeoutError as exc:
        raise Refusal(408, "timeout", "The body did not arrive in time.") from exc
    return bytes(body)


async def _lines(stream: AsyncIterator[msgspec.Struct]) -> AsyncIterator[bytes]:
    async for item in stream:
        yield msgspec.json.encode(item) + b"\n"


def _failure(
    status: int, code: str, message: str, *, close: bool = False, trace: list[TraceEntry] | None = None
) -> Response:
    headers = dict(SECURITY_HEADERS)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if close or status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    data = msgspec.json.encode(ErrorAnswer(ErrorBody(code, message, trace)))
    return Response(data, status_code=status, headers=headers, media_type="application/json")
