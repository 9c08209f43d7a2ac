"""Frames of the chat's streams: a length, big endian, then a MessagePack array whose first element tells the kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from p2pnode import BadPacket

__all__ = ["Codec", "FrameBuffer"]

F = TypeVar("F")


class Codec(Generic[F]):
    """How one protocol writes and reads its frames."""

    def __init__(
        self, frames: Any, *, length_bytes: int, max_bytes: int, check: Callable[[F], None] | None = None
    ) -> None:
        """`frames`: the union of its kinds. `max_bytes`: of one frame, without its length. `check`: what the kinds'
        types do not say; raises BadPacket."""
        self.length_bytes, self.max_bytes = length_bytes, max_bytes
        self._check = check
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[F] = msgspec.msgpack.Decoder(frames)

    def encode(self, frame: F) -> bytes:
        """Return the frame with its length in front."""
        body = self._encoder.encode(frame)
        return len(body).to_bytes(self.length_bytes, "big") + body

    def decode_untrusted(self, body: bytes) -> F:
        """Read one frame without its length. Raise BadPacket: `too_long`, `malformed`, what `check` raises."""
        if len(body) > self.max_bytes:
            raise BadPacket("too_long")
        try:
            frame = self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as exc:
            raise BadPacket("malformed") from exc
        if self._check is not None:
            self._check(frame)
        return frame


class FrameBuffer(Generic[F]):
    """Cuts a stream into frames. Holds at most one incomplete frame, and what was added behind those not yet taken."""

    def __init__(self, codec: Codec[F]) -> None:
        self._codec = codec
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Keep what came, for `next_untrusted`."""
        self._data += data

    def next_untrusted(self) -> F | None:
        """Take the next frame, None when it is not complete. Raise BadPacket; the stream is of no use then."""
        found = self._at_untrusted(0)
        if found is None:
            return None
        frame, end = found
        del self._data[:end]
        return frame

    def feed_untrusted(self, data: bytes) -> list[F]:
        """Return the frames that are complete now. Raise BadPacket; the stream is of no use then."""
        self._data += data
        frames: list[F] = []
        start = 0
        while (found := self._at_untrusted(start)) is not None:
            frame, start = found
            frames.append(frame)
        del self._data[:start]
        return frames

    def _at_untrusted(self, start: int) -> tuple[F, int] | None:
        """Return the frame that begins at `start` and where it ends, None when it is not complete."""
        codec = self._codec
        body = start + codec.length_bytes
        if len(self._data) < body:
            return None
        length = int.from_bytes(self._data[start:body], "big")
        if length > codec.max_bytes:
            raise BadPacket("too_long")
        end = body + length
        return (codec.decode_untrusted(bytes(self._data[body:end])), end) if len(self._data) >= end else None
