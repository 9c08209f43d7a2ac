"""Who may speak to the control API: security.md Y1, written as a function of the request's head.

The listener is on 127.0.0.1, but every web page the user visits can make the browser send requests there, and under DNS
rebinding even with a name of its own in Host. So: the Host must be ours, a request that carries an Origin or comes from
another site is refused, the token must stand in a header (which no page can add without a CORS consent that we never
give), and bodies must be declared as JSON.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

__all__ = ["MAX_BODY_BYTES", "SECURITY_HEADERS", "Refusal", "judge"]

MAX_BODY_BYTES = 128 * 1024  # the longest legitimate body is one message of 15,000 bytes, escaped sixfold
SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Refusal(Exception):  # noqa: N818 - a verdict on a request, answered with its status
    """The request is refused: HTTP `status`, stable `code`, one sentence. `close`: and so is the connection."""

    def __init__(self, status: int, code: str, message: str, *, close: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.close = close


def judge(method: str, headers: Mapping[str, str], *, port: int, token: str) -> None:
    """Raise Refusal unless the request's head is that of our own client.

    `headers`: lower-case names. `port`: ours. `token`: the home's secret.
    """
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}")
    if headers.get("host", "").lower() not in hosts:
        raise Refusal(421, "wrong_host", "This Host is not served here.")
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refusal(403, "wrong_origin", "Requests from web pages are refused.")
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode()):
        raise Refusal(401, "unauthorized", "The token in the home's api.json is wanted as Authorization: Bearer.")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:12]) > MAX_BODY_BYTES:
        raise Refusal(413, "too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")
    if method in ("POST", "PATCH", "PUT"):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "wrong_content_type", "A body is application/json.")
