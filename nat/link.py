"""A TLS link: a second carrier of the mux's datagrams, to one other node, where UDP does not pass.

To the mux it is a `DatagramSocket` for one address. Like UDP it drops what there is no room for, so QUIC inside slows
down, and nobody who does not read makes us keep more than `MAX_WAITING`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.nat.link_wire import ALIVE, FrameReader, link_frame
from p2pnode.nat.tls import TlsChannel

__all__ = ["Link"]

MAX_WAITING = 131_072  # bytes that wait for the TCP connection: 0.1 s of 10 Mbit/s
BATCH_BYTES = 16_384  # one TLS record
ALIVE_S = 10.0  # a client's sign of life after so long a silence
DEAD_S = 25.0  # a link on which nothing was heard for so long is over


class Link:
    """One link, made of a channel after its handshake. `run` carries until it ends."""

    def __init__(
        self, channel: TlsChannel, address: Address, *, server: bool, received: Callable[[bytes], None],
        seal: Callable[[bytes], bytes], open_untrusted: Callable[[bytes], bytes | None],
        peer: PeerId | None = None, where: str = "", proxied: bool = False,
    ) -> None:  # fmt: skip
        """`address`: what the far end is called here. `seal`, `open_untrusted`: of a private network, else nothing.
        For people: `peer`, whose it is, where TLS or a session has proven that; `where`: HOST:PORT of its TCP;
        `proxied`: an HTTP proxy carries it."""
        self.peer, self.where, self.proxied = peer, where, proxied
        self.local = Address("0.0.0.0", 0)
        self.address = address
        self.dropped = 0
        self.closed = False
        self.bytes_sent = self.bytes_received = 0
        self._channel = channel
        self._server = server
        self._received = received
        self._seal, self._open_untrusted = seal, open_untrusted
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self.began_at = self.heard_at = self.used_at = self._loop.time()

    def send(self, data: bytes, to: Address) -> None:  # noqa: ARG002 - of DatagramSocket; there is one far end only
        """Send one datagram to the far end. Never raises."""
        if data:
            self.used_at = self._loop.time()
            self._put(link_frame(self._seal(data)))

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send datagrams in order."""
        for data in datagrams:
            self.send(data, to)

    def ask(self) -> None:
        """Have the server show that it is there: it answers this at once, when nothing else waits."""
        self._put(ALIVE)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._wake.set()
            self._channel.close()

    async def run(self) -> None:
        """Carry datagrams until the link ends, whoever ends it. Raises nothing but cancellation."""
        tasks = [asyncio.ensure_future(each) for each in (self._read(), self._write(), self._watch())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.close()

    def _put(self, frame: bytes) -> None:
        if self.closed or self._size + len(frame) > MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(frame)
        self._size += len(frame)
        self._wake.set()

    async def _read(self) -> None:
        frames = FrameReader()
        while data := await self._channel.read():
            self.heard_at = self._loop.time()
            self.bytes_received += len(data)
            try:
                datagrams = frames.feed_untrusted(data)
            except BadPacket:
                return
            for sealed in datagrams:
                if not sealed:
                    if self._server and not self._waiting:
                        self._put(ALIVE)
                elif (datagram := self._open_untrusted(sealed)) is not None:
                    self._received(datagram)

    async def _write(self) -> None:
        while not self.closed:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                count = size = 0
                while count < len(self._waiting) and (not count or size + len(self._waiting[count]) <= BATCH_BYTES):
                    size += len(self._waiting[count])
                    count += 1
                batch = b"".join(self._waiting[:count])
                del self._waiting[:count]
                self._size -= size
                self.bytes_sent += size
                await self._channel.write(batch)

    async def _watch(self) -> None:
        """Notice a dead link; a client says at times that it is there."""
        while True:
            await asyncio.sleep(ALIVE_S)
            silent = self._loop.time() - self.heard_at
            if silent >= DEAD_S:
                return
            if not self._server and silent >= ALIVE_S / 2:
                self._put(ALIVE)
