"""Signatures with domain separation, and signed envelopes.

What is signed is never bare bytes: it is domain, payload type and payload, each preceded by its length as an unsigned
varint (libp2p RFC 0002, "Signature Production / Verification"). A signature made for one purpose is worthless for
another. Differences from the RFC: the envelope is a MessagePack array, not protobuf; payload types are our own words;
each envelope has exactly one encoding (the shortest), so nobody can make a second, different copy of a valid one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PublicKey
from p2pnode.core.keys import SigningKey

__all__ = ["Envelope", "open_untrusted", "seal", "signing_input"]

MAX_ENVELOPE_BYTES = (
    16_384  # chosen: payload (16,000), type, key, signature and MessagePack heads; one read of a stream
)


@lru_cache(maxsize=4096)  # every signature asks for three, of messages that have a few sizes
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signing_input(domain: bytes, payload_type: bytes, payload: bytes) -> bytes:
    """Return the bytes that a signature covers: uvarint length and bytes of each of the three.

    `domain`: what the signature is for and its version, such as b"p2pnode/1/dht". `payload_type`: which message of that
    domain. Lengths go first, so no two different triples give the same bytes. libp2p RFC 0002, "Signature Production".
    """
    lengths = _varint(len(domain)), _varint(len(payload_type)), _varint(len(payload))
    return b"".join((lengths[0], domain, lengths[1], payload_type, lengths[2], payload))


class Envelope(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """public_key (32 bytes) · payload_type (1-64) · payload (0-16,000) · signature (64). MessagePack array of four."""

    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    payload_type: Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
    payload: Annotated[bytes, msgspec.Meta(max_length=16_000)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def seal(key: SigningKey, domain: bytes, payload_type: bytes, payload: bytes) -> bytes:
    """Sign `payload` (at most 16,000 bytes) for `domain` and return the encoded envelope. Raise ValueError."""
    if not 1 <= len(payload_type) <= 64 or len(payload) > 16_000:
        raise ValueError("an envelope takes a type of 1 to 64 and a payload of at most 16,000 bytes")
    signature = key.sign(signing_input(domain, payload_type, payload))
    return _encoder.encode(Envelope(key.public_raw, payload_type, payload, signature))


def open_untrusted(data: bytes, domain: bytes, payload_type: bytes) -> tuple[PublicKey, bytes]:
    """Return (signer, payload) of a valid envelope for this domain and type.

    Raise BadPacket: `too_long`, `malformed`, `wrong_type`, `bad_key`, `bad_signature`.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise BadPacket("too_long")
    try:
        envelope = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    if _encoder.encode(envelope) != data:
        raise BadPacket("malformed")  # MessagePack allows longer forms of the same value; we allow one
    if envelope.payload_type != payload_type:
        raise BadPacket("wrong_type")
    signer = PublicKey.from_untrusted(envelope.public_key)
    if not signer.verify(envelope.signature, signing_input(domain, payload_type, envelope.payload)):
        raise BadPacket("bad_signature")
    return signer, envelope.payload
