"""A connection between two proven nodes: what applications see, and what events mean.

Rules: before the other side is proven nothing of it is processed but the handshake; 5 s and 16 KiB at most. Stream 0 is
ours (proof, then `control.py`), stream 3 carries the server's nonce, further unidirectional streams do not exist; each
other stream begins with a header that names its protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.errors import BadPacket, P2PTimeoutError, WrongKeyError
from p2pnode.core.ids import PeerId
from p2pnode.nat.close import CloseCode
from p2pnode.nat.control import Control, ControlReader, Credit, PathKeyFrame, Ping, Pong, encode_control
from p2pnode.nat.driver import Driver
from p2pnode.nat.early import EarlyWrites, is_early
from p2pnode.nat.errors import ConnectionClosedError
from p2pnode.nat.handshake import ClientHandshake, ServerHandshake
from p2pnode.nat.path import Path
from p2pnode.nat.proof import ACCEPTED, encode_stream_header, read_stream_header_untrusted
from p2pnode.nat.shares import Priority, Shares
from p2pnode.nat.streams import Stream
from p2pnode.nat.transport import MAX_DATAGRAM_BYTES, Transport, TransportError, events

if TYPE_CHECKING:
    from p2pnode.nat.quic import QuicEndpoint

__all__ = ["Connection"]

CONTROL_STREAM = 0
NONCE_STREAM = 3
BAD_HEADER_RESET = 0x01
MAX_WAITING_DATAGRAMS = 32  # received before `on_datagram` is set
MAX_CONTROL_UNSENT = 16 << 10  # a peer that asks for pongs and reads none gets no more


class Connection(Driver):
    """Made by QuicEndpoint only; applications get it when both sides are proven."""

    def __init__(
        self,
        endpoint: QuicEndpoint,
        transport: Transport,
        path: Path,
        handshake: ClientHandshake | ServerHandshake,
    ) -> None:
        super().__init__(endpoint, transport, path, initiator=isinstance(handshake, ClientHandshake))
        self._handshake = handshake
        self.expected: PeerId | None = None
        """Client: who should answer. For the endpoint."""
        self.server_proven: asyncio.Future[None] = self._loop.create_future()
        """Client: done when the server is proven and our proof is on its way. For the endpoint."""
        self.last_used_at = self.opened_at
        """When the application last sent or received something (monotonic seconds)."""
        self.shares = Shares()
        self._peer: PeerId | None = None
        self._control = ControlReader()
        self._streams: dict[int, Stream] = {}
        self._headers: dict[int, bytes] = {}
        self._refused: set[int] = set()
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._ping_number = 0
        self._on_stream: Callable[[Connection, str, Stream], None] | None = None
        self._waiting_streams: list[Stream] = []
        self._on_datagram: Callable[[bytes], None] | None = None
        self._waiting_datagrams: list[bytes] = []
        self._early_writes = EarlyWrites()
        self._early_events: list[events.QuicEvent] = []

    # what applications use

    @property
    def peer(self) -> PeerId:
        """Who is on the other side, proven."""
        if self._peer is None:
            raise ConnectionClosedError("The other side has not proven who it is.", reason="unproven")
        return self._peer

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round trip, seconds (RFC 9002, section 5.3, "Estimating smoothed_rtt")."""
        return self.transport.rtt_s

    async def wait_accepted(self) -> None:
        """Wait until the other side has accepted our proof; at once but after `connect(..., early=True)`.

        Raise ConnectionClosedError when it refuses, or says nothing in time.
        """
        await asyncio.shield(self.proven)

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

    async def open_stream(self, protocol: str, priority: Priority = Priority.NORMAL) -> Stream:
        """Open a bidirectional stream; the other side's `on_stream` gets the name. Costs no round trip.

        Waits while the other side allows no further stream (100 at a time). Raise ConnectionClosedError; ValueError
        for a name that is not 1 to 64 printable ASCII characters.
        """
        header = encode_stream_header(protocol)
        while True:
            self._check_open()
            stream_id = self.transport.next_stream_id()
            if stream_id is not None and not self._early_writes.full:
                break
            await self._wait_changed()
        stream = self._streams[stream_id] = Stream(self, stream_id, protocol, priority)
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
        if self.transport.congested:
            self._endpoint.dropped("datagram_congested")
            return
        self._transport_call(self.transport.send_datagram, data)
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

    def __repr__(self) -> str:
        return f"<Connection {self._peer} {self.path} {'out' if self.initiator else 'in'}>"

    # what the endpoint uses

    def begin(self) -> None:
        """Client: send the first packets. Server: have the nonce ready, so that it leaves with the handshake."""
        if isinstance(self._handshake, ServerHandshake):
            self._transport_call(self.transport.write, NONCE_STREAM, self._handshake.nonce_message, fin=True)
        else:
            self._flush()

    def expect_acceptance(self, timeout: float) -> None:
        """Client, `early`: end the connection when the server has not accepted after `timeout` seconds."""
        if not self.proven.done():
            self._proof_deadline_at = self._network.monotonic() + timeout
            self._schedule_flush()

    # events from qh3

    def _handle(self, event: events.QuicEvent) -> None:
        if self._peer is None and not self.initiator and is_early(event):
            self._early_events.append(event)  # bounded: what is unproven sends 16 KiB
        elif isinstance(event, events.StreamDataReceived):
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
        self._handshake.tls_done_untrusted(self.transport.peer_certificate())
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
            self.server_proven.set_result(None)

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
        elif stream_id in self._refused:
            if fin:
                self._refused.discard(stream_id)
        elif bool(stream_id & 1) == self.initiator:
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
                self.stream_write(CONTROL_STREAM, ACCEPTED, False)
            self._both_proven()
        for frame in self._control.feed_untrusted(data):
            if isinstance(frame, Credit):
                if (stream := self._streams.get(frame.stream_id)) is not None:
                    stream.credit_received(frame.limit)
            elif isinstance(frame, Ping):
                if not self.closed and self.stream_unsent(CONTROL_STREAM) < MAX_CONTROL_UNSENT:
                    self._send_control(Pong(frame.number))
            elif isinstance(frame, PathKeyFrame):
                if self._paths is not None:
                    self._paths.key_received(frame.key)
            elif (answer := self._pings.get(frame.number)) is not None and not answer.done():
                answer.set_result(None)

    def _both_proven(self) -> None:
        self._proof_deadline_at = None
        self.proven.set_result(None)
        for stream_id, data, fin in self._early_writes.release():
            self.stream_write(stream_id, data, fin)
        self._send_control(PathKeyFrame(self._open_paths().key.raw))
        self._endpoint.connection_proven(self)
        waiting, self._early_events = self._early_events, []
        for event in waiting:
            if not self.closed:
                self._handle(event)

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
        if self.initiator and stream_id != CONTROL_STREAM and not self._early_writes.admit(stream_id, data, fin):
            return
        self._transport_call(self.transport.write, stream_id, data, fin=fin)
        self._schedule_flush()

    def stream_unsent(self, stream_id: int) -> int:
        if self.closed:
            return 0
        try:
            return self.transport.unsent(stream_id) + self._early_writes.unsent(stream_id)
        except TransportError:
            self._endpoint.dropped("quic_refused")
            return 0

    def stream_credit(self, stream_id: int, limit: int) -> None:
        self._send_control(Credit(stream_id, limit))

    def stream_reset(self, stream_id: int, code: int, *, receiving: bool) -> None:
        self._early_writes.forget(stream_id)
        self._transport_call(self.transport.reset, stream_id, code)
        if receiving:
            self._transport_call(self.transport.stop, stream_id, code)
        self._schedule_flush()

    def stream_done(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    def stream_used(self) -> None:
        self.last_used_at = self._network.monotonic()

    def _pump(self) -> bool:
        return sum(stream.pump() for stream in self.shares.in_turn()) > 0

    def _ended(self, error: ConnectionClosedError) -> None:
        if not self.server_proven.done():
            self.server_proven.set_result(None)  # `proven` tells what went wrong
        for stream in list(self._streams.values()):
            stream.connection_closed(error)
        for answer in self._pings.values():
            if not answer.done():
                answer.set_exception(ConnectionClosedError(error.message, **error.facts))
        self._streams.clear()
        self._headers.clear()
        self._refused.clear()
        self._waiting_streams.clear()
        self._waiting_datagrams.clear()
        self._early_events.clear()
        self._early_writes.release()

    def _send_control(self, frame: Control) -> None:
        self.stream_write(CONTROL_STREAM, encode_control(frame), False)

    def _check_open(self) -> None:
        if self.close_reason is not None:
            raise ConnectionClosedError(
                "The connection is closed.",
                reason=self.close_reason.reason, close_code=self.close_reason.code, origin=self.close_reason.origin,
            )  # fmt: skip
