"""Routes: method, path, what they take and give; and how a failure becomes a status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

__all__ = ["Route", "status_of"]


@dataclass(frozen=True)
class Route:
    """One operation. `takes`: struct read from the query (GET, DELETE) or the body. `gives`: struct of the answer.

    `call(service, request)` is async and returns a `gives`; with `stream` it returns an async iterator of them.
    `gives` None: any JSON object (only the OpenAPI document itself), or with `text`, a media type, a string.
    """

    method: str
    path: str
    summary: str
    call: Callable[..., Any]
    takes: type[Struct] | None = None
    gives: type[Struct] | None = None
    stream: bool = False
    text: str = ""

    @property
    def in_query(self) -> bool:
        return self.method in ("GET", "DELETE")


_STATUS = {
    "invalid_peer": 400,
    "invalid_config": 400,
    "invalid_request": 400,
    "message_too_long": 413,
    "peer_not_found": 404,
    "not_found": 404,
    "refused": 403,
    "blocked": 403,
    "wrong_key": 403,
    "wrong_network": 403,
    "peer_offline": 502,
    "no_path": 502,
    "both_nats_random": 502,
    "udp_blocked": 502,
    "timeout": 504,
    "storage": 500,
    "corrupt_file": 500,
}


def status_of(code: str) -> int:
    """Return the HTTP status for a P2PError's code."""
    return _STATUS.get(code, 409)
