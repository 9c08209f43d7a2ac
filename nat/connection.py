"""A QUIC connection between two proven nodes: the driver around qh3, with one timer.

Rules: before the other side is proven nothing of it is processed but the handshake; 5 s and 16 KiB at most. Nothing
raises out of `datagram_received`. After the end no timer and no waiting task of this connection is left, except the
draining time of QUIC (at most 3 s), during which a late packet is answered by the close once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, P2PError, P2PTimeoutError, WrongKeyError
from p2pnode.core.ids import PeerId
from p2pnode.nat.close import CloseCode, CloseReason, Origin
from p2pnode.nat.control import Control, ControlReader, Credit, Ping, Pong, encode_control
from p2pnode.nat.errors import ConnectionClosedError
from p2pnode.nat.handshake import ClientHandshake, ServerHandshake
from p2pnode.nat.proof import ACCEPTED, encode_stream_header, read_stream_header_untrusted
from p2pnode.nat.streams import Stream
from p2pnode.nat.transport import MAX_DATAGRAM_BYTES, Transport, TransportError, events

if TYPE_CHECKING:
    from p2pnode.nat.quic import QuicEndpoint

__all__ = ["Connection"]

CONTROL_STREAM = 0
NONCE_STREAM = 3
BAD_HEADER_RESET = 0x01
DRAIN_S = 3.0
MAX_WAITING_DATAGRAMS = 32  # received before `on_datagram` is set
MAX_CONTROL_UNSENT = 16 << 10  # a peer that asks for pongs and reads none gets no more
TICK_S = 0.001  # smallest timer step: a deadline in the past must not spin the loop


class Connection:
    """Made by QuicEndpoint only; applications get it when both sides are proven."""

    def __init__(
        self,
        endpoint: QuicEndpoint,
        transport: Transport,
        remote: Address,
        handshake: ClientHandshake | ServerHandshake,
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._handshake = handshake
        self._network = endpoint.network
        self._settings = endpoint.settings
        self._loop = asyncio.get_running_loop()
        self.remote = remote
        self.initiator = isinstance(handshake, ClientHandshake)
        self.expected: PeerId | None = None
        self.opened_at = self.last_used_at = self._heard_at = self._pinged_at = self._network.monotonic()
        self.close_reason: CloseReason | None = None
        self.on_closed: list[Callable[[CloseReason], None]] = []
        self.bytes_received = 0
        self.bytes_sent = 0
        self.proven: asyncio.Future[None] = self._loop.create_future()
        self._peer: PeerId | None = None
        self._proof_deadline_at: float | None = (
            None if self.initiator else self.opened_at + self._settings.proof_timeout_s
        )
        self._probing_since: float | None = None
        self._drained_at: float | None = None
        self._released = False
        self._timer: asyncio.TimerHandle | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._control = ControlReader()
        self._streams: dict[int, Stream] = {}
        self._headers: dict[int, bytes] = {}
        self._refused: set[int] = set()
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._ping_number = 0
        self._changed: set[asyncio.Future[None]] = set()
        self._closed_event = asyncio.Event()
        self._on_stream: Callable[[Connection, str, Stream], None] | None = None
        self._waiting_streams: list[Stream] = []
        self._on_datagram: Callable[[bytes], None] | None = None
        self._waiting_datagrams: list[bytes] = []

    # what applications use

    @property
    def peer(self) -> PeerId:
        """Who is on the other side, proven."""
        if self._peer is None:
            raise ConnectionClosedError("The other side has not proven who it is.", reason="unproven")
        return self._peer

    @property
    def closed(self) -> bool:
        return self.close_reason is not None

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round trip, seconds (RFC 9002, section 5.3, "Estimating smoothed_rtt")."""
        return self._transport.rtt_s

    @property
    def on_stream(self) -> Callable[[Connection, str, Stream], None] | None:
        """Called with each stream that the other side opens; those that came before it was set follow at once."""
        return self._on_stream

    @on_stream.setter
    def on_stream(self, callback: Callable[[Connection, str, Stream], None] | None) -> None:
        self._on_stream = callback
        if callback is not None:
            waiting, self._waiting_streams = self._waiting_streams, []
            for stream in waiting:
                self._endpoint.call(callback, self, stream.protocol, stream)

    @property
    def on_datagram(self) -> Callable[[bytes], None] | None:
        """Called with each datagram; up to 32 that came before it was set follow at once."""
        return self._on_datagram

    @on_datagram.setter
    def on_datagram(self, callback: Callable[[bytes], None] | None) -> None:
        self._on_datagram = callback
        if callback is not None:
            waiting, self._waiting_datagrams = self._waiting_datagrams, []
            for data in waiting:
                self._endpoint.call(callback, data)

    async def open_stream(self, protocol: str) -> Stream:
        """Open a bidirectional stream; the other side's `on_stream` gets the name. Costs no round trip.

        Waits while the other side allows no further stream (100 at a time). Raise ConnectionClosedError; ValueError
        for a name that is not 1 to 64 printable ASCII characters.
        """
        header = encode_stream_header(protocol)
        while True:
            self._check_open()
            stream_id = self._transport.next_stream_id()
            if stream_id is not None:
                break
            await self._wait_changed()
        stream = Stream(self, stream_id, protocol)
        self._streams[stream_id] = stream
        stream.count_header(len(header), sent=True)
        self.stream_write(stream_id, header, False)
        self.stream_used()
        return stream

    def send_datagram(self, data: bytes) -> None:
        """Send up to 1,100 bytes, once: lost when the network loses them or is congested.

        Raise ConnectionClosedError; ValueError when longer.
        """
        self._check_open()
        if len(data) > MAX_DATAGRAM_BYTES:
            raise ValueError(f"a datagram has at most {MAX_DATAGRAM_BYTES} bytes")
        self.stream_used()
        if self._transport.congested:
            self._endpoint.dropped("datagram_congested")
            return
        self._transport_call(self._transport.send_datagram, data)
        self._schedule_flush()

    async def ping(self, timeout: float = 5.0) -> float:
        """Return the round trip to the other side's connection, seconds.

        Raise P2PTimeoutError, ConnectionClosedError.
        """
        self._check_open()
        self._ping_number += 1
        number, began = self._ping_number, self._network.monotonic()
        answer = self._pings[number] = self._loop.create_future()
        self._send_control(Ping(number))
        try:
            async with asyncio.timeout(timeout):
                await answer
        except TimeoutError as exc:
            raise P2PTimeoutError(f"No answer to a ping within {timeout:g} s.", peer=str(self._peer)) from exc
        finally:
            self._pings.pop(number, None)
        return self._network.monotonic() - began

    def close(self, code: int = CloseCode.DONE, reason: str = "") -> None:
        """End the connection at once; what is unsent is lost. Twice is harmless."""
        self._close(CloseReason(code, reason, "local"))

    async def wait_closed(self) -> CloseReason:
        await self._closed_event.wait()
        assert self.close_reason is not None  # noqa: S101 - set before the event
        return self.close_reason

    def __repr__(self) -> str:
        return f"<Connection {self._peer} {self.remote} {'out' if self.initiator else 'in'}>"

    # what the endpoint uses

    @property
    def transport(self) -> Transport:
        return self._transport

    def begin(self) -> None:
        """Client: send the first packets. Server: have the nonce ready, so that it leaves with the handshake."""
        if isinstance(self._handshake, ServerHandshake):
            self._transport_call(self._transport.write, NONCE_STREAM, self._handshake.nonce_message, fin=True)
        else:
            self._flush()

    def datagram_received(self, data: bytes) -> None:
        """Never raises."""
        now = self._network.monotonic()
        self.bytes_received += len(data)
        if self._proof_deadline_at is not None and self.bytes_received > self._settings.max_unproven_bytes:
            self._fail_handshake(CloseCode.TOO_MUCH, "too much before the proof")
            return
        try:
            self._transport.receive(data, now)
        except TransportError:
            self._endpoint.dropped("quic_error")
        self._heard_at = now
        self._process()
        if not self._released:
            self._schedule_flush()

    def abandon(self, reason: CloseReason) -> None:
        """Close, send the close, and keep nothing, not even QUIC's draining time."""
        self._close(reason)
        self._release()

    # events from qh3

    def _process(self) -> None:
        try:
            while (event := self._transport.next_event()) is not None:
                if not self.closed:
                    self._handle(event)
        except BadPacket as exc:
            self._endpoint.dropped(exc.reason)
            self._fail_handshake(CloseCode.PROTOCOL if self.proven.done() else CloseCode.BAD_PROOF, exc.reason)
        except TransportError:
            self._endpoint.dropped("quic_error")
            self.abandon(CloseReason(CloseCode.PROTOCOL, "internal", "local"))
        ended = self._transport.ended
        if ended is not None and not self.closed:
            self._finish(_reason_of(ended))
        self._wake_changed()

    def _handle(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            self._stream_data(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, events.DatagramFrameReceived):
            self._datagram(event.data)
        elif isinstance(event, events.StreamReset):
            self._stream_reset(event.stream_id, event.error_code)
        elif isinstance(event, events.StopSendingReceived):
            if event.stream_id in (CONTROL_STREAM, NONCE_STREAM):
                raise BadPacket("control_reset")
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.stop_received(event.error_code)
        elif isinstance(event, events.ConnectionIdIssued):
            self._endpoint.cid_issued(self, event.connection_id)
        elif isinstance(event, events.ConnectionIdRetired):
            self._endpoint.cid_retired(self, event.connection_id)
        elif isinstance(event, events.HandshakeCompleted):
            self._tls_done(event.alpn_protocol)

    def _tls_done(self, alpn: str | None) -> None:
        if alpn != self._endpoint.alpn:
            raise BadPacket("wrong_alpn")
        if not isinstance(self._handshake, ClientHandshake):
            return
        self._handshake.tls_done_untrusted(self._transport.peer_certificate())
        answered = self._handshake.server
        if answered != self.expected:
            error = WrongKeyError(
                f"{answered} answers at {self.remote}, not {self.expected}; ask for the peer's current address.",
                expected=str(self.expected), answered=str(answered), address=str(self.remote),
            )  # fmt: skip
            self._fail_handshake(CloseCode.WRONG_KEY, "wrong key", error)
            return
        self._peer = answered
        self._send_proof()

    def _send_proof(self) -> None:
        if isinstance(self._handshake, ClientHandshake) and (proof := self._handshake.take_proof_untrusted()):
            self.stream_write(CONTROL_STREAM, proof, False)

    def _stream_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        if stream_id == CONTROL_STREAM:
            if fin:
                raise BadPacket("control_ended")
            self._control_data(data)
        elif self.initiator and stream_id == NONCE_STREAM and isinstance(self._handshake, ClientHandshake):
            self._handshake.nonce_received_untrusted(data, fin)
            self._send_proof()
        elif self._peer is None or stream_id & 2:
            raise BadPacket("unexpected_stream")
        elif (stream := self._streams.get(stream_id)) is not None:
            stream.data_received_untrusted(data, fin)
        elif bool(stream_id & 1) == self.initiator and stream_id not in self._refused:
            self._header_data(stream_id, data, fin)

    def _control_data(self, data: bytes) -> None:
        if not self.proven.done():
            if isinstance(self._handshake, ClientHandshake):
                data = self._handshake.accepted_untrusted(data)
            else:
                result = self._handshake.proof_received_untrusted(data)
                if result is None:
                    return
                self._peer, data = result
                self._proof_deadline_at = None
                self.stream_write(CONTROL_STREAM, ACCEPTED, False)
            self.proven.set_result(None)
            self._endpoint.connection_proven(self)
        for frame in self._control.feed_untrusted(data):
            if isinstance(frame, Credit):
                if (stream := self._streams.get(frame.stream_id)) is not None:
                    stream.credit_received(frame.limit)
            elif isinstance(frame, Ping):
                if not self.closed and self._transport.unsent(CONTROL_STREAM) < MAX_CONTROL_UNSENT:
                    self._send_control(Pong(frame.number))
            elif (answer := self._pings.get(frame.number)) is not None and not answer.done():
                answer.set_result(None)

    def _header_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Collect a new stream's header (at most 65 bytes); a bad one costs its stream only."""
        received = self._headers.pop(stream_id, b"") + data
        try:
            header = read_stream_header_untrusted(received)
            if header is None and fin:
                raise BadPacket("bad_stream_header")
        except BadPacket as exc:
            self._endpoint.dropped(exc.reason)
            if not fin:
                self._refused.add(stream_id)
            self.stream_reset(stream_id, BAD_HEADER_RESET, receiving=not fin)
            return
        if header is None:
            self._headers[stream_id] = received
            return
        protocol, used = header
        stream = self._streams[stream_id] = Stream(self, stream_id, protocol)
        stream.count_header(used, sent=False)
        stream.data_received_untrusted(received[used:], fin)
        self.stream_used()
        if self._on_stream is None:
            self._waiting_streams.append(stream)  # at most 100: the stream limit
        else:
            self._endpoint.call(self._on_stream, self, protocol, stream)

    def _stream_reset(self, stream_id: int, code: int) -> None:
        if stream_id in (CONTROL_STREAM, NONCE_STREAM) or self._peer is None:
            raise BadPacket("control_reset")
        self._refused.discard(stream_id)
        if self._headers.pop(stream_id, None) is not None:
            self.stream_reset(stream_id, code, receiving=False)
        if (stream := self._streams.get(stream_id)) is not None:
            stream.reset_received(code)

    def _datagram(self, data: bytes) -> None:
        if self._peer is None:
            self._endpoint.dropped("unproven_datagram")
            return
        self.last_used_at = self._network.monotonic()
        if self._on_datagram is not None:
            self._endpoint.call(self._on_datagram, data)
        elif len(self._waiting_datagrams) < MAX_WAITING_DATAGRAMS:
            self._waiting_datagrams.append(data)
        else:
            self._endpoint.dropped("datagram_unread")

    # what streams use

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        self._transport_call(self._transport.write, stream_id, data, fin=fin)
        self._schedule_flush()

    def stream_unsent(self, stream_id: int) -> int:
        return 0 if self.closed else self._transport.unsent(stream_id)

    def stream_credit(self, stream_id: int, limit: int) -> None:
        self._send_control(Credit(stream_id, limit))

    def stream_reset(self, stream_id: int, code: int, *, receiving: bool) -> None:
        self._transport_call(self._transport.reset, stream_id, code)
        if receiving:
            self._transport_call(self._transport.stop, stream_id, code)
        self._schedule_flush()

    def stream_done(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    def stream_used(self) -> None:
        self.last_used_at = self._network.monotonic()

    # sending, timers, the end

    def _send_control(self, frame: Control) -> None:
        if not self.closed:
            self.stream_write(CONTROL_STREAM, encode_control(frame), False)

    def _transport_call(self, function: Callable[..., None], *args: object, **kwargs: object) -> None:
        """Do it, or count it: what qh3 refuses (a stream that just ended) is no error of the caller."""
        if self.closed:
            return
        try:
            function(*args, **kwargs)
        except TransportError:
            self._endpoint.dropped("quic_refused")

    def _schedule_flush(self) -> None:
        # One flush per loop iteration: a burst of 64 received datagrams is answered by few acknowledgements.
        if self._flush_handle is None and not self._released:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._released:
            return
        now = self._network.monotonic()
        try:
            while datagrams := self._transport.datagrams(now):
                for data in datagrams:
                    self.bytes_sent += len(data)
                    self._endpoint.send(data, self.remote)
                for stream in list(self._streams.values()):
                    stream.pump()
            self._arm(now)
        except TransportError:
            self._endpoint.dropped("quic_error")
            if not self.closed:
                self._finish(CloseReason(CloseCode.PROTOCOL, "internal", "local"))
            self._release()

    def _arm(self, now: float) -> None:
        if self._transport.probing and not self.closed and self._peer is not None:
            self._probing_since = self._probing_since or now
        else:
            self._probing_since = None
        deadlines = [self._transport.timer(), self._proof_deadline_at, self._drained_at]
        if not self.closed:
            if self._probing_since is not None:
                deadlines.append(self._probing_since + self._settings.lost_after_s)
            if self.proven.done():
                deadlines.append(max(self._heard_at, self._pinged_at) + self._settings.keep_alive_s)
        when = max(min((at for at in deadlines if at is not None), default=now + DRAIN_S), now + TICK_S)
        if self._timer is not None:
            if self._timer.when() == when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        now = self._network.monotonic()
        try:
            due = self._transport.timer()
            if due is not None and due <= now:
                self._transport.handle_timer(now)
        except TransportError:
            self._endpoint.dropped("quic_error")
            self.abandon(CloseReason(CloseCode.PROTOCOL, "internal", "local"))
            return
        self._process()
        if self.closed:
            if self._transport.drained or (self._drained_at is not None and now >= self._drained_at):
                self._release()
        elif self._proof_deadline_at is not None and now >= self._proof_deadline_at:
            self._fail_handshake(CloseCode.PROOF_LATE, "no proof in time")
        elif self._probing_since is not None and now >= self._probing_since + self._settings.lost_after_s:
            self.abandon(CloseReason(CloseCode.LOST, "lost", "lost"))
        elif self.proven.done() and now >= max(self._heard_at, self._pinged_at) + self._settings.keep_alive_s:
            self._pinged_at = now
            self._transport_call(self._transport.ping, 0)
        self._flush()

    def _fail_handshake(self, code: CloseCode, reason: str, error: P2PError | None = None) -> None:
        """Close; an unproven side is owed no draining time."""
        proven = self.proven.done()
        # qh3 sends nothing beside a close, and without our Finished the server could not read it.
        self._flush()
        self._close(CloseReason(code, reason, "local"), error)
        if not proven:
            self._release()

    def _close(self, reason: CloseReason, error: P2PError | None = None) -> None:
        if self.closed:
            return
        try:
            self._transport.close(reason.code, reason.reason)
        except TransportError:
            self._endpoint.dropped("quic_error")
        self._finish(reason, error)
        self._flush()

    def _finish(self, reason: CloseReason, error: P2PError | None = None) -> None:
        if error is None:
            error = ConnectionClosedError(
                "The connection is closed.", reason=reason.reason, close_code=reason.code, origin=reason.origin
            )
        self.close_reason = reason
        self._proof_deadline_at = None
        self._drained_at = self._network.monotonic() + DRAIN_S
        for stream in list(self._streams.values()):
            stream.connection_closed(ConnectionClosedError(error.message, **error.facts))
        self._streams.clear()
        self._headers.clear()
        self._refused.clear()
        self._waiting_streams.clear()
        self._waiting_datagrams.clear()
        for answer in self._pings.values():
            if not answer.done():
                answer.set_exception(ConnectionClosedError(error.message, **error.facts))
        if not self.proven.done():
            self.proven.set_exception(error)
            self.proven.exception()  # seen: a server's handshake has no one waiting for it
        self._closed_event.set()
        self._wake_changed()
        self._endpoint.connection_closed(self)
        callbacks, self.on_closed = self.on_closed, []
        for callback in callbacks:
            self._endpoint.call(callback, reason)

    def _release(self) -> None:
        if self._released:
            return
        self._released = True
        for handle in (self._timer, self._flush_handle):
            if handle is not None:
                handle.cancel()
        self._timer = self._flush_handle = None
        self._endpoint.connection_released(self)

    def _check_open(self) -> None:
        if self.close_reason is not None:
            raise ConnectionClosedError(
                "The connection is closed.",
                reason=self.close_reason.reason, close_code=self.close_reason.code, origin=self.close_reason.origin,
            )  # fmt: skip

    async def _wait_changed(self) -> None:
        waiter = self._loop.create_future()
        self._changed.add(waiter)
        try:
            await waiter
        finally:
            self._changed.discard(waiter)

    def _wake_changed(self) -> None:
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)


def _reason_of(ended: events.ConnectionTerminated) -> CloseReason:
    """qh3 gives frame_type None exactly for an application close."""
    origin: Origin = "remote" if ended.frame_type is None else "transport"
    return CloseReason(ended.error_code, ended.reason_phrase[:256], origin)
