"""Keeping the devices of an account in step: what one sent, received, read, and decided about people, the others get.

Each device has a log: its messages by position, and what changed since by number. It is read from by whoever writes it:
when there is news, or another device comes, it opens a stream and hands over what that one has not got. Both sides note
how far that is in the transaction that stores it, so nothing is lost, and nothing is there twice (a message's author
and id decide). Two devices that are never on at the same time hear nothing of each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, PeerId, PresenceChanged, UserId
from p2pnode.chat.devices import sync_tables as tables
from p2pnode.chat.devices.sync_wire import LOG_BYTES, SYNC_PROTOCOL, Batch, FrameBuffer, From, Log, encode
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import HALL, ChatEvent, Hall, MessageReceived, MessagesSynced, MessageStateChanged
from p2pnode.chat.outbox import retry_delay
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode import NodeEvent
    from p2pnode.chat.service import Chat

__all__ = ["Syncing"]

log = structlog.get_logger(__name__)

# Chosen by us.
SETTLE_S = 0.3  # more news usually follows: a message's delivery, what is seen
CONNECT_S = 15.0
ANSWER_S = 30.0
READ_BYTES = 65_536


class Syncing:
    """All other devices of the account."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._feeders: dict[PeerId, _Feeder] = {}
        self._log = b""
        self._cancels: list[Cancel] = []

    async def start(self) -> None:
        chat, database = self._chat, self._chat.store.database
        fresh = chat.node.network.token_bytes(LOG_BYTES)
        await database.write(lambda c: tables.set_log_id(c, fresh))
        known: bytes | None = await database.read(tables.log_id)
        self._log = known or fresh
        self._cancels = [chat.subscribe(self._chat_event), chat.node.subscribe(self._node_event)]
        chat.node.handle(SYNC_PROTOCOL, self._serve)

    async def stop(self) -> None:
        for cancel in self._cancels:
            cancel()

    async def peers_changed(self, devices: Sequence[PeerId]) -> None:
        """The account has these other devices."""
        wanted = () if self._chat.devices.revoked else tuple(devices)
        await self._chat.store.database.write(lambda c: tables.set_peers(c, wanted))
        for gone in set(self._feeders) - set(wanted):
            self._feeders.pop(gone).stop()
        for new in wanted:
            if new not in self._feeders:
                self._feeders[new] = _Feeder(self._chat, new, self._log)
                self._feeders[new].wake()

    def came(self, peer: PeerId) -> None:
        """A device can be reached."""
        if (feeder := self._feeders.get(peer)) is not None:
            feeder.wake(at_once=True)

    def news(self) -> None:
        """Something was written that the other devices may want."""
        for feeder in self._feeders.values():
            feeder.wake()

    # inside

    def _chat_event(self, event: ChatEvent) -> None:
        party = (
            event.message.party if isinstance(event, MessageReceived)
            else event.party if isinstance(event, MessageStateChanged) else HALL
        )  # fmt: skip
        if not isinstance(party, Hall):
            self.news()

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, PresenceChanged) and event.online:
            self.came(event.peer)

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        """Another device of the account hands us what we have not got."""
        chat, peer = self._chat, session.peer
        try:
            if not chat.devices.is_own(peer):
                raise BadPacket("not_own_device")
            buffer, log_id = FrameBuffer(), b""
            while True:
                async with asyncio.timeout(ANSWER_S):
                    data = await stream.read(READ_BYTES)
                if not data:
                    break
                for frame in buffer.feed_untrusted(data):
                    if isinstance(frame, Log) and not log_id:
                        log_id = frame.id
                        there = await chat.store.database.read(partial(tables.got, device=peer, log=log_id))
                    elif isinstance(frame, Batch) and log_id:
                        if not chat.devices.is_own(peer):
                            raise BadPacket("not_own_device")
                        await self._take(peer, log_id, frame)
                        there = From(frame.position, frame.number)
                    else:
                        raise BadPacket("unexpected_frame")
                    await stream.write(encode(there))
            stream.finish()
        except BadPacket as bad:
            chat.drops[f"sync_{bad.reason}"] += 1
            log.info("sync_refused", peer=str(peer), reason=bad.reason)
            stream.reset(1)
        except (*BROKEN, TimeoutError):
            stream.reset(0)

    async def _take(self, peer: PeerId, log_id: bytes, frame: Batch) -> None:
        chat, own = self._chat, self._chat.node.user_id
        applied = await chat.store.database.write(lambda c: tables.apply(c, peer, own, log_id, frame))
        if applied.contacts or applied.messages:
            for device in await chat.store.devices():
                if chat.directory.user_of(device.peer) is None:
                    chat.directory.learn(device)
            chat.directory.replace_contacts(await chat.store.contacts())
        for party in applied.contacts:
            self._decided(party)
        if applied.messages:
            chat.emit(MessagesSynced(tuple(applied.messages)))
        for message_id, conversation, state, everywhere in applied.states:
            chat.emit(MessageStateChanged(message_id, conversation, state, "", everywhere))  # type: ignore[arg-type]
        for seen in applied.seen:
            chat.devices.receipts.seen(seen)
        if applied.seen and not applied.messages:
            chat.emit(MessagesSynced(()))

    def _decided(self, party: UserId | PeerId) -> None:
        """Another device of ours made a contact, blocked or released somebody: the same follows from it here."""
        chat = self._chat
        state = chat.directory.state_of(party)
        if state == "blocked":
            for peer in chat.directory.devices_of(party):
                chat.hall.lost(peer)
                chat.links.drop(peer)
                chat.mail.forget(peer)
            chat.node.refuse_when(chat.directory.is_blocked)
        elif state == "accepted":
            chat.links.welcome(party)


