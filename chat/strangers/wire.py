"""The frames of a conversation with a stranger, `p2pnode/random/1` (docs/protocol/random.md). Pure.

A frame is its length as two bytes, big endian, then a MessagePack array whose first element tells the kind. Whoever
opens the stream begins with a Card; the other answers with its own or declines. Both look at the other's reports and
sign the receipt, or decline; when both have signed, the conversation has begun.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import BadPacket, PeerId

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
_LENGTH_BYTES = 2

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

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Return the frame with its length in front."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_untrusted(body: bytes) -> Frame:
    """Read one frame without its length. Raise BadPacket: `too_long`, `malformed`, `bad_key`."""
    if len(body) > MAX_FRAME_BYTES:
        raise BadPacket("too_long")
    try:
        frame: Frame = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    if isinstance(frame, Say) and len(frame.text.encode()) > MAX_TEXT_BYTES:
        raise BadPacket("too_long")
    if isinstance(frame, Card):
        PeerId.from_untrusted(frame.device)
    return frame


class FrameBuffer:
    """Cuts a stream into frames. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed_untrusted(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now. Raise BadPacket; the stream is of no use then."""
        self._data += data
        frames: list[Frame] = []
        start = 0
        while len(self._data) - start >= _LENGTH_BYTES:
            length = int.from_bytes(self._data[start : start + _LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise BadPacket("too_long")
            end = start + _LENGTH_BYTES + length
            if len(self._data) < end:
                break
            frames.append(decode_untrusted(bytes(self._data[start + _LENGTH_BYTES : end])))
            start = end
        del self._data[:start]
        return frames
