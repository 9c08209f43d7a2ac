"""Finds a gateway's UPnP service, and asks it: SSDP and HTTP around `upnp`.

Anybody on the LAN can answer a search sooner than the gateway, from the gateway's address too: datagrams prove nothing.
So an answer only names a place to look at. Places at another host count for nothing; those at the gateway's address are
asked side by side, by TCP, and the first that describes a connection service at this address is it. Nothing is followed
that leads elsewhere: no redirect, no name, no other scheme.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Gateway, Network
from p2pnode.core.tasks import TaskSet
from p2pnode.nat import upnp
from p2pnode.nat.portmap import MappingRefusedError

__all__ = ["ServiceSearch", "http_ask"]

log = structlog.get_logger(__name__)

SSDP_PORT = 1900  # UPnP Device Architecture 1.1, section 1.3
SEARCH_PAUSES_S = (1.5, 1.5)  # MX is 1: a device may wait for a second
HTTP_PATIENCE_S = 5.0
READ_BYTES = 4096
MAX_PLACES = 8  # asked in one search, of 64 KiB each at most; a router names one or two


class ServiceSearch:
    """One search at one gateway. `sent`: datagrams out; `asked`: places that were asked."""

    def __init__(self, network: Network, gateway: Gateway) -> None:
        self._network, self._gateway = network, gateway
        self.sent = 0
        self.asked: set[upnp.Endpoint] = set()
        self._tasks = TaskSet()
        self._searching, self._open = True, 0
        self._found: asyncio.Future[upnp.Service | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> upnp.Service | None:
        """Search: first the group is asked, then the gateway itself. Takes eight seconds at most."""
        try:
            socket = await self._network.open_udp(Address(self._gateway.local, 0), self._received)
        except OSError:
            return None
        try:
            for to, pause in zip((upnp.SSDP_GROUP, Address(self._gateway.ip, SSDP_PORT)), SEARCH_PAUSES_S, strict=True):
                socket.send(upnp.search_request(), to)
                self.sent += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        return await asyncio.shield(self._found)
            self._searching = False
            return await self._found if self._open else None
        finally:
            socket.close()
            await self._tasks.cancel()
            self._found.cancel()

    def _received(self, data: bytes, source: Address) -> None:
        if source.ip != self._gateway.ip or len(self.asked) >= MAX_PLACES:
            return
        with contextlib.suppress(BadPacket):
            place = upnp.parse_search_answer_untrusted(data, self._gateway.ip)
            if place not in self.asked:
                self.asked.add(place)
                self._open += 1
                self._tasks.spawn(self._look_at(place))

    async def _look_at(self, place: upnp.Endpoint) -> None:
        service = None
        try:
            answer = await http_ask(self._network, place.address, upnp.get_request(place))
            if answer.status == upnp.OK:
                service = upnp.parse_description_untrusted(answer.body, place)
        except (MappingRefusedError, BadPacket) as bad:
            log.debug("igd_place_is_none", place=str(place.address), reason=str(bad))
        finally:
            self._open -= 1
            done = service is not None or (not self._searching and not self._open)
            if done and not self._found.done():
                self._found.set_result(service)


async def http_ask(network: Network, to: Address, request: bytes) -> upnp.HttpAnswer:
    """Send one request; return the answer. Raise MappingRefusedError."""
    try:
        async with asyncio.timeout(HTTP_PATIENCE_S):
            stream = await network.connect_tcp(to)
            try:
                await stream.write(request)
                data = b""
                while True:
                    more = await stream.read(READ_BYTES)
                    data += more
                    answer = upnp.parse_http_untrusted(data, ended=not more)
                    if answer is not None:
                        return answer
            finally:
                stream.close()
    except (OSError, TimeoutError) as exc:
        raise MappingRefusedError("silent") from exc
    except BadPacket as exc:
        raise MappingRefusedError("malformed") from exc
