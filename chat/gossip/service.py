"""Gossip: what we say of ourselves goes to contacts who are here, and through them to those we both know.

A part of the chat. The decisions are those of docs/design.md, "Gossip"; the wire is docs/protocol/gossip.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from p2pnode import (
    BadPacket,
    MessageTooLongError,
    NetworkChanged,
    NodeEvent,
    PeerId,
    SessionOpened,
    UserId,
    clean,
    clean_name,
)
from p2pnode.chat.gossip.book import MAX_DEVICES, Book, Told
from p2pnode.chat.gossip.statements import (
    MAX_ADDRESSES,
    MAX_TEXT,
    Body,
    Statement,
    entry_of,
    fill_of,
    sign,
)
from p2pnode.chat.gossip.store import GossipStore
from p2pnode.chat.gossip.talk import Talk
from p2pnode.chat.gossip.wire import GOSSIP_PROTOCOL, MAX_TAGS, MAX_USERS, Ask, GossipFrame, Know, Known
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import ChatEvent, MessageReceived, MessageStateChanged, PresenceSeen, StatusChanged
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode.chat.database import Database
    from p2pnode.chat.service import Chat

__all__ = ["Gossip"]

log = structlog.get_logger(__name__)

REVIEW_S = 1.0  # changes that come together are one statement
LEAVE_S = 0.5  # of the two seconds that leaving may take
RATE, BURST = 1.0, 300.0  # statements of one device that are looked at, per second: two signatures each
MAX_TELLERS = 16  # that are remembered of each device
QUESTIONS_RATE, QUESTIONS_BURST = 1 / 30, 10.0  # that a contact may ask whom we know: not to walk through our contacts


class Gossip:
    """Of one chat."""

    def __init__(self, chat: Chat, database: Database) -> None:
        self._chat = chat
        self._store = GossipStore(database)
        self._book = Book(chat.node.key, self._is_contact)
        self._text, self._invisible, self._at = "", False, 0
        self._speaking: dict[PeerId, Talk] = {}
        self._listening: dict[PeerId, Talk] = {}
        self._own: Statement | None = None
        self._review: asyncio.Task[None] | None = None
        self._budget = Buckets(rate=RATE, burst=BURST)
        self._questions = Buckets(rate=QUESTIONS_RATE, burst=QUESTIONS_BURST)
        self._asking: dict[int, tuple[set[PeerId], dict[UserId, list[UserId | PeerId]], asyncio.Event]] = {}
        self._tellers: dict[PeerId, dict[PeerId, None]] = {}
        self._cancels: list[Cancel] = []
        self._stopping = False

    # life

    async def start(self) -> None:
        kept = await self._store.load()
        self._text, self._at = kept.text, kept.at
        for statement in kept.heard:
            if not self._book.put(statement, self._chat.now_ms()):
                self._store.forget(statement)
        if kept.invisible:
            self._invisible = True
            await self._chat.node.set_invisible(True)
        self._chat.node.handle(GOSSIP_PROTOCOL, self._serve)
        self._cancels = [self._chat.subscribe(self._chat_event), self._chat.node.subscribe(self._node_event)]
        for session in self._chat.node.sessions():
            self._look(session.peer)

    async def stop(self) -> None:
        for cancel in self._cancels:
            cancel()
        if self._review is not None:
            self._review.cancel()
        await self._take_leave()
        self._stopping = True

    # what applications call

    @property
    def text(self) -> str:
        """Our status text; empty: none."""
        return self._text

    @property
    def invisible(self) -> bool:
        return self._invisible

    async def set_text(self, text: str) -> str:
        """Show contacts a status text, at most 140 characters; empty: none. Return it as they see it. Raise
        MessageTooLongError, StorageError."""
        if len(text) > MAX_TEXT:
            raise MessageTooLongError(f"A status has at most {MAX_TEXT} characters; this has {len(text)}.")
        self._text = clean(text.strip(), limit=MAX_TEXT)
        await self._store.put_own(self._text, invisible=self._invisible)
        self._announce()
        return self._text

    async def set_invisible(self, invisible: bool) -> None:
        """Look offline to everybody, while messages still come and go; or be seen again. Survives restarts. Whoever is
        written to sees that we are here. Raise StorageError."""
        if invisible == self._invisible:
            return
        await self._store.put_own(self._text, invisible=invisible)
        if invisible:
            await self._chat.names.withdraw()
            await self._chat.rooms.finding.hide()
            await self._chat.hall.leave(LEAVE_S)
            await self._take_leave()
        self._invisible = invisible
        await self._chat.node.set_invisible(invisible)
        if not invisible:
            self._chat.links.came(None)
            self._chat.names.renew()
            self._chat.rooms.finding.show()

    def told_of(self, party: UserId | PeerId) -> Told | None:
        """Return what a contact said last of itself, by one of its devices: one that is here before one that is not."""
        devices = [party] if isinstance(party, PeerId) else self._book.devices_of(party)
        now_ms = self._chat.now_ms()
        told = [found for device in devices if (found := self._book.told(device, now_ms)) is not None]
        return max(told, key=lambda each: (each.online, -each.age_s), default=None)

    def status_of(self, party: UserId | PeerId) -> str:
        """Return the newest status text of a contact; empty: none."""
        devices = [party] if isinstance(party, PeerId) else self._book.devices_of(party)
        now_ms = self._chat.now_ms()
        told = [found for device in devices if (found := self._book.told(device, now_ms)) is not None]
        return min(told, key=lambda each: each.age_s).text if told else ""

    def presence_of(self, user: UserId) -> str:
        """Return what is known of a user just now: `online`, `last_seen`, `offline`, or "" for nothing."""
        told = self.told_of(user)
        return told.state if told is not None else ""

    def friends_of(self, device: PeerId) -> list[PeerId]:
        """Return the devices that are here and told us of a contact's device: their users know it, as we do."""
        tellers = self._tellers.get(device, {})
        return [peer for peer in tellers if self._chat.node.session(peer) is not None]

    async def who_knows(self, users: Sequence[UserId], timeout: float) -> dict[UserId, list[UserId | PeerId]]:
        """Ask the contacts who are here which of these users (the first 50) are contacts of theirs. Return whom each is
        a contact of, as far as they said so within `timeout` seconds; they may not want to."""
        found: dict[UserId, list[UserId | PeerId]] = {user: [] for user in users[:MAX_USERS]}
        talks = [talk for talk in self._speaking.values() if not talk.session.closed]
        if not talks or not found:
            return found
        number = int.from_bytes(self._chat.node.network.token_bytes(4), "big")
        done = asyncio.Event()
        self._asking[number] = ({talk.session.peer for talk in talks}, found, done)
        for talk in talks:
            talk.say(Know(number, [user.raw for user in found]))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await done.wait()
        finally:
            del self._asking[number]
        return found

    # what the chat tells

    def people_changed(self) -> None:
        """Contacts or their devices have changed: who may hear us may be others."""
        if self._review is None and not self._stopping and (self._speaking or self._listening):
            self._review = self._chat.start_task(self._look_again(), "chat-gossip-review")

    # inside

    def _is_contact(self, device: PeerId, user: UserId) -> bool:
        directory = self._chat.directory
        accepted = directory.state_of(user) == "accepted" or directory.state_of(device) == "accepted"
        if not self._chat.devices.listed(user, (device,)):
            return False  # revoked
        return accepted and directory.state_of(user) != "blocked" and not directory.is_blocked(device)

    def _is_friend(self, peer: PeerId) -> bool:
        user = self._chat.directory.user_of(peer)
        return user is not None and self._is_contact(peer, user)

    def _chat_event(self, event: ChatEvent) -> None:
        if isinstance(event, MessageReceived):
            self._look(event.message.author)
        elif isinstance(event, MessageStateChanged) and isinstance(event.party, UserId | PeerId):
            for device in self._chat.directory.devices_of(event.party) if event.state == "delivered" else ():
                self._look(device)

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            self._look(event.session.peer)
        elif isinstance(event, NetworkChanged):
            self.people_changed()

    def _look(self, peer: PeerId) -> None:
        """Speak with a contact's device that is here, unless we do."""
        session = self._chat.node.session(peer)
        if session is None or self._invisible or self._stopping or not self._is_friend(peer):
            return
        known = self._speaking.get(peer)
        if known is None or known.session is not session:
            talk = self._speaking[peer] = Talk(session, self._heard)
            talk.tell(self._statement())
            talk.say(Ask(self._book.asked(MAX_TAGS)))
            self._chat.start_task(self._speak(talk), f"chat-gossip {peer}")

    async def _speak(self, talk: Talk) -> None:
        peer = talk.session.peer
        try:
            await self._run(talk, await talk.session.open_stream(GOSSIP_PROTOCOL))
        except BROKEN as exc:  # an older program, who has not accepted us: tried again with the next session
            log.debug("gossip_not_heard", peer=str(peer), why=str(exc))

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        peer = session.peer
        known = self._listening.get(peer)
        if not self._is_friend(peer) or (known is not None and known.session is session):
            self._chat.drops["gossip_not_a_contact" if known is None else "gossip_again"] += 1
            stream.reset(1)
            return
        talk = self._listening[peer] = Talk(session, self._heard)
        try:
            await self._run(talk, stream)
        except BROKEN:
            stream.reset(0)
        finally:
            if self._listening.get(peer) is talk:
                del self._listening[peer]

    async def _run(self, talk: Talk, stream: StreamPort) -> None:
        try:
            await talk.run(stream)
        except BadPacket as bad:
            self._chat.drops[f"gossip_{bad.reason}"] += 1
            log.info("gossip_dropped", peer=str(talk.session.peer), reason=bad.reason)
            stream.reset(1)
            raise

    def _heard(self, talk: Talk, frame: GossipFrame) -> None:
        peer = talk.session.peer
        if not self._is_friend(peer):
            raise BadPacket("not_a_contact")
        if isinstance(frame, Ask):
            if self._listening.get(peer) is not talk:
                raise BadPacket("not_an_answer")
            talk.entries = frozenset(entry_of(tag, peer) for tag in frame.tags)
            for statement in self._book.matching(talk.entries, peer):
                talk.tell(statement)
            self._look(peer)  # it has accepted us, or it would not ask
            return
        if isinstance(frame, Know):
            if self._listening.get(peer) is not talk:
                raise BadPacket("not_an_answer")
            talk.say(Known(frame.number, [raw for raw in frame.users if self._says_to_know(peer, raw)]))
        elif isinstance(frame, Known):
            self._answered(peer, frame)
        else:
            for packed in frame.statements:
                self._told(peer, packed)

    def _says_to_know(self, peer: PeerId, raw: bytes) -> bool:
        """Whether to tell a contact that somebody is a contact of ours as well."""
        if not self._chat.settings.tell_contacts:
            return False
        user = UserId.from_untrusted(raw)
        if self._chat.directory.state_of(user) != "accepted":
            return False
        return self._questions.take(self._chat.directory.party_of(peer), self._chat.node.network.monotonic())

    def _answered(self, peer: PeerId, frame: Known) -> None:
        asked = self._asking.get(frame.number)
        if asked is None or peer not in asked[0]:
            return  # too late
        waited_for, found, done = asked
        waited_for.discard(peer)
        for raw in set(frame.users):
            friends = found.get(UserId.from_untrusted(raw))
            if friends is not None and self._chat.directory.party_of(peer) not in friends:
                friends.append(self._chat.directory.party_of(peer))
        if not waited_for:
            done.set()

    def _told(self, teller: PeerId, packed: bytes) -> None:
        if not self._budget.take(teller, self._chat.node.network.monotonic()):
            raise BadPacket("too_fast")
        peeked = Statement.peek_untrusted(packed)
        if peeked.device == self._chat.node.peer_id:
            return
        if self._book.knows(peeked.device, peeked.body.at):  # no signature is checked for what is known
            if self._book.holds(peeked.device, packed):
                self._note_teller(peeked.device, teller)
            return
        statement = Statement.check_untrusted(packed)
        now_ms = self._chat.now_ms()
        before = self._book.told(statement.device, now_ms)
        if not self._book.put(statement, now_ms):
            return
        self._note_teller(statement.device, teller)
        self._store.heard(statement)
        for gone in self._book.take_gone():
            self._store.forget(gone)
        for talk in self._listening.values():
            if talk.session.peer not in (teller, statement.device) and not talk.entries.isdisjoint(statement.audience):
                talk.tell(statement)
        if statement.addresses and statement.device != teller:
            self._chat.links.hint(statement.device, statement.addresses)
        self._emit(before, statement, teller)
        if before is None:
            self.people_changed()  # one more who may hear us, and whom we ask for

    def _note_teller(self, device: PeerId, teller: PeerId) -> None:
        """Who has what a contact said to its contacts is one of them."""
        if device != teller:
            tellers = self._tellers.setdefault(device, {})
            tellers[teller] = None
            if len(tellers) > MAX_TELLERS:
                del tellers[next(iter(tellers))]
            if len(self._tellers) > MAX_DEVICES:
                del self._tellers[next(iter(self._tellers))]

    def _emit(self, before: Told | None, statement: Statement, teller: PeerId) -> None:
        told = self._book.told(statement.device, self._chat.now_ms())
        if told is None:
            return
        if told.text != ("" if before is None else before.text):
            self._chat.emit(StatusChanged(told.device, told.user, told.text))
        here = self._chat.node.session(told.device) is not None or teller == told.device  # the session itself tells
        if not here and (before is None or before.state != told.state):
            seen = PresenceSeen(told.device, told.user, told.online, told.age_s, told.state, "contact")
            self._chat.emit(seen)

    def _statement(self, *, here: bool = True) -> Statement:
        """Return what we say of ourselves now; signed anew when it is not what was said last."""
        node, own = self._chat.node, self._own
        addresses = [] if node.settings.relay_only else [each.pack() for each in node.addresses()[:MAX_ADDRESSES]]
        body = Body(
            node.peer_id.raw, node.user_id.raw, self._chat.links.proof, 0, here, clean_name(node.settings.name),
            self._text, node.key.x25519_public, addresses if here else [], self._book.audience(),
        )  # fmt: skip
        if own is not None and here and own.says(body):
            return own
        self._at = max(self._chat.now_ms(), self._at + 1)
        self._own = sign(node.key, body.at_time(self._at), fill_of(node.key))
        self._store.said(self._at)
        return self._own

    def _announce(self) -> None:
        if not self._invisible:
            statement = self._statement()
            for talk in self._speaking.values():
                if not talk.session.closed:
                    talk.tell(statement)

    async def _look_again(self) -> None:
        await asyncio.sleep(REVIEW_S)
        self._review = None
        self._speaking = {peer: talk for peer, talk in self._speaking.items() if not talk.session.closed}
        self._announce()
        asked = Ask(self._book.asked(MAX_TAGS))
        for talk in self._speaking.values():
            talk.say(asked)

    async def _take_leave(self) -> None:
        """Tell those who are here that we go; what is not out after half a second is not waited for."""
        if self._invisible or not self._speaking:
            return
        leaving = self._statement(here=False)
        talks = [talk for talk in self._speaking.values() if not talk.session.closed]
        self._own = None
        for talk in talks:
            talk.tell(leaving)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*(talk.told() for talk in talks))
