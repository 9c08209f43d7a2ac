"""The frames of a conversation with a stranger, `p2pnode/random/1` (docs/protocol/random.md). Pure.

A frame is its length as two bytes, big endian, then a MessagePack array whose first element tells the kind. Whoever
opens the stream begins with a Card; the other answers with its own or declines. Both look at the other's reports and
sign the receipt, or decline; when both have signed, the conversation has begun.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import BadPacket, PeerId
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec

__all__ = [
    "MAX_FRAME_BYTES",
    "MAX_TEXT_BYTES",
    "RANDOM_PROTOCOL",
    "VERSION",
    "Beat",
    "Card",
    "Consent",
    "Decline",
    "Frame",
    "FrameBuffer",
    "Leave",
    "Resume",
    "Say",
    "decode_untrusted",
    "encode",
]

# Fixed by this protocol.
RANDOM_PROTOCOL = "p2pnode/random/1"
VERSION = 1
MAX_FRAME_BYTES = 4_096
MAX_TEXT_BYTES = 2_000  # UTF-8

Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Card(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """Who wants to talk: the blinded id of this week. `at`: Unix seconds; that of the asking side is the receipt's."""

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    at: Number
    device: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    nonce: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Consent(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """The sender wants this conversation: its blinded id's signature of the receipt."""

    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Decline(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """Not now. `taken`: talks to somebody, or is about to; `busy`: asks somebody else just now; `crossing`: its own
    question to us counts; `again`: met a moment ago, or itself; `later`: not this one, now; `clock`: the clocks differ
    too much."""

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=16, pattern="^[a-z_]+$")]


class Say(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=4):
    """A text. `number` counts the sender's texts from 1."""

    number: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_BYTES)]


class Leave(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=5):
    """The sender leaves."""


class Beat(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=6):
    """The sender is still there. `received`: the number of the last text that came."""

    received: Number


class Resume(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=7):
    """First frame of a stream that replaces a broken one, and the answer to it. `received`: as in Beat."""

    meeting: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    received: Number


Frame = Card | Consent | Decline | Say | Leave | Beat | Resume


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, Say) and len(frame.text.encode()) > MAX_TEXT_BYTES:
        raise BadPacket("too_long")
    if isinstance(frame, Card):
        PeerId.from_untrusted(frame.device)


_codec: Codec[Frame] = Codec(Frame, length_bytes=2, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts a stranger's stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
