"""UPnP-IGD, the router's side: found by SSDP, described in XML, asked by SOAP over HTTP.

UPnP Device Architecture 1.1 (sections 1.3 "Search", 2 "Description", 3 "Control"), InternetGatewayDevice:1 and
WANIPConnection:1. Actions: AddPortMapping, DeletePortMapping, GetExternalIPAddress, GetSpecificPortMappingEntry,
GetGenericPortMappingEntry, GetStatusInfo. Hosts may map to themselves only, as miniupnpd's secure mode has it.
Not offered: eventing, NOTIFY announcements, other services, remote hosts other than any.
"""

from __future__ import annotations

import html
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.simulations.routers.grants import LINE_IS_DEAD, TAKEN, Grants
from p2pnode.simulations.routers.http import HttpRequest, response
from p2pnode.simulations.routers.openings import Opening
from p2pnode.simulations.routers.words import Protocol

__all__ = ["HTTP_PORT", "SSDP_GROUP", "SSDP_PORT", "UpnpGateway"]

# Fixed by the specification
SSDP_GROUP, SSDP_PORT = "239.255.255.250", 1900
_IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_WAN = "urn:schemas-upnp-org:device:WANDevice:1"
_CONNECTION = "urn:schemas-upnp-org:device:WANConnectionDevice:1"
_SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
_ERRORS = {
    401: "Invalid Action", 402: "Invalid Args", 501: "Action Failed", 606: "Action not authorized",
    713: "SpecifiedArrayIndexInvalid", 714: "NoSuchEntryInArray", 715: "WildCardNotPermittedInSrcIP",
    718: "ConflictInMappingEntry", 725: "OnlyPermanentLeasesSupported", 728: "NoPortMapsAvailable",
}  # fmt: skip

# Chosen by us, as miniupnpd has them
HTTP_PORT = 5000
_DESCRIPTION_PATH, _CONTROL_PATH = "/rootDesc.xml", "/ctl/IPConn"
_SERVER = "Router/1.0 UPnP/1.1 MiniUPnPd/2.3"
_MAX_SSDP_BYTES = 2048
_MAX_DESCRIPTION = 64


class _ActionError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class _Entry:
    protocol: Protocol
    outside_port: int


