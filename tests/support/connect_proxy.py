"""A small HTTP proxy that knows CONNECT, to port 443 only as is usual, on a host of the virtual network."""

from __future__ import annotations

import asyncio
import base64

from p2pnode.core.address import Address
from p2pnode.core.network import TcpStream
from p2pnode.core.tasks import TaskSet
from p2pnode.simulations.virtual import VirtualNetwork

PORT = 3128


class ConnectProxy:
    """`tunnels`: where it was asked to connect to, by users who gave the right password."""

    def __init__(self, network: VirtualNetwork, secret: str) -> None:
        self.tunnels: list[str] = []
        self._network = network
        self._secret = base64.b64encode(secret.encode())
        self._tasks = TaskSet()

    @classmethod
    async def open(cls, network: VirtualNetwork, secret: str) -> ConnectProxy:
        """`secret`: USER:PASSWORD."""
        proxy = cls(network, secret)
        await network.listen_tcp(Address("0.0.0.0", PORT), proxy._accept)
        return proxy

    def _accept(self, stream: TcpStream) -> None:
        self._tasks.spawn(self._serve(stream))

    async def _serve(self, stream: TcpStream) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.read(1024)
        if b"Proxy-Authorization: Basic " + self._secret not in request.split(b"\r\n"):
            await stream.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            stream.close()
            return
        target = request.split()[1].decode()
        if not target.endswith(":443"):
            await stream.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            stream.close()
            return
        self.tunnels.append(target)
        try:
            far = await self._network.connect_tcp(Address.parse(target))
        except OSError:
            await stream.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            stream.close()
            return
        await stream.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(stream, far), _copy(far, stream))


async def _copy(source: TcpStream, target: TcpStream) -> None:
    try:
        while data := await source.read(16_384):
            await target.write(data)
    except OSError:
        pass
    target.close()
