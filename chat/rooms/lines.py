"""Room streams: one that we open to each device that we exchange entries with, and those that are opened to us."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from p2pnode import Address, BadPacket, P2PError, PeerBlockedError, PeerId, StorageError
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import SessionPort, StreamPort
from p2pnode.chat.protocol import Hello
from p2pnode.chat.rooms.wire import ROOM_PROTOCOL, Frame, FrameBuffer, No, encode

if TYPE_CHECKING:
    from p2pnode.chat.rooms.service import Rooms

__all__ = ["Lines"]

log = structlog.get_logger(__name__)

# Chosen by us.
CONNECT_TIMEOUT_S = 15.0
HELLO_TIMEOUT_S = 10.0
WAITING_BYTES = 4 << 20  # for one device; who is further behind is told everything anew, over a new stream
BEHIND_BYTES = 256 << 10  # from which questions are not answered; they are asked again
IDLE_S = 20.0  # after which a stream that no room needs is ended
STREAMS = 2  # that one device may have open to us: an old one may not have ended yet
SHORT_S = 5.0  # a stream that ends sooner is no better than none: the next one waits
READ_BYTES = 65_536
AT_ONCE = 8  # frames, a few milliseconds each: others want the loop too


class Line:
    """Frames for one device."""

    def __init__(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        self.peer = peer
        self.addresses = tuple(addresses)
        self.waiting: deque[bytes] = deque()
        self.size = 0
        self.wake = asyncio.Event()
        self.opened_at: float | None = None


class Lines:
    """All streams of `Rooms`."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._lines: dict[PeerId, Line] = {}
        self._inbound: dict[PeerId, int] = {}

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._lines

    def send(self, peer: PeerId, frame: Frame, addresses: Sequence[Address] = ()) -> None:
        """Send a frame as soon as that is possible; it is lost with its stream (`Rooms.line_lost` says so)."""
        line = self._lines.get(peer)
        if line is None:
            if isinstance(frame, No) and self._rooms.chat.node.session(peer) is None:
                return  # nobody makes us dial by asking and going away
            line = self._lines[peer] = Line(peer, addresses)
            self._rooms.chat.start_task(self._run(line), f"room-line {peer}")
        data = encode(frame)
        if line.size + len(data) > WAITING_BYTES:
            self._rooms.drops["too_slow"] += 1
            return  # it is told of what it lacks again, when everything is told
        line.waiting.append(data)
        line.size += len(data)
        line.wake.set()

    def is_behind(self, peer: PeerId) -> bool:
        """Whether much waits for a device already."""
        line = self._lines.get(peer)
        return line is not None and line.size > BEHIND_BYTES

    async def _run(self, line: Line) -> None:
        try:
            await self._converse(line)
        except BROKEN as exc:
            log.debug("room_line_lost", peer=str(line.peer), reason=exc.code if isinstance(exc, P2PError) else "ended")
        finally:
            if self._lines.get(line.peer) is line:
                del self._lines[line.peer]
        lived = line.opened_at is not None and self._rooms.now - line.opened_at > SHORT_S
        self._rooms.line_lost(line.peer, opened=lived)

    async def _converse(self, line: Line) -> None:
        """One stream, from its opening until it breaks or nobody needs it. Raise what BROKEN names."""
        chat, node = self._rooms.chat, self._rooms.chat.node
        if chat.directory.is_blocked(line.peer):
            raise PeerBlockedError("You have blocked this contact.")
        session = node.session(line.peer)
        if session is None or session.closed:
            session = await node.connect(line.peer, addresses=line.addresses, timeout=CONNECT_TIMEOUT_S)
        stream = await session.open_stream(ROOM_PROTOCOL)
        # nothing is answered on it; but its end is seen at once, where a write would notice only later
        watch = asyncio.get_running_loop().create_task(_until_ended(stream), name="room-line-end")
        watch.add_done_callback(lambda _: line.wake.set())
        try:
            await stream.write(encode(chat.links.own_hello(line.peer)))
            line.opened_at = self._rooms.now
            while not watch.done():
                if line.waiting:
                    data = b"".join(line.waiting)
                    line.waiting.clear()
                    line.size = 0
                    await stream.write(data)
                    continue
                line.wake.clear()
                try:
                    async with asyncio.timeout(IDLE_S):
                        await line.wake.wait()
                except TimeoutError:
                    if not self._rooms.needs(line.peer):
                        stream.finish()
                        return
            watch.result()
        except BROKEN:
            stream.reset(0)
            raise
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, *BROKEN):
                await watch

    # what others open

    async def serve(self, session: SessionPort, stream: StreamPort) -> None:
        """Take frames until the stream ends."""
        peer, rooms = session.peer, self._rooms
        if self._inbound.get(peer, 0) >= STREAMS or rooms.chat.directory.is_blocked(peer):
            stream.reset(1)
            return
        self._inbound[peer] = self._inbound.get(peer, 0) + 1
        try:
            await self._listen(session, stream)
        except BadPacket as bad:
            rooms.drops[bad.reason] += 1
            log.info("room_stream_dropped", peer=str(peer), reason=bad.reason)
            stream.reset(1)
        except StorageError as error:
            log.error("room_not_stored", why=error.message)
            stream.reset(0)
        except BROKEN:
            stream.reset(0)
        finally:
            self._inbound[peer] -= 1
            if not self._inbound[peer]:
                del self._inbound[peer]
                rooms.gone(peer)

    async def _listen(self, session: SessionPort, stream: StreamPort) -> None:
        buffer, greeted = FrameBuffer(), False
        while True:
            async with asyncio.timeout(None if greeted else HELLO_TIMEOUT_S):
                data = await stream.read(READ_BYTES)
            if not data:
                stream.finish()
                return
            for number, frame in enumerate(buffer.feed_untrusted(data), 1):
                if isinstance(frame, Hello):
                    if greeted:
                        raise BadPacket("second_hello")
                    self._rooms.chat.heard_hello(session, frame)
                    greeted = True
                elif not greeted:
                    raise BadPacket("no_hello")
                else:
                    await self._rooms.heard(session.peer, frame)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)


async def _until_ended(stream: StreamPort) -> None:
    if await stream.read(1):
        raise BadPacket("unexpected_answer")
