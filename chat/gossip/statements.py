"""Statements: what a device says of itself, signed, so that anybody may pass it on and nobody can change it.

Who may hear it is part of it: an entry for each device of the author's contacts. It is the hash of the device's key
and of a tag that only the author and that device can make (X25519 between their keys). A device asks by its tags, and
whoever holds a statement gives it to those whose tag and key make an entry of it: so only those hear of each other who
have each other as contacts, who passes it on learns of no contact that it does not have itself, and who reads the
entries can ask in nobody's place.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from p2pnode import Address, BadPacket, NodeKey, PeerId, UserId, clean, clean_name, signing_input
from p2pnode.chat.protocol import Key, Name, TimeMs, is_device_of

__all__ = [
    "ENTRY_BYTES", "MAX_ADDRESSES", "MAX_AUDIENCE", "MAX_TEXT", "PADDED_TO", "Body", "Statement", "Tag", "entry_of",
    "fill_of", "sign", "tag_of",
]  # fmt: skip

# Fixed by this protocol.
MAX_TEXT = 140  # characters of a status text
MAX_AUDIENCE = 256  # entries in a statement
MAX_ADDRESSES = 4
TAG_BYTES, ENTRY_BYTES = 16, 8
PADDED_TO = 16  # the audience is filled up to multiples, so that its size does not tell how many contacts there are
_DOMAIN = b"p2pnode/1/gossip"

Tag = Annotated[bytes, msgspec.Meta(min_length=TAG_BYTES, max_length=TAG_BYTES)]
Entry = Annotated[bytes, msgspec.Meta(min_length=ENTRY_BYTES, max_length=ENTRY_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`device`, `user`: whose statement; `proof`: the account's signature of the device (`chat.protocol`).

    `at`: of signing, Unix milliseconds; the highest counts. `here`: False when it leaves. `x25519`: the device's key.
    `addresses`: `Address.pack`, where others may dial it.
    """

    device: Key
    user: Key
    proof: Signature
    at: TimeMs
    here: bool
    name: Name
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
    x25519: Key
    addresses: Annotated[
        list[Annotated[bytes, msgspec.Meta(min_length=6, max_length=18)]], msgspec.Meta(max_length=MAX_ADDRESSES)
    ]
    audience: Annotated[list[Entry], msgspec.Meta(max_length=MAX_AUDIENCE)]

    def at_time(self, at: int) -> Body:
        """Return the same, said at another time."""
        return msgspec.structs.replace(self, at=at)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)


class Statement:
    """A statement that was checked, ready to be passed on."""

    __slots__ = ("addresses", "audience", "body", "device", "meant", "name", "packed", "text", "user")

    def __init__(self, body: Body, packed: bytes) -> None:
        self.body = body
        self.packed = packed
        """The signature (64 bytes), then the body as it was signed."""
        self.meant: frozenset[bytes]
        """The audience without what fills it up, where it is our own."""
        self.device = PeerId.from_untrusted(body.device)
        self.user = UserId.from_untrusted(body.user)
        self.addresses = tuple(Address.unpack_untrusted(packed) for packed in body.addresses)
        self.audience = self.meant = frozenset(body.audience)
        self.name, self.text = clean_name(body.name), clean(body.text, limit=MAX_TEXT)

    @classmethod
    def stored(cls, packed: bytes) -> Statement:
        """Read one that was checked before. Raise what decoding raises."""
        return cls(_decoder.decode(packed[64:]), packed)

    @classmethod
    def peek_untrusted(cls, packed: bytes) -> Statement:
        """Read what claims to be one; no signature is checked. Raise BadPacket: `malformed`, `bad_key`,
        `bad_address`."""
        try:
            body = _decoder.decode(packed[64:])
        except (msgspec.DecodeError, RecursionError, ValueError) as exc:
            raise BadPacket("malformed") from exc
        return cls(body, packed)

    @classmethod
    def check_untrusted(cls, packed: bytes) -> Statement:
        """Read what claims to be one; two signatures are checked, about 0.2 ms. Raise BadPacket: `malformed`,
        `bad_key`, `bad_address`, `bad_signature`, `bad_proof`."""
        statement = cls.peek_untrusted(packed)
        signature, raw = packed[:64], packed[64:]
        if not statement.device.verify(signature, _signed(raw)):
            raise BadPacket("bad_signature")
        if not is_device_of(statement.user, statement.device, statement.body.proof):
            raise BadPacket("bad_proof")
        return statement

    def says(self, body: Body) -> bool:
        """Whether it says the same as `body`, to the same audience, whenever that was."""
        same = msgspec.structs.replace(body, at=self.body.at, audience=self.body.audience) == self.body
        return same and self.meant == frozenset(body.audience)


def sign(key: NodeKey, body: Body, fill: Iterator[bytes]) -> Statement:
    """Return the statement; its audience is sorted, cut to the most that is allowed, and filled up with `fill` (each 8
    bytes that look random; at least 16 of them, see `fill_of`)."""
    audience = list(body.audience)[:MAX_AUDIENCE]
    meant = frozenset(audience)
    while len(audience) % PADDED_TO or not audience:
        audience.append(next(fill))
    body = msgspec.structs.replace(body, audience=sorted(audience))
    raw = _encoder.encode(body)
    statement = Statement(body, key.sign(_signed(raw)) + raw)
    statement.meant = meant
    return statement


def fill_of(key: NodeKey) -> Iterator[bytes]:
    """Return what fills up the audience: the same each time, or two statements would tell which entries are real."""
    for number in range(PADDED_TO):
        yield hmac.digest(key.seed, _DOMAIN + b"/fill" + bytes((number,)), hashlib.sha256)[:ENTRY_BYTES]


def tag_of(key: NodeKey, theirs: bytes, author: PeerId) -> bytes:
    """Return the tag (16 bytes) by which one of two asks for what `author`, the other, says. `key`: of one, `theirs`:
    the X25519 key of the other. Raise ValueError for a key that agrees on nothing (a point of small order)."""
    secret = key.x25519.exchange(X25519PublicKey.from_public_bytes(theirs))
    return hmac.digest(secret, _DOMAIN + b"/tag" + author.raw, hashlib.sha256)[:TAG_BYTES]


def entry_of(tag: bytes, asker: PeerId) -> bytes:
    """Return the entry (8 bytes) in the audience of a statement that lets `asker` hear it."""
    return hashlib.sha256(_DOMAIN + b"/entry" + tag + asker.raw).digest()[:ENTRY_BYTES]


def _signed(raw: bytes) -> bytes:
    return signing_input(_DOMAIN, b"statement", raw)
