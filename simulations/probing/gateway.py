"""Does the gateway answer port-mapping protocols, and what does it call its outside address? Asks only; opens nothing.

NAT-PMP: RFC 6886, section 3.2. PCP: ANNOUNCE, RFC 6887, section 14.1. UPnP: a search by SSDP, to the gateway itself and
to the group (UPnP Device Architecture 1.1, section 1.3), then GetExternalIPAddress over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from p2pnode.core.address import Address, Scope, scope_of
from p2pnode.core.network import DatagramSocket, Network
from p2pnode.simulations.probing.settings import ProbeSettings

__all__ = ["GatewayAnswers", "ask_gateway"]

# Fixed by the specifications
_CONTROL_PORT, _SSDP_PORT, _SSDP_GROUP = 5351, 1900, "239.255.255.250"
_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_SERVICE = re.compile(r"urn:schemas-upnp-org:service:WAN(?:IP|PPP)Connection:\d")
_MAX_HTTP_BYTES = 65_536
_SEARCH = (
    f'M-SEARCH * HTTP/1.1\r\nHOST: {_SSDP_GROUP}:{_SSDP_PORT}\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: {_DEVICE}\r\n\r\n'
).encode()


@dataclass(frozen=True)
class GatewayAnswers:
    """`external_ip`: what the gateway calls its outside address, None when it does not say."""

    nat_pmp: bool
    pcp: bool
    upnp: bool
    external_ip: str | None


async def ask_gateway(network: Network, settings: ProbeSettings, own_ip: str) -> GatewayAnswers | None:
    """Ask the gateway of the host whose address is `own_ip`; None when it has none that we know."""
    gateway = settings.gateway or _guess(own_ip)
    if gateway is None:
        return None
    asked = _Questions(network, settings, gateway)
    socket = await network.open_udp(Address("0.0.0.0", 0), asked.received)
    try:
        await asked.wait(socket, own_ip)
        if asked.location is not None and asked.external_ip is None:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(settings.wait_s):
                    asked.external_ip = await _upnp_external_ip(network, gateway, asked.location)
    finally:
        socket.close()
    return GatewayAnswers(asked.nat_pmp, asked.pcp, asked.location is not None, asked.external_ip)


class _Questions:
    def __init__(self, network: Network, settings: ProbeSettings, gateway: str) -> None:
        self.nat_pmp = False
        self.pcp = False
        self.location: str | None = None
        self.external_ip: str | None = None
        self._network = network
        self._settings = settings
        self._gateway = gateway
        self._all = asyncio.Event()

    async def wait(self, socket: DatagramSocket, own_ip: str) -> None:
        """Ask until all have answered or the time is up."""
        control, ssdp = Address(self._gateway, _CONTROL_PORT), Address(self._gateway, _SSDP_PORT)
        client = ipaddress.IPv6Address(f"::ffff:{own_ip}").packed
        for _ in range(self._settings.tries):
            if not self.nat_pmp:
                socket.send(bytes(2), control)
            if not self.pcp:
                socket.send(bytes((2, 0, 0, 0, 0, 0, 0, 0)) + client, control)
            if self.location is None:
                socket.send(_SEARCH, ssdp)
                socket.send(_SEARCH, Address(_SSDP_GROUP, _SSDP_PORT))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.wait_s / self._settings.tries):
                    await self._all.wait()
                    return

    def received(self, data: bytes, source: Address) -> None:
        """Take an answer of the gateway's; others are none of our business."""
        if source.ip != self._gateway:
            return
        if source.port == _CONTROL_PORT and len(data) == 12 and data[:4] == bytes((0, 128, 0, 0)):
            self.nat_pmp = True
            ip = ipaddress.IPv4Address(data[8:12])
            self.external_ip = None if ip.is_unspecified else str(ip)
        elif source.port == _CONTROL_PORT and len(data) >= 24 and data[:4] == bytes((2, 128, 0, 0)):
            self.pcp = True
        elif data.startswith(b"HTTP/1.1 200") and (found := re.search(rb"(?im)^location:[ \t]*(\S{1,200})\s*$", data)):
            self.location = found[1].decode("latin-1")
        if self.nat_pmp and self.pcp and self.location is not None:
            self._all.set()


async def _upnp_external_ip(network: Network, gateway: str, location: str) -> str | None:
    """Read the description, find the connection service, ask it. Raise OSError, ValueError."""
    description = await _http(network, gateway, location, "GET", "", "")
    for service in re.findall(r"<service>.*?</service>", description, re.DOTALL):
        kind, path = _SERVICE.search(service), re.search(r"<controlURL>\s*([^<\s]{1,200})\s*</controlURL>", service)
        if kind is None or path is None:
            continue
        body = (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
            's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
            f'<u:GetExternalIPAddress xmlns:u="{kind[0]}"/></s:Body></s:Envelope>'
        )
        answer = await _http(
            network,
            gateway,
            urljoin(location, path[1]),
            "POST",
            f'SOAPAction: "{kind[0]}#GetExternalIPAddress"\r\n',
            body,
        )
        found = re.search(r"<NewExternalIPAddress[^>]*>\s*([0-9.]{7,15})\s*<", answer)
        return str(ipaddress.IPv4Address(found[1])) if found else None
    return None


async def _http(network: Network, gateway: str, url: str, method: str, headers: str, body: str) -> str:
    """Return the whole answer as text. Raise OSError, ValueError when the URL leads elsewhere than to the gateway."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname != gateway:
        raise ValueError("not at the gateway")
    stream = await network.connect_tcp(Address(gateway, parts.port or 80))
    try:
        request = (
            f"{method} {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
            f'Content-Type: text/xml; charset="utf-8"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}'
        )
        await stream.write(request.encode())
        data = b""
        while len(data) < _MAX_HTTP_BYTES and (more := await stream.read(4096)):
            data += more
        return data.decode("utf-8", "replace")
    finally:
        stream.close()


def _guess(own_ip: str) -> str | None:
    """The first address of the own /24: what home routers use. A host with a public address has no such router."""
    if scope_of(own_ip) not in (Scope.PRIVATE, Scope.SHARED):
        return None
    network = ipaddress.IPv4Network(f"{own_ip}/24", strict=False)
    return None if str(network[1]) == own_ip else str(network[1])
