"""The authenticated exchange: requests out, answers in, frames opened and sealed. No I/O: `now` and `wall` are given,
datagrams leave through a function.

Every frame is checked before anything changes; what does not hold is dropped and counted by reason. Our own requests
are in `asking.Asking`; `answering.Answerer` handles other nodes' requests, `rendezvous`, `dialback`, `probes` and
`notices` those that act on third nodes or last.
"""

from __future__ import annotations

from collections.abc import Callable

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import NodeKey
from p2pnode.dht.answering import Answerer
from p2pnode.dht.asking import Asking
from p2pnode.dht.calls import Asked
from p2pnode.dht.contact import pack_address
from p2pnode.dht.dialback import DialBacks
from p2pnode.dht.limits import Budget
from p2pnode.dht.members import Members
from p2pnode.dht.messages import (
    Answer,
    Changed,
    DialBack,
    DialFor,
    Error,
    ErrorCode,
    Probe,
    Relay,
    Relaying,
    Signal,
    Watch,
    encode,
)
from p2pnode.dht.notices import Notices
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.probes import Probes
from p2pnode.dht.rendezvous import Rendezvous
from p2pnode.dht.service import Service
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.wire import (
    DIALLED,
    FORGOT,
    IS_CONFIRMATION,
    IS_REQUEST,
    MAX_DATAGRAM,
    RETRY,
    SEALED,
    SEALED_HEADER,
    SEALED_OVERHEAD,
    SIGNED_ANSWER,
    SIGNED_REQUEST,
    forgot_frame,
    parse_sealed_text_untrusted,
    sealed_answer_text,
)

__all__ = ["Engine", "RelayHandler"]

RelayHandler = Callable[[NodeId, NodeId, Address, int], tuple[int, int, bool] | None]
"""Called with (who asks, with whom, its proven address, lease in seconds, 0 to end); returns (number of its side of the
flow, lease, whether the other asked as well), None when refused."""


class Engine(Asking):
    """One node's end of all exchanges."""

    def __init__(
        self, *, key: NodeKey, tag: bytes, settings: DhtSettings, members: Members, service: Service,
        send: Callable[[bytes, Address], None], token_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        super().__init__(key=key, tag=tag, settings=settings, members=members, send=send, token_bytes=token_bytes)
        self.now = self.wall = 0.0
        """The clocks of the datagram or the timer that is being handled."""
        self.on_relay: RelayHandler | None = None
        """Who joins two nodes that ask for it; None: this node does not relay."""
        self.own_key_used: Callable[[], None] = lambda: None
        """Called when a request comes that another process has signed with our key."""
        self._forgot_out = Budget(settings.forgot_rate)
        self.rendezvous = Rendezvous(self)
        self.notices = Notices(self, service.storage)
        self.dial_backs = DialBacks(self)
        self.probes = Probes(self)
        self._answerer = Answerer(self, service)

    # -- datagrams in -------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float, wall: float) -> None:
        """Take one datagram with first byte 0x04 to 0x0A from anywhere. What does not hold is counted and dropped."""
        self.now, self.wall = now, wall
        try:
            self._receive_untrusted(data, source, now, wall)
        except BadPacket as bad:
            self.counters.drops[bad.reason] += 1

    def _receive_untrusted(self, data: bytes, source: Address, now: float, wall: float) -> None:
        if not data:
            raise BadPacket("empty")
        counters = self.counters
        kind = data[0]
        counters.datagrams_in[kind] += 1
        counters.bytes_in_by[kind] += len(data)
        overlay = self.members.overlay_of(source.ip)
        if overlay is None or not source.port:
            raise BadPacket("no_realm")
        if kind == SEALED:
            self._sealed_untrusted(data, source, overlay, now, wall)
        elif kind == SIGNED_REQUEST:
            self._answerer.signed_request_untrusted(data, source, overlay, now, wall)
        elif kind == SIGNED_ANSWER:
            self._signed_answer_untrusted(data, source, overlay, now, wall)
        elif kind == RETRY:
            self._retry_untrusted(data, source, now, wall)
        elif kind == FORGOT:
            self._forgot_untrusted(data, source, now, wall)
        elif kind == DIALLED:
            self.dial_backs.dialled_untrusted(data, source)
        else:
            raise BadPacket("unknown_type")

    def _sealed_untrusted(self, data: bytes, source: Address, overlay: Overlay, now: float, wall: float) -> None:
        if not SEALED_OVERHEAD <= len(data) <= MAX_DATAGRAM:
            raise BadPacket("bad_length")
        session = self.keyring.find(data[1:9])
        if session is None:
            if self._forgot_out.take(now):
                self.send(forgot_frame(data), source)
            raise BadPacket("unknown_key")
        text = session.open_untrusted(data)
        kind, flags, counter, payload = parse_sealed_text_untrusted(text)
        if not session.confirmed:
            if self.keyring.confirm(session):
                self.members.restarted(session.peer_id.node_id, source, overlay, now)
            if source == session.answered_to:
                session.prove(source)
        else:
            self.keyring.touch(session)
        if kind == IS_REQUEST:
            self._answerer.sealed_request_untrusted(
                session, payload, data[9:SEALED_HEADER], len(data), source, overlay, flags, now, wall
            )
            self.alive(session, source, overlay, flags, now)
        elif kind == IS_CONFIRMATION:
            self.alive(session, source, overlay, flags, now)
        else:
            self._sealed_answer_untrusted(session, payload, counter, source, overlay, flags, now, wall)

    # -- timers -------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, None when nothing waits."""
        own, told = super().next_timer(), self.notices.next_timer()
        return min(own, told) if own is not None and told is not None else told if own is None else own

    def handle_timer(self, now: float, wall: float) -> None:
        self.now, self.wall = now, wall
        super().handle_timer(now, wall)
        self.notices.handle_timer(now, wall)

    # -- requests that act on third nodes -----------------------------------------------------------------------

    def signal(self, request: Signal, asked: Asked, now: float, wall: float) -> None:
        """Carry out a sealed request from a proven address, and answer it, now or later."""
        answer: Answer | None
        if isinstance(request, DialBack | DialFor):
            answer = self.dial_backs.handle(request, asked, now, wall)
        elif isinstance(request, Probe):
            answer = self.probes.handle(request, asked, now)
        elif isinstance(request, Watch | Changed):
            answer = self.notices.handle(request, asked, now, wall)
        elif isinstance(request, Relay):
            answer = self._relay(request, asked)
        else:
            answer = self.rendezvous.handle(request, asked, now, wall)
        if answer is not None:
            self.answer(asked, answer)

    def _relay(self, request: Relay, asked: Asked) -> Answer:
        observed = pack_address(asked.source)
        if self.on_relay is None or asked.overlay not in self.members.serving:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        opened = self.on_relay(asked.session.peer_id.node_id, NodeId(request.peer), asked.source, request.lease)
        return Error(observed, ErrorCode.BUSY, 0) if opened is None else Relaying(observed, *opened)

    def answer(self, asked: Asked, answer: Answer) -> None:
        """Send the answer to a sealed request. It must not be longer than the request (80 bytes at least)."""
        frame = asked.session.seal(sealed_answer_text(self.flags, asked.counter, encode(answer)))
        self.send(frame, asked.source)