class _Feeder:
    """Hands the own log to one other device."""

    def __init__(self, chat: Chat, peer: PeerId, log_id: bytes) -> None:
        self._chat, self._peer, self._log = chat, peer, log_id
        self._wake = asyncio.Event()
        self._at_once = False
        self._task: asyncio.Task[None] = chat.start_task(self._run(), f"chat-sync {peer}")

    def wake(self, *, at_once: bool = False) -> None:
        """Look whether there is news. `at_once`: a pause after failures is over."""
        self._at_once |= at_once
        self._wake.set()

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        failures, rng = 0, self._chat.node.network.rng
        while True:
            await self._wake.wait()
            self._at_once = False
            await asyncio.sleep(SETTLE_S)
            self._wake.clear()
            try:
                await self._feed()
                failures = 0
            except (*BROKEN, TimeoutError) as exc:
                failures += 1
                log.debug("sync_failed", peer=str(self._peer), failures=failures, why=str(exc))
                await self._pause(retry_delay(failures, rng))
                self._wake.set()

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._at_once and loop.time() < until:
            self._wake.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _feed(self) -> None:
        """Hand over all that is new. Raise BadPacket, or what a broken stream raises."""
        chat, database, peer = self._chat, self._chat.store.database, self._peer
        end = await database.read(tables.end_of_log)
        before = await database.read(lambda c: tables.sent(c, peer))
        if before[0] >= end.position and before[1] >= end.number:
            return
        session = chat.node.session(peer) or await chat.node.connect(peer, timeout=CONNECT_S)
        stream = await session.open_stream(SYNC_PROTOCOL)
        try:
            buffer = FrameBuffer()
            await stream.write(encode(Log(self._log)))
            there = await _answer(stream, buffer)
            if there.position > end.position or there.number > end.number:
                there = From(0, 0)  # our database is an older copy of what it was: all again, twice is not stored
            while (found := await database.read(partial(tables.batch, start=there))) is not None:
                await stream.write(encode(found))
                there = await _answer(stream, buffer)
                if (there.position, there.number) != (found.position, found.number):
                    raise BadPacket("not_taken")
        except BaseException:
            stream.reset(0)
            raise
        stream.finish()
        await database.write(lambda c: tables.set_sent(c, peer, there))


async def _answer(stream: StreamPort, buffer: FrameBuffer) -> From:
    async with asyncio.timeout(ANSWER_S):
        while (frame := buffer.next_untrusted()) is None:
            data = await stream.read(READ_BYTES)
            if not data:
                raise EOFError("the other side ended the stream")
            buffer.add(data)
    if not isinstance(frame, From):
        raise BadPacket("not_an_answer")
    return frame
