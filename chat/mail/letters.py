"""Letters: messages sealed for one device, padded and cut into records. No I/O. docs/protocol/mail.md.

A letter stands in a *slot*, of which only its writer and its reader know the secret. The slot's secret gives the key
that signs its records (whoever has it may write and remove) and enters the key that opens the letter, beside the
reader's X25519 key. The next slot's secret is a hash of this one's: whoever throws a used one away cannot open that
letter again, and neither can a thief (a hash ratchet, as in the Signal protocol's symmetric chains).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from p2pnode import AccountKey, BadPacket, NodeKey, PeerId, signing_input
from p2pnode.chat.protocol import ID_BYTES, MAX_TEXT_BYTES

__all__ = [
    "MAX_MESSAGES",
    "SECRET_BYTES",
    "SIZES",
    "LetterMessage",
    "Slot",
    "fits",
    "is_final",
    "join_parts_untrusted",
    "open_untrusted",
    "parts_of_untrusted",
    "read_mark",
    "seal",
    "split",
]

# Fixed by this protocol.
SECRET_BYTES = 32
PART_BYTES = 800  # the value of a record
SIZES = (512, 2_048, 8_192, 16_384)  # of a sealed letter: holders learn one of four lengths
MAX_MESSAGES = 64  # in one letter
MARK_BYTES = 16  # what a reader leaves in the place of a letter
_KEY_BYTES, _TAG_BYTES, _LENGTH_BYTES = 32, 16, 2
_OVERHEAD = 1 + _KEY_BYTES + _TAG_BYTES + _LENGTH_BYTES
_DOMAIN = b"p2pnode/1/mail"
_NONCE = bytes(12)  # each key seals one letter
_MAX_INTEGER = 2**63 - 1
_MAX_TIME_MS = 253_402_300_799_999  # as in chat.protocol

Number = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INTEGER)]


class LetterMessage(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One message, with the fields that it has on a chat stream. `sent_at`: Unix milliseconds."""

    id: Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    sequence: Number
    sent_at: Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME_MS)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_BYTES)]


