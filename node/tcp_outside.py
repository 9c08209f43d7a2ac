"""How our TCP port looks from outside, for a hole punch: told by a node that takes links, over one connection.

The connection is kept while punches may need it: the router's mapping lives with it, and the same two ends cannot be
connected twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from p2pnode.core.address import Address
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.nat import TlsChannel, client_context
from p2pnode.nat.link_wire import FrameReader, read_greeting_untrusted

__all__ = ["TcpOutside"]

KEPT_S = 10.0  # since it was last needed: above what a punch takes


class TcpOutside:
    """Of one port."""

    def __init__(
        self, network: Network, port: Callable[[], int], open_untrusted: Callable[[bytes], bytes | None]
    ) -> None:
        """`open_untrusted`: of a private network's seal."""
        self._network, self._port, self._open_untrusted = network, port, open_untrusted
        self._seen: Address | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()
        self._tasks = TaskSet()

    async def ask(self, server: Address) -> Address:
        """Return our port's address as `server` sees it, or another one saw it lately. Raise P2PError, OSError."""
        async with self._asking:
            seen = self._seen
            if seen is None:
                seen = await self._ask(server)
            self._until = self._network.monotonic() + KEPT_S
        return seen

    async def stop(self) -> None:
        """Close the connection; the next `ask` makes another one."""
        await self._tasks.cancel()

    async def _ask(self, server: Address) -> Address:
        stream = await self._network.connect_tcp(server, local_port=self._port(), resets=True)
        channel = TlsChannel(stream, client_context(), server=False)
        try:
            await channel.handshake()
            reader = FrameReader()
            frames: list[bytes] = []
            while not frames:
                if not (data := await channel.read()):
                    raise ConnectionResetError("closed without a greeting")
                frames = reader.feed_untrusted(data)
            seen = read_greeting_untrusted(self._open_untrusted(frames[0]) or b"")[1]
        except BaseException:
            channel.close()
            raise
        self._seen = seen
        self._tasks.spawn(self._keep(channel))
        return seen

    async def _keep(self, channel: TlsChannel) -> None:
        try:
            while (left := self._until - self._network.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        if not await channel.read():
                            return
        except OSError:
            return
        finally:
            self._seen = None
            channel.close()
