"""One stream of gossip: what waits to be told, and what comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from p2pnode import PeerId
from p2pnode.chat.gossip.statements import Statement
from p2pnode.chat.gossip.wire import MAX_FRAME_BYTES, MAX_STATEMENTS, FrameBuffer, GossipFrame, Tell, encode
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort, StreamPort

__all__ = ["Talk"]


class Talk:
    """Both ends of a stream are alike; who opened it speaks of itself and asks."""

    def __init__(self, session: SessionPort, heard: Callable[[Talk, GossipFrame], None]) -> None:
        """`heard(talk, frame)`: takes a frame; raises BadPacket."""
        self.session = session
        self.entries: frozenset[bytes] = frozenset()
        """What the other side asked for: the entries that its tags make."""
        self._heard = heard
        self._waiting: dict[PeerId, Statement] = {}
        self._first: list[bytes] = []
        self._told: dict[PeerId, int] = {}
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()

    def say(self, frame: GossipFrame) -> None:
        """Send a frame before anything else that waits."""
        self._first.append(encode(frame))
        self._wake.set()

    def tell(self, statement: Statement) -> None:
        """Send a statement, unless this one or a newer one was; of a device only the newest waits."""
        if self._told.get(statement.device, -1) < statement.body.at:
            self._told[statement.device] = statement.body.at
            self._waiting[statement.device] = statement
            self._empty.clear()
            self._wake.set()

    async def told(self) -> None:
        """Wait until nothing waits to be told."""
        if self._waiting:
            await self._empty.wait()

    async def run(self, stream: StreamPort) -> None:
        """Until the stream ends. Raise BadPacket, what BROKEN names."""
        reader = asyncio.get_running_loop().create_task(self._read(stream), name=f"chat-gossip {self.session.peer}")
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not reader.done():
                await self._write(stream)
                self._empty.set()
                if not (self._waiting or self._first):
                    await self._wake.wait()
                self._wake.clear()
            reader.result()
            stream.finish()
        finally:
            self._empty.set()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, *BROKEN):
                await reader

    async def _write(self, stream: StreamPort) -> None:
        while self._first:
            await stream.write(self._first.pop(0))
        while self._waiting:
            devices = list(self._waiting)[:MAX_STATEMENTS]
            await stream.write(encode(Tell([self._waiting.pop(device).packed for device in devices])))

    async def _read(self, stream: StreamPort) -> None:
        buffer = FrameBuffer()
        while data := await stream.read(MAX_FRAME_BYTES):
            for frame in buffer.feed_untrusted(data):
                self._heard(self, frame)