class _Letter(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`author`: the writing device's key · `body`: the encoded messages · `signature`: the author's, 64 bytes."""

    author: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    body: Annotated[bytes, msgspec.Meta(max_length=SIZES[-1])]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


_Messages = Annotated[list[LetterMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
_encoder = msgspec.msgpack.Encoder()
_letter_decoder = msgspec.msgpack.Decoder(_Letter)
_messages_decoder = msgspec.msgpack.Decoder(_Messages)
_WRAPPING = len(_encoder.encode(_Letter(bytes(32), bytes(300), bytes(64)))) - 300


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one letter. `repr` shows no secret."""

    secret: bytes

    @property
    def seed(self) -> bytes:
        """Of the Ed25519 key that signs the slot's records."""
        return _derive(self.secret, b"sign")

    @property
    def public(self) -> bytes:
        return AccountKey(self.seed).public_raw

    def next(self, steps: int = 1) -> Slot:
        """Return a later slot of the chain; there is no way back."""
        secret = self.secret
        for _ in range(steps):
            secret = _derive(secret, b"next")
        return Slot(secret)

    def __repr__(self) -> str:
        return "<Slot>"


def fits(messages: list[LetterMessage]) -> bool:
    """Whether one letter holds these."""
    return len(messages) <= MAX_MESSAGES and _size_of(_encoder.encode(messages)) is not None


def seal(
    slot: Slot, reader: PeerId, reader_key: bytes, author: NodeKey, messages: list[LetterMessage], ephemeral: bytes
) -> bytes:
    """Return the letter, of one of `SIZES`. `reader_key`: X25519, 32 bytes; `ephemeral`: 32 random bytes, never reused.

    Raise ValueError when the messages do not fit, or the reader's key is of small order.
    """
    body = _encoder.encode(messages)
    size = _size_of(body)
    if size is None or not 1 <= len(messages) <= MAX_MESSAGES:
        raise ValueError("one letter does not hold these messages")
    own = X25519PrivateKey.from_private_bytes(ephemeral)
    public, slot_public = own.public_key().public_bytes_raw(), slot.public
    signature = author.sign(_signed(reader, slot_public, public, body))
    plain = _encoder.encode(_Letter(author.public_raw, body, signature))
    padded = (len(plain).to_bytes(_LENGTH_BYTES, "big") + plain).ljust(size - _OVERHEAD + _LENGTH_BYTES, b"\0")
    head = bytes((SIZES.index(size),)) + public
    key = _sealing_key(slot, own.exchange(X25519PublicKey.from_public_bytes(reader_key)), slot_public, public)
    return head + ChaCha20Poly1305(key).encrypt(_NONCE, padded, head)


def open_untrusted(
    slot: Slot, reader: PeerId, reader_key: X25519PrivateKey, letter: bytes
) -> tuple[PeerId, list[LetterMessage]]:
    """Return (author, messages). Raise BadPacket: `malformed`, `not_opened`, `bad_key`, `bad_signature`, `too_long`."""
    if not letter or letter[0] >= len(SIZES) or len(letter) != SIZES[letter[0]]:
        raise BadPacket("malformed")
    head, public, slot_public = letter[: 1 + _KEY_BYTES], letter[1 : 1 + _KEY_BYTES], slot.public
    try:
        shared = reader_key.exchange(X25519PublicKey.from_public_bytes(public))
        key = _sealing_key(slot, shared, slot_public, public)
        padded = ChaCha20Poly1305(key).decrypt(_NONCE, letter[len(head) :], head)
    except (InvalidTag, ValueError) as exc:  # ValueError: a key of small order
        raise BadPacket("not_opened") from exc
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    if length > len(padded) - _LENGTH_BYTES:
        raise BadPacket("malformed")
    try:
        inside = _letter_decoder.decode(padded[_LENGTH_BYTES : _LENGTH_BYTES + length])
        author = PeerId.from_untrusted(inside.author)
        if not author.verify(inside.signature, _signed(reader, slot_public, public, inside.body)):
            raise BadPacket("bad_signature")
        messages = _messages_decoder.decode(inside.body)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    if any(len(message.text.encode()) > MAX_TEXT_BYTES for message in messages):
        raise BadPacket("too_long")
    return author, messages


def read_mark(letter: bytes) -> bytes:
    """Return what stands in the place of a letter's first part once it was read. It names the letter: a writer whose
    database was restored uses slots twice, and must not take what says so of an earlier letter for its own."""
    return hashlib.sha256(_DOMAIN + b"/read" + letter).digest()[:MARK_BYTES]


def is_final(value: bytes) -> bool:
    """Whether a first part says that its letter was read, or withdrawn (empty)."""
    return len(value) in (0, MARK_BYTES)


def split(letter: bytes) -> list[bytes]:
    """Return the values of the slot's records, by part."""
    return [letter[at : at + PART_BYTES] for at in range(0, len(letter), PART_BYTES)]


def parts_of_untrusted(first: bytes) -> int:
    """Return how many parts the letter has whose first is this. Raise BadPacket."""
    if not first or first[0] >= len(SIZES):
        raise BadPacket("malformed")
    return -(-SIZES[first[0]] // PART_BYTES)


def join_parts_untrusted(parts: list[bytes]) -> bytes:
    """The inverse of `split`. Raise BadPacket when the parts are no letter's."""
    letter = b"".join(parts)
    if len(parts) != parts_of_untrusted(parts[0] if parts else b"") or len(letter) != SIZES[letter[0]]:
        raise BadPacket("malformed")
    return letter


def _size_of(body: bytes) -> int | None:
    needed = len(body) + _WRAPPING + _OVERHEAD
    return next((size for size in SIZES if needed <= size), None)


def _derive(secret: bytes, what: bytes) -> bytes:
    return HKDFExpand(SHA256(), SECRET_BYTES, _DOMAIN + b"/" + what).derive(secret)


def _sealing_key(slot: Slot, shared: bytes, slot_public: bytes, public: bytes) -> bytes:
    kdf = HKDF(SHA256(), SECRET_BYTES, salt=slot_public + public, info=_DOMAIN + b"/seal")
    return kdf.derive(shared + _derive(slot.secret, b"open"))


def _signed(reader: PeerId, slot_public: bytes, public: bytes, body: bytes) -> bytes:
    return signing_input(_DOMAIN, b"letter", reader.raw + slot_public + public + body)
