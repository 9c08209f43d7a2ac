"""The frames of a chat stream, `p2pnode/chat/1` (docs/protocol/chat.md).

Each side sends on the stream that it opened; the answers (Hello, Ack, Refuse) come back on the same stream. A frame is
its length as four bytes, big endian, then a MessagePack array whose first element tells the kind. Whoever has something
to say opens with Hello; nothing else is looked at before it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import AccountKey, Address, BadPacket, PeerId, UserId, signing_input
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec

__all__ = [
    "CHAT_PROTOCOL",
    "ID_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_MEMBERS",
    "MAX_TEXT_BYTES",
    "VERSION",
    "Ack",
    "Frame",
    "FrameBuffer",
    "Hello",
    "Leave",
    "MemberEntry",
    "Members",
    "Refuse",
    "TextMessage",
    "Welcome",
    "decode_untrusted",
    "device_proof",
    "encode",
    "is_device_of",
]

# Fixed by this protocol.
CHAT_PROTOCOL = "p2pnode/chat/1"
VERSION = 1
ID_BYTES = 16
MAX_FRAME_BYTES = 65_536
MAX_TEXT_BYTES = 15_000  # UTF-8
MAX_ACKS = 256  # ids in one Ack
MAX_MEMBERS = 64  # of a hall: everybody is connected to everybody
MAX_MEMBER_ADDRESSES = 4
_MAX_INTEGER = 2**63 - 1  # SQLite's largest
_MAX_TIME_MS = 253_402_300_799_999  # the end of year 9999, the last that a calendar can show

_DOMAIN = b"p2pnode/1/chat"
_DEVICE = b"device"

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
MessageId = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Name = Annotated[str, msgspec.Meta(max_length=32)]
Number = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INTEGER)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME_MS)]


class Hello(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """First frame each way. `user`: whose device this is; `proof`: that account's signature of the device's key.

    The session proves the device; the device names the account and the account vouches for the device: both ways, with
    no lookup. `hall`: the sender regards the two as members of one hall.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    user: Key
    proof: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    name: Name
    hall: bool


class TextMessage(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """`id`: chosen by the author at random. `hall`: to all members, else to the receiver alone.

    `sequence`: rises with each message of this device, whatever the conversation. `sent_at`: Unix milliseconds.
    """

    id: MessageId
    hall: bool
    sequence: Number
    sent_at: TimeMs
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_BYTES)]


class Ack(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """These messages are on the receiver's disk."""

    ids: Annotated[list[MessageId], msgspec.Meta(min_length=1, max_length=MAX_ACKS)]


class Refuse(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=4):
    """This message was not taken. `code`: `request_pending`, `busy`, `too_fast`, `storage`: try later; `blocked`,
    `not_member`: don't."""

    id: MessageId
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern="^[a-z_]+$")]


class MemberEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A member as somebody else tells of it: hearsay until it answered itself. `addresses`: `Address.pack`."""

    peer: Key
    user: Key
    name: Name
    addresses: Annotated[
        list[Annotated[bytes, msgspec.Meta(min_length=6, max_length=18)]],
        msgspec.Meta(max_length=MAX_MEMBER_ADDRESSES),
    ]


class Members(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=5):
    """All members of the hall that the sender knows, without itself and the receiver."""

    members: Annotated[list[MemberEntry], msgspec.Meta(max_length=MAX_MEMBERS)]


class Leave(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=6):
    """The sender leaves the hall."""


class Welcome(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=7):
    """The sender has accepted the receiver: what was refused as `request_pending` may come now."""


Frame = Hello | TextMessage | Ack | Refuse | Members | Leave | Welcome


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, TextMessage) and len(frame.text.encode()) > MAX_TEXT_BYTES:
        raise BadPacket("too_long")
    if isinstance(frame, Hello):
        UserId.from_untrusted(frame.user)
    elif isinstance(frame, Members):
        for entry in frame.members:
            PeerId.from_untrusted(entry.peer)
            UserId.from_untrusted(entry.user)
            for packed in entry.addresses:
                Address.unpack_untrusted(packed)


_codec: Codec[Frame] = Codec(Frame, length_bytes=4, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`, `bad_address`."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts a chat stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)


def device_proof(account: AccountKey, device: PeerId) -> bytes:
    """Return the account's signature (64 bytes) that `device` is one of its devices."""
    return account.sign(_proof_input(device))


def is_device_of(user: UserId, device: PeerId, proof: bytes) -> bool:
    """Whether the account says so. About 0.1 ms."""
    return user.verify(proof, _proof_input(device))


def _proof_input(device: PeerId) -> bytes:
    return signing_input(_DOMAIN, _DEVICE, device.raw)
