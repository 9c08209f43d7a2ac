"""The sending half of a conversation with one device: one stream, opened when there is something to say.

A link has a task only while it has something to send or its stream is open; idle peers cost nothing. Opening the
stream, Hello and the first messages need no answer in between, so the first message of a new session arrives with its
first packets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

import structlog

from p2pnode import BadPacket, P2PError, PeerId
from p2pnode.chat.outbox import DeviceQueue, retry_delay
from p2pnode.chat.ports import NodePort, SessionPort, StreamPort
from p2pnode.chat.protocol import (
    CHAT_PROTOCOL,
    Ack,
    Frame,
    FrameBuffer,
    Hello,
    Refuse,
    TextMessage,
    encode,
)
from p2pnode.chat.store import OutboxItem

__all__ = ["BROKEN", "Link", "LinkOwner"]

log = structlog.get_logger(__name__)

BROKEN = (P2PError, OSError, EOFError, BadPacket)
"""What a stream or session raises when it is over, and what its bytes may turn out to be."""

CONTROL_MAX = 16  # frames about the hall and welcomes that wait for a stream; older ones are out of date anyway
READ_BYTES = 65_536
REOPEN_EVERY_S = 5.0  # how often a broken stream is replaced without a pause
CONNECT_TIMEOUT_S = 15.0


class LinkOwner(Protocol):
    """What a link tells and asks."""

    node: NodePort

    def own_hello(self, peer: PeerId) -> Hello: ...
    def heard_hello(self, session: SessionPort, hello: Hello) -> None:
        """Raise BadPacket when it is not true."""

    async def load(self, peer: PeerId, after: int, *, hall: bool) -> tuple[list[OutboxItem], bool]:
        """Return (messages beyond position `after`, whether these are all)."""

    async def connect(self, peer: PeerId) -> SessionPort: ...
    def delivered(self, peer: PeerId, items: list[OutboxItem]) -> None: ...
    def refused(self, peer: PeerId, item: OutboxItem, code: str, *, final: bool) -> None: ...
    def attempt_failed(self, peer: PeerId, failures: int, reason: str) -> None: ...
    def spawn(self, link: Link) -> asyncio.Task[None]: ...


class Link:
    """To one device."""

    def __init__(self, peer: PeerId, owner: LinkOwner) -> None:
        self.peer = peer
        self.direct = DeviceQueue()
        self.hall = DeviceQueue()
        self.failures = 0
        self._owner = owner
        self._control: deque[bytes] = deque(maxlen=CONTROL_MAX)
        self._unheard: deque[bytes] = deque(maxlen=CONTROL_MAX)
        """Frames of `tell` on a stream that has not answered yet: of two connections that cross, one ends at once."""
        self._answered = False
        self._control_sent = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._introduced: asyncio.Future[None] | None = None
        self._urgent = False
        self._worked = False
        self._reopened_at = float("-inf")

    @property
    def wanted(self) -> bool:
        """Whether there is anything to send, or somebody waits to know whose device this is."""
        return self.pending or bool(self._control) or self._introduced is not None

    @property
    def pending(self) -> bool:
        """Whether a message is not acknowledged yet."""
        return self.direct.pending or self.hall.pending

    async def control_sent(self) -> None:
        """Wait until the last frame of `tell` was handed to a stream, or forgotten."""
        await self._control_sent.wait()

    @property
    def idle(self) -> bool:
        return self._task is None or self._task.done()

    def add(self, item: OutboxItem) -> None:
        (self.hall if item.hall else self.direct).add(item)
        self.poke()

    def tell(self, frame: Frame) -> None:
        """Send a frame that needs no acknowledgement, as soon as there is a stream."""
        self._control.append(encode(frame))
        self._control_sent.clear()
        self.poke()

    def poke(self, *, retry_now: bool = False) -> None:
        """Look again whether there is something to do. `retry_now`: also cut a pause after failures short."""
        self._urgent |= retry_now
        if self.wanted and self.idle:
            self._task = self._owner.spawn(self)
        self._wake.set()

    def forget_control(self) -> None:
        """Nobody is there to hear it."""
        self._control.clear()
        self._unheard.clear()
        self._control_sent.set()

    async def introduce(self) -> None:
        """Return once the other side has said whose device it is. Cancel it to give up."""
        if self._introduced is None:
            self._introduced = asyncio.get_running_loop().create_future()
        self.poke(retry_now=True)
        try:
            await asyncio.shield(self._introduced)
        finally:
            self._introduced = None

    async def run(self) -> None:
        """Keep a stream to the device for as long as there is something to send and its session lasts."""
        rng = self._owner.node.network.rng
        while self.wanted:
            self._urgent = False
            try:
                await self._converse()
            except BROKEN as exc:
                self._restart()
                if not self.wanted:
                    break
                if self._may_reopen_now():
                    continue
                self.failures += 1
                reason = _reason(exc)
                log.debug("chat_link_failed", peer=str(self.peer), failures=self.failures, reason=reason)
                self._owner.attempt_failed(self.peer, self.failures, reason)
                await self._pause(retry_delay(self.failures, rng))
            else:
                self._restart()

    def _restart(self) -> None:
        self.direct.restart()
        self.hall.restart()
        if self._unheard:
            self._control = deque([*self._unheard, *self._control], CONTROL_MAX)
            self._unheard.clear()

    def _may_reopen_now(self) -> bool:
        """Whether to open a new stream without a pause: the old one worked, and this is not a habit of theirs.

        A session that was closed for idleness just as something was written must not cost the writer a second.
        """
        now = asyncio.get_running_loop().time()
        worked, self._worked = self._worked, False
        if not worked or now < self._reopened_at + REOPEN_EVERY_S:
            return False
        self._reopened_at = now
        return True

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.wanted and not self._urgent and loop.time() < until:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    async def _converse(self) -> None:
        """One stream from its opening to its end. Raise one of BROKEN when it broke; return when it merely ended."""
        self._answered = False
        session = await self._owner.connect(self.peer)
        stream = await session.open_stream(CHAT_PROTOCOL)
        reader = asyncio.get_running_loop().create_task(self._read(session, stream), name=f"chat-acks {self.peer}")
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            await self._write(stream, reader)
        except asyncio.CancelledError:
            stream.finish()  # we are leaving: what was written still arrives
            raise
        except BROKEN:
            stream.reset(0)
            raise
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, *BROKEN):
                await reader

    async def _write(self, stream: StreamPort, reader: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        out = [encode(self._owner.own_hello(self.peer))]
        while True:
            self._wake.clear()
            for queue in (self.direct, self.hall):
                if queue.wants_more:
                    items, complete = await self._owner.load(self.peer, queue.newest, hall=queue is self.hall)
                    queue.load(items, complete=complete)
            out += self._control
            if not self._answered:
                self._unheard += self._control
            self._control.clear()
            out += [
                encode(TextMessage(item.id, item.hall, item.sequence, item.sent_at_ms, item.text))
                for queue in (self.direct, self.hall)
                for item in queue.take(loop.time())
            ]
            if out:
                await stream.write(b"".join(out))
                out = []
            if not self._control:
                self._control_sent.set()
            if reader.done():
                reader.result()  # raises what broke
                return
            if self.direct.stalled(loop.time()) or self.hall.stalled(loop.time()):
                raise TimeoutError("no acknowledgement")
            if self._wake.is_set() or self.direct.wants_more or self.hall.wants_more:
                continue
            deadlines = [queue.deadline(loop.time()) for queue in (self.direct, self.hall)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min((at for at in deadlines if at is not None), default=None)):
                    await self._wake.wait()

    async def _read(self, session: SessionPort, stream: StreamPort) -> None:
        buffer = FrameBuffer()
        loop = asyncio.get_running_loop()
        while data := await stream.read(READ_BYTES):
            for frame in buffer.feed_untrusted(data):
                self._answer(session, frame, loop.time())
        raise EOFError("the other side ended the stream")

    def _answer(self, session: SessionPort, frame: Frame, now: float) -> None:
        if isinstance(frame, Hello):
            self._owner.heard_hello(session, frame)
            self.failures = 0
            self._worked = self._answered = True
            self._unheard.clear()
            if self._introduced is not None and not self._introduced.done():
                self._introduced.set_result(None)
        elif isinstance(frame, Ack):
            if done := self.direct.acknowledged(frame.ids, now) + self.hall.acknowledged(frame.ids, now):
                self._owner.delivered(self.peer, done)
            self._wake.set()
        elif isinstance(frame, Refuse):
            for queue in (self.direct, self.hall):
                item, final = queue.refused(frame.id, frame.code, now)
                if item is not None:
                    self._owner.refused(self.peer, item, frame.code, final=final)
            self._wake.set()
        else:
            raise BadPacket("not_an_answer")


def _reason(exc: Exception) -> str:
    """Return a stable word for what BROKEN names."""
    if isinstance(exc, P2PError):
        return exc.code
    if isinstance(exc, BadPacket):
        return exc.reason
    return "timeout" if isinstance(exc, TimeoutError) else "stream_ended"
