"""What incoming frames do: messages to the database, hall frames to the hall, and who may write at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from p2pnode import BadPacket, P2PError, PeerId, UserId, clean
from p2pnode.chat.inbound import Inbound
from p2pnode.chat.limits import Buckets, StrangerGate
from p2pnode.chat.link import BROKEN
from p2pnode.chat.mail.first_letters import FirstLetter
from p2pnode.chat.mail.letters import LetterMessage
from p2pnode.chat.model import MessageReceived, RequestReceived
from p2pnode.chat.ports import SessionPort, StreamPort
from p2pnode.chat.protocol import MAX_TEXT_BYTES, Hello, Members, TextMessage
from p2pnode.chat.store import DeviceRow, Incoming, Received

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Reception"]

log = structlog.get_logger(__name__)

MEMBER_RATE, MEMBER_BURST = 50.0, 500.0  # hall messages per second of one member: beyond a fast reader, below a flood


class Reception:
    """The `InboundOwner` of a `Chat`."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._streams: Counter[PeerId] = Counter()
        self._gate = StrangerGate()
        self._members = Buckets(rate=MEMBER_RATE, burst=MEMBER_BURST, capacity=256)

    async def serve(self, session: SessionPort, stream: StreamPort) -> None:
        """Serve an incoming chat stream to its end."""
        chat, peer = self._chat, session.peer
        if chat.stopping or self._streams[peer] >= chat.settings.inbound_streams:
            chat.drops["too_many_streams"] += 1
            stream.reset(1)
            return
        self._streams[peer] += 1
        try:
            await Inbound(session, stream, self).serve()
        except BadPacket as bad:
            chat.drops[bad.reason] += 1
            log.info("chat_stream_dropped", peer=str(peer), reason=bad.reason)
            stream.reset(1)
        except BROKEN:
            stream.reset(0)  # the session ended; the sender will come again
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    def own_hello(self, peer: PeerId) -> Hello:
        return self._chat.links.own_hello(peer)

    def heard_hello(self, session: SessionPort, hello: Hello) -> None:
        """Raise BadPacket when its proof is false."""
        self._chat.heard_hello(session, hello)

    def start(self, work: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        return self._chat.start_task(work, "chat-receive")

    async def receive(self, session: SessionPort, frame: TextMessage) -> str:
        """Store a message; return "" once it is on the disk (also when it was already), else why not."""
        chat, peer = self._chat, session.peer
        now = chat.node.network.monotonic()
        user = chat.directory.user_of(peer)
        if user is None:
            return "busy"  # so many strangers came meanwhile that this one was forgotten; it will greet again
        if user == chat.node.user_id and not frame.hall:
            return "own_account"  # what the user's other devices have to say, they say another way
        if frame.hall:
            if peer not in chat.hall:
                return "not_member"
            if not self._members.take(peer, now):
                return "too_fast"
        stranger = not frame.hall and chat.directory.state_of(user) is None
        admitted = not stranger or self._gate.admits(session.remote, chat.directory.open_requests(), now)
        return await self._store(peer, user, frame, hall=frame.hall, strangers=admitted)

    async def receive_letter(self, author: PeerId, message: LetterMessage) -> str:
        """Store a message that waited in the network; return as `receive`. Only contacts can leave any."""
        user = self._chat.directory.user_of(author)
        if user is None:
            return "busy"  # its Hello told us once, and will again
        return await self._store(author, user, message, hall=False, strangers=False)

    async def receive_first(self, first: FirstLetter) -> str:
        """Store what a stranger left in our pool, as a request; return as `receive`. Raise BadPacket: `not_listed`."""
        directory = self._chat.directory
        if first.user == self._chat.node.user_id:
            return "own_account"
        self._chat.devices.check(first.author, first.user)
        stranger = directory.state_of(first.user) is None and directory.state_of(first.author) is None
        if stranger and directory.open_requests() >= StrangerGate.MAX_OPEN:
            return "busy"
        directory.learn(DeviceRow(first.author, first.user, first.name))
        return await self._store(first.author, first.user, first.message, hall=False, strangers=True)

    async def _store(
        self, peer: PeerId, user: UserId, frame: TextMessage | LetterMessage, *, hall: bool, strangers: bool
    ) -> str:
        chat = self._chat
        incoming = Incoming(
            id=frame.id,
            author=peer,
            author_user=user,
            hall=hall,
            sequence=frame.sequence,
            text=clean(frame.text, limit=MAX_TEXT_BYTES, newline=True),
            sent_at_ms=frame.sent_at,
            received_at_ms=chat.now_ms(),
            author_name=chat.directory.name_of(peer),
        )
        try:
            received = await chat.store.receive(incoming, strangers=strangers)
        except P2PError as exc:
            log.error("message_not_stored", reason=exc.code, why=exc.message)
            return "storage"
        self._tell(peer, received)
        return received.code

    def heard_members(self, session: SessionPort, frame: Members) -> None:
        self._chat.hall.heard_members(session, frame)

    def heard_leave(self, session: SessionPort) -> None:
        self._chat.hall.lost(session.peer)

    def heard_welcome(self, session: SessionPort) -> None:
        self._release(session.peer)

    def _tell(self, peer: PeerId, received: Received) -> None:
        if received.message is None:
            return
        if received.contact is not None:
            self._chat.directory.put(received.contact)
            self._chat.emit(RequestReceived(received.contact, received.message))
        if received.message.party == received.message.author_user:
            self._release(peer)  # whoever writes to us alone has accepted us
        self._chat.emit(MessageReceived(received.message))

    def _release(self, peer: PeerId) -> None:
        self._chat.files.outgoing.came(peer)
        link = self._chat.links.get(peer)
        if link.pending:
            link.direct.release()
            link.poke(retry_now=True)
