"""The frames of `p2pnode/carry/1` (docs/protocol/mail.md): a letter goes from hand to hand.

    opener                          other
      | Carry(reader, slot, letter)   |   keep this for a contact that we share, or
      | Hand(giver, slot, letter)     |   this was left for you
      |------------------------------>|
      |                Outcome(code)  |
      |<------------------------------|

One question and answer per stream. A frame is its length as two bytes, big endian, then a MessagePack array whose first
element tells the kind.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import BadPacket
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec
from p2pnode.chat.mail.letters import SIZES
from p2pnode.chat.protocol import Key

__all__ = [
    "CARRY_PROTOCOL", "LATER", "MAX_FRAME_BYTES", "NO", "YES", "Carry", "CarryFrame", "FrameBuffer", "Hand", "Outcome",
    "decode_untrusted", "encode",
]  # fmt: skip

# Fixed by this protocol.
CARRY_PROTOCOL = "p2pnode/carry/1"
MAX_FRAME_BYTES = SIZES[-1] + 100
YES, LATER, NO = 0, 1, 2
"""Taken · not now, ask again with the next session · never."""

Letter = Annotated[bytes, msgspec.Meta(min_length=SIZES[0], max_length=SIZES[-1])]


class Carry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """`reader`: the device it is for. `slot`: the public key of the letter's slot."""

    reader: Key
    slot: Key
    letter: Letter


class Hand(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """`giver`: the device that left it with us."""

    giver: Key
    slot: Key
    letter: Letter


class Outcome(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """`code`: `YES`, `LATER`, `NO`."""

    code: Annotated[int, msgspec.Meta(ge=0, le=2)]


CarryFrame = Carry | Hand | Outcome


def _check(frame: CarryFrame) -> None:
    if not isinstance(frame, Outcome) and len(frame.letter) not in SIZES:
        raise BadPacket("malformed")


_codec: Codec[CarryFrame] = Codec(CarryFrame, length_bytes=2, max_bytes=MAX_FRAME_BYTES, check=_check)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`."""


class FrameBuffer(framing.FrameBuffer[CarryFrame]):
    """Cuts a stream of carried letters into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
