"""The frames of `p2pnode/hall-history/1` (docs/protocol/chat.md, "What was said before"). Pure.

A frame is its length as two bytes, big endian, then a MessagePack array whose first element tells the kind. Whoever
comes opens the stream, asks once, and gets messages, oldest first, until the stream ends.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import BadPacket, PeerId
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec
from p2pnode.chat.protocol import ID_BYTES, MAX_TEXT_BYTES

__all__ = [
    "HALL_HISTORY_PROTOCOL", "MAX_FRAME_BYTES", "MAX_TOLD", "Ask", "Frame", "FrameBuffer", "Told", "decode_untrusted",
    "encode",
]  # fmt: skip

# Fixed by this protocol.
HALL_HISTORY_PROTOCOL = "p2pnode/hall-history/1"
MAX_FRAME_BYTES = 16_384
MAX_TOLD = 100  # messages of one answer
_MAX_INTEGER = 2**63 - 1
_MAX_TIME_MS = 253_402_300_799_999


class Ask(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """The last `count` messages of the hall."""

    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOLD)]


class Told(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """A message as the teller has it. `author`: the device that wrote it; the rest as in the chat's Message."""

    id: Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    author: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    name: Annotated[str, msgspec.Meta(max_length=32)]
    sequence: Annotated[int, msgspec.Meta(ge=0, le=_MAX_INTEGER)]
    sent_at: Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME_MS)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_BYTES)]


Frame = Ask | Told


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, Told):
        PeerId.from_untrusted(frame.author)
        if len(frame.text.encode()) > MAX_TEXT_BYTES:
            raise BadPacket("too_long")


_codec: Codec[Frame] = Codec(Frame, length_bytes=2, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts such a stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
