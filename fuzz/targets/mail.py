"""Mail: frames of its stream, letters as their holders give them."""

from __future__ import annotations

import contextlib
import random

from p2pnode import BadPacket, NodeKey, PeerId
from p2pnode.chat.mail import carry_wire
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
from targets.base import Target
from targets.framed import frame_target

__all__ = ["TARGETS"]

_RNG = random.Random("fuzz mail")
_AUTHOR, _READER = NodeKey.generate(_RNG.randbytes), NodeKey.generate(_RNG.randbytes)
_SLOT = Slot(bytes(32))
_LETTER = seal(
    _SLOT, _READER.peer_id, _READER.x25519_public, _AUTHOR, [LetterMessage(bytes(16), 1, 2, "text")], bytes(range(32))
)


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


TARGETS = [
    frame_target("carry_frame", carry_wire.decode_untrusted, carry_wire.encode, head=2, max_bytes=600),
    frame_target("mail_frame", decode_untrusted, encode, head=2, max_bytes=300),
    Target("mail_letter", read_letter, hold_letter, max_bytes=2_100),
    Target("mail_parts", read_parts, hold_parts, max_bytes=17_000),
]
