"""The frames of `p2pnode/mail/1`: how a device gives another the means to leave it mail. docs/protocol/mail.md.

Whoever wants mail opens the stream, in a session that proved both keys:

    giver                           taker
      | Check(id)                     |   has a grant already: is it still there?
      |------------------------------>|
      |              Taken(id, used)  |   an id of zeros: has none
      |<------------------------------|
      | Grant(secret, key)            |   new, or the old one is a day old
      |------------------------------>|
      |              Taken(id, used)  |   the new one's id; used: slots of the one before that were written
      |<------------------------------|

A frame is its length as two bytes, big endian, then a MessagePack array whose first element tells the kind.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from p2pnode.chat import framing
from p2pnode.chat.framing import Codec

__all__ = [
    "GRANT_ID_BYTES", "MAIL_PROTOCOL", "MAX_FRAME_BYTES", "MAX_SLOTS", "NO_GRANT", "Check", "FrameBuffer", "Grant",
    "MailFrame", "Taken", "decode_untrusted", "encode", "grant_id",
]  # fmt: skip

# Fixed by this protocol.
MAIL_PROTOCOL = "p2pnode/mail/1"
GRANT_ID_BYTES = 8
NO_GRANT = bytes(GRANT_ID_BYTES)
MAX_FRAME_BYTES = 256
MAX_SLOTS = 1_000_000  # of one grant

GrantId = Annotated[bytes, msgspec.Meta(min_length=GRANT_ID_BYTES, max_length=GRANT_ID_BYTES)]
Secret = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Check(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """The giver's newest grant for this device."""

    grant: GrantId


class Grant(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """A new chain of slots. `secret`: of the first slot; `key`: X25519 public key that letters are sealed to."""

    secret: Secret
    key: Secret


class Taken(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """What the taker has now. `used`: after Check, slots of that grant that were written; after Grant, of the one
    before it."""

    grant: GrantId
    used: Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOTS)]


MailFrame = Check | Grant | Taken
_codec: Codec[MailFrame] = Codec(MailFrame, length_bytes=2, max_bytes=MAX_FRAME_BYTES)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`."""


def grant_id(secret: bytes) -> bytes:
    """Return what both sides call a grant, 8 bytes; it tells nothing about the secret."""
    return hashlib.sha256(b"p2pnode/1/mail/grant" + secret).digest()[:GRANT_ID_BYTES]


class FrameBuffer(framing.FrameBuffer[MailFrame]):
    """Cuts a mail stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
