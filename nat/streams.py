"""A bidirectional byte stream of a connection, with back-pressure both ways.

Sending waits for two things: qh3's own queue (at most `SEND_BUFFER` bytes unsent) and the reader's credit
(`nat/control.py`). Receiving gives credit as the application reads: an unread stream holds at most `INITIAL_CREDIT`
bytes, one that is read up to its window more than was read. Where the window is what holds the sender back, because
much is on its way at a time, it grows as long as the application keeps up: from `READ_WINDOW` up to `MAX_READ_WINDOW`,
and all streams of a connection together by at most `shares.GROWTH`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Protocol

from p2pnode.core.errors import BadPacket
from p2pnode.nat.errors import ConnectionClosedError, StreamFullError, StreamResetError
from p2pnode.nat.shares import Priority, Shares

__all__ = ["INITIAL_CREDIT", "READ_WINDOW", "Stream", "StreamOwner"]

INITIAL_CREDIT = 64 << 10  # 100 streams that nobody reads: 6.4 MiB
READ_WINDOW = 1 << 20
CREDITS_PER_WINDOW = 4  # so three quarters of it may be read per round trip
MAX_READ_WINDOW = 8 << 20
LONG_RTT_S = 0.005  # below it, the first window is more than 200 MB/s
SEND_BUFFER = 256 << 10
BACKGROUND_BUFFER = 64 << 10  # in qh3, of background streams: what is there already, more urgent data cannot overtake
NOWAIT_BUFFER = 4 << 20  # a caller that never waits has a bug; this is where it shows
CHUNK = 64 << 10


class StreamOwner(Protocol):
    """What a stream needs from its connection."""

    shares: Shares
    last_used_at: float

    @property
    def rtt_s(self) -> float | None: ...
    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None: ...
    def stream_unsent(self, stream_id: int) -> int: ...
    def stream_credit(self, stream_id: int, limit: int) -> None: ...
    def stream_reset(self, stream_id: int, code: int, *, receiving: bool) -> None: ...
    def stream_done(self, stream_id: int) -> None: ...
    def stream_used(self) -> None: ...


class Stream:
    """One stream. `read` and `write` may be used by one task each; cancelling either loses nothing.

    A `write` that is cancelled while it waits has still handed over its data.
    """

    def __init__(self, owner: StreamOwner, stream_id: int, protocol: str, priority: Priority = Priority.NORMAL) -> None:
        self.id = stream_id
        self.protocol = protocol
        self._owner = owner
        self._incoming: deque[bytes | memoryview] = deque()
        self._unread = 0
        self._received = 0
        self._credit_given = INITIAL_CREDIT
        self._credits_at = deque([-math.inf] * CREDITS_PER_WINDOW, CREDITS_PER_WINDOW)
        self._window = READ_WINDOW
        self._fin_received = False
        self._receive_done = False
        self._outgoing: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sent = 0
        self._handed = 0  # at most so much is unsent in qh3; asked anew only when it matters
        self._credit = INITIAL_CREDIT
        self._finishing = False
        self._send_done = False
        self._error: Exception | None = None
        self._readers: set[asyncio.Future[None]] = set()
        self._writers: set[asyncio.Future[None]] = set()
        self._priority = priority
        owner.shares.join(self, priority)

    # reading

    async def read(self, limit: int = CHUNK) -> bytes:
        """Return 1 to `limit` bytes as soon as there are any, b"" at the end.

        Raise StreamResetError, ConnectionClosedError; what arrived before is returned first.
        """
        if limit < 1:
            raise ValueError("limit is at least 1")
        while not self._incoming:
            if self._fin_received:
                return b""
            if self._error is not None:
                raise self._error
            await _wait(self._readers)
        return self._take(limit)

    async def readexactly(self, count: int) -> bytes:
        """Return `count` bytes. Raise asyncio.IncompleteReadError when the stream ends before, else as `read`.

        Cancelled: what it had taken is put back.
        """
        parts: list[bytes] = []
        missing = count
        try:
            while missing:
                part = await self.read(missing)
                if not part:
                    partial = b"".join(parts)
                    parts.clear()
                    raise asyncio.IncompleteReadError(partial, count)
                parts.append(part)
                missing -= len(part)
        except asyncio.CancelledError:
            self._incoming.extendleft(reversed(parts))
            self._unread += sum(map(len, parts))
            raise
        return b"".join(parts)

    def _take(self, limit: int) -> bytes:
        data = self._incoming.popleft()
        if len(data) > limit:
            # A view: what came in one piece of a MiB and is read by the 100 bytes is not copied 10,000 times.
            view = memoryview(data)
            self._incoming.appendleft(view[limit:])
            data = view[:limit]
        elif len(data) < limit and self._incoming:
            parts, size = [bytes(data)], len(data)
            while self._incoming and size + len(self._incoming[0]) <= limit:
                parts.append(bytes(self._incoming.popleft()))
                size += len(parts[-1])
            data = b"".join(parts)
        data = bytes(data)
        self._unread -= len(data)
        self._owner.stream_used()
        # Not at every read: a credit frame when a quarter of the window is used up, the first one at once.
        allowed = self._received - self._unread + self._window
        if not self._receive_done and allowed - self._credit_given >= self._window // CREDITS_PER_WINDOW:
            self._credit_given = allowed + self._grow()
            self._owner.stream_credit(self.id, self._credit_given)
        return data

    def _grow(self) -> int:
        """Double the window when it was used up within two round trips; return by how much it grew.

        The rule of TCP's dynamic right-sizing (Fisk and Feng 2001): what arrives and is read in a round trip, twice.
        """
        now, before = self._owner.last_used_at, self._credits_at[0]
        self._credits_at.append(now)
        rtt, window = self._owner.rtt_s, self._window
        if rtt is None or rtt < LONG_RTT_S or now - before > 2 * rtt or window >= MAX_READ_WINDOW:
            return 0
        if not self._owner.shares.take_growth(window):
            return 0
        self._window += window
        return window

    def _shrink(self) -> None:
        self._owner.shares.growth += self._window - READ_WINDOW
        self._window = READ_WINDOW

    # writing

    @property
    def priority(self) -> Priority:
        """Of what this side sends; settable at any time, the other side does not learn of it."""
        return self._priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        if not (self._send_done and self._receive_done):
            self._owner.shares.leave(self, self._priority)
            self._owner.shares.join(self, priority)
        self._priority = priority

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of `data`; wait while more than 256 KiB are unsent. Its memory may be used anew afterwards.

        Raise StreamResetError, ConnectionClosedError.
        """
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            while self._unsent() >= SEND_BUFFER:
                self._check_sending()
                await _wait(self._writers)
            self._check_sending()
            self._queue(bytes(view[start : start + CHUNK]))
        while self._unsent() >= SEND_BUFFER:
            self._check_sending()
            await _wait(self._writers)

    def write_nowait(self, data: bytes) -> None:
        """Queue `data`. Raise StreamFullError above 4 MiB unsent, StreamResetError, ConnectionClosedError."""
        self._check_sending()
        if self._unsent() + len(data) > NOWAIT_BUFFER:
            raise StreamFullError("The other side does not read as fast as this side writes.", stream=self.id)
        self._queue(bytes(data))

    def finish(self) -> None:
        """Send the end (FIN) after what is queued; reading goes on. Twice is harmless."""
        if not self._finishing and self._error is None:
            self._finishing = True
            self.pump()

    def reset(self, code: int = 0) -> None:
        """Give the stream up in both directions; the other side sees StreamResetError with `code`."""
        if self._error is None and not (self._send_done and self._receive_done):
            self._owner.stream_reset(self.id, code, receiving=not self._receive_done)
            self._fail(StreamResetError("This stream was given up.", reset_code=code))
            self._incoming.clear()
            self._unread = 0
            self._send_done = True
            self._check_done()

    def _check_sending(self) -> None:
        if self._error is not None:
            raise self._error
        if self._finishing:
            raise ConnectionClosedError("This stream was finished; nothing more can be written.", reason="finished")

    def _unsent(self) -> int:
        if self._send_done:
            return self._waiting_bytes
        if self._waiting_bytes + self._handed >= SEND_BUFFER:
            self._handed = self._owner.stream_unsent(self.id)
        return self._waiting_bytes + self._handed

    def _queue(self, data: bytes) -> None:
        if data:
            self._outgoing.append(data)
            self._waiting_bytes += len(data)
        self._owner.stream_used()
        self.pump()

    # called by the connection

    def pump(self) -> bool:
        """Hand over what credit and qh3's queue allow; wake writers. Return whether anything was handed over."""
        if self._send_done or self._error is not None:
            return False
        before = self._sent
        if self._outgoing and self._handed >= BACKGROUND_BUFFER:
            self._handed = self._owner.stream_unsent(self.id)
        room = (BACKGROUND_BUFFER if self._priority is Priority.BACKGROUND else SEND_BUFFER) - self._handed
        if self._outgoing and not self._owner.shares.may_send(self._priority):
            return False
        while self._outgoing and self._sent < self._credit and room > 0:
            data = self._outgoing.popleft()
            allowed = min(self._credit - self._sent, len(data))
            if allowed < len(data):
                self._outgoing.appendleft(data[allowed:])
                data = data[:allowed]
            self._sent += len(data)
            self._waiting_bytes -= len(data)
            room -= len(data)
            self._handed += len(data)
            self._owner.stream_write(self.id, data, False)
        if self._finishing and not self._outgoing:
            self._send_done = True
            self._owner.stream_write(self.id, b"", True)
            self._check_done()
        if self._writers and self._unsent() < SEND_BUFFER:
            _wake(self._writers)
        return self._send_done or self._sent > before

    @property
    def could_send(self) -> bool:
        """Whether it has bytes that its reader's credit lets pass and that have not left."""
        if self._error is not None:
            return False
        if self._outgoing and self._sent < self._credit:
            return True
        if self._handed:
            self._handed = self._owner.stream_unsent(self.id)
        return self._handed > 0

    def count_header(self, size: int, *, sent: bool) -> None:
        """The header counts as data of its direction."""
        if sent:
            self._sent += size
        else:
            self._received += size

    def data_received_untrusted(self, data: bytes, fin: bool) -> None:
        """Raise BadPacket("beyond_credit") when the sender ignores our credit."""
        self._received += len(data)
        if self._received > self._credit_given:
            raise BadPacket("beyond_credit")
        if self._error is None:
            if data:
                self._incoming.append(data)
                self._unread += len(data)
            self._fin_received |= fin
        if fin:
            self._receive_done = True
        _wake(self._readers)
        self._check_done()

    def credit_received(self, limit: int) -> None:
        if limit > self._credit:
            self._credit = limit
            self.pump()

    def reset_received(self, code: int) -> None:
        """The other side gave up sending. So do we: half a conversation is of no use to any protocol here."""
        self._receive_done = True
        self.stop_received(code)

    def stop_received(self, code: int) -> None:
        """The other side reads no more."""
        if not self._send_done:
            self._send_done = True
            self._owner.stream_reset(self.id, code, receiving=False)
        # A stop that meets a stream which ended well both ways is only late.
        if not self._fin_received or not self._finishing:
            self._fail(StreamResetError("The other side gave this stream up.", reset_code=code))
        self._check_done()

    def connection_closed(self, error: ConnectionClosedError) -> None:
        self._send_done = True
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._outgoing.clear()
        self._waiting_bytes = 0
        _wake(self._readers)
        _wake(self._writers)

    def _check_done(self) -> None:
        if self._send_done and self._receive_done:
            self._shrink()
            self._owner.shares.leave(self, self._priority)
            self._owner.stream_done(self.id)

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.protocol}>"


async def _wait(waiters: set[asyncio.Future[None]]) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters.add(waiter)
    try:
        await waiter
    finally:
        waiters.discard(waiter)


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
