"""Our own requests: which keys they go out under, when they are repeated, which answers are believed. No I/O.

One half of `engine.Engine`, which receives datagrams, opens frames, and answers others' requests (`answering`).
Requests that act on others (`messages.SEALED_ONLY`) are never put into a signed frame: without agreed keys the call
begins with a signed Ping, which agrees them and proves our address, and goes on sealed. A Deliver or Changed goes out
under keys that there are, or not at all: its sender does no public-key work for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht.calls import Call, CallBook, Outcome, Rtt
from p2pnode.dht.contact import Contact, unpack_address_untrusted
from p2pnode.dht.error_codes import code_name
from p2pnode.dht.keyring import Ephemeral, Keyring, Session, derive_keys
from p2pnode.dht.limits import Budget, SentLog
from p2pnode.dht.members import Members
from p2pnode.dht.messages import (
    PING_BYTES,
    SEALED_ONLY,
    UNDER_KEYS,
    Answer,
    Error,
    ErrorCode,
    FindNode,
    Forward,
    Get,
    ListTopic,
    Ping,
    Request,
    decode_answer_untrusted,
    encode,
    sealed_size,
)
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.statistics import Counters
from p2pnode.dht.wire import (
    CONFIRM,
    MAX_DATAGRAM,
    NO_RECEIVER,
    SEALED_HEADER,
    SIGNED_ANSWER,
    SIGNED_REQUEST,
    parse_retry_untrusted,
    parse_signed_answer_untrusted,
    sealed_confirmation_text,
    sealed_request_text,
    signed_request_body,
    signing_bytes,
)

__all__ = ["Asking"]

PAD_PING = PING_BYTES  # so that no answer is longer (A1): 183 of frame, 36 of error
PAD_FIND_NODE = 992  # 183 of frame, 40, 20 IPv6 contacts of 38
PAD_GET = MAX_DATAGRAM
NO_EPHEMERAL = bytes(32)
MAX_OPENINGS = 2  # signed exchanges before one sealed-only request: no keys, then keys that were forgotten
DELIVER_RTO_MAX = 0.4  # s; both repetitions within the 1.5 that its sender is made to wait
_PING = encode(Ping())


class Asking:
    """The asker's half of a node's exchanges, and what both halves share."""

    def __init__(
        self, *, key: NodeKey, tag: bytes, settings: DhtSettings, members: Members,
        send: Callable[[bytes, Address], None], token_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self.key, self.tag, self.settings, self.members = key, tag, settings, members
        self.node_id = key.node_id
        self._send_datagram, self.token_bytes = send, token_bytes
        self.counters = Counters()
        self.keyring = Keyring(
            max_sessions=settings.max_sessions,
            max_unconfirmed=settings.max_unconfirmed,
            max_age=settings.session_max_age,
            ciphers=settings.ciphers_at_hand,
        )
        self.calls = CallBook()
        self.rtt = Rtt()
        self.sent = SentLog()
        self.clock_offset_s: float | None = None
        self.on_observed: Callable[[PeerId, Address, Address], None] | None = None
        self._forgot_in = Budget(settings.forgot_rate)

    @property
    def flags(self) -> int:
        """The flags byte of our frames: the overlays in which we serve."""
        return self.members.flags

    # -- our own requests ---------------------------------------------------------------------------------------

    def call(
        self, address: Address, node_id: NodeId | None, request: Request, *, now: float, wall: float,
        on_done: Callable[[Outcome], None], on_late: Callable[[], None] | None = None, timeout: float | None = None,
        once: bool = False,
    ) -> Call:  # fmt: skip
        """Ask the node `node_id` (None: whoever is there, Ping only) at `address`.

        `on_done` is called once, never from within this call; `on_late` at most once, before it. `timeout`: seconds
        until it fails, None to go by measured round trips. Two repetitions, when it is late and later; none if `once`.
        """
        size = (
            PAD_GET
            if isinstance(request, Get | ListTopic)
            else PAD_FIND_NODE
            if isinstance(request, FindNode)
            else PAD_PING
        )
        call = Call(address, node_id, request, encode(request), size, on_done, on_late)
        overlay = self.members.overlay_of(address.ip)
        contact = self.members.tables[overlay].find(node_id) if overlay is not None and node_id is not None else None
        call.rto = self._rto(contact if contact is not None and contact.address == address else None)
        if isinstance(request, Forward):
            # Two round trips, the second to somebody unknown.
            call.rto *= 2.5
        elif isinstance(request, UNDER_KEYS):
            call.rto = min(call.rto, DELIVER_RTO_MAX)
        settings = self.settings
        give_up = max(settings.give_up_min, call.rto * settings.give_up_factor) if timeout is None else timeout
        call.asked_at, call.deadline = now, now + give_up
        if overlay is None or not self.calls.open():
            call.must_sign = call.retried = True  # never sent: it fails at the next timer
            self.calls.pending += 1
            self.calls.wake(call, now)
            call.deadline = now
            return call
        self._transmit(call, now, wall)
        call.late_at = call.deadline if once else min(now + call.rto, call.deadline)
        self.calls.wake(call, call.late_at)
        return call

    def cancel(self, call: Call) -> None:
        """Forget a call of ours; its `on_done` will not be called."""
        self.calls.close(call)

    def next_timer(self) -> float | None:
        return self.calls.next_timer()

    def handle_timer(self, now: float, wall: float) -> None:
        """Repeat what is late, give up what is over."""
        for call in self.calls.due(now):
            if now >= call.deadline:
                self._gave_up(call)
                continue
            if now >= call.late_at:
                self._transmit(call, now, wall)
                first = not call.retried
                call.retried = True
                # The second repetition comes after twice the time, and is the last.
                call.late_at = min(now + 2 * call.rto, call.deadline) if first else call.deadline
                if first and call.on_late is not None:
                    call.on_late()
            if not call.done:
                self.calls.wake(call, call.late_at)

    def _rto(self, contact: Contact | None) -> float:
        settings = self.settings
        if contact is not None and contact.rtt_s is not None:
            estimate = contact.rtt_s + max(4 * contact.rtt_var, contact.rtt_s / 4)
        else:
            estimate = self.rtt.late_after or settings.rto_initial
        return min(max(estimate, settings.rto_min), settings.rto_max)

    def _transmit(self, call: Call, now: float, wall: float) -> None:
        session = None
        if call.node_id is not None and not call.must_sign:
            if isinstance(call.request, UNDER_KEYS):
                session = self.keyring.newest(call.node_id)
                if session is None:
                    call.deadline = now  # it fails at the next timer
                    return
            else:
                session = self.keyring.for_sending(call.node_id, now)
                if session is not None and call.address not in session.paths:
                    # Whoever has the keys can guess our counter, and forge an answer from a victim's address: what
                    # proves a new address is the answer to a signed request, which names its hash.
                    session = None
        if session is None:
            self._transmit_signed(call, now, wall, b"")
            return
        frame = session.seal(sealed_request_text(self.flags, call.payload, sealed_size(call.request)))
        call.session = session
        self.calls.sent(call, frame[1:SEALED_HEADER], now)
        self.send(frame, call.address)

    def _transmit_signed(self, call: Call, now: float, wall: float, token: bytes) -> None:
        if call.ephemeral is None:
            call.ephemeral = Ephemeral(self.token_bytes(32))
        # Asked anew (token, forgotten key): it is late only a whole round trip from now.
        call.late_at = max(call.late_at, min(now + call.rto, call.deadline))
        nonce = self.token_bytes(16)
        call.wall = wall
        call.opening = isinstance(call.request, SEALED_ONLY)
        body = signed_request_body(
            tag=self.tag,
            receiver=call.node_id or NO_RECEIVER,
            sender_key=self.key.public_raw,
            nonce=nonce,
            ephemeral=call.ephemeral.public,
            wall_ms=max(0, int(wall * 1000)),
            flags=self.flags,
            token=token,
            payload=_PING if call.opening else call.payload,
            size=call.signed_size,
        )
        frame = body + self.key.sign(signing_bytes(SIGNED_REQUEST, body))
        self.calls.sent(call, hashlib.sha256(frame).digest(), now, nonce)
        self.send(frame, call.address)

    def _gave_up(self, call: Call) -> None:
        if not self.calls.close(call):
            return
        if call.session is not None and call.address in call.session.paths:
            # Silence at an address that somebody only told us says nothing about the keys.
            call.session.suspect = True
        if call.keys and call.node_id is not None:
            self.members.missed(call.node_id, call.address, call.asked_at)
        call.on_done(Outcome(None, "timeout" if call.keys else "not_sent"))

    # -- answers ------------------------------------------------------------------------------------------------

    def _sealed_answer_untrusted(
        self, session: Session, payload: bytes, counter: bytes, source: Address, overlay: Overlay, flags: int,
        now: float, wall: float,
    ) -> None:  # fmt: skip
        entry = self.calls.find(session.send_id + counter)
        if entry is None:
            self.alive(session, source, overlay, flags, now)  # to a call that was given up: still a sign of life
            raise BadPacket("unknown_answer")
        call, sent_at = entry
        if source != call.address:
            raise BadPacket("wrong_source")
        answer = decode_answer_untrusted(payload)
        session.prove(source)
        unproven = isinstance(answer, Error) and answer.code == ErrorCode.UNPROVEN
        if (
            unproven
            and not call.must_sign
            and call.openings < MAX_OPENINGS
            and not isinstance(call.request, UNDER_KEYS)
        ):
            call.must_sign = True
            self._transmit_signed(call, now, wall, b"")
            return
        self._answered(call, answer, session, source, overlay, flags, now, sent_at)

    def _signed_answer_untrusted(self, data: bytes, source: Address, overlay: Overlay, now: float, wall: float) -> None:
        frame = parse_signed_answer_untrusted(data)
        entry = self.calls.find(frame.request_hash)
        if entry is None:
            raise BadPacket("unknown_answer")
        call, sent_at = entry
        if source != call.address:
            raise BadPacket("wrong_source")
        if isinstance(call.request, SEALED_ONLY) and not call.opening:
            raise BadPacket("unknown_answer")  # a second answer: the request has gone out under the first one's keys
        if frame.requester != self.node_id:
            raise BadPacket("other_receiver")
        peer_id = PeerId.from_untrusted(frame.responder_key)
        if call.node_id is not None and peer_id.node_id != call.node_id:
            raise BadPacket("wrong_key")
        if peer_id == self.key.peer_id:
            raise BadPacket("own_key")
        if not self.counters.verified(peer_id.verify, frame.signature, signing_bytes(SIGNED_ANSWER, frame.signed)):
            raise BadPacket("bad_signature")
        answer = decode_answer_untrusted(frame.payload)
        session: Session | None = None
        if frame.ephemeral != NO_EPHEMERAL and call.ephemeral is not None:
            secret = call.ephemeral.agree_untrusted(frame.ephemeral)
            keys = derive_keys(
                secret, tag=self.tag, requester=self.node_id, responder=peer_id.node_id,
                request_hash=frame.request_hash, answer=data,
            )  # fmt: skip
            session = Session(peer_id, keys, self.keyring.ciphers, initiator=True, now=now)
            if self.keyring.confirm(session) and call.forgotten:
                self.members.restarted(peer_id.node_id, source, overlay, now)
            session.prove(source)
            if frame.flags & CONFIRM and self.flags & overlay.flag:
                # We serve here: show that we got the answer here, so that it takes us in. A ping would cost two.
                self.send(session.seal(sealed_confirmation_text(self.flags)), source)
        elif isinstance(answer, Error) and answer.code == ErrorCode.CLOCK:
            self.clock_offset_s = call.wall - answer.detail / 1000
        if call.opening and session is not None and not isinstance(answer, Error):
            self._heard(call, answer, session, source, overlay, frame.flags, now, now - sent_at)
            self._opened(call, now, wall)
            return
        self._answered(call, answer, session, source, overlay, frame.flags, now, sent_at, peer_id)

    def _opened(self, call: Call, now: float, wall: float) -> None:
        """The keys are agreed: now the request itself, with its own repetitions."""
        call.opening = call.must_sign = call.retried = False
        call.openings += 1
        call.late_at = min(now + call.rto, call.deadline)
        self._transmit(call, now, wall)
        self.calls.wake(call, call.late_at)

    def _answered(
        self, call: Call, answer: Answer, session: Session | None, source: Address, overlay: Overlay, flags: int,
        now: float, sent_at: float, peer_id: PeerId | None = None,
    ) -> None:  # fmt: skip
        self.calls.close(call)
        rtt_s = now - sent_at
        contact = None
        if session is not None:
            peer_id = session.peer_id
            contact = self._heard(call, answer, session, source, overlay, flags, now, rtt_s)
        if isinstance(answer, Error):
            self.counters.refused[code_name(answer.code)] += 1
        call.on_done(Outcome(answer, "", peer_id, contact, rtt_s))

    def _heard(
        self, call: Call, answer: Answer, session: Session, source: Address, overlay: Overlay, flags: int, now: float,
        rtt_s: float,
    ) -> Contact | None:  # fmt: skip
        """Learn from an answer: round trip, sign of life, our own address. Return the contact, if it serves."""
        contact = self.alive(session, source, overlay, flags, now)
        if call.opening or not isinstance(call.request, Forward):  # that one's answer waits for somebody else's
            before = self._rto(None)
            self.rtt.measured(rtt_s)
            self.calls.hasten(before, self._rto(None), now)
            if contact is not None:
                contact.measured(rtt_s)
        if session.observed != answer.observed:
            session.observed = answer.observed
            self._observed(session.peer_id, source, answer.observed)
        return contact

    def _observed(self, peer_id: PeerId, source: Address, packed: bytes) -> None:
        if self.on_observed is None:
            return
        try:
            own = unpack_address_untrusted(packed)
        except BadPacket:
            self.counters.drops["bad_observed"] += 1
            return
        self.on_observed(peer_id, source, own)

    def _retry_untrusted(self, data: bytes, source: Address, now: float, wall: float) -> None:
        nonce, token = parse_retry_untrusted(data)
        call = self.calls.find_nonce(nonce)
        if call is None or source != call.address or call.nonces[-1] != nonce:
            raise BadPacket("unknown_nonce")
        if call.tokens >= 2:  # one for the request, one for its repetition
            raise BadPacket("too_many_tokens")
        call.tokens += 1
        self._transmit_signed(call, now, wall, token)

    def _forgot_untrusted(self, data: bytes, source: Address, now: float, wall: float) -> None:
        """The peer says that it cannot open our frame: ask again, signed. Nothing is forgotten on its word."""
        if len(data) != SEALED_HEADER:
            raise BadPacket("bad_length")
        entry = self.calls.find(data[1:])
        if entry is None or source != entry[0].address:
            raise BadPacket("unknown_frame")
        call = entry[0]
        if isinstance(call.request, UNDER_KEYS):
            raise BadPacket("unknown_frame")  # who forgot us has not registered here either
        if call.forgotten or not self._forgot_in.take(now):
            raise BadPacket("forgot_limit")
        call.forgotten = call.must_sign = True
        self._transmit_signed(call, now, wall, b"")

    # -- shared with the other half -------------------------------------------------------------------------------

    def send(self, data: bytes, to: Address) -> None:
        self.counters.datagrams_out[data[0]] += 1
        self.counters.bytes_out_by[data[0]] += len(data)
        self.sent.note(to)
        self._send_datagram(data, to)

    def alive(self, session: Session, source: Address, overlay: Overlay, flags: int, now: float) -> Contact | None:
        """The session's peer was heard from `source`; when it proved that address and serves, it is a contact."""
        try:
            contact = session.paths[source]
        except KeyError:
            return None
        if not flags & overlay.flag:
            if contact is not None:  # it stopped serving
                self.members.tables[overlay].remove_contact(contact)
                session.paths[source] = None
            return None
        if contact is not None and not contact.misses and now - contact.last_seen < 1.0:
            return contact  # the hot path: nothing to renew
        if source.is_link:
            return None  # nobody else can ask it there
        contact = session.paths[source] = self.members.seen(session.peer_id, source, overlay, now, contact)
        return contact
