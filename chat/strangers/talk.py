"""One conversation that has begun: texts both ways on one stream, which is replaced when it breaks.

Sessions may be renewed beneath (roaming, two connections that crossed): then the side with the smaller id opens
another stream and each says what it has, so that no text is lost or comes twice. Whoever vanishes is missed after
SILENCE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from p2pnode import BadPacket, PeerId, clean
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort, StreamPort
from p2pnode.chat.strangers.ports import MaskNode
from p2pnode.chat.strangers.receipts import Receipt
from p2pnode.chat.strangers.wire import RANDOM_PROTOCOL, Beat, Frame, FrameBuffer, Leave, Resume, Say, encode

__all__ = ["Pipe", "Talk"]

# Chosen by us.
BEAT_S = 15.0
SILENCE_S = 40.0
RESUME_S = 8.0  # for a new stream in the place of a broken one
WRITE_S = 5.0  # who does not read for so long
KEPT = 64  # own texts that may have to be said again, 128 kB at most
RATE = 3.0  # texts per second that are taken from a stranger; beyond that it is read more slowly
BURST = 20.0
READ_BYTES = 4_096
SHOWN = 2_000  # characters of a text


class Pipe:
    """A stream as frames."""

    def __init__(self, stream: StreamPort) -> None:
        self.stream = stream
        self._buffer = FrameBuffer()
        self._frames: deque[Frame] = deque()

    async def read(self) -> Frame:
        """Return the next frame. Raise one of BROKEN; EOFError when the other side has ended the stream."""
        while not self._frames:
            data = await self.stream.read(READ_BYTES)
            if not data:
                raise EOFError("the other side ended the stream")
            self._frames.extend(self._buffer.feed_untrusted(data))
        return self._frames.popleft()

    async def send(self, *frames: Frame) -> None:
        await self.stream.write(b"".join(encode(frame) for frame in frames))


class Talk:
    """With `peer`, a throw-away id. `device`: its blinded id, `signature`: that id's of the receipt."""

    def __init__(
        self, node: MaskNode, session: SessionPort, pipe: Pipe, receipt: Receipt, device: bytes, signature: bytes
    ) -> None:
        self.peer: PeerId = session.peer
        self.path = session.path
        self.receipt, self.device, self.signature = receipt, device, signature
        self.heard: Callable[[str], None] = lambda _text: None
        """Called with each text of the stranger, cleaned."""
        self._node = node
        self._pipe = pipe
        self._said: deque[Say] = deque(maxlen=KEPT)
        self._number = 0
        self._received = 0
        self._replaced = asyncio.Event()
        self._left = False
        self._level, self._level_at = BURST, 0.0

    async def run(self) -> str:
        """Take what the stranger says until it ends; return why: `left`, `lost`, `broken` (said nonsense)."""
        beats = asyncio.get_running_loop().create_task(self._beats(), name="stranger-beats")
        try:
            while True:
                pipe = self._pipe
                try:
                    await self._hear(pipe)
                except BadPacket:
                    pipe.stream.reset(1)
                    return "broken"
                except BROKEN:
                    if pipe is self._pipe and not await self._resumed():
                        return "lost"
                else:
                    return "left"
        finally:
            beats.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beats

    async def say(self, text: str) -> None:
        """Send a text (1 to 2,000 bytes). What a broken stream swallows is said again on the next."""
        self._number += 1
        frame = Say(self._number, text)
        self._said.append(frame)
        await self._send(frame)

    async def leave(self) -> None:
        """Tell the stranger that we go."""
        if not self._left:
            self._left = True
            await self._send(Leave())
            with contextlib.suppress(*BROKEN):
                self._pipe.stream.finish()

    async def resume(self, pipe: Pipe, frame: Resume) -> bool:
        """Go on with a stream that the stranger opened; False when it belongs to no conversation of ours."""
        if frame.meeting != self.receipt.meeting or self._left:
            return False
        await pipe.send(Resume(self.receipt.meeting, self._received))
        await self._take_over(pipe, frame.received)
        return True

    # inside

    async def _hear(self, pipe: Pipe) -> None:
        """Return when the stranger leaves. Raise one of BROKEN."""
        while True:
            async with asyncio.timeout(SILENCE_S):
                frame = await pipe.read()
            if isinstance(frame, Leave):
                return
            if isinstance(frame, Say):
                if frame.number == self._received + 1:
                    await self._shape()
                    self._received = frame.number
                    self.heard(clean(frame.text, limit=SHOWN, newline=True))
                elif frame.number > self._received:
                    raise BadPacket("number")
            elif not isinstance(frame, Beat):
                raise BadPacket("unexpected")

    async def _shape(self) -> None:
        """Wait until a text more may be taken: what is not read waits at the stranger."""
        now = self._node.network.monotonic()
        self._level = min(BURST, self._level + (now - self._level_at) * RATE)
        self._level_at = now
        if self._level < 1.0:
            await asyncio.sleep((1.0 - self._level) / RATE)
            self._level_at += (1.0 - self._level) / RATE
            self._level = 1.0
        self._level -= 1.0

    async def _send(self, *frames: Frame) -> None:
        pipe = self._pipe
        try:
            async with asyncio.timeout(WRITE_S):
                await pipe.send(*frames)
        except TimeoutError:
            pipe.stream.reset(0)  # it does not read; `run` notices
        except BROKEN:
            pass

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._send(Beat(self._received))

    async def _resumed(self) -> bool:
        """Whether there is another stream within RESUME_S."""
        try:
            async with asyncio.timeout(RESUME_S):
                if self._node.peer_id < self.peer:
                    await self._open_again()
                else:
                    await self._replaced.wait()
        except BROKEN:
            return False
        self._replaced.clear()
        return True

    async def _open_again(self) -> None:
        session = await self._node.connect(self.peer, timeout=RESUME_S)
        pipe = Pipe(await session.open_stream(RANDOM_PROTOCOL))
        await pipe.send(Resume(self.receipt.meeting, self._received))
        frame = await pipe.read()
        if not isinstance(frame, Resume) or frame.meeting != self.receipt.meeting:
            raise BadPacket("unexpected")
        await self._take_over(pipe, frame.received)

    async def _take_over(self, pipe: Pipe, received: int) -> None:
        before, self._pipe = self._pipe, pipe
        self._replaced.set()
        if before is not pipe:
            with contextlib.suppress(*BROKEN):
                before.stream.reset(0)
        await self._send(*(said for said in self._said if said.number > received))
