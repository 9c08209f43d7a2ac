"""Why connections end: application close codes and what they mean."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["CloseCode", "CloseReason", "ClosedCallbacks", "Origin"]

Origin = Literal["local", "remote", "transport", "lost"]


class CloseCode(enum.IntEnum):
    """QUIC application error codes 0x00-0x1F, fixed by our protocol. 0x20 and above are the node's."""

    DONE = 0x00
    """An ordinary end."""
    GOING_AWAY = 0x01
    """The process stops."""
    WRONG_KEY = 0x02
    """The server is not who the client wanted."""
    BAD_PROOF = 0x03
    """Certificate, nonce or proof is not valid."""
    PROOF_LATE = 0x04
    """No valid proof within 5 s."""
    TOO_MUCH = 0x05
    """More than 16 KiB before the proof."""
    PROTOCOL = 0x06
    """A frame or stream that this protocol does not know."""
    TOO_MANY = 0x07
    """The server has as many connections as it takes."""
    LOST = 0x08
    """What was sent stays unacknowledged; the other side hardly hears this."""
    CANCELLED = 0x09
    """The client gave the attempt up."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """`code`: see CloseCode when `origin` is local, remote or lost; a QUIC transport error when it is transport.

    `reason`: a short text; the other side's words when `origin` is remote: pass them through `clean` before showing.
    """

    code: int
    reason: str
    origin: Origin

    def __str__(self) -> str:
        return self.reason or {0: "done", 1: "going away"}.get(self.code, f"code {self.code}")


class ClosedCallbacks(list[Callable[[CloseReason], None]]):
    """Between a connection's end and its owner's `append` may lie a turn of the loop; nobody must miss the end."""

    def __init__(
        self,
        reason: Callable[[], CloseReason | None],
        call_soon: Callable[[Callable[[CloseReason], None], CloseReason], None],
    ) -> None:
        """`reason`: why it ended, None while it is open. `call_soon` calls a callback that came after the end."""
        super().__init__()
        self._reason = reason
        self._call_soon = call_soon

    def append(self, callback: Callable[[CloseReason], None]) -> None:
        reason = self._reason()
        if reason is None:
            super().append(callback)
        else:
            self._call_soon(callback, reason)
