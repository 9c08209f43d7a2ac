"""A file-like stream between two nodes: what arrived, whole or not, and how long nothing did."""

from __future__ import annotations

import asyncio
import hashlib

from p2pnode import Node, Session
from p2pnode.nat import Stream
from p2pnode.simulations.virtual import VirtualWorld

FILE = "p2pnode/test-file/1"


class Receiver:
    """Takes one file. `gap`: the longest time between two reads, seconds."""

    def __init__(self, world: VirtualWorld, node: Node) -> None:
        self.count = 0
        self.gap = 0.0
        self.done = asyncio.Event()
        self._world = world
        self._hash = hashlib.sha256()
        self._last: float | None = None
        self._wanted = 0
        self._enough = asyncio.Event()
        node.handle(FILE, self._take)

    async def reached(self, count: int) -> None:
        """Wait until so many bytes have come."""
        self._wanted = count
        self._enough.clear()
        if self.count < count:
            await self._enough.wait()

    def has(self, content: bytes) -> bool:
        """Whether exactly this arrived."""
        return self._hash.digest() == hashlib.sha256(content).digest()

    async def _take(self, _session: Session, stream: Stream) -> None:
        while data := await stream.read(65_536):
            now = self._world.loop.time()
            self.gap = max(self.gap, now - (self._last if self._last is not None else now))
            self._last = now
            self._hash.update(data)
            self.count += len(data)
            if self.count >= self._wanted:
                self._enough.set()
        self.done.set()


async def send_file(session: Session, content: bytes, *, pause: float = 0.0) -> None:
    """Send it in pieces of 8 KiB, with a pause before each."""
    stream = await session.open_stream(FILE)
    for start in range(0, len(content), 8192):
        if pause:
            await asyncio.sleep(pause)
        await stream.write(content[start : start + 8192])
    stream.finish()