class UpnpGateway:
    """Answers searches and HTTP requests. `inside_ip`: where hosts find it."""

    def __init__(self, grants: Grants, inside_ip: str, *, seed: str) -> None:
        """`seed`: of the device's UUID."""
        self._grants = grants
        self._inside_ip = inside_ip
        self._udn = f"uuid:{uuid.uuid5(uuid.NAMESPACE_OID, seed)}"
        self._actions: dict[str, Callable[[float, Mapping[str, str], Address], dict[str, str]]] = {
            "AddPortMapping": self._add,
            "DeletePortMapping": self._delete,
            "GetExternalIPAddress": self._external_ip,
            "GetSpecificPortMappingEntry": self._specific,
            "GetGenericPortMappingEntry": self._generic,
            "GetStatusInfo": self._status,
        }

    # Discovery

    def search_untrusted(self, data: bytes) -> bytes | None:
        """Return the answer to an M-SEARCH that looks for us; None for everything else. Section 1.3.2, 1.3.3."""
        if len(data) > _MAX_SSDP_BYTES or not data.startswith(b"M-SEARCH * HTTP/1."):
            return None
        headers = _headers(data.decode("latin-1"))
        if headers.get("man") != '"ssdp:discover"':
            return None
        target = headers.get("st", "")
        known = ("upnp:rootdevice", self._udn, _IGD, _WAN, _CONNECTION, _SERVICE)
        if target == "ssdp:all":
            target = _IGD
        elif target not in known:
            return None
        name = self._udn if target == self._udn else f"{self._udn}::{target}"
        location = f"http://{self._inside_ip}:{HTTP_PORT}{_DESCRIPTION_PATH}"
        lines = (
            "HTTP/1.1 200 OK", "CACHE-CONTROL: max-age=120", f"ST: {target}", f"USN: {name}", "EXT:",
            f"SERVER: {_SERVER}", f"LOCATION: {location}", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode()

    # HTTP

    def answer_untrusted(self, now: float, request: HttpRequest, source: Address) -> bytes:
        """Return the HTTP answer to a request of a host."""
        if request.method == "GET" and request.path == _DESCRIPTION_PATH:
            return response(200, self._description())
        if request.path != _CONTROL_PATH:
            return response(404, "")
        if request.method != "POST":
            return response(405, "")
        service, _, name = request.headers.get("soapaction", "").strip('"').partition("#")
        try:
            action = self._actions.get(name)
            if service != _SERVICE or action is None:
                raise _ActionError(401)
            found = action(now, _arguments(request.body.decode("utf-8", "replace")), source)
        except _ActionError as error:
            return response(500, _fault(error.code))
        fields = "".join(f"<{key}>{html.escape(value)}</{key}>" for key, value in found.items())
        return response(200, _envelope(f'<u:{name}Response xmlns:u="{_SERVICE}">{fields}</u:{name}Response>'))

    def _description(self) -> str:
        service = (
            f"<service><serviceType>{_SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>"
            f"<controlURL>{_CONTROL_PATH}</controlURL><eventSubURL>/evt/IPConn</eventSubURL>"
            "<SCPDURL>/WANIPCn.xml</SCPDURL></service>"
        )
        inner = self._device(_CONNECTION, "Connection", f"<serviceList>{service}</serviceList>")
        middle = self._device(_WAN, "WAN", f"<deviceList>{inner}</deviceList>")
        root = self._device(_IGD, "Router", f"<deviceList>{middle}</deviceList>")
        return (
            '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
            f"<specVersion><major>1</major><minor>1</minor></specVersion>{root}</root>"
        )

    def _device(self, kind: str, name: str, rest: str) -> str:
        return (
            f"<device><deviceType>{kind}</deviceType><friendlyName>{name}</friendlyName>"
            f"<manufacturer>simulated</manufacturer><modelName>{name}</modelName><UDN>{self._udn}</UDN>{rest}</device>"
        )

    # Actions

    def _add(self, now: float, arguments: Mapping[str, str], source: Address) -> dict[str, str]:
        entry = _entry(arguments)
        inside = Address(_ip(arguments), _number(arguments, "NewInternalPort", 1, 65535))
        seconds = _number(arguments, "NewLeaseDuration", 0, 0xFFFFFFFF)
        if inside.ip != source.ip:
            raise _ActionError(606)
        if seconds and not self._grants.router.kind.upnp_leases:
            raise _ActionError(725)
        text = arguments.get("NewPortMappingDescription", "")[:_MAX_DESCRIPTION]
        made = self._grants.open(
            now, entry.protocol, inside, entry.outside_port, seconds, by="upnp", only_wanted=True, description=text,
            enabled=arguments.get("NewEnabled", "1").strip().lower() in ("1", "true", "yes"),
        )  # fmt: skip
        if isinstance(made, str):
            raise _ActionError(718 if made == TAKEN else 501 if made == LINE_IS_DEAD else 728)
        return {}

    def _delete(self, now: float, arguments: Mapping[str, str], source: Address) -> dict[str, str]:
        opening = self._find(now, arguments, source)
        if opening.internal.ip != source.ip:
            raise _ActionError(606)
        self._grants.close(opening)
        return {}

    def _external_ip(self, _now: float, _arguments: Mapping[str, str], source: Address) -> dict[str, str]:
        return {"NewExternalIPAddress": self._grants.external_ip(source.ip) or ""}

    def _specific(self, now: float, arguments: Mapping[str, str], source: Address) -> dict[str, str]:
        return _shown(self._find(now, arguments, source), now)

    def _generic(self, now: float, arguments: Mapping[str, str], _source: Address) -> dict[str, str]:
        index = _number(arguments, "NewPortMappingIndex", 0, 65535)
        living = self._grants.router.openings.living(now)
        if index >= len(living):
            raise _ActionError(713)
        opening = living[index]
        where = {"NewRemoteHost": "", "NewExternalPort": str(opening.external.port),
                 "NewProtocol": opening.protocol.upper()}  # fmt: skip
        return {**where, **_shown(opening, now)}

    def _status(self, now: float, _arguments: Mapping[str, str], _source: Address) -> dict[str, str]:
        status = "Connected" if self._grants.router.kind.line else "Disconnected"
        return {"NewConnectionStatus": status, "NewLastConnectionError": "ERROR_NONE",
                "NewUptime": str(self._grants.epoch(now))}  # fmt: skip

    def _find(self, now: float, arguments: Mapping[str, str], source: Address) -> Opening:
        entry = _entry(arguments)
        router = self._grants.router
        external = Address(router.outside_ip_of(source.ip), entry.outside_port)
        opening = router.openings.at(now, entry.protocol, external)
        if opening is None:
            raise _ActionError(714)
        return opening


def _entry(arguments: Mapping[str, str]) -> _Entry:
    if arguments.get("NewRemoteHost", "").strip() not in ("", "*", "0.0.0.0"):
        raise _ActionError(715)
    protocols: dict[str, Protocol] = {"UDP": "udp", "TCP": "tcp"}
    protocol = protocols.get(arguments.get("NewProtocol", "").strip().upper())
    if protocol is None:
        raise _ActionError(402)
    return _Entry(protocol, _number(arguments, "NewExternalPort", 1, 65535))


def _number(arguments: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = arguments.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise _ActionError(402)
    return int(text)


def _ip(arguments: Mapping[str, str]) -> str:
    try:
        return str(ipaddress.IPv4Address(arguments.get("NewInternalClient", "").strip()))
    except ValueError:
        raise _ActionError(402) from None


def _shown(opening: Opening, now: float) -> dict[str, str]:
    return {
        "NewInternalPort": str(opening.internal.port),
        "NewInternalClient": opening.internal.ip,
        "NewEnabled": "1" if opening.enabled else "0",
        "NewPortMappingDescription": opening.description,
        "NewLeaseDuration": str(opening.remaining(now)),
    }


def _arguments(body: str) -> dict[str, str]:
    """Return the simple elements of a SOAP body: no XML parser sees a stranger's document (entities, depth)."""
    return {name: html.unescape(value) for name, value in re.findall(r"<(New\w{1,40})\b[^<>]*>([^<]*)</\1\s*>", body)}


def _headers(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}


def _envelope(body: str) -> str:
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        f's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{body}</s:Body></s:Envelope>'
    )


def _fault(code: int) -> str:
    return _envelope(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{code}</errorCode><errorDescription>{_ERRORS[code]}</errorDescription></UPnPError>"
        "</detail></s:Fault>"
    )
