"""A handshake that fell silent: pure objects, `now` in monotonic seconds.

RFC 9002, section 6.2.2.1, "Before Address Validation": a client must not fall silent while the handshake is not done,
for the server may wait for credit or for its own far-off timer. qh3 does when its first packets are acknowledged but
what came back is incomplete; so the client repeats a datagram of its ClientHello, and a server of ours that receives
the same bytes again sends its flight again (section 6.2.3, "Speeding up Handshake Completion").
"""

from __future__ import annotations

__all__ = ["FAR_OFF_S", "ClientStall", "InitialsSeen"]

FIRST_STALL_S = 0.2  # doubled each time
SPEED_UPS = 8  # per connection
MAX_INITIALS_SEEN = 16
INITIAL_BITS = 0xC0  # RFC 9000, section 17.2.2, "Initial Packet": long header, fixed bit, type 0
FAR_OFF_S = 20.0  # a timer that is further away is the idle timeout


class ClientStall:
    """When a client repeats its first datagram. `at`: None while qh3 goes on by itself."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._after_s = FIRST_STALL_S

    def check(self, now: float, due: float | None, *, over: bool) -> None:
        """`due`: qh3's timer. `over`: the handshake is done, or the connection closed."""
        if over or (due is not None and due < now + FAR_OFF_S):
            self.at = None
        elif self.at is None:
            self.at = now + self._after_s

    def fired(self, now: float) -> bool:
        """Whether to repeat now; the next time it takes twice as long."""
        if self.at is None or now < self.at:
            return False
        self.at = None
        self._after_s *= 2
        return True


class InitialsSeen:
    """Whether a client repeats a first packet byte for byte; true at most `SPEED_UPS` times. 16 hashes."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._left = SPEED_UPS

    def repeated(self, data: bytes) -> bool:
        if data[0] & 0xF0 != INITIAL_BITS:
            return False
        if hash(data) not in self._seen:
            if len(self._seen) < MAX_INITIALS_SEEN:
                self._seen.add(hash(data))
            return False
        self._left -= 1
        return self._left >= 0
