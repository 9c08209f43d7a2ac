"""Frames of what is told of the hall."""

from __future__ import annotations

from p2pnode.chat.told import wire
from targets.framed import frame_target, stream_target

__all__ = ["TARGETS"]

TARGETS = [
    frame_target("told_frame", wire.decode_untrusted, wire.encode, head=2, max_bytes=17_000),
    stream_target("told_stream", wire.FrameBuffer, max_bytes=4_000),
]
