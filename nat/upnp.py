"""UPnP-IGD, the host's side: what is sent, and what is read out of the answers. Pure.

UPnP Device Architecture 1.1, sections 1.3 "Search", 2 "Description" and 3 "Control"; WANIPConnection:1 and :2,
WANPPPConnection:1. Found by SSDP (HTTP over UDP), described in XML, asked by SOAP over HTTP.

No XML parser sees these documents: entities, depth and namespaces are where parsers are attacked, and the few elements
that we need have plain text inside. They are taken out by searching forward once, so that reading is linear; a URL must
lead to the gateway's own address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket

__all__ = [
    "CONFLICT",
    "MAX_HTTP_BYTES",
    "OK",
    "ONLY_PERMANENT",
    "SSDP_GROUP",
    "Endpoint",
    "HttpAnswer",
    "Service",
    "add_mapping",
    "delete_mapping",
    "external_ip_untrusted",
    "get_external_ip",
    "get_mapping",
    "get_request",
    "mapped_to_untrusted",
    "parse_description_untrusted",
    "parse_http_untrusted",
    "parse_search_answer_untrusted",
    "search_request",
]

# Fixed by the specification
SSDP_GROUP = Address("239.255.255.250", 1900)
CONFLICT, ONLY_PERMANENT = 718, 725
OK = 200
_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_SERVICES = tuple(f"urn:schemas-upnp-org:service:{name}" for name in
                  ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1"))  # fmt: skip
# Chosen by us: descriptions of real routers have 2 to 20 kB
MAX_HTTP_BYTES = 65_536
_MAX_HEAD_BYTES = 8192
_MAX_CHUNKS = 256  # what has arrived is read anew with each segment, which a hostile one makes as short as it likes
_MAX_SSDP_BYTES = 2048
_MAX_PATH = 200
_MAX_SERVICES = 64
_SAFE_URL = re.compile(r"[!-~]{1,300}")  # visible ASCII: nothing that could end a line of ours
_DESCRIPTION = "p2pnode"  # what people see in the router's list


@dataclass(frozen=True)
class Endpoint:
    """A URL at the gateway."""

    address: Address
    path: str


@dataclass(frozen=True)
class Service:
    """A connection service: which, and where it is asked."""

    kind: str
    control: Endpoint


@dataclass(frozen=True)
class HttpAnswer:
    """`error`: UPnP's error code out of a fault, 0 for none."""

    status: int
    body: str
    error: int = 0


def search_request() -> bytes:
    """Look for a gateway; devices of version 2 answer as well (section 1.3.2)."""
    return (
        f'M-SEARCH * HTTP/1.1\r\nHOST: {SSDP_GROUP}\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: {_DEVICE}\r\n\r\n'
    ).encode()


def parse_search_answer_untrusted(data: bytes, gateway_ip: str) -> Endpoint:
    """Return where the gateway describes itself. Raise BadPacket: `malformed`, `not_at_gateway`."""
    if len(data) > _MAX_SSDP_BYTES or not data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise BadPacket("malformed")
    for line in data.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"location":
            return _endpoint_untrusted(value.strip().decode("latin-1"), gateway_ip)
    raise BadPacket("malformed")


def get_request(at: Endpoint) -> bytes:
    return f"GET {at.path} HTTP/1.1\r\nHost: {at.address}\r\nConnection: close\r\n\r\n".encode()


def parse_http_untrusted(data: bytes, *, ended: bool = False) -> HttpAnswer | None:
    """Read a whole answer; None while more has to come. Raise BadPacket: `malformed`, `too_long`.

    `ended`: nothing more comes; a body without a length ends there.
    """
    if len(data) > MAX_HTTP_BYTES:
        raise BadPacket("too_long")
    head, end, body = data.partition(b"\r\n\r\n")
    if len(head) > _MAX_HEAD_BYTES:
        raise BadPacket("too_long")
    if not end:
        if ended:
            raise BadPacket("malformed")
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.fullmatch(r"HTTP/1\.[01] (\d{3})(?: .*)?", first)
    if status is None:
        raise BadPacket("malformed")
    headers = {name.strip().lower(): value.strip().lower() for name, _, value in (x.partition(":") for x in lines)}
    if headers.get("transfer-encoding") == "chunked":
        joined = _dechunked_untrusted(body)
    elif "content-length" in headers:
        length = _number_untrusted(headers["content-length"], MAX_HTTP_BYTES)
        joined = body[:length] if len(body) >= length else None
    else:
        joined = body if ended else None
    if joined is None:
        if ended:
            raise BadPacket("malformed")
        return None
    text = joined.decode("utf-8", "replace")
    code = next(_elements(text, "errorCode"), "0").strip()
    return HttpAnswer(int(status[1]), text, int(code) if re.fullmatch(r"[0-9]{1,4}", code) else 0)


