"""The frames of `p2pnode/devices/1`: which devices a user has, and what the user has read. No I/O.

docs/protocol/devices.md. A frame is its length as two bytes, big endian, then a MessagePack array whose first element
tells the kind.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode import AccountKey, UserId, decode_devices_untrusted, signing_input
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec
from p2pnode.chat.protocol import ID_BYTES

__all__ = [
    "DEVICES_PROTOCOL",
    "MAX_IDS",
    "FrameBuffer",
    "Listed",
    "Noted",
    "Read",
    "decode_untrusted",
    "encode",
    "list_holds",
    "list_signature",
]

# Fixed by this protocol.
DEVICES_PROTOCOL = "p2pnode/devices/1"
MAX_FRAME_BYTES = 8_192
MAX_LIST_BYTES = 745
MAX_IDS = 256  # in one Read

_DOMAIN = b"p2pnode/1/devices"
_LIST = b"list"

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
MessageId = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]


class Listed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """The devices of an account. `value`: as in its device record · `signature`: the account's, of that value."""

    user: Key
    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_LIST_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Read(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """The sender's user has read these messages of the receiver's user."""

    ids: Annotated[list[MessageId], msgspec.Meta(min_length=1, max_length=MAX_IDS)]


class Noted(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """What a Read said is on the receiver's disk."""


Frame = Listed | Read | Noted


def _check_untrusted(frame: Frame) -> None:
    if isinstance(frame, Listed):
        UserId.from_untrusted(frame.user)
        decode_devices_untrusted(frame.value)


_codec: Codec[Frame] = Codec(Frame, length_bytes=2, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`, `unknown_version`. Signatures are not looked at."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)


def list_signature(account: AccountKey, value: bytes) -> bytes:
    """Return the account's signature (64 bytes) of a list's value."""
    return account.sign(signing_input(_DOMAIN, _LIST, value))


def list_holds(user: UserId, value: bytes, signature: bytes) -> bool:
    """Whether the account signed this value. About 0.1 ms."""
    return user.verify(signature, signing_input(_DOMAIN, _LIST, value))
