"""How public nodes let in by TLS whom UDP does not reach; docs/protocol/links.md."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection

import structlog

from p2pnode.core.address import Address, link_address
from p2pnode.core.errors import PortInUseError
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Cancel, Network, TcpStream
from p2pnode.core.sealed_network import sealing
from p2pnode.core.tasks import TaskSet
from p2pnode.link_gate import LinkGate, LinkLimits
from p2pnode.nat import Link, TlsChannel, UdpMux, server_context
from p2pnode.nat.link_wire import greeting

__all__ = ["HTTPS_PORT", "LinkServer"]

HTTPS_PORT = 443

log = structlog.get_logger(__name__)


class LinkServer:
    """All links of others to this node."""

    def __init__(
        self, *, key: NodeKey, network: Network, mux: UdpMux, addresses: Callable[[], tuple[Address, ...]],
        limits: LinkLimits | None = None,
    ) -> None:  # fmt: skip
        """`network`: as for `Links`. `addresses`: of ours, for greetings."""
        self._key = key
        self._network = network
        self._mux = mux
        self._addresses = addresses
        self._seal, self._open = sealing(network)
        self.gate: LinkGate[TcpStream] = LinkGate(limits or LinkLimits())
        self._public = False
        self._context: ssl.SSLContext | None = None
        self._listening: dict[Address, Cancel] = {}
        self._links: dict[Address, Link] = {}
        self._tasks = TaskSet()

    async def start(self, addresses: Collection[Address], *, public: bool) -> bool:
        """Serve links at these addresses; `public`: at the number of the UDP port, too. Return whether port 443 is
        among them. Raise P2PError."""
        if addresses:
            await self.listen(addresses)
        if public:
            await self.listen(self._mux.local, optional=True)
        return any(address.port == HTTPS_PORT for address in self._listening)

    def serve_if(self, public: bool) -> None:
        """Serve links at the number of the UDP port too, once strangers can dial us."""
        if public and not self._public:
            self._public = True
            self._tasks.spawn(self.listen(self._mux.local, optional=True))

    async def listen(self, addresses: Collection[Address], *, optional: bool = False) -> None:
        """Serve links at these addresses as well. `optional`: leave out what the system refuses. Raise P2PError."""
        if all(address in self._listening for address in addresses):
            return

        def accepted(stream: TcpStream) -> None:
            if self.gate.arrived(stream, stream.remote.ip, self._network.monotonic()):
                self._tasks.spawn(self._serve(stream))
            else:
                stream.close()

        for address in addresses:
            if address in self._listening:
                continue
            try:
                self._listening[address] = await self._network.listen_tcp(address, accepted)
            except OSError as exc:
                if optional:
                    log.info("link_port_refused", address=str(address), why=exc.strerror)
                    continue
                raise PortInUseError(
                    f"The system does not allow TCP at {address} ({exc.strerror}); choose another with --tcp.",
                    address=str(address),
                ) from exc

    def context(self) -> ssl.SSLContext:
        """Of TLS's server side, made when first needed: 3 ms."""
        if self._context is None:
            self._context = server_context(self._key, self._network.token_bytes)
        return self._context

    def links(self) -> list[Link]:
        return list(self._links.values())

    def listening(self) -> tuple[Address, ...]:
        return tuple(self._listening)

    async def _serve(self, stream: TcpStream) -> None:
        channel: TlsChannel | None = None
        address = link_address(stream.remote)
        try:
            channel = TlsChannel(stream, self.context(), server=True)
            async with asyncio.timeout(self.gate.limits.handshake_s):
                await channel.handshake()
            stays, loser = self.gate.opened(stream)
            if loser is not None:
                loser.close()
            if not stays:
                return
            link = Link(
                channel, address, server=True, received=lambda data: self._mux.received(data, address),
                seal=self._seal, open_untrusted=self._open, where=str(stream.remote),
            )  # fmt: skip
            self._links[address] = link
            self._mux.adopt(address, link)
            port = self._mux.local[0].port if self._mux.local else 0
            link.send(greeting(port, stream.remote, self._addresses()), address)
            try:
                await link.run()
            finally:
                if self._links.get(address) is link:
                    del self._links[address]
                self._mux.release(address, link)
        except (OSError, TimeoutError):
            self.gate.refused["handshake"] += 1
        finally:
            self.gate.left(stream)
            (channel or stream).close()

    async def stop(self) -> None:
        for cancel in self._listening.values():
            cancel()
        self._listening.clear()
        await self._tasks.cancel()
        for link in list(self._links.values()):
            link.close()