def parse_description_untrusted(text: str, at: Endpoint) -> Service:
    """Return the connection service of a description that was read at `at`; versions 2 before 1, IP before PPP.

    Raise BadPacket: `no_service`, `not_at_gateway`, `malformed`.
    """
    base = next(_elements(text, "URLBase"), "").strip() or f"http://{at.address}{at.path}"
    found: dict[str, str] = {}
    for number, service in enumerate(_elements(text, "service")):
        if number >= _MAX_SERVICES:
            break
        kind, path = (next(_elements(service, name), "").strip() for name in ("serviceType", "controlURL"))
        if kind in _SERVICES and path:
            found.setdefault(kind, path)
    for kind in _SERVICES:
        if kind in found:
            import html  # its table of names is half a megabyte, and most nodes have no such router

            if not _SAFE_URL.fullmatch(found[kind]):  # a reference to a character with 5,000 digits is a ValueError
                raise BadPacket("malformed")
            path = html.unescape(found[kind])
            if not _SAFE_URL.fullmatch(path):
                raise BadPacket("malformed")
            try:
                url = urljoin(base, path)
            except ValueError as exc:
                raise BadPacket("malformed") from exc
            return Service(kind, _endpoint_untrusted(url, at.address.ip))
    raise BadPacket("no_service")


def get_external_ip(service: Service) -> bytes:
    return _action(service, "GetExternalIPAddress")


def add_mapping(service: Service, external_port: int, internal: Address, lifetime_s: int) -> bytes:
    """Map a UDP port. `lifetime_s` 0: for ever, where the router knows nothing else (error 725)."""
    return _action(
        service, "AddPortMapping", NewRemoteHost="", NewExternalPort=str(external_port), NewProtocol="UDP",
        NewInternalPort=str(internal.port), NewInternalClient=internal.ip, NewEnabled="1",
        NewPortMappingDescription=_DESCRIPTION, NewLeaseDuration=str(lifetime_s),
    )  # fmt: skip


def delete_mapping(service: Service, external_port: int) -> bytes:
    return _action(
        service, "DeletePortMapping", NewRemoteHost="", NewExternalPort=str(external_port), NewProtocol="UDP"
    )


def get_mapping(service: Service, external_port: int) -> bytes:
    return _action(
        service, "GetSpecificPortMappingEntry", NewRemoteHost="", NewExternalPort=str(external_port), NewProtocol="UDP"
    )


def mapped_to_untrusted(answer: HttpAnswer) -> Address | None:
    """Return the inside address out of an answer to GetSpecificPortMappingEntry; None when nothing is mapped."""
    client, port = (next(_elements(answer.body, name), "").strip() for name in ("NewInternalClient", "NewInternalPort"))
    try:
        ip = ipaddress.IPv4Address(client)
    except ValueError:
        return None
    return Address(str(ip), int(port)) if re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65_535 else None


def external_ip_untrusted(answer: HttpAnswer) -> str | None:
    """Return the address out of an answer to GetExternalIPAddress; None when the router has none."""
    text = next(_elements(answer.body, "NewExternalIPAddress"), "").strip()
    try:
        ip = ipaddress.IPv4Address(text)
    except ValueError:
        return None
    return None if ip.is_unspecified else str(ip)


def _action(service: Service, name: str, **arguments: str) -> bytes:
    """Section 3.2.1: arguments in the order of the service's description."""
    import html

    inner = "".join(f"<{key}>{html.escape(value)}</{key}>" for key, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{name} xmlns:u="{service.kind}">{inner}</u:{name}></s:Body></s:Envelope>\r\n'
    )
    return (
        f"POST {service.control.path} HTTP/1.1\r\nHost: {service.control.address}\r\n"
        f'SOAPAction: "{service.kind}#{name}"\r\nContent-Type: text/xml; charset="utf-8"\r\n'
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


def _elements(text: str, name: str) -> Iterator[str]:
    """Yield the insides of the elements of this name, whatever their prefix, in order; linear in the text's length."""
    at = 0
    opening = re.compile(rf"<(?:[A-Za-z][\w.-]{{0,20}}:)?{name}(?:\s[^<>]{{0,200}})?>")
    closing = re.compile(rf"</(?:[A-Za-z][\w.-]{{0,20}}:)?{name}\s{{0,8}}>")
    while (begin := opening.search(text, at)) is not None:
        end = closing.search(text, begin.end())
        if end is None:
            return
        yield text[begin.end() : end.start()]
        at = end.end()


def _endpoint_untrusted(url: str, gateway_ip: str) -> Endpoint:
    """Raise BadPacket: `malformed`, `not_at_gateway`."""
    if not _SAFE_URL.fullmatch(url):  # urlsplit would silently take tabs and line ends out
        raise BadPacket("malformed")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as exc:
        raise BadPacket("malformed") from exc
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme != "http" or len(path) > _MAX_PATH or not path.startswith("/"):
        raise BadPacket("malformed")
    if host != gateway_ip:
        raise BadPacket("not_at_gateway")
    return Endpoint(Address(gateway_ip, port), path)


def _number_untrusted(text: str, most: int, base: int = 10) -> int:
    if not re.fullmatch(r"[0-9a-f]{1,8}" if base == 16 else r"[0-9]{1,8}", text) or int(text, base) > most:
        raise BadPacket("too_long")
    return int(text, base)


def _dechunked_untrusted(body: bytes) -> bytes | None:
    """RFC 9112, section 7.1. None while more has to come."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\r\n", at, at + 64)
        if end < 0:
            if len(body) - at > 64:
                raise BadPacket("malformed")
            return None
        size = _number_untrusted(body[at:end].partition(b";")[0].strip().lower().decode("latin-1"), MAX_HTTP_BYTES, 16)
        if size == 0:
            return b"".join(parts)
        if len(parts) == _MAX_CHUNKS:
            raise BadPacket("too_long")
        chunk = body[end + 2 : end + 2 + size]
        if len(chunk) < size or len(body) < end + 4 + size:
            return None
        parts.append(chunk)
        at = end + 4 + size
