"""Frames of the chat stream."""

from __future__ import annotations

from p2pnode.chat.protocol import FrameBuffer, decode_untrusted, encode
from targets.framed import frame_target, stream_target

__all__ = ["TARGETS"]

TARGETS = [
    frame_target("chat_frame", decode_untrusted, encode, head=4, max_bytes=66_000),
    stream_target("chat_stream", FrameBuffer, max_bytes=4_000),
]
