"""Mail: frames of its stream, letters as their holders give them."""

from __future__ import annotations

import contextlib
import random

from p2pnode import AccountKey, BadPacket, NodeKey, PeerId, UserId
from p2pnode.chat.mail import carry_wire
from p2pnode.chat.mail.first_letters import FirstLetter, Note, open_first_untrusted, seal_first
from p2pnode.chat.mail.frames import decode_untrusted, encode
from p2pnode.chat.mail.letters import (
    LetterMessage,
    Slot,
    join_parts_untrusted,
    open_untrusted,
    parts_of_untrusted,
    seal,
    split,
)
from p2pnode.chat.protocol import device_proof
from targets.base import Target
from targets.framed import frame_target

__all__ = ["TARGETS"]

_RNG = random.Random("fuzz mail")
_AUTHOR, _READER = NodeKey.generate(_RNG.randbytes), NodeKey.generate(_RNG.randbytes)
_SLOT = Slot(bytes(32))
_LETTER = seal(
    _SLOT, _READER.peer_id, _READER.x25519_public, _AUTHOR, [LetterMessage(bytes(16), 1, 2, "text")], bytes(range(32))
)
_ACCOUNT = AccountKey(bytes(range(32)))
_FIRST = seal_first(
    _READER.peer_id, _READER.x25519_public, _AUTHOR, UserId(_ACCOUNT.public_raw),
    device_proof(_ACCOUNT, _AUTHOR.peer_id), "anna", LetterMessage(bytes(16), 1, 2, "text"), bytes(range(32)),
)  # fmt: skip


def read_letter(data: bytes) -> tuple[PeerId, list[LetterMessage]]:
    """The input is laid over a good letter, so that some reach the inside; then it stands alone."""
    with contextlib.suppress(BadPacket):
        open_untrusted(_SLOT, _READER.peer_id, _READER.x25519, data)
    laid = bytes(a ^ b for a, b in zip(_LETTER, data.ljust(len(_LETTER), b"\0"), strict=False))
    return open_untrusted(_SLOT, _READER.peer_id, _READER.x25519, laid)


def hold_letter(data: bytes, found: tuple[PeerId, list[LetterMessage]]) -> None:
    assert found[0] == _AUTHOR.peer_id
    assert not any(data[: len(_LETTER)])


def read_parts(data: bytes) -> bytes:
    """Parts as they come from holders: the first says how many there are."""
    return join_parts_untrusted(split(data))


def hold_parts(data: bytes, letter: bytes) -> None:
    assert letter == data
    assert parts_of_untrusted(data) == len(split(data))


def read_first(data: bytes) -> FirstLetter:
    """As `read_letter`."""
    with contextlib.suppress(BadPacket):
        open_first_untrusted(_READER.peer_id, [_READER.x25519], data)
    laid = bytes(a ^ b for a, b in zip(_FIRST, data.ljust(len(_FIRST), b"\0"), strict=False))
    return open_first_untrusted(_READER.peer_id, [_READER.x25519], laid)


def hold_first(data: bytes, found: FirstLetter) -> None:
    assert (found.author, found.user) == (_AUTHOR.peer_id, UserId(_ACCOUNT.public_raw))
    assert not any(data[: len(_FIRST)])


def hold_note(_data: bytes, note: Note) -> None:
    assert Note.decode_untrusted(note.encode()) == note


TARGETS = [
    Target("mail_first", read_first, hold_first, max_bytes=800),
    Target("mail_note", Note.decode_untrusted, hold_note, max_bytes=200),
    frame_target("carry_frame", carry_wire.decode_untrusted, carry_wire.encode, head=2, max_bytes=600),
    frame_target("mail_frame", decode_untrusted, encode, head=2, max_bytes=300),
    Target("mail_letter", read_letter, hold_letter, max_bytes=2_100),
    Target("mail_parts", read_parts, hold_parts, max_bytes=17_000),
]
