"""What drives a connection: datagrams in and out, one timer, death, the end.

Rules: nothing raises out of `datagram_received`. After the end no timer and no waiting task of the connection is left,
except for QUIC's draining time (at most 3 s), during which a late packet is answered by the close once more. Sans-I/O
qh3 below (`transport.py`), meaning above (`connection.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, P2PError
from p2pnode.core.segments import split_untrusted
from p2pnode.nat.close import CloseCode, ClosedCallbacks, CloseReason
from p2pnode.nat.errors import ConnectionClosedError
from p2pnode.nat.moving import Moving
from p2pnode.nat.path import Carrier, Path
from p2pnode.nat.stall import FAR_OFF_S, ClientStall, InitialsSeen
from p2pnode.nat.transport import MAX_BUILT, Transport, TransportError, events

if TYPE_CHECKING:
    from p2pnode.nat.quic import QuicEndpoint

__all__ = ["Driver"]

DRAIN_S = 3.0
TICK_S = 0.001  # smallest timer step: a deadline in the past must not spin the loop


class Driver(Moving):
    """Base of Connection."""

    def __init__(self, endpoint: QuicEndpoint, transport: Transport, path: Path, *, initiator: bool) -> None:
        self._endpoint = endpoint
        self.network = self._network = endpoint.network
        self._settings = endpoint.settings
        self._loop = asyncio.get_running_loop()
        self.transport = transport
        self.initiator = initiator
        self.opened_at = self._heard_at = self._pinged_at = self._asked_at = self._network.monotonic()
        self.bytes_received = 0
        self.bytes_sent = 0
        self.close_reason: CloseReason | None = None
        self.on_closed: list[Callable[[CloseReason], None]] = ClosedCallbacks(
            lambda: self.close_reason, self.call_soon_closed
        )
        """Called once with the reason; one that is appended after the end is called soon."""
        self.proven: asyncio.Future[None] = self._loop.create_future()
        """Done when both sides are proven to each other, or with the error that prevented it. For the endpoint."""
        self._keep_alive_s = self._settings.keep_alive_s
        self._proof_deadline_at = None if initiator else self.opened_at + self._settings.proof_timeout_s
        self.spend: Callable[[Address], bool] | None = None
        """Asked before each datagram until the other side was heard; False: it is not sent. For the endpoint."""
        self._begin_on(path, self.opened_at)
        self._repeatable = b""
        self._initials_seen = InitialsSeen()
        self._stall = ClientStall()
        self._probing_since: float | None = None
        self._drained_at: float | None = None
        self._released = False
        self._timer: asyncio.TimerHandle | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._flushing = False
        self._packets_of_key = 0
        self._changed: set[asyncio.Future[None]] = set()
        self._closed_event = asyncio.Event()

    # for Connection to fill in

    def _handle(self, event: events.QuicEvent) -> None:
        """Take one event of qh3. May raise BadPacket, which ends the connection, and TransportError."""
        raise NotImplementedError

    def _pump(self) -> bool:
        """Hand over what streams still hold back, now that there may be room; return whether there was anything."""
        raise NotImplementedError

    def _ended(self, error: ConnectionClosedError) -> None:
        """The connection has ended: fail what waits, forget what is held."""
        raise NotImplementedError

    # the end, as applications see it

    @property
    def closed(self) -> bool:
        return self.close_reason is not None

    def close(self, code: int = CloseCode.DONE, reason: str = "") -> None:
        """End the connection at once; what is unsent is lost. Twice is harmless."""
        self._close(CloseReason(code, reason, "local"))

    @property
    def keep_alive_s(self) -> float:
        """Silence after which a PING is sent (seconds), below the time-out of the mappings on the path.

        Settable, 1 s to half of QUIC's idle timeout; ValueError otherwise.
        """
        return self._keep_alive_s

    @keep_alive_s.setter
    def keep_alive_s(self, seconds: float) -> None:
        if not 1 <= seconds <= self._settings.idle_timeout_s / 2:
            raise ValueError("a keep-alive interval has 1 s to half of the idle timeout")
        self._keep_alive_s = seconds
        self._schedule_flush()

    @property
    def silent_s(self) -> float:
        """Seconds since the other side was heard."""
        return self._network.monotonic() - self._heard_at

    async def wait_closed(self) -> CloseReason:
        await self._closed_event.wait()
        assert self.close_reason is not None  # noqa: S101 - set before the event
        return self.close_reason

    # datagrams and events

    def datagram_received(self, data: bytes) -> None:
        """Never raises."""
        now = self._network.monotonic()
        self.bytes_received += len(data)
        unproven = not self.initiator and self._proof_deadline_at is not None
        if unproven and self.bytes_received > self._settings.max_unproven_bytes:
            self._fail_handshake(CloseCode.TOO_MUCH, "too much before the proof")
            return
        try:
            self.transport.receive(data, now)
        except TransportError:
            self._endpoint.dropped("quic_error")
        if self._repairs.keeps(now):
            self._repairs.keep(data, len(data))
        self._heard_at = now
        self._following.heard(len(data))
        self._process()
        if self._probing_since is not None:
            self.revive()
        if not self.initiator and not self.proven.done() and self._initials_seen.repeated(data):
            for _ in range(3):  # one per packet number space
                self._fire_early()
        if not self._released:
            self._schedule_flush()

    def takes_together(self, source: Address, carrier: Carrier) -> bool:
        """Whether packets that came so may be handed over in one piece: an open connection's, on its path."""
        return self.proven.done() and not self.closed and self.path.is_from(source, carrier)

    def datagrams_received(self, buffer: bytes, size: int) -> None:
        """Take packets for which `takes_together` and `is_run_untrusted` hold. Never raises."""
        now = self._network.monotonic()
        self.bytes_received += len(buffer)
        try:
            self.transport.receive_many(buffer, size, now)
        except TransportError:
            self._endpoint.dropped("quic_error")
            for data in split_untrusted(buffer, size):
                with contextlib.suppress(TransportError):
                    self.transport.receive(data, now)
        if self._repairs.keeps(now):
            self._repairs.keep(buffer, size)
        self._heard_at = now
        self._following.heard(len(buffer))
        self._process()
        if not self._released:
            self._schedule_flush()

    def _ping(self) -> None:
        now = self._network.monotonic()
        if self._asked_at <= self._heard_at:
            self._asked_at = now  # the first one since
        self._pinged_at = now
        self._transport_call(self.transport.ping, 0)

    def _fire_early(self) -> None:
        due = None if self.closed else self.transport.timer()
        if due is not None and due < self._network.monotonic() + FAR_OFF_S:
            self._transport_call(self.transport.handle_timer, due)
            self._flush()

    def nudge(self) -> None:
        """Send the first packets again at once: what was sent before probably met a router that was not open yet."""
        if not self._released and not self.transport.heard_authentic:
            self._fire_early()

    def abandon(self, reason: CloseReason) -> None:
        """Close, send the close, and keep nothing, not even QUIC's draining time."""
        self._close(reason)
        self._release()

    def _process(self) -> None:
        try:
            while (event := self.transport.next_event()) is not None:
                if not self.closed:
                    self._handle(event)
        except BadPacket as exc:
            self._endpoint.dropped(exc.reason)
            self._fail_handshake(CloseCode.PROTOCOL if self.proven.done() else CloseCode.BAD_PROOF, exc.reason)
        except TransportError:
            self._endpoint.dropped("quic_error")
            self.abandon(CloseReason(CloseCode.PROTOCOL, "internal", "local"))
        ended = self.transport.ended
        if ended is not None and not self.closed:
            self._finish(ended)
        self._wake_changed()

    # sending and timers

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
        if self._flush_handle is None and not self._released and not self._flushing:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._released:
            return
        now = self._network.monotonic()
        try:
            while datagrams := self.transport.datagrams(now):
                if self.initiator and not self.transport.heard_authentic:
                    self._repeatable = datagrams[0]
                if self.spend is None and self._following.unlimited:
                    self.bytes_sent += sum(map(len, datagrams))
                    if len(datagrams) == 1:
                        self.path.send(datagrams[0])
                    else:
                        self.path.send_many(datagrams)
                    self._send_repairs(datagrams, now)
                else:
                    for data in datagrams:
                        self._send(data)
                self._flushing = True  # what is handed over now leaves in the next round of this loop
                more = self._pump()
                self._flushing = False
                self._count_for_keys(len(datagrams))
                if not more and len(datagrams) < MAX_BUILT:
                    break
            self._arm(now)
        except TransportError:
            self._endpoint.dropped("quic_error")
            if not self.closed:
                self._finish(CloseReason(CloseCode.PROTOCOL, "internal", "local"))
            self._release()

    def _count_for_keys(self, packets: int) -> None:
        """Change keys long before they have protected too many packets (RFC 9001, section 6.6, "Limits on AEAD Usage").

        qh3 follows the other side's change by itself, but begins none. One that is not confirmed yet is refused, and
        tried again after as many packets.
        """
        self._packets_of_key += packets
        if self._packets_of_key >= self._settings.key_update_packets and self.proven.done():
            self._packets_of_key = 0
            self._transport_call(self.transport.update_keys)

    def _send(self, data: bytes) -> None:
        if self.spend is not None and self.transport.heard_authentic:
            self.spend = None
        if self.spend is not None and not self.spend(self.path.remote):
            self._endpoint.dropped("budget")
            return
        if not self._following.spend(len(data)):
            self._endpoint.dropped("budget")
            return
        self.bytes_sent += len(data)
        self.path.send(data)

    def _arm(self, now: float) -> None:
        if self.initiator and (self._stall.at is not None or not self.proven.done()):
            self._stall.check(now, self.transport.timer(), over=self.transport.handshake_done or self.closed)
        before = self._probing_since
        if self.proven.done() and not self.closed and self._unanswered:
            self._probing_since = before or now
        else:
            self._probing_since = None
        if self._paths is not None and (before or self._probing_since):
            self._paths.unanswered(self._probing_since)
        deadlines = [self.transport.timer(), self._proof_deadline_at, self._drained_at, self._stall.at]
        if not self.closed:
            if self._probing_since is not None:
                deadlines.append(self._probing_since + self._settings.lost_after_s)
            else:
                deadlines.append(self._late_at)
            if self.proven.done():
                deadlines.append(self._ping_at(now))
        when = max(min((at for at in deadlines if at is not None), default=now + DRAIN_S), now + TICK_S)
        if self._timer is not None:
            # One that fires early does nothing but set itself anew. A busy connection moves its deadlines back with
            # every packet: a new timer for each would cost more than the early one.
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        now = self._network.monotonic()
        try:
            due = self.transport.timer()
            if due is not None and due <= now:
                self.transport.handle_timer(now)
        except TransportError:
            self._endpoint.dropped("quic_error")
            self.abandon(CloseReason(CloseCode.PROTOCOL, "internal", "local"))
            return
        self._process()
        if not self.closed and self._stall.fired(now):
            self._send(self._repeatable)
        if self.closed:
            if self.transport.drained or (self._drained_at is not None and now >= self._drained_at):
                self._release()
        elif self._proof_deadline_at is not None and now >= self._proof_deadline_at:
            self._fail_handshake(CloseCode.PROOF_LATE, "not accepted in time" if self.initiator else "no proof in time")
        elif self._probing_since is not None and now >= self._probing_since + self._settings.lost_after_s:
            self.abandon(CloseReason(CloseCode.LOST, "lost", "lost"))
        elif self.proven.done() and now >= self._ping_at(now):
            self._ping()
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
            self.transport.close(reason.code, reason.reason)
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
        if self._paths is not None:
            self._paths.close()
        self._ended(ConnectionClosedError(error.message, **error.facts))
        if not self.proven.done():
            self.proven.set_exception(error)
            self.proven.exception()  # seen: a server's handshake has no one waiting for it
        self._closed_event.set()
        self._wake_changed()
        self._endpoint.connection_closed(self)
        callbacks = list(self.on_closed)
        self.on_closed.clear()
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

    def call_soon_closed(self, callback: Callable[[CloseReason], None], reason: CloseReason) -> None:
        self._loop.call_soon(self._endpoint.call, callback, reason)

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
