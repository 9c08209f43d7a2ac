"""As much HTTP/1.1 as a router's UPnP service speaks: one request, one answer, then the connection ends. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from p2pnode.core.errors import BadPacket

__all__ = ["HttpReader", "HttpRequest", "response"]

# Chosen by us: the largest AddPortMapping is below 2 kB.
MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 8192
_WORDS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


@dataclass(frozen=True)
class HttpRequest:
    """`headers`: by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class HttpReader:
    """Collects the bytes of one request."""

    def __init__(self) -> None:
        self._data = b""

    def feed_untrusted(self, data: bytes) -> HttpRequest | None:
        """Take more bytes; return the request when it is whole. Raise BadPacket for what is none or too long."""
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            if len(self._data) > MAX_HEADER_BYTES:
                raise BadPacket("too_long")
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(head) > MAX_HEADER_BYTES or len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadPacket("malformed")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 6 and int(length) <= MAX_BODY_BYTES):
            raise BadPacket("too_long")
        if len(rest) < int(length):
            return None
        path = words[1]
        if path.startswith("http://"):  # an absolute URI: RFC 9112, section 3.2.2
            path = "/" + path[7:].partition("/")[2]
        return HttpRequest(words[0], path, headers, rest[: int(length)])


def response(status: int, body: str) -> bytes:
    """Return an answer with an XML body."""
    data = body.encode()
    head = (
        f'HTTP/1.1 {status} {_WORDS[status]}\r\nContent-Type: text/xml; charset="utf-8"\r\n'
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data
