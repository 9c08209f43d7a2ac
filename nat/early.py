"""What crosses the wire while the server has not yet accepted the client's proof.

The client's first application data may leave right behind its proof, so that an echo costs two round trips instead of
three. When the network reorders or loses the proof, such data arrives before it: the server keeps it unread (within the
16 KiB that any unproven client may send), and the client sends no more than `EARLY_BYTES`, far below that limit.
"""

from __future__ import annotations

from p2pnode.nat.transport import events

__all__ = ["EARLY_BYTES", "EarlyWrites", "is_early"]

# A handshake has about 4,000 bytes of UDP payload, 8,000 when all of it is repeated; the server takes 16,384.
EARLY_BYTES = 4096
CONTROL_STREAM = 0


class EarlyWrites:
    """The client's writes before acceptance: the first `EARLY_BYTES` may go, the rest waits, in order."""

    def __init__(self) -> None:
        self._room = EARLY_BYTES
        self._held: list[tuple[int, bytes, bool]] = []
        self._full = False
        self._released = False

    @property
    def full(self) -> bool:
        """Whether everything that is written now waits. No stream may be opened then: qh3 counts it by its header."""
        return self._full

    def admit(self, stream_id: int, data: bytes, fin: bool) -> bool:
        """Whether this may be sent now; else it is held, and so is all that follows."""
        if self._released:
            return True
        if not self._full and len(data) <= self._room:
            self._room -= len(data)
            self._full = self._room < 128  # no room for a stream header and a few bytes
            return True
        self._full = True
        self._held.append((stream_id, data, fin))
        return False

    def unsent(self, stream_id: int) -> int:
        """Bytes of this stream that are held."""
        return sum(len(data) for held_id, data, _ in self._held if held_id == stream_id)

    def forget(self, stream_id: int) -> None:
        """The stream was reset."""
        self._held = [held for held in self._held if held[0] != stream_id]

    def release(self) -> list[tuple[int, bytes, bool]]:
        """Accepted: return what was held as (stream, data, fin); from now on everything is admitted."""
        held, self._held = self._held, []
        self._full, self._released = False, True
        return held


def is_early(event: events.QuicEvent) -> bool:
    """Whether a client may send this ahead of its proof: anything on a stream of the application that it opened."""
    about_stream = events.StreamDataReceived | events.StreamReset | events.StopSendingReceived
    return isinstance(event, about_stream) and event.stream_id % 4 == 0 and event.stream_id != CONTROL_STREAM
