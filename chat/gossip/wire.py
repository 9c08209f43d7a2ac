"""The frames of `p2pnode/gossip/1` (docs/protocol/gossip.md).

Whoever opens the stream speaks, and may go on for as long as the session lasts; the answers to Ask come back on it:

    opener                          other
      | Tell([own statement])         |
      | Ask(tags)                     |   whom the opener wants to hear of
      |------------------------------>|
      |        Tell([statements])     |   those that have one of the tags in their audience; later, newer ones
      |<------------------------------|
      | Tell([own statement])         |   when it changes
      |------------------------------>|
      | Know(number, users)           |   which of these do you know?
      |------------------------------>|
      |          Known(number, users) |
      |<------------------------------|

A frame is its length as two bytes, big endian, then a MessagePack array whose first element tells the kind.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode.chat import framing
from p2pnode.chat.framing import Codec
from p2pnode.chat.gossip.statements import Tag
from p2pnode.chat.protocol import Key

__all__ = [
    "GOSSIP_PROTOCOL", "MAX_FRAME_BYTES", "MAX_STATEMENT_BYTES", "MAX_TAGS", "MAX_USERS", "Ask", "FrameBuffer",
    "GossipFrame", "Know", "Known", "Tell", "decode_untrusted", "encode",
]  # fmt: skip

# Fixed by this protocol.
GOSSIP_PROTOCOL = "p2pnode/gossip/1"
MAX_FRAME_BYTES = 60_000
MAX_STATEMENT_BYTES = 4_000  # 256 entries of 10 bytes, 140 characters of 4, addresses, keys, signatures
MAX_STATEMENTS = 12  # in one Tell
MAX_TAGS = 2_048  # in one Ask
MAX_USERS = 50  # in one Know


class Ask(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """Tell me of those who let me hear them (`statements.entry_of`) by one of these tags, now and when they say
    something new. Replaces what was asked before."""

    tags: Annotated[list[Tag], msgspec.Meta(max_length=MAX_TAGS)]


class Tell(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """Statements, each as `Statement.packed`."""

    statements: Annotated[
        list[Annotated[bytes, msgspec.Meta(min_length=65, max_length=MAX_STATEMENT_BYTES)]],
        msgspec.Meta(min_length=1, max_length=MAX_STATEMENTS),
    ]


class Know(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """Which of these users are contacts of yours? `number`: names the question."""

    number: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    users: Annotated[list[Key], msgspec.Meta(min_length=1, max_length=MAX_USERS)]


class Known(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=4):
    """These are; or the other side does not want to say more."""

    number: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    users: Annotated[list[Key], msgspec.Meta(max_length=MAX_USERS)]


GossipFrame = Ask | Tell | Know | Known
_codec: Codec[GossipFrame] = Codec(GossipFrame, length_bytes=2, max_bytes=MAX_FRAME_BYTES)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`."""


class FrameBuffer(framing.FrameBuffer[GossipFrame]):
    """Cuts a gossip stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
