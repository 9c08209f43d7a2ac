"""Targets of a protocol whose streams are frames with their length in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from targets.base import Target

__all__ = ["frame_target", "stream_target"]


class Buffer(Protocol):
    """Cuts a stream."""

    def feed_untrusted(self, data: bytes) -> list[Any]: ...


def frame_target(
    name: str, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes], *, head: int, max_bytes: int
) -> Target:
    """What is read is written and read again. `head`: bytes that `encode` puts before what `decode` reads."""

    def hold(_data: bytes, frame: object) -> None:
        assert decode(encode(frame)[head:]) == frame

    return Target(name, decode, hold, max_bytes=max_bytes)


def stream_target(
    name: str, buffer: Callable[[], Buffer], *, max_bytes: int, joined: Callable[[list[Any]], list[Any]] = list
) -> Target:
    """However the stream is cut, the frames are the same; `joined`: with what comes in parts in one piece."""

    def read(data: bytes) -> list[Any]:
        return joined(buffer().feed_untrusted(data))

    def hold(data: bytes, frames: list[Any]) -> None:
        cut, again, position, piece = buffer(), list[Any](), 0, 1
        while position < len(data):
            again += cut.feed_untrusted(data[position : position + piece])
            position += piece
            piece = piece * 2 % 251
        assert joined(again) == frames

    return Target(name, read, hold, max_bytes=max_bytes)
