"""The public side of the probes: answers from two addresses and two ports each, and over TCP.

RFC 5780, section 6 "Server Behavior"; over TCP plain binding requests, RFC 8489, section 6.2.2 "Sending over TCP or
TLS-over-TCP". For simulations and laboratories: it answers anybody without limit.
"""

from __future__ import annotations

import asyncio
import contextlib

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Cancel, DatagramHandler, DatagramSocket, Network, TcpStream
from p2pnode.simulations.probing.messages import (
    CHANGE_IP,
    CHANGE_PORT,
    answer,
    parse_request_untrusted,
)
from p2pnode.simulations.probing.settings import ProbeServers

__all__ = ["ProbeServer", "read_message"]

_HEADER_BYTES = 20
_MAX_TCP_BYTES = 1200
_TCP_PATIENCE_S = 30.0
Place = tuple[bool, int, int]
"""IPv6 or not, number of the address, number of the port."""


class ProbeServer:
    """Made by `open`."""

    def __init__(self, servers: ProbeServers) -> None:
        self.servers = servers
        self.answered = 0
        self.bad = 0
        self._sockets: dict[Place, DatagramSocket] = {}
        self._listeners: list[Cancel] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, network: Network, servers: ProbeServers) -> ProbeServer:
        """Bind everything on a host that has all these addresses. Raise OSError."""
        made = cls(servers)
        try:
            for ipv6, ips in ((False, servers.ips), (True, servers.ips6)):
                for i in range(len(ips)):
                    for j in range(len(servers.ports)):
                        place = (ipv6, i, j)
                        local = servers.at(i, j, ipv6=ipv6)
                        made._sockets[place] = await network.open_udp(local, made._handler(place))
            for port in servers.tcp_ports:
                made._listeners.append(await network.listen_tcp(Address(servers.ips[0], port), made._accept))
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Twice is harmless."""
        for socket in self._sockets.values():
            socket.close()
        for cancel in self._listeners:
            cancel()
        for task in self._tasks:
            task.cancel()

    def _handler(self, place: Place) -> DatagramHandler:
        def received(data: bytes, source: Address) -> None:
            self._received(place, data, source)

        return received

    def _received(self, place: Place, data: bytes, source: Address) -> None:
        try:
            asked = parse_request_untrusted(data)
        except BadPacket:
            self.bad += 1
            return
        ipv6, i, j = place
        answering = self._sockets[ipv6, i ^ bool(asked.change & CHANGE_IP), j ^ bool(asked.change & CHANGE_PORT)]
        answering.send(answer(asked, source), Address(source.ip, asked.response_port or source.port))
        self.answered += 1

    def _accept(self, stream: TcpStream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: TcpStream) -> None:
        with contextlib.suppress(OSError, TimeoutError, BadPacket):
            async with asyncio.timeout(_TCP_PATIENCE_S):
                while (data := await read_message(stream)) is not None:
                    await stream.write(answer(parse_request_untrusted(data), stream.remote))
                    self.answered += 1
        stream.close()


async def read_message(stream: TcpStream) -> bytes | None:
    """Read one STUN message from a stream; None at its end. Raise OSError, BadPacket when it is too long."""
    data = b""
    wanted = _HEADER_BYTES
    while len(data) < wanted:
        more = await stream.read(wanted - len(data))
        if not more:
            return None
        data += more
        if len(data) == _HEADER_BYTES:
            wanted = _HEADER_BYTES + int.from_bytes(data[2:4], "big")
            if wanted > _MAX_TCP_BYTES:
                raise BadPacket("too_long")
    return data
