"""Removes what is older than it is kept, and what has disappeared; agrees on timers with the other side."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, InvalidPeerError, NodeEvent, P2PError, PeerId, SessionOpened, UserId
from p2pnode.chat import queries
from p2pnode.chat.keeping import moving, tables
from p2pnode.chat.keeping.exchange import ExportedMessage
from p2pnode.chat.keeping.people import ExportedContact
from p2pnode.chat.keeping.tables import KeepState, Timer
from p2pnode.chat.keeping.wire import MAX_SECONDS, TIMER_PROTOCOL, FrameBuffer, Have, Set, encode
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import ChatEvent, MessageReceived, MessagesGone, MessageStateChanged, Party, TimerChanged
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Keeping"]

log = structlog.get_logger(__name__)

# Chosen by us.
RETENTION_S = 3_600.0
SETTLE_S = 0.5  # what was read, or handed over, is noted with a later commit
LOOKS, LOOK_S = 3, 5.0  # after that once more, on a busy disk
EXCHANGE_S = 10.0
AHEAD_MS = 600_000  # how far a timer's version may be ahead of our clock: no peer can set one for ever
READ_BYTES = 256
SET_RATE, SET_BURST = 0.1, 10.0  # timers of one user: each is a line to read
MAX_DAYS = 36_500


class Keeping:
    """Of one chat. A part of it."""

    def __init__(self, chat: Chat, keep_days: int) -> None:
        """`keep_days`: what is older is removed, where the conversation says nothing; 0: nothing is."""
        self._chat = chat
        self.keep_days = keep_days
        self._timers: dict[Party, Timer] = {}
        self._told: dict[PeerId, int] = {}
        self._telling: set[PeerId] = set()
        self._sets = Buckets(rate=SET_RATE, burst=SET_BURST, capacity=1024)
        self._wake = asyncio.Event()
        self._looks = 0
        self._later: asyncio.TimerHandle | None = None
        self._cancels: list[Cancel] = []

    async def start(self) -> None:
        chat = self._chat
        self._timers = await chat.store.database.read(tables.timers)
        chat.node.handle(TIMER_PROTOCOL, self._serve)
        self._cancels = [chat.subscribe(self._chat_event), chat.node.subscribe(self._node_event)]
        chat.store.seen_changed = self._look_soon
        chat.start_task(self._disappear(), "chat-disappear")
        chat.start_task(self._retain(), "chat-retention")
        for session in chat.node.sessions():
            self._tell_soon(session.peer)

    async def stop(self) -> None:
        for cancel in self._cancels:
            cancel()
        self._chat.store.seen_changed = lambda _party: None
        if self._later is not None:
            self._later.cancel()

    # what applications call

    def timer(self, party: Party) -> Timer:
        """Return when messages of a conversation disappear."""
        return self._timers.get(party, Timer())

    async def disappear(self, party: Party, seconds: int) -> Timer:
        """Let messages from now on disappear on both sides, `seconds` after each read them or handed them over; 0:
        never. The other side has agreed once its program has heard of it. Raise InvalidPeerError, StorageError."""
        if not isinstance(party, UserId | PeerId):
            raise InvalidPeerError("Messages disappear between two people only: name somebody.")
        if not 0 <= seconds <= MAX_SECONDS:
            raise InvalidPeerError("A timer is at most a year.")
        now = self._chat.now_ms()

        def operation(connection: sqlite3.Connection) -> Timer:
            known = tables.timer_of(connection, party)
            since = queries.next_sequence(connection, now)
            timer = Timer(seconds, max(now, known.version + 1), since)
            tables.set_timer(connection, party, timer, None, since)
            return timer

        timer = await self._chat.store.database.write(operation)
        self._changed(party, timer, None)
        self._chat.start_task(self._tell_all(party), "chat-timer")
        return timer

    async def keep(self, party: Party, days: int | None) -> None:
        """Keep a conversation for so many days; 0: for ever, None: as set for all. Raise StorageError."""
        if days is not None and not 0 <= days <= MAX_DAYS:
            raise InvalidPeerError("A history is kept for 1 to 36,500 days, or for ever.")
        await self._chat.store.database.write(lambda c: tables.set_keep(c, party, days))
        await self.remove_old()

    async def states(self) -> dict[Party, KeepState]:
        """Return how long each conversation is kept."""
        return {state.party: state for state in await self._chat.store.database.read(tables.keep_states)}

    def export(self, party: Party | None = None) -> AsyncIterator[ExportedMessage]:
        """Give all messages, or those of one conversation, but none that will disappear."""
        return moving.export_messages(self._chat.store, party)

    async def import_(self, messages: Sequence[ExportedMessage]) -> int:
        """Take messages of an export; return how many were not here yet. Raise BadLineError, StorageError."""
        return await moving.import_messages(self._chat.store, messages, self._chat.now_ms())

    async def export_contacts(self) -> list[ExportedContact]:
        """Return contacts and blocked people, by name."""
        return await moving.export_people(self._chat.store)

    async def import_contacts(self, contacts: Sequence[ExportedContact], *, verified: bool = False) -> int:
        """Add people; what the user decided here stands. `verified`: the file is the user's own, believe it that
        safety numbers were compared. Return how many are new or changed. Raise BadLineError, StorageError."""
        chat = self._chat
        own, now = chat.node.user_id, chat.now_ms()
        changed = await moving.import_people(chat.store, contacts, now, own=own, verified=verified)
        chat.directory.replace_contacts(await chat.store.contacts())
        chat.node.refuse_when(chat.directory.is_blocked)
        return changed

    async def remove_old(self) -> None:
        """Remove what is older than it is kept, now. Raise StorageError."""
        while True:
            now = self._chat.now_ms()
            gone = await self._chat.store.database.write(
                partial(tables.remove_old, keep_days=self.keep_days, now_ms=now)
            )
            self._tell_gone(gone)
            if len(gone) < tables.BATCH:
                return
            await asyncio.sleep(0.1)  # others want the disk too

    # removing

    async def _retain(self) -> None:
        while True:
            try:
                await self.remove_old()
                now = self._chat.now_ms()
                self._chat.store.database.write_later(partial(tables.forget_removed, now_ms=now))
            except P2PError as exc:
                log.warning("retention_failed", why=exc.message)
            await asyncio.sleep(RETENTION_S)

    async def _disappear(self) -> None:
        database = self._chat.store.database
        while True:
            self._wake.clear()
            pause: float | None = None
            try:
                now = self._chat.now_ms()
                if await database.read(tables.any_fleeting):
                    waiting = await database.write(partial(tables.begin, now_ms=now))
                    gone = await database.write(partial(tables.remove_due, now_ms=now))
                    self._tell_gone(gone)
                    if len(gone) == tables.BATCH:
                        continue
                    due = await database.read(tables.next_end)
                    if waiting and self._looks > 0:
                        self._looks -= 1
                        pause = LOOK_S
                    if due is not None:
                        pause = min(pause or RETENTION_S, max(0.05, (due - now) / 1000))
            except P2PError as exc:
                log.warning("disappearing_failed", why=exc.message)
                pause = 60.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def _tell_gone(self, gone: list[tuple[Party, int]]) -> None:
        for party in dict.fromkeys(party for party, _ in gone):
            self._chat.emit(MessagesGone(party, tuple(position for each, position in gone if each == party)))

    def _chat_event(self, event: ChatEvent) -> None:
        if isinstance(event, MessageReceived):
            self._look_soon(event.message.party)
            self._tell_soon(event.message.author)
        elif isinstance(event, MessageStateChanged) and event.party in self._timers:
            self._look_soon(event.party)
            if isinstance(event.party, UserId | PeerId) and event.state == "delivered":
                for device in self._chat.directory.devices_of(event.party):
                    self._tell_soon(device)

    def _look_soon(self, party: Party) -> None:
        """Something of a conversation was read or handed over; it is on the disk a moment later."""
        if party in self._timers:
            self._looks = LOOKS
            if self._later is None:
                self._later = asyncio.get_running_loop().call_later(SETTLE_S, self._look)

    def _look(self) -> None:
        self._later = None
        self._wake.set()

    # agreeing

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            self._tell_soon(event.session.peer)

    def _tell_soon(self, peer: PeerId) -> None:
        timer = self.timer(self._chat.directory.party_of(peer))
        if timer.version > self._told.get(peer, 0) and peer not in self._telling:
            self._telling.add(peer)
            self._chat.start_task(self._tell(peer), "chat-timer")

    async def _tell_all(self, party: UserId | PeerId) -> None:
        """Tell a timer to all devices that can be reached now; others hear of it when they come."""
        chat = self._chat
        devices = chat.directory.devices_of(party)
        if not devices and isinstance(party, UserId):
            devices, _ = await chat.resolver.devices(party)
        for device in devices:
            try:
                async with asyncio.timeout(EXCHANGE_S):
                    await self._met(device)
            except BROKEN as exc:
                log.debug("timer_waits", peer=str(device), why=type(exc).__name__)
                continue
            self._tell_soon(device)

    async def _met(self, peer: PeerId) -> None:
        """Have a session with a device that has said whose it is. Raise what BROKEN names."""
        await self._chat.links.connect(peer)
        if self._chat.user_of(peer) is None:
            await self._chat.links.get(peer).introduce()

    async def _tell(self, peer: PeerId) -> None:
        """Tell a device our timer, if it is here; again when the next session opens."""
        try:
            while (session := self._chat.node.session(peer)) is not None:
                party = self._chat.directory.party_of(peer)
                timer = self.timer(party)
                if timer.version <= self._told.get(peer, 0):
                    return
                async with asyncio.timeout(EXCHANGE_S):
                    stream = await session.open_stream(TIMER_PROTOCOL)
                    answer = await self._exchange(stream, Set(timer.seconds, timer.version, timer.since))
                self._told[peer] = timer.version
                await self._merge(party, Timer(answer.seconds, answer.version, 0, True), peer, 2**63 - 1)
        except BROKEN as exc:
            log.debug("timer_not_told", peer=str(peer), why=type(exc).__name__)
        finally:
            self._telling.discard(peer)

    async def _exchange(self, stream: StreamPort, frame: Set) -> Have:
        try:
            await stream.write(encode(frame))
            answer = await _one(stream)
            if not isinstance(answer, Have):
                raise BadPacket("unexpected_frame")
            stream.finish()
        except BaseException:
            stream.reset(1)
            raise
        return answer

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        chat, peer = self._chat, session.peer
        try:
            if not self._sets.take(peer, chat.node.network.monotonic()):
                raise BadPacket("no_timer_wanted")
            async with asyncio.timeout(EXCHANGE_S):
                frame = await _one(stream)
                if chat.user_of(peer) is None:
                    await self._met(peer)
                if not chat.directory.is_known(peer):
                    raise BadPacket("no_timer_wanted")
                if not isinstance(frame, Set):
                    raise BadPacket("unexpected_frame")
                party = chat.directory.party_of(peer)
                await self._merge(party, Timer(frame.seconds, frame.version, 0, True), peer, frame.since)
                timer = self.timer(party)
                await stream.write(encode(Have(timer.seconds, timer.version)))
            stream.finish()
        except BadPacket as bad:
            chat.drops[bad.reason] += 1
            stream.reset(1)
        except BROKEN:
            stream.reset(0)

    async def _merge(self, party: UserId | PeerId, timer: Timer, peer: PeerId, since: int) -> None:
        """Take the other side's timer when it is the newer one; equal ones: both sides have it."""
        known, now = self.timer(party), self._chat.now_ms()
        if timer.version > now + AHEAD_MS:
            return
        if timer.beats(known):

            def operation(connection: sqlite3.Connection) -> Timer:
                own = queries.next_sequence(connection, now)
                merged = Timer(timer.seconds, timer.version, own, True)
                tables.set_timer(connection, party, merged, peer, since)
                return merged

            self._changed(party, await self._chat.store.database.write(operation), peer)
        elif (timer.seconds, timer.version) == (known.seconds, known.version) and not known.agreed and known.version:
            agreed = Timer(known.seconds, known.version, known.since, True)
            await self._chat.store.database.write(lambda c: tables.set_timer(c, party, agreed, None, 0))
            self._changed(party, agreed, None)

    def _changed(self, party: Party, timer: Timer, peer: PeerId | None) -> None:
        self._timers[party] = timer
        self._wake.set()
        self._chat.emit(TimerChanged(party, timer.seconds, timer.agreed, peer))


async def _one(stream: StreamPort) -> Set | Have:
    """Read one frame. Raise BadPacket, what BROKEN names."""
    buffer = FrameBuffer()
    while data := await stream.read(READ_BYTES):
        frames = buffer.feed_untrusted(data)
        if len(frames) > 1:
            raise BadPacket("unexpected_frame")
        if frames:
            return frames[0]
    raise BadPacket("no_frame")
