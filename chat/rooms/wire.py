"""The frames of a room stream, `p2pnode/room/1` (docs/protocol/rooms.md). No I/O.

A frame is its length as four bytes, big endian, then a MessagePack array whose first element tells the kind. Each side
sends on the stream that it opened, for all rooms that the two have in common; nothing is answered on the same stream.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import UserId
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec
from p2pnode.chat.protocol import Hello
from p2pnode.chat.rooms.entries import HASH_BYTES, MAX_ENTRY_BYTES, MAX_SEQ

__all__ = [
    "BATCH_BYTES", "MAX_BATCH", "MAX_FRAME_BYTES", "MAX_LOGS", "MAX_NEAR", "ROOM_PROTOCOL", "Ask", "Entries",
    "EpochKey", "Fork", "Forks", "Frame", "FrameBuffer", "Have", "Invitation", "Keys", "Mesh", "Near", "No", "Noted",
    "Position", "Range", "Want", "decode_untrusted", "encode",
]  # fmt: skip

# Fixed by this protocol.
ROOM_PROTOCOL = "p2pnode/room/1"
MAX_FRAME_BYTES = 131_072
BATCH_BYTES = 65_536  # of entries in one frame, but for a single one
MAX_LOGS = 1_024  # devices that ever wrote in a room
MAX_BATCH = 512
MAX_NEAR = 16

Room = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]
Raw = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_ENTRY_BYTES)]


class Invitation(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """The receiver may join a room. `create`: the entry that made it."""

    create: Raw


class Position(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The sender has the log of a device up to this entry, whose hash begins so."""

    device: Key
    seq: Seq
    hash: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]


class Have(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """`whole`: of all logs; else of those that grew. The first one of a room makes its sender a neighbour."""

    room: Room
    whole: bool
    positions: Annotated[list[Position], msgspec.Meta(max_length=MAX_LOGS)]


class Range(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Entries of a device, both ends included."""

    device: Key
    first: Seq
    last: Seq


class Want(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=4):
    """Send these, as many as you like, those first that others answer to. `push`: and what comes from now on."""

    room: Room
    push: bool
    ranges: Annotated[list[Range], msgspec.Meta(min_length=1, max_length=MAX_LOGS)]


class Entries(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=5):
    """Signed entries. `asked`: the answer to Want; `more`: which there is more of."""

    room: Room
    asked: bool
    more: bool
    entries: Annotated[list[Raw], msgspec.Meta(max_length=MAX_BATCH)]


class Mesh(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=6):
    """Whether the sender wants entries of others pushed, or only told of (Plumtree's GRAFT and PRUNE)."""

    room: Room
    push: bool


class Ask(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=7):
    """The sender lacks the keys of these epochs."""

    room: Room
    epochs: Annotated[list[Hash], msgspec.Meta(min_length=1, max_length=256)]


class EpochKey(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    epoch: Hash
    key: Key


class Keys(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=8):
    """Keys of epochs, for the device at the other end of the session alone."""

    room: Room
    keys: Annotated[list[EpochKey], msgspec.Meta(max_length=256)]


class Fork(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    one: Raw
    other: Raw


class Forks(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=9):
    """Proofs: two entries of one device and number."""

    room: Room
    forks: Annotated[list[Fork], msgspec.Meta(min_length=1, max_length=3)]


class Near(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=10):
    """Devices in the room that the sender has streams with."""

    room: Room
    devices: Annotated[list[Key], msgspec.Meta(max_length=MAX_NEAR)]


class No(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=11):
    """Nothing of this room from the sender: `unknown_room`, `not_member`, `full` (others may have a place: Near),
    `request_pending` (an invitation from somebody who is no contact)."""

    room: Room
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern="^[a-z_]+$")]


class Noted(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=12):
    """The invitation to this room is on the receiver's disk."""

    room: Room


Frame = Hello | Invitation | Have | Want | Entries | Mesh | Ask | Keys | Forks | Near | No | Noted


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, Hello):
        UserId.from_untrusted(frame.user)


_codec: Codec[Frame] = Codec(Frame, length_bytes=4, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts a room stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
