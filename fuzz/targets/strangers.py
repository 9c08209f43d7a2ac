"""Frames of a conversation with a stranger, and reports."""

from __future__ import annotations

from p2pnode.chat.strangers.receipts import REPORT_BYTES, epoch_of, read_report_untrusted
from p2pnode.chat.strangers.wire import Frame, FrameBuffer, decode_untrusted, encode
from targets.base import Target

__all__ = ["TARGETS"]

NOW = 1_700_000_060.0


def hold_frame(_data: bytes, frame: Frame) -> None:
    assert decode_untrusted(encode(frame)[2:]) == frame


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


def read_report(data: bytes) -> int:
    """The ids of reporter and reported, then the value."""
    return read_report_untrusted(data[64:], data[:32], data[32:64], epoch_of(NOW), NOW)


def hold_report(data: bytes, at: int) -> None:
    assert len(data) == 64 + REPORT_BYTES
    assert epoch_of(at) == epoch_of(NOW)


TARGETS = [
    Target("stranger_frame", decode_untrusted, hold_frame, max_bytes=4_200),
    Target("stranger_stream", read_stream, hold_stream, max_bytes=4_000),
    Target("stranger_report", read_report, hold_report, max_bytes=200),
]
