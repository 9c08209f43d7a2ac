"""HTTP CONNECT: a TCP connection through a proxy (RFC 9110, section 9.3.6), as HTTPS_PROXY and NO_PROXY name it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from p2pnode.core.address import split_host_port
from p2pnode.core.errors import BadPacket

__all__ = ["MAX_REPLY_BYTES", "Proxy", "connect_request", "parse_proxy", "passes_by", "read_reply_untrusted"]

MAX_REPLY_BYTES = 8_192
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")


@dataclass(frozen=True)
class Proxy:
    """`authorization`: of a user and password in its URL, base64; empty for none. `repr` does not show it."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port}>"


def parse_proxy(text: str) -> Proxy | None:
    """Read `http://[USER:PASSWORD@]HOST[:PORT]` or `HOST:PORT`; None for an empty text. Raise ValueError."""
    text = text.strip()
    if not text:
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http":
        raise ValueError(f"a proxy of kind {parts.scheme[:20]!r} is not known here; give http://HOST:PORT")
    host, port = split_host_port(parts.netloc.rpartition("@")[2], default_port=80)
    if not port or any(c.isspace() or not c.isprintable() for c in host):
        raise ValueError("the proxy is not http://HOST:PORT")
    secret = ""
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(host, port, base64.b64encode(secret.encode()).decode() if secret else "")


def passes_by(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY exempts a host: `*`, the host itself, or a domain that it belongs to."""
    host = host.lower().rstrip(".")
    for each in no_proxy.lower().split(","):
        name = each.strip().lstrip("*").lstrip(".").rstrip(".")
        if each.strip() == "*" or (name and (host == name or host.endswith("." + name))):
            return True
    return False


def connect_request(host: str, port: int, authorization: str) -> bytes:
    """Return what opens the tunnel."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if authorization:
        lines.append(f"Proxy-Authorization: Basic {authorization}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_reply_untrusted(data: bytes) -> int | None:
    """Return the status of a complete reply, None while it is not complete. Raise BadPacket: `bad_length`,
    `malformed`; also when something follows it, since the server speaks second in TLS."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) >= MAX_REPLY_BYTES:
            raise BadPacket("bad_length")
        return None
    match = _STATUS.match(data)
    if match is None or end + 4 != len(data):
        raise BadPacket("malformed")
    return int(match[1])
