"""Gossip: frames of its stream, statements as others pass them on; claims of names."""

from __future__ import annotations

import contextlib
import random

from p2pnode import AccountKey, BadPacket, NodeKey, TopicMember
from p2pnode.chat.gossip.statements import ENTRY_BYTES, PADDED_TO, Body, Statement, sign
from p2pnode.chat.gossip.wire import decode_untrusted, encode
from p2pnode.chat.names.claims import Claim, read_claim_untrusted
from p2pnode.chat.protocol import device_proof
from targets.base import Target
from targets.framed import frame_target

__all__ = ["TARGETS"]

_RNG = random.Random("p2pnode gossip vectors")  # the keys of the vectors, so that their claim is a valid one here
_KEY, _, _ACCOUNT = NodeKey.generate(_RNG.randbytes), _RNG.randbytes(64), AccountKey.generate(_RNG.randbytes)
_GOOD = sign(
    _KEY,
    Body(
        _KEY.public_raw, _ACCOUNT.public_raw, device_proof(_ACCOUNT, _KEY.peer_id), 1, True, "name", "text",
        _KEY.x25519_public, [], [],
    ),
    (_RNG.randbytes(ENTRY_BYTES) for _ in range(PADDED_TO)),
).packed  # fmt: skip


def read_statement(data: bytes) -> Statement:
    """The input is laid over a good statement, so that some reach the inside; then it stands alone."""
    with contextlib.suppress(BadPacket):
        Statement.check_untrusted(bytes(a ^ b for a, b in zip(_GOOD, data.ljust(len(_GOOD), b"\0"), strict=False)))
    return Statement.check_untrusted(data)


def hold_statement(data: bytes, statement: Statement) -> None:
    """What was signed is what is passed on, and what is stored reads back."""
    assert statement.packed == data
    again = Statement.stored(data)
    assert (again.device, again.user, again.text) == (statement.device, statement.user, statement.text)


def read_claim(data: bytes) -> Claim:
    """An entry of a name's topic, by a device that the account vouches for."""
    return read_claim_untrusted(TopicMember(_KEY.peer_id, data, 0.0))


TARGETS = [
    Target("name_claim", read_claim, max_bytes=220),
    frame_target("gossip_frame", decode_untrusted, encode, head=2, max_bytes=4_000),
    Target("gossip_statement", read_statement, hold_statement, max_bytes=1_000),
]
