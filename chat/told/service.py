"""Asks a member what was said in the hall before we came, and tells it to those who come after us.

What a member tells of others is its word, not theirs: it is stored and shown as told by that member, and gives way to
the author's own message if that should still come. Only what was said in the same gathering is told on, which ends when
nobody else is there for five minutes, or we change networks then: of two halls that we were in one after the other,
neither learns of the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, NetworkChanged, NodeEvent, P2PError, PeerId
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import ChatEvent, HallChanged, HallTold
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort
from p2pnode.chat.told import tables
from p2pnode.chat.told.wire import HALL_HISTORY_PROTOCOL, MAX_TOLD, Ask, FrameBuffer, Told, encode

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["HallHistory"]

log = structlog.get_logger(__name__)

# Chosen by us.
EMPTY_S = 300.0
MEMBERS_ASKED = 3  # one after the other, until one has something to tell
ANSWER_S = 10.0
ASK_S = 10.0
MAX_BYTES = 256 * 1024  # of the texts of one answer
READ_BYTES = 65_536
TELL_RATE, TELL_BURST = 1 / 30, 4.0  # answers to one peer: 256 KB each


class HallHistory:
    """The history of the hall, for one chat. A part of it."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._answers = Buckets(rate=TELL_RATE, burst=TELL_BURST, capacity=1024)
        self._since_ms = 0
        self._ends_at: float | None = 0.0
        self._entered_at = 0
        self._left_to_ask = 0
        self._waiting: list[PeerId] = []
        self._asking = False
        self._cancels: list[Cancel] = []

    async def start(self) -> None:
        self._chat.node.handle(HALL_HISTORY_PROTOCOL, self._serve)
        self._cancels = [self._chat.subscribe(self._event), self._chat.node.subscribe(self._node_event)]

    async def stop(self) -> None:
        for cancel in self._cancels:
            cancel()

    # those who came before us

    def _event(self, event: ChatEvent) -> None:
        if not isinstance(event, HallChanged):
            return
        now = self._chat.node.network.monotonic()
        if not event.members:
            self._ends_at = now + EMPTY_S
        if not event.joined:
            return
        if self._ends_at is not None:  # the hall was empty for us
            if now >= self._ends_at:
                self._since_ms = self._chat.now_ms()
            self._ends_at = None
            self._left_to_ask = MEMBERS_ASKED
            self._waiting.clear()
        if self._left_to_ask:
            self._waiting += [member.peer for member in event.joined]
            if not self._asking:
                self._asking = True
                self._chat.start_task(self._ask_members(), "chat-hall-history")

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, NetworkChanged) and self._ends_at is not None:
            self._ends_at = 0.0

    async def _ask_members(self) -> None:
        chat = self._chat
        try:
            self._entered_at = await chat.store.last_position()
            while self._waiting and self._left_to_ask:
                peer = self._waiting.pop(0)
                self._left_to_ask -= 1
                try:
                    async with asyncio.timeout(ANSWER_S):
                        told = await self._ask(peer)
                except BROKEN as exc:  # TimeoutError is one of them
                    log.info("hall_history_failed", peer=str(peer), why=type(exc).__name__)
                    continue
                if told and await self._store(peer, told):
                    self._left_to_ask = 0
        finally:
            self._asking = False
            self._waiting.clear()

    async def _ask(self, peer: PeerId) -> list[Told]:
        """Return what a member tells. Raise what BROKEN names."""
        session = await self._chat.links.connect(peer)
        stream = await session.open_stream(HALL_HISTORY_PROTOCOL)
        found: list[Told] = []
        size = 0
        try:
            await stream.write(encode(Ask(MAX_TOLD)))
            buffer = FrameBuffer()
            while data := await stream.read(READ_BYTES):
                for frame in buffer.feed_untrusted(data):
                    if not isinstance(frame, Told) or len(found) >= MAX_TOLD:
                        raise BadPacket("unexpected_frame")
                    size += len(frame.text.encode())
                    if size > MAX_BYTES:
                        raise BadPacket("too_long")
                    found.append(frame)
            stream.finish()
        except BaseException:
            stream.reset(1)
            raise
        return found

    async def _store(self, teller: PeerId, told: list[Told]) -> bool:
        """Store what is new and harmless; return whether there was anything."""
        chat, directory = self._chat, self._chat.directory
        authors = {frame.author: PeerId(frame.author) for frame in told}
        wanted = [
            (frame, directory.user_of(authors[frame.author]))
            for frame in told
            if authors[frame.author] != chat.node.peer_id and not directory.is_blocked(authors[frame.author])
        ]
        now, entered_at = chat.now_ms(), self._entered_at
        try:
            messages = await chat.store.database.write(lambda c: tables.store(c, wanted, teller, entered_at, now))
        except P2PError as exc:
            log.warning("hall_history_not_stored", why=exc.message)
            return False
        if messages:
            chat.emit(HallTold(teller, tuple(messages)))
        return bool(wanted)

    # those who come after us

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        chat, peer = self._chat, session.peer
        try:
            if peer not in chat.hall or not self._answers.take(peer, chat.node.network.monotonic()):
                raise BadPacket("not_told")
            async with asyncio.timeout(ASK_S):
                count = await self._count(stream)
            own = (chat.node.peer_id, chat.node.settings.name)
            since = self._since_ms
            found = await chat.store.database.read(lambda c: tables.answer(c, peer, own, since, count, MAX_BYTES))
            async with asyncio.timeout(ANSWER_S):
                for told in found:
                    await stream.write(encode(told))
            stream.finish()
        except BadPacket as bad:
            chat.drops[bad.reason] += 1
            stream.reset(1)
        except BROKEN:
            stream.reset(0)

    async def _count(self, stream: StreamPort) -> int:
        buffer = FrameBuffer()
        while data := await stream.read(READ_BYTES):
            frames = buffer.feed_untrusted(data)
            if frames:
                if len(frames) > 1 or not isinstance(frames[0], Ask):
                    raise BadPacket("unexpected_frame")
                return frames[0].count
        raise BadPacket("no_question")
