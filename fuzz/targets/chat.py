"""Frames of the chat stream."""

from __future__ import annotations

from p2pnode.chat.protocol import Frame, FrameBuffer, decode_untrusted, encode
from targets.base import Target

__all__ = ["TARGETS"]


def read_frame(data: bytes) -> Frame:
    return decode_untrusted(data)


def hold_frame(_data: bytes, frame: Frame) -> None:
    assert decode_untrusted(encode(frame)[4:]) == frame


def read_stream(data: bytes) -> list[Frame]:
    return FrameBuffer().feed_untrusted(data)


def hold_stream(data: bytes, frames: list[Frame]) -> None:
    """However the stream is cut, the frames are the same."""
    buffer, again, position, piece = FrameBuffer(), [], 0, 1
    while position < len(data):
        again += buffer.feed_untrusted(data[position : position + piece])
        position += piece
        piece = piece * 2 % 251
    assert again == frames


TARGETS = [
    Target("chat_frame", read_frame, hold_frame, max_bytes=66_000),
    Target("chat_stream", read_stream, hold_stream, max_bytes=4_000),
]
