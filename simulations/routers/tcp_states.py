"""What a router knows of a TCP connection, as a table.

RFC 7857, section 2 "TCP Session Tracking" with figure 1, which is that of RFC 6146, section 3.5.2. The states: a SYN
was seen from inside or outside, both sides have spoken, one of them or both are done, one of them has reset it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.routers.words import Direction, Segment

__all__ = ["TcpSession", "opened"]

State = Literal["opening-out", "opening-in", "established", "fin-out", "fin-in", "fin-both", "reset"]

# (state, direction, segment) to the next state; what is not here changes nothing.
_NEXT: Final[dict[tuple[State, Direction, Segment], State]] = {
    ("opening-out", "in", "syn"): "established",  # simultaneous open: RFC 5382, REQ-2a
    ("opening-out", "in", "syn-ack"): "established",
    ("opening-in", "out", "syn"): "established",
    ("opening-in", "out", "syn-ack"): "established",
    ("established", "out", "fin"): "fin-out",
    ("established", "in", "fin"): "fin-in",
    ("fin-out", "in", "fin"): "fin-both",
    ("fin-in", "out", "fin"): "fin-both",
    ("established", "out", "rst"): "reset",
    ("established", "in", "rst"): "reset",
    # Somebody else's RST is survived by the next true packet.
    ("reset", "out", "ack"): "established",
    ("reset", "in", "ack"): "established",
    ("reset", "out", "fin"): "fin-out",
    ("reset", "in", "fin"): "fin-in",
    # A new connection between the same two ends.
    ("fin-both", "out", "syn"): "opening-out",
    ("reset", "out", "syn"): "opening-out",
}
_KEEPS_TIMER: Final[frozenset[State]] = frozenset(("fin-both", "reset"))
"""Packets do not prolong these: they end a fixed time after they began."""


@dataclass(slots=True)
class TcpSession:
    """One connection. It is forgotten when `now` reaches `expires_at`."""

    state: State
    expires_at: float

    def see(self, now: float, direction: Direction, segment: Segment, kind: RouterKind) -> None:
        """Follow one segment that passed."""
        state = _NEXT.get((self.state, direction, segment), self.state)
        if state == self.state and state in _KEEPS_TIMER:
            return
        if state == self.state and segment == "rst" and direction == "out":
            return  # RFC 7857, section 8: an answer to what was not wanted does not refresh
        if direction == "in" and not kind.inbound_refresh and state == self.state:
            return
        self.state = state
        self.expires_at = now + _lifetime(state, kind)


def opened(now: float, direction: Direction, kind: RouterKind) -> TcpSession:
    """Return the session that a SYN begins."""
    state: State = "opening-out" if direction == "out" else "opening-in"
    return TcpSession(state, now + kind.tcp_open_s)


def _lifetime(state: State, kind: RouterKind) -> float:
    if state in _KEEPS_TIMER:
        return kind.tcp_closing_s
    return kind.tcp_open_s if state in ("opening-out", "opening-in") else kind.tcp_established_s
