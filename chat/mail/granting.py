"""Giving contacts the means to leave us mail, and taking theirs, in a session. docs/protocol/mail.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2pnode import BadPacket, PeerId
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.frames import (
    MAIL_PROTOCOL,
    MAX_FRAME_BYTES,
    NO_GRANT,
    Check,
    FrameBuffer,
    Grant,
    MailFrame,
    Taken,
    encode,
    grant_id,
)
from p2pnode.chat.mail.letters import SECRET_BYTES
from p2pnode.chat.ports import SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Granting"]

log = structlog.get_logger(__name__)

ROTATE_S = 86_400  # a chain, and the key that opens its letters, is replaced at the first meeting after so long
TIMEOUT_S = 10.0
FRAMES_MAX = 4  # of one stream: a taker is asked twice
MAX_REMEMBERED = 1024  # sessions in which both sides know; beyond it they are asked again


class Granting:
    """One exchange per session and direction."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.changed: Callable[[], None] = lambda: None
        """Called when a device was given another chain."""
        self._done: dict[PeerId, SessionPort] = {}
        self._refused: set[PeerId] = set()
        self._taking = Buckets(rate=1 / 60, burst=4)  # each is a commit

    def start(self) -> None:
        self._chat.node.handle(MAIL_PROTOCOL, self._serve)

    def look(self, peer: PeerId) -> None:
        """Give a device the means to leave us mail, if it is a contact's, a session is open and it has none yet."""
        session = self._chat.node.session(peer)
        if session is None or self._done.get(peer) is session or not self.is_friend(peer):
            return
        if len(self._done) >= MAX_REMEMBERED:
            self._done.clear()
            self._refused.clear()
        self._done[peer] = session
        self._refused.discard(peer)
        self._chat.start_task(self._give(session), f"chat-mail-grant {peer}")

    def is_friend(self, peer: PeerId) -> bool:
        """Whether we take mail from a device, and leave it some."""
        directory = self._chat.directory
        return directory.state_of(directory.party_of(peer)) == "accepted" and not directory.is_blocked(peer)

    async def _give(self, session: SessionPort) -> None:
        database, peer = self._chat.store.database, session.peer
        try:
            async with asyncio.timeout(TIMEOUT_S):
                stream = await session.open_stream(MAIL_PROTOCOL)
                reader = _Frames(stream)
                grant = await database.read(lambda c: tables.newest_given(c, peer))
                if grant is not None:
                    await stream.write(encode(Check(grant.id)))
                    answer = await reader.taken()
                    young = self._chat.now_ms() // 1000 < grant.made_at + ROTATE_S
                    # fewer than we have read: an older database was restored there, and slots would be used twice
                    if answer.grant == grant.id and answer.used >= grant.base and young:
                        stream.finish()
                        return
                if grant is not None and grant.base == 0 and answer.grant == NO_GRANT:
                    fresh = grant  # it never arrived, or was forgotten: the same again, or each try would add one
                else:
                    fresh = self._make(peer)
                    await database.write(lambda c: tables.put_given(c, fresh))
                public = X25519PrivateKey.from_private_bytes(fresh.private).public_key().public_bytes_raw()
                await stream.write(encode(Grant(fresh.secret, public)))
                answer = await reader.taken()
                if answer.grant == fresh.id:
                    await database.write(lambda c: tables.replaced(c, peer, fresh.id, answer.used))
                self.changed()
                stream.finish()
        except (*BROKEN, TimeoutError) as exc:
            # An older program, somebody who has not accepted us, a session that ended: tried again with the next one,
            # or when they give us theirs.
            self._refused.add(peer)
            log.debug("mail_not_granted", peer=str(peer), why=str(exc))

    def _make(self, peer: PeerId) -> tables.Given:
        random = self._chat.node.network.token_bytes
        secret = random(SECRET_BYTES)
        return tables.Given(grant_id(secret), peer, secret, random(32), 0, None, self._chat.now_ms() // 1000)

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        peer, database = session.peer, self._chat.store.database
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader = _Frames(stream)
                for _ in range(FRAMES_MAX):
                    if (frame := await reader.next()) is None:
                        break
                    if not self.is_friend(peer):
                        raise BadPacket("not_a_contact")
                    if peer in self._refused:  # they have accepted us since
                        self._done.pop(peer, None)
                        self.look(peer)
                    if isinstance(frame, Grant):
                        if not self._taking.take(peer, self._chat.node.network.monotonic()):
                            raise BadPacket("too_fast")
                        await stream.write(encode(await self._keep(peer, frame)))
                    elif isinstance(frame, Check):
                        held = await database.read(lambda c: tables.taken(c, peer))
                        answer = Taken(held.id, held.used) if held is not None else Taken(NO_GRANT, 0)
                        await stream.write(encode(answer))
                    else:
                        raise BadPacket("not_a_question")
                stream.finish()
        except BadPacket as bad:
            self._chat.drops[f"mail_{bad.reason}"] += 1
            stream.reset(1)
        except (*BROKEN, TimeoutError):
            stream.reset(0)

    async def _keep(self, peer: PeerId, grant: Grant) -> Taken:
        """Return the answer."""
        taken = tables.Taken(peer, grant_id(grant.secret), grant.secret, grant.key, 0)
        now_s = self._chat.now_ms() // 1000
        return Taken(taken.id, await self._chat.store.database.write(lambda c: tables.put_taken(c, taken, now_s)))


class _Frames:
    """The frames of a stream, one at a time."""

    def __init__(self, stream: StreamPort) -> None:
        self._stream = stream
        self._buffer = FrameBuffer()

    async def next(self) -> MailFrame | None:
        """Return the next frame, None at the end. Raise BadPacket, or what a broken stream raises."""
        while (frame := self._buffer.next_untrusted()) is None:
            data = await self._stream.read(MAX_FRAME_BYTES)
            if not data:
                return None
            self._buffer.add(data)
        return frame

    async def taken(self) -> Taken:
        """Return the answer. Raise BadPacket for anything else."""
        frame = await self.next()
        if not isinstance(frame, Taken):
            raise BadPacket("not_an_answer")
        return frame
