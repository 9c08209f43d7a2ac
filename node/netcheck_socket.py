"""A UDP socket of its own to measure from: the node's has sent to so many that routers let everything in."""

from __future__ import annotations

import asyncio
import contextlib

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, P2PError
from p2pnode.core.network import DatagramSocket, Network
from p2pnode.dht.wire import parse_dialled_untrusted
from p2pnode.nat import StunClient

__all__ = ["Subject"]

MAX_NONCES = 64


class Subject:
    """`sent`: datagrams out; `strays`: in, that nobody waited for; `arrived`: where each expected frame came from."""

    def __init__(self, network: Network) -> None:
        self.sent = self.strays = 0
        self.arrived: dict[bytes, Address] = {}
        self._network = network
        self._expected: set[bytes] = set()
        self._news = asyncio.Event()
        self._stun = StunClient(network, self.send)
        self._socket: DatagramSocket

    @classmethod
    async def open(cls, network: Network, ip: str, *, whole: bool = False) -> Subject:
        """Bind to a free port of `ip`, as the node is; `whole`: for packets that nobody may fragment. Raise OSError."""
        made = cls(network)
        made._socket = await network.open_udp(Address(ip, 0), made._received, whole=whole)
        return made

    @property
    def port(self) -> int:
        return self._socket.local.port

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes, to: Address) -> None:
        self.sent += 1
        self._socket.send(data, to)

    async def ask(self, server: Address, wait_s: float, *, size: int | None = None) -> Address | None:
        """Return as whom `server` sees this socket, None after silence. `size`: one request of so many bytes."""
        with contextlib.suppress(P2PError):
            if size is None:
                return await self._stun.query(server, wait_s)
            return await self._stun.query(server, wait_s, size=size, once=True)
        return None

    def expect(self, nonce: bytes) -> None:
        """A frame with this nonce may come."""
        if len(self._expected) < MAX_NONCES:
            self._expected.add(nonce)

    async def wait_for(self, nonces: set[bytes], timeout: float, *, all_of_them: bool) -> None:
        """Wait until one or all of the nonces have come, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not (nonces <= self.arrived.keys() if all_of_them else nonces & self.arrived.keys()):
                    self._news.clear()
                    await self._news.wait()

    def _received(self, data: bytes, source: Address) -> None:
        if self._stun.datagram_received(data, source):
            return
        try:
            nonce = parse_dialled_untrusted(data)
        except BadPacket:
            nonce = b""
        if nonce not in self._expected:
            self.strays += 1
        elif nonce not in self.arrived:
            self.arrived[nonce] = source
            self._news.set()
