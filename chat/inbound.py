"""The receiving half: one incoming stream, from Hello to its end.

Messages are handed to the database as they come and acknowledged in their order once they are on the disk; those that
come while a commit is under way share the next one, and one Ack.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

from p2pnode import BadPacket
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort, StreamPort
from p2pnode.chat.protocol import Ack, Frame, FrameBuffer, Hello, Leave, Members, Refuse, TextMessage, Welcome, encode

__all__ = ["Inbound", "InboundOwner"]

# Chosen by us.
UNACKNOWLEDGED_MAX = 128  # messages of one stream that wait for the disk, 2 MB at most; then we read no further
HELLO_TIMEOUT_S = 10.0
READ_BYTES = 65_536
AT_ONCE = 16  # frames: a few milliseconds
MAX_REFUSALS = 200  # on one stream: an honest sender pauses after the first


class InboundOwner(Protocol):
    """What a stream's frames are for."""

    def own_hello(self, peer: Any) -> Hello: ...
    def heard_hello(self, session: SessionPort, hello: Hello) -> None:
        """Raise BadPacket when it is not true."""

    def receive(self, session: SessionPort, frame: TextMessage) -> Coroutine[Any, Any, str]:
        """Store it; return "" when it is on the disk, else the code of the refusal. Never raises."""

    def heard_members(self, session: SessionPort, frame: Members) -> None: ...
    def heard_leave(self, session: SessionPort) -> None: ...
    def heard_welcome(self, session: SessionPort) -> None: ...
    def start(self, work: Coroutine[Any, Any, str]) -> asyncio.Task[str]: ...


class Inbound:
    """One incoming chat stream."""

    def __init__(self, session: SessionPort, stream: StreamPort, owner: InboundOwner) -> None:
        self._session = session
        self._stream = stream
        self._owner = owner
        self._hello: Hello | None = None
        self._results: asyncio.Queue[tuple[bytes, asyncio.Task[str]]] = asyncio.Queue(UNACKNOWLEDGED_MAX)
        self._refusals = 0

    async def serve(self) -> None:
        """Read until the stream ends. Raise BadPacket when the other side breaks the rules, else what BROKEN names."""
        acknowledging = asyncio.get_running_loop().create_task(self._acknowledge(), name="chat-acknowledge")
        try:
            await self._read(acknowledging)
        finally:
            acknowledging.cancel()
            # what it was waiting for goes on: messages under way to the disk stay messages
            with contextlib.suppress(asyncio.CancelledError, *BROKEN):
                await acknowledging

    async def _read(self, acknowledging: asyncio.Task[None]) -> None:
        buffer = FrameBuffer()
        while not acknowledging.done():
            async with asyncio.timeout(HELLO_TIMEOUT_S if self._hello is None else None):
                data = await self._stream.read(READ_BYTES)
            if not data:
                break
            for number, frame in enumerate(buffer.feed_untrusted(data), 1):
                await self._handle(frame)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)  # hundreds of frames may be in one read, and others want the loop too
        if acknowledging.done():
            acknowledging.result()
        # the other side has said all; let it have the acknowledgements that are still due
        drained = asyncio.get_running_loop().create_task(self._results.join(), name="chat-drained")
        await asyncio.wait({drained, acknowledging}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        self._stream.finish()

    async def _handle(self, frame: Frame) -> None:
        owner, session = self._owner, self._session
        if self._hello is None:
            if not isinstance(frame, Hello):
                raise BadPacket("no_hello")
            owner.heard_hello(session, frame)
            self._hello = frame
            await self._stream.write(encode(owner.own_hello(session.peer)))
        elif isinstance(frame, TextMessage):
            await self._results.put((frame.id, owner.start(owner.receive(session, frame))))
        elif isinstance(frame, Members):
            owner.heard_members(session, frame)
        elif isinstance(frame, Leave):
            owner.heard_leave(session)
        elif isinstance(frame, Welcome):
            owner.heard_welcome(session)
        else:
            raise BadPacket("unexpected_frame")

    async def _acknowledge(self) -> None:
        following: tuple[bytes, asyncio.Task[str]] | None = None
        while True:
            first = following or await self._results.get()
            following = None
            await asyncio.wait({first[1]})
            results = [first]
            while not self._results.empty():
                following = self._results.get_nowait()
                if not following[1].done():
                    break  # it waits for the next commit, these need not
                results.append(following)
                following = None
            await self._stream.write(await self._answers(results))
            for _ in results:
                self._results.task_done()
            if self._refusals > MAX_REFUSALS:
                raise BadPacket("too_many_refused")

    async def _answers(self, results: list[tuple[bytes, asyncio.Task[str]]]) -> bytes:
        accepted: list[bytes] = []
        out = b""
        for message_id, task in results:
            code = await asyncio.shield(task)
            if code:
                self._refusals += 1
                out += encode(Refuse(message_id, code))
            else:
                accepted.append(message_id)
        return (encode(Ack(accepted)) if accepted else b"") + out
