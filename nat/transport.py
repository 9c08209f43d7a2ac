"""qh3's QUIC connection behind a guard: no I/O, no clock, and nothing but `TransportError` comes out.

Hostile packets make qh3 raise many kinds of exceptions; a panic of its Rust core is not even an `Exception`. Every
call goes through `_guard`. qh3 sees one constant remote address: which path the datagrams take is our choice
(both ends of qh3 would follow the last packet's source address).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.crypto import CIPHER_SUITES
from qh3.tls import Direction, Epoch

from p2pnode.nat.certificate import NodeCertificate
from p2pnode.nat.close import CloseReason
from p2pnode.nat.headers import CID_BYTES, LONG_HEADER
from p2pnode.nat.packet_order import HEAD_BYTES, PacketOrder

__all__ = ["MAX_DATAGRAM_BYTES", "Configurations", "Transport", "TransportError", "events"]

P = ParamSpec("P")
T = TypeVar("T")

# Chosen by us
MAX_UDP_PAYLOAD = 1200  # fits every path that IPv6 allows (1,280 less headers), also through a relay's frame
MAX_DATAGRAM_BYTES = 1100  # what surely fits into one packet beside its header, tag and frame header
# Windows bound what one peer can make us hold: data that arrives out of order stays in qh3 until the gap closes. What
# arrived in order is bounded by our credit (nat/streams.py). qh3 returns a window when half of it is used, so a stream
# gets half of it per round trip: 8 MiB are 800 Mbit/s at 40 ms. Beyond `WIDE_CONNECTIONS` new ones get less, for no
# call changes a window later; 1,024 connections can make us hold 2.4 GiB at worst (idle ones: nothing).
WIDE_WINDOW, NARROW_WINDOW = 8 << 20, 2 << 20
WIDE_CONNECTIONS = 64
MAX_SEND_ERRORS = 16
MAX_BUILT = 256
_VIRTUAL_PEER = ("192.0.2.1", 4433)

# qh3 logs a warning for each connection that the other side closes: its matter is ours to log, once and with a reason.
logging.getLogger("quic").setLevel(logging.CRITICAL)


class TransportError(Exception):
    """qh3 raised; `__cause__` tells what."""


def make_configuration(
    *,
    client: bool,
    alpn: str,
    idle_timeout_s: float,
    initial_rtt_s: float,
    certificate: NodeCertificate | None,
    window: int = WIDE_WINDOW,
) -> QuicConfiguration:
    """Return qh3's configuration for one side. Reusable for many connections. `window`: bytes, of the connection."""
    configuration = QuicConfiguration(
        is_client=client,
        alpn_protocols=[alpn],
        connection_id_length=CID_BYTES,
        idle_timeout=idle_timeout_s,
        initial_rtt=initial_rtt_s,
        max_datagram_size=MAX_UDP_PAYLOAD,
        probe_datagram_size=False,
        max_data=window,
        max_stream_data=window,
        max_datagram_frame_size=MAX_UDP_PAYLOAD,
        verify_mode=ssl.CERT_NONE,  # `certificate.py` checks; a chain to some authority says nothing here
    )
    if certificate is not None:
        configuration.load_cert_chain(certificate.pem, certificate.key_pem)
    return configuration


class Configurations:
    """What new connections get: client or server, and how much they may make us hold."""

    def __init__(self, alpn: str, idle_timeout_s: float, initial_rtt_s: float, certificate: NodeCertificate) -> None:
        self._made = {
            (client, window): make_configuration(
                client=client,
                alpn=alpn,
                idle_timeout_s=idle_timeout_s,
                initial_rtt_s=initial_rtt_s,
                certificate=None if client else certificate,
                window=window,
            )
            for client in (True, False)
            for window in (WIDE_WINDOW, NARROW_WINDOW)
        }

    def choose(self, client: bool, connections: int) -> QuicConfiguration:
        """`connections`: how many there are already."""
        return self._made[client, WIDE_WINDOW if connections < WIDE_CONNECTIONS else NARROW_WINDOW]


class _Connection(QuicConnection):
    """qh3's, which hands TLS's secrets on to its core: of those it gets, the header key stays here."""

    order: PacketOrder | None = None

    def _drain_tls(self) -> None:
        for secret in () if self._tls is None else self._tls._traffic_secrets:
            if secret.direction == Direction.DECRYPT and secret.epoch == Epoch.ONE_RTT:
                self.order = PacketOrder(CIPHER_SUITES[secret.cipher_suite][0].decode(), secret.hp)
        super()._drain_tls()


