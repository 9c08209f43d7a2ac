"""What the streams of one connection share: whose turn it is to send, and what their windows may grow by.

qh3 sends one packet of each stream that has bytes, in turn, so a short message never waits behind a long transfer. What
goes before what is decided here, by what qh3 is given: a stream hands over nothing while one of a more urgent level has
bytes that could leave. (RFC 9218 has eight levels and a flag; three are what applications here tell apart.)
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Protocol

__all__ = ["GROWTH", "Priority", "Shares", "Sharing"]

GROWTH = 14 << 20  # bytes; two windows at their most. So 100 streams make us hold 114 MiB, in order and unread


class Priority(enum.IntEnum):
    """Of what a stream sends; each side chooses for its own direction."""

    URGENT = 0
    NORMAL = 1
    BACKGROUND = 2


class Sharing(Protocol):
    """A stream, as the others see it."""

    def pump(self) -> bool: ...

    @property
    def could_send(self) -> bool:
        """Whether it has bytes that its reader's credit lets pass and that have not left."""


class Shares:
    """One per connection. Knows each stream from when it begins until it is done both ways."""

    def __init__(self) -> None:
        self._levels: dict[Priority, dict[Sharing, None]] = {}
        self.growth = GROWTH
        """Bytes that windows may still grow by, all together."""

    def join(self, stream: Sharing, priority: Priority) -> None:
        self._levels.setdefault(priority, {})[stream] = None

    def leave(self, stream: Sharing, priority: Priority) -> None:
        """Harmless when it is not there."""
        level = self._levels.get(priority, {})
        level.pop(stream, None)
        if not level:
            self._levels.pop(priority, None)

    def may_send(self, priority: Priority) -> bool:
        """Whether no stream of a more urgent level has something to send."""
        return not any(
            stream.could_send for level, streams in self._levels.items() if level < priority for stream in streams
        )

    def in_turn(self) -> Iterator[Sharing]:
        """Yield the streams, the most urgent level first; they may end meanwhile."""
        for level in sorted(self._levels):
            yield from list(self._levels.get(level, ()))

    def take_growth(self, size: int) -> bool:
        """Whether a window may grow by so much."""
        if size > self.growth:
            return False
        self.growth -= size
        return True
