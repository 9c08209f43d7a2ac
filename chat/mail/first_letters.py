"""A stranger's first letter: one message, sealed for a device that never met its author. No I/O. docs/protocol/mail.md.

Who has no grant has no slot. Such a letter stands in the reader's pool (`p2pnode.dht.pools`), whose place follows from
the reader's key, and is sealed to a key that the reader publishes and replaces daily (`epochs`). All have one length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pnode import BadPacket, NodeKey, PeerId, UserId, clean_name, signing_input
from p2pnode.chat.mail.letters import LetterMessage
from p2pnode.chat.protocol import is_device_of

__all__ = [
    "FIRST_BYTES",
    "MAX_FIRST_TEXT_BYTES",
    "FirstLetter",
    "Note",
    "open_first_untrusted",
    "pool_of",
    "seal_first",
]

# Fixed by this protocol.
FIRST_BYTES = 792  # of a sealed letter: with its stamp it fills a record
MAX_FIRST_TEXT_BYTES = 400
MAX_NAME_BYTES = 64
VERSION = 1
_KEY_BYTES, _TAG_BYTES, _LENGTH_BYTES = 32, 16, 2
_ROOM = FIRST_BYTES - _KEY_BYTES - _TAG_BYTES
_DOMAIN = b"p2pnode/1/mail"
_NONCE = bytes(12)  # each key seals one letter

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class _Note(msgspec.Struct, array_like=True, frozen=True):
    """What a reader publishes. Later versions append fields."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    key: Key
    user: Key


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    user: Key
    proof: Signature
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_BYTES)]
    message: LetterMessage


class _First(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    author: Key
    body: Annotated[bytes, msgspec.Meta(max_length=FIRST_BYTES)]
    signature: Signature


_encoder = msgspec.msgpack.Encoder()
_note_decoder = msgspec.msgpack.Decoder(_Note)
_first_decoder = msgspec.msgpack.Decoder(_First)
_body_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class Note:
    """`key`: X25519, that first letters to the publishing device are sealed to; `user`: whose device it says it is."""

    key: bytes
    user: UserId

    def encode(self) -> bytes:
        return _encoder.encode(_Note(VERSION, self.key, self.user.raw))

    @classmethod
    def decode_untrusted(cls, value: bytes) -> Note:
        """Raise BadPacket: `malformed`, `bad_key`."""
        try:
            note = _note_decoder.decode(value)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise BadPacket("malformed") from exc
        return cls(note.key, UserId.from_untrusted(note.user))


@dataclass(frozen=True, slots=True)
class FirstLetter:
    """What was in a letter. `user` has signed that `author` is its device, and `author` has signed all."""

    author: PeerId
    user: UserId
    name: str
    message: LetterMessage


def pool_of(reader: PeerId) -> bytes:
    """Return the pool in which first letters to a device stand, 20 bytes: whoever knows the device knows it."""
    return hashlib.sha256(_DOMAIN + b"/pool" + reader.raw).digest()[:20]


def seal_first(
    reader: PeerId, key: bytes, author: NodeKey, user: UserId, proof: bytes, name: str, message: LetterMessage,
    ephemeral: bytes,
) -> bytes:  # fmt: skip
    """Return the letter, 792 bytes. `key`: of the reader's note; `ephemeral`: 32 random bytes, never reused.

    Raise ValueError when the text has more than 400 bytes, or the key is of small order.
    """
    if len(message.text.encode()) > MAX_FIRST_TEXT_BYTES:
        raise ValueError("a first letter holds 400 bytes of text")
    own = X25519PrivateKey.from_private_bytes(ephemeral)
    public = own.public_key().public_bytes_raw()
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    body = _encoder.encode(_Body(user.raw, proof, name, message))
    plain = _encoder.encode(_First(author.public_raw, body, author.sign(_signed(reader, public, body))))
    padded = (len(plain).to_bytes(_LENGTH_BYTES, "big") + plain).ljust(_ROOM, b"\0")
    shared = own.exchange(X25519PublicKey.from_public_bytes(key))
    return public + ChaCha20Poly1305(_sealing_key(reader, shared, public)).encrypt(_NONCE, padded, public)


def open_first_untrusted(reader: PeerId, keys: Iterable[X25519PrivateKey], letter: bytes) -> FirstLetter:
    """Open a letter with whichever of the reader's keys fits, 0.1 ms each.

    Raise BadPacket: `malformed`, `not_opened`, `bad_key`, `bad_signature`, `bad_proof`, `too_long`.
    """
    if len(letter) != FIRST_BYTES:
        raise BadPacket("malformed")
    public = letter[:_KEY_BYTES]
    padded = _opened(reader, keys, public, letter[_KEY_BYTES:])
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    if length > _ROOM - _LENGTH_BYTES:
        raise BadPacket("malformed")
    try:
        first = _first_decoder.decode(padded[_LENGTH_BYTES : _LENGTH_BYTES + length])
        author = PeerId.from_untrusted(first.author)
        if not author.verify(first.signature, _signed(reader, public, first.body)):
            raise BadPacket("bad_signature")
        body = _body_decoder.decode(first.body)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadPacket("malformed") from exc
    user = UserId.from_untrusted(body.user)
    if not is_device_of(user, author, body.proof):
        raise BadPacket("bad_proof")
    if len(body.message.text.encode()) > MAX_FIRST_TEXT_BYTES:
        raise BadPacket("too_long")
    return FirstLetter(author, user, clean_name(body.name), body.message)


def _opened(reader: PeerId, keys: Iterable[X25519PrivateKey], public: bytes, sealed: bytes) -> bytes:
    """Return what is inside. Raise BadPacket."""
    for key in keys:
        try:
            shared = key.exchange(X25519PublicKey.from_public_bytes(public))
            return ChaCha20Poly1305(_sealing_key(reader, shared, public)).decrypt(_NONCE, sealed, public)
        except (InvalidTag, ValueError):  # sealed to another one of them; ValueError: a key of small order
            continue
    raise BadPacket("not_opened")


def _sealing_key(reader: PeerId, shared: bytes, public: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=pool_of(reader) + public, info=_DOMAIN + b"/first").derive(shared)


def _signed(reader: PeerId, public: bytes, body: bytes) -> bytes:
    return signing_input(_DOMAIN, b"first-letter", reader.raw + public + body)
