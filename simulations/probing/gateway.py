"""Does the gateway answer port-mapping protocols, and what does it call its outside address? Asks only; opens nothing.

NAT-PMP: RFC 6886, section 3.2. PCP: ANNOUNCE, RFC 6887, section 14.1. UPnP: a search by SSDP, to the gateway itself and
to the group (UPnP Device Architecture 1.1, section 1.3), then GetExternalIPAddress over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from dataclasses import dataclass

from p2pnode.core.address import Address, Scope, scope_of
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import DatagramSocket, Network
from p2pnode.nat import natpmp, pcp, upnp
from p2pnode.nat.gateway import CONTROL_PORT, MappingRefusedError
from p2pnode.nat.igd import http_ask
from p2pnode.simulations.probing.settings import ProbeSettings

__all__ = ["GatewayAnswers", "ask_gateway"]


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
    asked = _Questions(settings, gateway)
    socket = await network.open_udp(Address("0.0.0.0", 0), asked.received)
    try:
        await asked.wait(socket, own_ip)
        if asked.location is not None and asked.external_ip is None:
            with contextlib.suppress(MappingRefusedError, BadPacket, TimeoutError):
                async with asyncio.timeout(settings.wait_s):
                    asked.external_ip = await _upnp_external_ip(network, asked.location)
    finally:
        socket.close()
    return GatewayAnswers(asked.nat_pmp, asked.pcp, asked.location is not None, asked.external_ip)


class _Questions:
    def __init__(self, settings: ProbeSettings, gateway: str) -> None:
        self.nat_pmp = False
        self.pcp = False
        self.location: upnp.Endpoint | None = None
        self.external_ip: str | None = None
        self._settings = settings
        self._gateway = gateway
        self._all = asyncio.Event()

    async def wait(self, socket: DatagramSocket, own_ip: str) -> None:
        """Ask until all have answered or the time is up."""
        control, ssdp = Address(self._gateway, CONTROL_PORT), Address(self._gateway, upnp.SSDP_GROUP.port)
        for _ in range(self._settings.tries):
            if not self.nat_pmp:
                socket.send(natpmp.external_request(), control)
            if not self.pcp:
                socket.send(pcp.announce_request(own_ip), control)
            if self.location is None:
                socket.send(upnp.search_request(), ssdp)
                socket.send(upnp.search_request(), upnp.SSDP_GROUP)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.wait_s / self._settings.tries):
                    await self._all.wait()
                    return

    def received(self, data: bytes, source: Address) -> None:
        """Take an answer of the gateway's; others are none of our business."""
        if source.ip == self._gateway:
            with contextlib.suppress(BadPacket):
                self._take_untrusted(data, source.port == CONTROL_PORT)

    def _take_untrusted(self, data: bytes, of_control_port: bool) -> None:
        if not of_control_port:
            self.location = upnp.parse_search_answer_untrusted(data, self._gateway)
        elif data[:1] == bytes((pcp.VERSION,)):
            self.pcp = pcp.parse_answer_untrusted(data).result == pcp.SUCCESS or self.pcp
        else:
            told = natpmp.parse_answer_untrusted(data)
            if told.opcode == natpmp.EXTERNAL and told.result == natpmp.SUCCESS:
                self.nat_pmp, self.external_ip = True, told.external_ip
        if self.nat_pmp and self.pcp and self.location is not None:
            self._all.set()


async def _upnp_external_ip(network: Network, at: upnp.Endpoint) -> str | None:
    """Read the description, find the connection service, ask it. Raise MappingRefusedError, BadPacket."""
    described = await http_ask(network, at.address, upnp.get_request(at))
    service = upnp.parse_description_untrusted(described.body, at)
    return upnp.external_ip_untrusted(await http_ask(network, service.control.address, upnp.get_external_ip(service)))


def _guess(own_ip: str) -> str | None:
    """The first address of the own /24: what home routers use. A host with a public address has no such router."""
    if scope_of(own_ip) not in (Scope.PRIVATE, Scope.SHARED):
        return None
    network = ipaddress.IPv4Network(f"{own_ip}/24", strict=False)
    return None if str(network[1]) == own_ip else str(network[1])