class Transport:
    """One QUIC connection. Methods raise only TransportError; `now` is monotonic seconds."""

    def __init__(self, quic: _Connection) -> None:
        self._quic = quic
        self._latest = b""  # the head of the genuine packet that came last
        self.cid: bytes = quic.host_cid
        self.cids: set[bytes] = {quic.host_cid}
        self._send_errors = 0

    @classmethod
    def client(cls, configuration: QuicConfiguration, now: float) -> Transport:
        transport = cls(_Connection(configuration=configuration))
        transport._guard(transport._quic.connect, _VIRTUAL_PEER, now)
        return transport

    @classmethod
    def server(cls, configuration: QuicConfiguration, original_cid: bytes, retry_cid: bytes | None) -> Transport:
        """`original_cid`: the destination id of the client's first packet; `retry_cid`: ours from Retry, if any."""
        return cls(
            _Connection(
                configuration=configuration,
                original_destination_connection_id=original_cid,
                retry_source_connection_id=retry_cid,
            )
        )

    def _guard(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException as exc:
            # pyo3's PanicException derives from BaseException on purpose; it is one packet's fault, not the program's.
            if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
                raise
            raise TransportError(f"{type(exc).__name__}: {exc}") from exc

    def receive(self, data: bytes, now: float) -> None:
        core = self._quic._core
        if core is not None and self._quic._handshake_complete and data[0] < LONG_HEADER:
            # What qh3's own method does with a packet of an open connection, less three looks at its header.
            report = self._guard(core.receive_datagram, data, _VIRTUAL_PEER, now, len(data))
            if report[2]:
                self._latest = data[:HEAD_BYTES]
            self._guard(self._quic._drain_core)
        else:
            self._guard(self._quic.receive_datagram, data, _VIRTUAL_PEER, now)

    def receive_many(self, buffer: bytes, size: int, now: float) -> None:
        """Take packets of an open connection: each of `size` bytes, the last of what is left.

        One call of the core for all: a quarter of the time that one for each takes. After a TransportError those behind
        the one that raised may not have been looked at; whoever repeats them all does no harm, QUIC drops duplicates.
        """
        core = self._quic._core
        if core is None:
            return
        # What qh3's own method does, which does not say how many of them were genuine and new.
        report = self._guard(core.receive_gro_buffer, buffer, size, _VIRTUAL_PEER, now)
        last = (len(buffer) - 1) // size * size
        if report[2] * size >= len(buffer):
            self._latest = buffer[last : last + HEAD_BYTES]
        self._guard(self._quic._drain_core)

    def receive_genuine(self, data: bytes, now: float) -> tuple[bool, bool]:
        """Take one packet of an open connection that came from elsewhere; return whether it was genuine and new, and
        whether it was sent after those that came before. One that was held back or overtaken was not.

        What is not genuine changes nothing. qh3's own method does the same but does not say.
        """
        core = self._quic._core
        if core is None or data[0] >= LONG_HEADER:  # long headers belong to the handshake, which stays where it began
            return False, False
        report = self._guard(core.receive_datagram, data, _VIRTUAL_PEER, now, len(data))
        self._guard(self._quic._drain_core)
        if not report[2]:
            return False, False
        order = self._quic.order
        latest = not self._latest or order is None or order.later(data, self._latest)
        if latest:
            self._latest = data[:HEAD_BYTES]
        return True, latest

    def handle_timer(self, now: float) -> None:
        self._guard(self._quic.handle_timer, now)

    def timer(self) -> float | None:
        return self._guard(self._quic.get_timer)

    def datagrams(self, now: float) -> list[bytes]:
        """Return what is to be sent now.

        One at a time from the core, for qh3's own loop loses what it has built when a later packet fails to build: it
        raises ("packet builder capacity exhausted") when a packet is larger than what an unproven address may still
        get. That passes once more arrives; `MAX_SEND_ERRORS` in a row are final.
        """
        core = self._quic._core
        built: list[bytes] = []
        if core is None:
            return built
        try:
            self._guard(_poll, core.poll_transmit, now, built)
        except TransportError:
            if built:
                self._send_errors = 0
            self._send_errors += 1
            if self._send_errors >= MAX_SEND_ERRORS:
                raise
        else:
            self._send_errors = 0 if built else self._send_errors
        return built

    def next_event(self) -> events.QuicEvent | None:
        return self._quic.next_event()  # takes it out of a deque, no more

    def write(self, stream_id: int, data: bytes, *, fin: bool = False) -> None:
        self._guard(self._quic.send_stream_data, stream_id, data, fin)

    def unsent(self, stream_id: int) -> int:
        """Bytes handed over by `write` that were never sent yet."""
        return self._guard(self._quic.get_send_buffer_size, stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending on a stream; harmless when that is over already."""
        if self._quic._stream_can_send(stream_id):
            self._guard(self._quic.reset_stream, stream_id, code)

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the other side to give up sending; raises TransportError when it has finished already."""
        self._guard(self._quic.stop_stream, stream_id, code)

    def send_datagram(self, data: bytes) -> None:
        self._guard(self._quic.send_datagram_frame, data)

    def ping(self, number: int) -> None:
        self._guard(self._quic.send_ping, number)

    def update_keys(self) -> None:
        """Change keys with the next packet (RFC 9001, section 6); TransportError while a change is unconfirmed."""
        self._guard(self._quic.request_key_update)

    def close(self, code: int, reason: str) -> None:
        """Queue an application close (RFC 9000, section 10.2, "Immediate Close")."""
        self._guard(self._quic.close, code, None, reason)

    def next_stream_id(self) -> int | None:
        """The id of the next bidirectional stream of ours, None while the other side allows no further one."""
        stream_id = self._guard(self._quic.get_next_available_stream_id)
        return stream_id if stream_id // 4 < self._quic.max_concurrent_bidi_streams else None

    @property
    def heard_authentic(self) -> bool:
        """Whether any packet of this connection could be decrypted."""
        core = self._quic._core
        return core is not None and core.received_authenticated_packet

    @property
    def handshake_done(self) -> bool:
        """Whether TLS has finished on this side (RFC 9001, section 4.1.1, "Handshake Complete")."""
        return self._quic._handshake_complete

    @property
    def key_phase(self) -> int | None:
        """0 and 1 in turn: which keys protect what is sent (RFC 9001, section 6)."""
        core = self._quic._core
        return None if core is None else core.send_key_phase

    @property
    def probing(self) -> bool:
        """Whether something sent is unacknowledged for so long that probes are under way (RFC 9002, section 6.2)."""
        core = self._quic._core
        return core is not None and core.pto_count > 0

    @property
    def lost(self) -> int:
        """Packets that were declared lost so far (RFC 9002, section 6.1, "Acknowledgment-Based Detection")."""
        core = self._quic._core
        return 0 if core is None else core.loss_total

    @property
    def rtt_s(self) -> float | None:
        core = self._quic._core
        return None if core is None else core.smoothed_rtt

    @property
    def congested(self) -> bool:
        core = self._quic._core
        return core is not None and core.bytes_in_flight >= core.congestion_window

    @property
    def window_matters(self) -> bool:
        """Whether a smaller congestion window would hold back what is sent: half of it is under way."""
        core = self._quic._core
        return core is not None and 2 * core.bytes_in_flight >= core.congestion_window

    @property
    def ended(self) -> CloseReason | None:
        """How the connection ended, known as soon as the close arrives (qh3's event comes after its draining time)."""
        ended = self._quic._close_event
        if ended is None:
            return None
        # qh3 gives frame_type None exactly for an application close.
        return CloseReason(
            ended.error_code, ended.reason_phrase[:256], "remote" if ended.frame_type is None else "transport"
        )

    @property
    def drained(self) -> bool:
        core = self._quic._core
        return core is None or core.state == "terminated"

    def peer_certificate(self) -> bytes | None:
        """The other side's certificate in DER; None when it sent none, or more than one."""
        certificate = self._guard(self._quic.get_peercert)
        if certificate is None or self._guard(self._quic.get_issuercerts):
            return None
        return self._guard(certificate.public_bytes)


def _poll(poll: Callable[[float], tuple[Any, ...] | None], now: float, built: list[bytes]) -> None:
    """Collect datagrams; at most `MAX_BUILT`, so that a fast path's congestion window does not make a list of it."""
    append = built.append
    for _ in range(MAX_BUILT):
        transmit = poll(now)
        if transmit is None:
            return
        append(transmit[0])
