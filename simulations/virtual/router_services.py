"""What a router itself answers on its LAN: NAT-PMP and PCP on UDP port 5351, UPnP by SSDP and HTTP.

The protocols are in `simulations/routers`; here are their sockets. Each datagram is answered at once, HTTP by a task of
the router's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import DatagramHandler, TcpStream
from p2pnode.simulations.routers import natpmp, pcp, upnp
from p2pnode.simulations.routers.grants import Grants
from p2pnode.simulations.routers.http import HttpReader
from p2pnode.simulations.virtual.sockets import VirtualDatagramSocket, VirtualMulticastSocket

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.router import VirtualRouter

__all__ = ["RouterServices"]

# Fixed by the specification: RFC 6886, section 3.2.1, and RFC 6887, section 14.1.1: ten times, the pause doubled
_ANNOUNCEMENTS, _FIRST_PAUSE_S = 10, 0.25
# Chosen by us
_HTTP_PATIENCE_S = 30.0
_READ_BYTES = 4096


class RouterServices:
    """The port-mapping services of one router."""

    def __init__(self, router: VirtualRouter, inside6: str | None) -> None:
        kinds = router.kind.port_mapping
        self._router = router
        self._network = router.network()
        world, seed = router.world, f"{router.world.seed}/{router.name}"
        self._grants = Grants(router.model, random.Random(f"{seed}/openings"))
        self._natpmp = natpmp.NatPmp(self._grants) if "nat-pmp" in kinds else None
        self._pcp = pcp.Pcp(self._grants) if "pcp" in kinds else None
        self._upnp = upnp.UpnpGateway(self._grants, router.inside, seed=seed) if "upnp" in kinds else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._loop = world.loop
        if self._natpmp is not None or self._pcp is not None:
            for ip in (router.inside, inside6):
                if ip is not None:
                    self._open_port_control(Address(ip, natpmp.SERVER_PORT))
        if self._upnp is not None:
            self._open_upnp(self._upnp)

    def announce(self) -> None:
        """Tell the hosts that everything was forgotten."""
        for timer in self._timers:
            timer.cancel()
        at, pause = 0.0, _FIRST_PAUSE_S
        self._timers = []
        for _ in range(_ANNOUNCEMENTS):
            self._timers.append(self._loop.call_later(at, self._announce_now))
            at, pause = at + pause, 2 * pause

    def _announce_now(self) -> None:
        router, now = self._router, self._loop.now()
        source = Address(router.inside, natpmp.SERVER_PORT)
        group = Address(natpmp.ANNOUNCE_GROUP, natpmp.CLIENT_PORT)
        if self._natpmp is not None:
            router.multicast(self._natpmp.external_address(now, router.inside), source, group)
        if self._pcp is not None:
            router.multicast(self._pcp.announcement(now), source, group)

    def _open_port_control(self, local: Address) -> None:
        socket: VirtualDatagramSocket

        def received(data: bytes, source: Address) -> None:
            with contextlib.suppress(BadPacket):
                answer = self._port_control_untrusted(data, source)
                if answer is not None:
                    socket.send(answer, source)

        socket = self._udp(local, received)

    def _port_control_untrusted(self, data: bytes, source: Address) -> bytes | None:
        """NAT-PMP and PCP share a port and differ by their first byte. RFC 6887, appendix A."""
        now = self._loop.now()
        if self._pcp is not None and (self._natpmp is None or data[:1] != bytes((natpmp.VERSION,))):
            return self._pcp.answer_untrusted(now, data, source)
        return self._natpmp.answer_untrusted(now, data, source) if self._natpmp is not None else None

    def _open_upnp(self, gateway: upnp.UpnpGateway) -> None:
        socket: VirtualDatagramSocket

        def searched(data: bytes, source: Address) -> None:
            answer = gateway.search_untrusted(data)
            if answer is not None:
                socket.send(answer, source)

        socket = self._udp(Address(self._router.inside, upnp.SSDP_PORT), searched)
        group = Address(upnp.SSDP_GROUP, upnp.SSDP_PORT)
        VirtualMulticastSocket(self._router, self._network.process, group, searched)
        local = Address(self._router.inside, upnp.HTTP_PORT)
        self._router.bind(local, self._router.tcp, (self._network.process, self._accepted))

    def _udp(self, local: Address, handler: DatagramHandler) -> VirtualDatagramSocket:
        return VirtualDatagramSocket(self._router, self._network.process, local, handler)

    def _accepted(self, stream: TcpStream) -> None:
        task = self._loop.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: TcpStream) -> None:
        reader, request = HttpReader(), None
        with contextlib.suppress(OSError, TimeoutError, BadPacket):
            async with asyncio.timeout(_HTTP_PATIENCE_S):
                while request is None and (data := await stream.read(_READ_BYTES)):
                    request = reader.feed_untrusted(data)
                if request is not None and self._upnp is not None:
                    await stream.write(self._upnp.answer_untrusted(self._loop.now(), request, stream.remote))
        stream.close()
