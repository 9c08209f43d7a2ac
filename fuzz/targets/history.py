"""Frames of what is told of the hall and of timers; lines of an export, which may be anybody's."""

from __future__ import annotations

import msgspec

from p2pnode.chat.keeping import exchange, wire
from p2pnode.chat.keeping.people import read_contact
from p2pnode.chat.told import wire as told
from targets.base import Target
from targets.framed import frame_target, stream_target

__all__ = ["TARGETS"]


def _line(_data: bytes, message: exchange.ExportedMessage) -> None:
    assert exchange.read_line(msgspec.json.encode(message)) == message
    exchange.markdown_of(message, None, "name")


TARGETS = [
    frame_target("told_frame", told.decode_untrusted, told.encode, head=2, max_bytes=17_000),
    stream_target("told_stream", told.FrameBuffer, max_bytes=4_000),
    frame_target("timer_frame", wire.decode_untrusted, wire.encode, head=2, max_bytes=80),
    stream_target("timer_stream", wire.FrameBuffer, max_bytes=400),
    Target("export_line", exchange.read_line, _line, errors=(exchange.BadLineError,), max_bytes=4_000),
    Target("export_contact", read_contact, None, errors=(exchange.BadLineError,), max_bytes=1_000),
]
