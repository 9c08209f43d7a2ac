"""One stream of `p2pnode/file/1`, in frames and data."""

from __future__ import annotations

import asyncio
from collections import deque

from p2pnode import BadPacket
from p2pnode.chat.files.wire import Frame, PieceReader, data_piece, encode
from p2pnode.chat.ports import StreamPort

__all__ = ["STALL_S", "Talk"]

STALL_S = 30.0  # without a byte, a stream is given up: who only keeps it open takes others' place
READ = 1 << 18


class Talk:
    """Reads and writes; one task each."""

    def __init__(self, stream: StreamPort) -> None:
        self.stream = stream
        self._pieces = PieceReader()
        self._ready: deque[Frame | bytes] = deque()

    async def next(self, timeout: float | None = STALL_S) -> Frame | bytes | None:
        """Return the next frame or bytes, None at the end. Raise BadPacket, TimeoutError, what BROKEN names."""
        while not self._ready:
            async with asyncio.timeout(timeout):
                data = await self.stream.read(READ)
            if not data:
                return None
            self._ready.extend(self._pieces.feed_untrusted(data))
        return self._ready.popleft()

    async def next_frame(self, timeout: float | None = STALL_S) -> Frame | None:
        """The same where only frames may come."""
        found = await self.next(timeout)
        if isinstance(found, bytes):
            raise BadPacket("unexpected_data")
        return found

    async def frame(self, timeout: float | None = STALL_S) -> Frame:
        """The same where one must come. Raise EOFError at the end."""
        found = await self.next_frame(timeout)
        if found is None:
            raise EOFError("the other side ended the stream")
        return found

    async def say(self, *frames: Frame) -> None:
        await self.stream.write(b"".join(encode(frame) for frame in frames))

    async def data(self, data: bytes | memoryview) -> None:
        """Send bytes that were asked for, at most 1 MiB. The memory may be used anew when this returns."""
        if data:
            await self.stream.write(data_piece(len(data)))
            await self.stream.write(data)
