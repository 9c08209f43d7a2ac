"""Frames of a conversation with a stranger, and reports."""

from __future__ import annotations

from p2pnode.chat.strangers.receipts import REPORT_BYTES, epoch_of, read_report_untrusted
from p2pnode.chat.strangers.wire import FrameBuffer, decode_untrusted, encode
from targets.base import Target
from targets.framed import frame_target, stream_target

__all__ = ["TARGETS"]

NOW = 1_700_000_060.0


def read_report(data: bytes) -> int:
    """The ids of reporter and reported, then the value."""
    return read_report_untrusted(data[64:], data[:32], data[32:64], epoch_of(NOW), NOW)


def hold_report(data: bytes, at: int) -> None:
    assert len(data) == 64 + REPORT_BYTES
    assert epoch_of(at) == epoch_of(NOW)


TARGETS = [
    frame_target("stranger_frame", decode_untrusted, encode, head=2, max_bytes=4_200),
    stream_target("stranger_stream", FrameBuffer, max_bytes=4_000),
    Target("stranger_report", read_report, hold_report, max_bytes=200),
]
