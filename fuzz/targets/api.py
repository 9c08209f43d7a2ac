"""The control API: bodies and queries of every route, through the real application; the operations do nothing.

Input: first byte chooses the route, the rest is its body, or its query string where it takes one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from functools import cache
from typing import Any, cast

from p2pnode import InvalidPeerError, parse_peer
from p2pnode.api import types
from p2pnode.api.application import ROUTES, Application
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from targets.base import Target

__all__ = ["TAKING", "TARGETS"]

PORT, TOKEN = 4747, "token"
HEADERS = [
    (b"host", f"127.0.0.1:{PORT}".encode()),
    (b"authorization", f"Bearer {TOKEN}".encode()),
    (b"content-type", b"application/json"),
]
TAKING = [route for route in ROUTES if route.takes is not None and not route.stream]


async def nothing(_service: object, request: Any) -> types.Done:
    """Do what every operation does first: look at the struct, and read the PEER in it."""
    if isinstance(getattr(request, "peer", None), str):
        with contextlib.suppress(InvalidPeerError):
            parse_peer(request.peer)
    return types.Done()


@cache
def application() -> Application:
    made = Application(cast("Service", None), port=PORT, token=TOKEN)
    made._routes = {(route.method, route.path): replace(route, call=nothing) for route in ROUTES}
    return made


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def in_target(query: bytes) -> bytes:
    """Percent-encode what h11 refuses in a request's target before the application sees it."""
    return b"".join(bytes((byte,)) if 0x21 <= byte <= 0x7E else b"%%%02X" % byte for byte in query)


async def answer(route: Route, content: bytes) -> tuple[int, bytes]:
    """Return (status, body) of one request."""
    in_query = route.in_query
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": route.method, "path": route.path, "raw_path": route.path.encode(),
        "query_string": in_target(content) if in_query else b"", "headers": HEADERS, "server": ("127.0.0.1", PORT),
    }  # fmt: skip
    parts = [] if in_query else [content[at : at + 4096] for at in range(0, len(content), 4096)]
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application()(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body


def read_request(data: bytes) -> tuple[int, bytes]:
    route = TAKING[(data[0] if data else 0) % len(TAKING)]
    return event_loop().run_until_complete(answer(route, data[1:]))


def hold_answer(_data: bytes, result: tuple[int, bytes]) -> None:
    """Done, or a refusal with a code: never a failure of ours."""
    status, body = result
    assert status in (200, 400, 413), (status, body)
    parsed = json.loads(body)
    assert parsed == {"done": True} if status == 200 else parsed["error"]["code"]


TARGETS = [Target("api_request", read_request, hold_answer, (), 4_000)]
