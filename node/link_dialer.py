"""TCP connections for links: straight from one port, or through an HTTP proxy."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Callable

from p2pnode.core.address import Address
from p2pnode.core.network import Network, TcpStream
from p2pnode.proxy import connect_request, parse_proxy, passes_by, read_reply_untrusted
from p2pnode.settings import NodeSettings

__all__ = ["LinkDialer"]


class LinkDialer:
    """`accepted`: whether any connection was, or a proxy answered."""

    def __init__(self, network: Network, settings: NodeSettings, port: Callable[[], int]) -> None:
        """`port`: from which links connect."""
        self._network = network
        self._proxy, self._no_proxy = parse_proxy(settings.proxy), settings.no_proxy
        self._port = port
        self._shared: weakref.WeakSet[TcpStream] = weakref.WeakSet()
        self._proxied: weakref.WeakSet[TcpStream] = weakref.WeakSet()
        self.accepted = False

    def from_our_port(self, stream: TcpStream) -> bool:
        return stream in self._shared

    def through_proxy(self, stream: TcpStream) -> bool:
        return stream in self._proxied

    async def dial(self, host: str, port: int, our_port: bool) -> tuple[TcpStream, str]:
        """Connect, through the proxy where there is one. Return the stream and the IP address of `host`, empty when
        only the proxy can find it."""
        found = await self._network.resolve(host, port)
        ip = found[0].ip if found else ""
        if self._proxy is None or passes_by(host, self._no_proxy):
            if not found:
                raise OSError("the host name is unknown here")
            stream = await self._first_of(found, our_port)
            self.accepted = True
            return stream, ip
        hops = await self._network.resolve(self._proxy.host, self._proxy.port)
        if not hops:
            raise OSError("the proxy's name is unknown here")
        stream = await self._first_of(hops, False)
        try:
            await stream.write(connect_request(host, port, self._proxy.authorization))
            reply = b""
            while (status := read_reply_untrusted(reply)) is None:
                more = await stream.read(1_024)
                if not more:
                    raise ConnectionResetError("the proxy hung up")
                reply += more
            self.accepted = True
            if not 200 <= status < 300:
                raise ConnectionRefusedError(f"the proxy answers {status}")
        except BaseException:
            stream.close()
            raise
        self._proxied.add(stream)
        return stream, ip

    async def _first_of(self, found: list[Address], our_port: bool) -> TcpStream:
        """Try one address after the other; the last error stands."""
        for last, address in zip(reversed(range(len(found))), found, strict=True):
            try:
                return await (self._from_our_port if our_port else self._network.connect_tcp)(address)
            except OSError:
                if not last:
                    raise
        raise OSError("no address")

    async def _from_our_port(self, to: Address) -> TcpStream:
        """Connect from one port to all, so that the router shows one to all (where it can) and a peer can punch."""
        try:
            stream = await self._network.connect_tcp(to, local_port=self._port())
            self._shared.add(stream)
            return stream
        except OSError as exc:
            if exc.errno not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                raise
            return await self._network.connect_tcp(to)  # the last connection to there still lingers
