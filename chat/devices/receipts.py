"""Read receipts: telling the devices of a contact which of its messages we have read, and hearing the same of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, PeerId, UserId
from p2pnode.chat.devices import tables
from p2pnode.chat.devices.wire import DEVICES_PROTOCOL, MAX_IDS, FrameBuffer, Noted, Read, encode
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import MessageStateChanged, Party
from p2pnode.chat.ports import SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Receipts"]

log = structlog.get_logger(__name__)

# Chosen by us.
SETTLE_S = 0.3  # what was seen is noted with a later commit, and more is seen meanwhile
STREAM_S = 30.0
READ_BYTES = 8_192


class Receipts:
    """What was read, both ways. Contacts only; a stranger does not learn whether it was heard."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._running: set[PeerId] = set()
        self._again: set[PeerId] = set()
        self._heard = Buckets(rate=10.0, burst=100.0)  # per device; each is a commit of up to 256 messages

    async def start(self) -> None:
        telling = self._chat.settings.read_receipts
        await self._chat.store.database.write(lambda c: tables.set_floor(c, telling=telling))

    def seen(self, party: Party) -> None:
        """The user has read on in a conversation."""
        if isinstance(party, UserId):
            for device in self._chat.directory.devices_of(party):
                self.came(device)

    def came(self, device: PeerId) -> None:
        """A device is here, or there is news for it: tell it what it was not told yet."""
        if not self._wanted(device):
            return
        if device in self._running:
            self._again.add(device)
        else:
            self._running.add(device)
            self._chat.start_task(self._tell(device), f"chat-receipts {device}")

    async def heard(self, peer: PeerId, ids: Sequence[bytes]) -> None:
        """A device says that its user has read these. Raise BadPacket("too_fast")."""
        chat = self._chat
        if not self._heard.take(peer, chat.node.network.monotonic()):
            raise BadPacket("too_fast")
        user = chat.directory.user_of(peer)
        if user is None or chat.directory.state_of(user) != "accepted":
            return
        authors = [device.peer for device in chat.devices.own()]
        for message_id in await chat.store.database.write(lambda c: tables.mark_read(c, user, authors, ids)):
            chat.emit(MessageStateChanged(message_id.hex(), user, "read"))

    def _wanted(self, device: PeerId) -> bool:
        chat = self._chat
        user = chat.directory.user_of(device)
        return (
            chat.settings.read_receipts
            and user is not None
            and chat.directory.state_of(user) == "accepted"
            and chat.node.session(device) is not None
        )

    async def _tell(self, device: PeerId) -> None:
        chat, database = self._chat, self._chat.store.database
        try:
            while True:
                self._again.discard(device)
                await asyncio.sleep(SETTLE_S)
                user, session = chat.directory.user_of(device), chat.node.session(device)
                if user is None or session is None:
                    return
                due = partial(tables.unread_told, user=user, device=device, limit=MAX_IDS, now_ms=chat.now_ms())
                ids, last = await database.read(due)
                if ids:
                    await self._say(session, ids)
                if last:
                    await database.write(partial(tables.tell_position, device=device, position=last))
                elif device not in self._again:
                    return
        except (*BROKEN, TimeoutError) as exc:
            log.debug("receipts_not_told", peer=str(device), why=str(exc))  # with the next session
        finally:
            self._running.discard(device)

    async def _say(self, session: SessionPort, ids: list[bytes]) -> None:
        async with asyncio.timeout(STREAM_S):
            stream = await session.open_stream(DEVICES_PROTOCOL)
            await stream.write(encode(Read(ids)))
            stream.finish()
            await _noted(stream)


async def _noted(stream: StreamPort) -> None:
    buffer = FrameBuffer()
    while data := await stream.read(READ_BYTES):
        for frame in buffer.feed_untrusted(data):
            if isinstance(frame, Noted):
                return
            raise BadPacket("not_an_answer")
    raise EOFError("the other side did not note it")
