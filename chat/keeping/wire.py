"""The frames of `p2pnode/timer/1` (docs/protocol/chat.md, "Disappearing messages"). Pure.

A frame is its length as two bytes, big endian, then a MessagePack array whose first element tells the kind. Whoever
has a timer to tell opens the stream and sends Set; the other answers with Have.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode.chat import framing
from p2pnode.chat.framing import Codec

__all__ = [
    "MAX_FRAME_BYTES", "MAX_SECONDS", "TIMER_PROTOCOL", "Frame", "FrameBuffer", "Have", "Set", "decode_untrusted",
    "encode",
]  # fmt: skip

# Fixed by this protocol.
TIMER_PROTOCOL = "p2pnode/timer/1"
MAX_FRAME_BYTES = 64
MAX_SECONDS = 31_536_000
_MAX_INTEGER = 2**63 - 1

Seconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_SECONDS)]
Number = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INTEGER)]


class Set(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """The timer of the conversation. `seconds` 0: off. `version`: the larger wins. `since`: the sender's number of the
    first message that it is meant for."""

    seconds: Seconds
    version: Number
    since: Number


class Have(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """The timer that the receiver of a Set has now: that one, or its own newer one."""

    seconds: Seconds
    version: Number


Frame = Set | Have
_codec: Codec[Frame] = Codec(Frame, length_bytes=2, max_bytes=MAX_FRAME_BYTES)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts such a stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
