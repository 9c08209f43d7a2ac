"""The frames of `p2pnode/sync/1`, between two devices of one account. No I/O. docs/protocol/devices.md, "Keeping up".

The opener has news: it says which log it will read from, the other answers how far it has that log, and then gets the
rest in batches, each answered by how far it has it then.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from p2pnode import BadPacket, PeerId, UserId
from p2pnode.chat import framing
from p2pnode.chat.framing import Codec
from p2pnode.chat.protocol import ID_BYTES, MAX_TEXT_BYTES

__all__ = [
    "BATCH_BYTES", "BATCH_MAX", "SYNC_PROTOCOL", "Batch", "ContactEntry", "FrameBuffer", "From", "Log", "MessageEntry",
    "SeenEntry", "StateEntry", "decode_untrusted", "encode",
]  # fmt: skip

# Fixed by this protocol.
SYNC_PROTOCOL = "p2pnode/sync/1"
MAX_FRAME_BYTES = 131_072
BATCH_MAX = 64  # entries of each kind in one batch
BATCH_BYTES = 48_000  # of texts, about: one more message of 15,000 bytes and all names fit the frame
MAX_AUTHORS = 64
LOG_BYTES = 16
_MAX_INTEGER = 2**63 - 1
_MAX_TIME_MS = 253_402_300_799_999  # as in chat.protocol

Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Kind = Literal["user", "peer"]
Name = Annotated[str, msgspec.Meta(max_length=128)]
Number = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INTEGER)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME_MS)]
State = Literal["queued", "stored", "delivered", "read", "refused", "received"]


class Log(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """The opener's log. `id`: of this database; positions of another one mean nothing."""

    id: Annotated[bytes, msgspec.Meta(min_length=LOG_BYTES, max_length=LOG_BYTES)]


class From(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """Up to here the receiver has the log: messages by `position`, all else by `number`."""

    position: Number
    number: Number


class MessageEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A message of the conversation with (`kind`, `key`). `user`: the author's, or empty; `name`: the author's own."""

    id: Id
    author: Key
    user: Annotated[bytes, msgspec.Meta(max_length=32)]
    name: Name
    kind: Kind
    key: Key
    sequence: Number
    outgoing: bool
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_BYTES)]
    sent_at: TimeMs
    received_at: TimeMs
    state: State
    everywhere: bool


class StateEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """How far a message that one of the account's devices wrote has come."""

    author: Key
    id: Id
    state: State
    everywhere: bool


class ContactEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A contact as the user made it. `version`: how often it was changed; the larger wins."""

    kind: Kind
    key: Key
    version: Number
    state: Literal["request", "accepted", "blocked", "removed"]
    petname: Name
    verified: bool
    added_at: TimeMs


class Mark(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Messages of this device were seen up to this number of its own."""

    author: Key
    sequence: Number


class SeenEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the user has seen of a conversation."""

    kind: Kind
    key: Key
    marks: Annotated[list[Mark], msgspec.Meta(max_length=MAX_AUTHORS)]


class Batch(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=3):
    """Entries in the order in which they are taken; `position`, `number`: how far the receiver has the log then."""

    position: Number
    number: Number
    contacts: Annotated[list[ContactEntry], msgspec.Meta(max_length=BATCH_MAX)]
    messages: Annotated[list[MessageEntry], msgspec.Meta(max_length=BATCH_MAX)]
    states: Annotated[list[StateEntry], msgspec.Meta(max_length=BATCH_MAX)]
    seen: Annotated[list[SeenEntry], msgspec.Meta(max_length=BATCH_MAX)]


Frame = Log | From | Batch


def _check_untrusted(frame: Frame) -> None:
    if not isinstance(frame, Batch):
        return
    for entry in frame.messages:
        PeerId.from_untrusted(entry.author)
        _party_untrusted(entry.kind, entry.key)
        if entry.user:
            UserId.from_untrusted(entry.user)
        if len(entry.text.encode()) > MAX_TEXT_BYTES:
            raise BadPacket("too_long")
        if entry.outgoing == (entry.state == "received"):
            raise BadPacket("malformed")
    for state in frame.states:
        if state.state == "received":
            raise BadPacket("malformed")
    for contact in frame.contacts:
        _party_untrusted(contact.kind, contact.key)
    for seen in frame.seen:
        _party_untrusted(seen.kind, seen.key)


def _party_untrusted(kind: str, key: bytes) -> None:
    (UserId if kind == "user" else PeerId).from_untrusted(key)


_codec: Codec[Frame] = Codec(Frame, length_bytes=4, max_bytes=MAX_FRAME_BYTES, check=_check_untrusted)
encode = _codec.encode
decode_untrusted = _codec.decode_untrusted
"""Raises BadPacket: `too_long`, `malformed`, `bad_key`."""


class FrameBuffer(framing.FrameBuffer[Frame]):
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        super().__init__(_codec)
