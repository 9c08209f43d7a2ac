"""The sending half of a TCP connection: windows, loss recovery and time-outs, without I/O.

Slow start and congestion avoidance (RFC 5681) from ten packets (RFC 6928); losses found by selective acknowledgements,
after three later packets (RFC 6675) or one sent a quarter of a round trip later (the idea of RFC 8985, RACK: it finds
lost retransmissions, too); retransmission time-outs (RFC 6298) of at least 0.2 s, as Linux has them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["BUFFER_BYTES", "Sent", "TcpSender"]

RTO_MIN_S, RTO_FIRST_S, RTO_MAX_S = 0.2, 1.0, 120.0
INITIAL_WINDOW_PACKETS = 10
DUPLICATES_OF_A_LOSS = 3
# Bytes that wait on each side: at the sender until acknowledged, at the receiver until read.
BUFFER_BYTES = 256 * 1024


@dataclass(slots=True)
class Sent:
    """A packet that is not acknowledged yet. `end`: the place after it, FIN included."""

    seq: int
    data: bytes
    fin: bool
    sent_at: float
    again: bool = False
    held: bool = False
    """The other side has it, though not all before it."""
    lost: bool = False
    """Taken for lost, and not sent again yet."""

    @property
    def end(self) -> int:
        return self.seq + len(self.data) + self.fin


class TcpSender:
    """What was written, what is under way, and what may leave now. Times are in seconds of any one clock."""

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.next = 0
        """Place of the next new byte."""
        self.window = 0
        """Bytes that the other side can take beyond what it acknowledged."""
        self.tries = 0
        """Time-outs since anything was acknowledged."""
        self.fin_sent = False
        self._unsent = bytearray()
        self._flight: deque[Sent] = deque()
        self._acked = 0
        self._congestion = float(INITIAL_WINDOW_PACKETS * mss)
        self._threshold = float("inf")
        self._recover_to: int | None = None
        self._timed_out = False
        self._delivered_sent_at = -1.0  # when the newest packet that arrived was sent
        self._rto_s = RTO_FIRST_S
        self._smooth_s: float | None = None
        self._spread_s = 0.0

    @property
    def waiting(self) -> int:
        """Bytes written and not acknowledged."""
        return len(self._unsent) + self.next - self._acked

    @property
    def all_acknowledged(self) -> bool:
        return not self._flight and not self._unsent

    def opened(self, window: int, mss: int, trip_s: float | None) -> None:
        """The handshake is done. `trip_s`: how long it took, None when that is ambiguous."""
        self.mss = mss
        self.window = window
        self.tries = 0
        self._congestion = float(INITIAL_WINDOW_PACKETS * mss)
        if trip_s is not None:
            self._measure(trip_s)

    def write(self, data: bytes | memoryview) -> None:
        self._unsent += data

    def may_send(self, now: float, *, closing: bool) -> list[Sent]:
        """Return what leaves now, lost packets first; FIN behind the last byte when `closing`."""
        leaving: list[Sent] = []
        on_the_way = sum(len(each.data) for each in self._flight if not each.held and not each.lost)
        for each in self._flight:
            if each.lost and (on_the_way < self._congestion or not on_the_way):
                each.lost, each.again, each.sent_at = False, True, now
                on_the_way += len(each.data)
                leaving.append(each)
        while self._unsent and on_the_way < self._congestion:
            room = self.window - (self.next - self._acked)
            if room <= 0 or (self._flight and room < min(self.mss, len(self._unsent))):
                break  # no silly small packets while an answer is on its way (RFC 9293, section 3.8.6.2.1)
            leaving.append(self._take(min(self.mss, room), now))
            on_the_way += len(leaving[-1].data)
        if closing and not self._unsent and not self.fin_sent:
            self.fin_sent = True
            leaving.append(self._take(0, now))
        return leaving

    def acknowledged(self, now: float, acked: int, window: int, held: tuple[tuple[int, int], ...]) -> None:
        """Take an acknowledgement: all up to `acked`, and the ranges `held` (RFC 2018)."""
        self.window = window
        newest = None
        while self._flight and self._flight[0].end <= acked:
            newest = self._flight.popleft()
            self._arrived(newest)
        if acked > self._acked:
            if newest is not None and not newest.again:  # Karn's algorithm
                self._measure(now - newest.sent_at)
            self._grow(acked)
        for first, end in held:
            for each in self._flight:
                if not each.held and first <= each.seq and each.end <= end:
                    each.held, each.lost = True, False
                    self._arrived(each)
        if held:
            self._find_losses()

    def timed_out(self) -> None:
        """The time-out has passed: everything not held counts as lost. With nothing under way, ask for a window."""
        self.tries += 1
        if self._flight:
            self._threshold = max((self.next - self._acked) / 2, 2.0 * self.mss)
            self._congestion = float(self.mss)
            self._recover_to = self.next
            self._timed_out = True
            for each in self._flight:
                each.lost = not each.held
        elif self._unsent and self.window <= 0:
            self.window = 1  # one byte, as a question; the answer tells the true window

    def timeout_s(self) -> float | None:
        """Return how long to wait for an acknowledgement, None when there is nothing to wait for."""
        return self.backed_off_s() if self._flight or self._unsent else None

    def backed_off_s(self) -> float:
        """Return the time-out, doubled with each try."""
        return min(RTO_MAX_S, self._rto_s * (1 << self.tries))

    def clear(self) -> None:
        """Forget what is under way: the connection is over."""
        self._flight.clear()
        self._unsent.clear()

    def _take(self, count: int, now: float) -> Sent:
        data = bytes(self._unsent[:count])
        del self._unsent[: len(data)]
        sent = Sent(self.next, data, count == 0, now)
        self.next = sent.end
        self._flight.append(sent)
        return sent

    def _arrived(self, sent: Sent) -> None:
        if not sent.again:  # of a packet sent twice nobody knows which one arrived
            self._delivered_sent_at = max(self._delivered_sent_at, sent.sent_at)

    def _grow(self, acked: int) -> None:
        count = acked - self._acked
        self._acked = acked
        self.tries = 0
        if self._recover_to is not None and acked >= self._recover_to:
            self._recover_to = None
            self._timed_out = False
        if self._recover_to is not None and not self._timed_out:
            return
        if self._congestion < self._threshold:
            self._congestion += count
        else:
            self._congestion += self.mss * count / self._congestion

    def _find_losses(self) -> None:
        later = 0
        found = False
        patience_s = (self._smooth_s or 0.0) / 4
        for each in reversed(self._flight):
            if each.held:
                later += 1
            elif not each.lost and (
                (later >= DUPLICATES_OF_A_LOSS and not each.again)
                or each.sent_at + patience_s < self._delivered_sent_at
            ):
                each.lost = found = True
        if found and self._recover_to is None:
            self._threshold = max((self.next - self._acked) / 2, 2.0 * self.mss)
            self._congestion = self._threshold
            self._recover_to = self.next

    def _measure(self, trip_s: float) -> None:
        """RFC 6298, section 2 "The Basic Algorithm"."""
        if self._smooth_s is None:
            self._smooth_s, self._spread_s = trip_s, trip_s / 2
        else:
            self._spread_s += (abs(self._smooth_s - trip_s) - self._spread_s) / 4
            self._smooth_s += (trip_s - self._smooth_s) / 8
        self._rto_s = min(RTO_MAX_S, self._smooth_s + max(RTO_MIN_S, 4 * self._spread_s))
