"""Other nodes' requests: cheap checks first, then budgets, then the signature, then the answer. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht.calls import Asked
from p2pnode.dht.contact import pack_address
from p2pnode.dht.keyring import Ephemeral, Session, derive_keys
from p2pnode.dht.limits import Budget, NonceCache, PrefixBudgets, prefix_of
from p2pnode.dht.messages import (
    SEALED_ONLY,
    Error,
    ErrorCode,
    Ping,
    Request,
    Signal,
    decode_request_untrusted,
    encode,
    sealed_size,
)
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.service import Service
from p2pnode.dht.tokens import RetryTokens
from p2pnode.dht.wire import (
    CONFIRM,
    MAX_DATAGRAM,
    NO_RECEIVER,
    SEALED_ANSWER_OVERHEAD,
    SEALED_REQUEST_MIN,
    SIGNED_ANSWER,
    SIGNED_ANSWER_OVERHEAD,
    SIGNED_REQUEST,
    SignedRequest,
    parse_signed_request_untrusted,
    retry_frame,
    sealed_answer_text,
    signed_answer_body,
    signing_bytes,
)

if TYPE_CHECKING:
    from p2pnode.dht.engine import Engine

__all__ = ["Answerer"]


class Answerer:
    """Answers signed and sealed requests."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self._engine, self._service = engine, service
        settings = engine.settings
        self._retry_tokens = RetryTokens(engine.token_bytes)
        self._nonces = NonceCache(settings.max_nonces, 2 * settings.clock_window)
        unproven = Budget(settings.signature_rate, settings.signature_burst)
        self._unproven = PrefixBudgets(unproven, settings.prefix_rate, settings.prefix_burst)
        self._proven = PrefixBudgets(Budget(settings.token_rate), settings.token_prefix_rate)
        self._clock_answers = Budget(10.0)

    def signed_request_untrusted(self, data: bytes, source: Address, overlay: Overlay, now: float, wall: float) -> None:
        """Verify a 0x05 frame and answer it. Raise BadPacket with the reason."""
        engine = self._engine
        frame = parse_signed_request_untrusted(data)
        if frame.tag != engine.tag:
            raise BadPacket("other_network")
        is_hello = frame.receiver == NO_RECEIVER
        if not is_hello and frame.receiver != engine.node_id:
            raise BadPacket("other_receiver")
        if frame.sender_key == engine.key.public_raw:
            self._own_key_untrusted(frame, source, now)
            raise BadPacket("own_key")
        replay_key = frame.nonce + frame.sender_key[:16]
        if replay_key in self._nonces:
            raise BadPacket("replay")
        wrong_clock = abs(wall * 1000 - frame.wall_ms) > engine.settings.clock_window * 1000
        proven = self._admit_untrusted(frame, source, now)
        if wrong_clock and not self._clock_answers.take(now):
            raise BadPacket("clock")
        peer_id = PeerId.from_untrusted(frame.sender_key)
        signed = signing_bytes(SIGNED_REQUEST, frame.signed)
        if not engine.counters.verified(peer_id.verify, frame.signature, signed):
            raise BadPacket("bad_signature")
        request = decode_request_untrusted(frame.payload)
        if type(request) in SEALED_ONLY:
            raise BadPacket("sealed_only")
        if is_hello and not isinstance(request, Ping):
            raise BadPacket("hello_asks_more")
        self._nonces.add(replay_key, now)
        if wrong_clock:
            self._refuse_clock(peer_id, data, source, wall)
            raise BadPacket("clock")
        self._answer_signed(peer_id, request, frame, data, source, overlay, proven=proven, now=now, wall=wall)

    def _own_key_untrusted(self, frame: SignedRequest, source: Address, now: float) -> None:
        """Somebody signs with our key, if the signature holds: another process of a copied home. Raise BadPacket."""
        self._admit_untrusted(frame, source, now)
        own = PeerId.from_untrusted(frame.sender_key)
        if self._engine.counters.verified(own.verify, frame.signature, signing_bytes(SIGNED_REQUEST, frame.signed)):
            self._engine.own_key_used()

    def sealed_request_untrusted(
        self, session: Session, payload: bytes, counter: bytes, size: int, source: Address, overlay: Overlay,
        flags: int, now: float, wall: float,
    ) -> None:  # fmt: skip
        """Answer an opened request, into no more bytes than came unless the source is proven. Raise BadPacket."""
        engine = self._engine
        request = decode_request_untrusted(payload)
        limit = MAX_DATAGRAM if source in session.paths else min(size, MAX_DATAGRAM)
        if limit < SEALED_REQUEST_MIN:
            raise BadPacket("too_short")
        if type(request) in SEALED_ONLY:  # a seventh of `isinstance`, which asks each class's metaclass
            if size < sealed_size(request):
                raise BadPacket("too_short")
            engine.counters.requests[type(request).__name__] += 1
            asked = Asked(session, counter, source, overlay)
            if source in session.paths:
                engine.signal(cast("Signal", request), asked, now, wall)
            else:
                engine.answer(asked, Error(pack_address(source), ErrorCode.UNPROVEN, 0))
            return
        answer = self._respond(
            request, session.peer_id.node_id, source, overlay, flags, limit - SEALED_ANSWER_OVERHEAD, now, wall
        )
        engine.send(session.seal(sealed_answer_text(engine.flags, counter, answer)), source)

    def _admit_untrusted(self, frame: SignedRequest, source: Address, now: float) -> bool:
        """Return whether a token proves the source. Raise BadPacket when over budget (a token is sent then)."""
        prefix = prefix_of(source.ip)
        if frame.token:
            self._retry_tokens.check_untrusted(frame.token, pack_address(source), now)
            if not self._proven.take(prefix, now):
                raise BadPacket("over_budget")
            return True
        if self._unproven.take(prefix, now):
            return False
        token = self._retry_tokens.issue(pack_address(source), now)
        self._engine.send(retry_frame(frame.nonce, token), source)
        raise BadPacket("token_sent")

    def _answer_signed(
        self, peer_id: PeerId, request: Request, frame: SignedRequest, data: bytes, source: Address, overlay: Overlay,
        *, proven: bool, now: float, wall: float,
    ) -> None:  # fmt: skip
        engine = self._engine
        ephemeral = Ephemeral(engine.token_bytes(32))
        secret = ephemeral.agree_untrusted(frame.ephemeral)
        limit = MAX_DATAGRAM if proven else len(data)
        payload = self._respond(
            request, peer_id.node_id, source, overlay, frame.flags, limit - SIGNED_ANSWER_OVERHEAD, now, wall
        )
        request_hash = hashlib.sha256(data).digest()
        wanted = frame.flags & overlay.flag and engine.members.tables[overlay].wants(peer_id.node_id, now)
        answer = self._sign_answer(peer_id, request_hash, ephemeral.public, payload, CONFIRM if wanted else 0)
        if len(answer) > limit:
            raise BadPacket("too_short")  # a request that was not padded gets no answer at all
        keys = derive_keys(
            secret, tag=engine.tag, requester=peer_id.node_id, responder=engine.node_id, request_hash=request_hash,
            answer=answer,
        )  # fmt: skip
        session = Session(peer_id, keys, engine.keyring.ciphers, initiator=False, now=now)
        session.answered_to = source
        if proven:
            session.prove(source)
        engine.keyring.add_unconfirmed(session)
        engine.send(answer, source)

    def _refuse_clock(self, peer_id: PeerId, data: bytes, source: Address, wall: float) -> None:
        error = encode(Error(pack_address(source), ErrorCode.CLOCK, max(0, int(wall * 1000))))
        answer = self._sign_answer(peer_id, hashlib.sha256(data).digest(), bytes(32), error)
        if len(answer) <= len(data):
            self._engine.send(answer, source)

    def _sign_answer(
        self, peer_id: PeerId, request_hash: bytes, ephemeral: bytes, payload: bytes, more_flags: int = 0
    ) -> bytes:
        engine = self._engine
        body = signed_answer_body(
            requester=peer_id.node_id, responder_key=engine.key.public_raw, request_hash=request_hash,
            ephemeral=ephemeral, flags=engine.flags | more_flags, payload=payload,
        )  # fmt: skip
        return body + engine.key.sign(signing_bytes(SIGNED_ANSWER, body))

    def _respond(
        self, request: Request, requester: NodeId, source: Address, overlay: Overlay, flags: int, room: int, now: float,
        wall: float,
    ) -> bytes:  # fmt: skip
        self._engine.counters.requests[type(request).__name__] += 1
        return self._service.respond(
            request, requester=requester, source=source, overlay=overlay, flags=flags, room=room, now=now, wall=wall
        )
