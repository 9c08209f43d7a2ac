"""Signatures with domain separation, and signed envelopes.

What is signed is never bare bytes: it is domain, payload type and payload, each preceded by its length as an unsigned
varint (libp2p RFC 0002, "Signature Production / Verification"). A signature made for one purpose is worthless for
another. Difference from the RFC: the envelope is a MessagePack array, not protobuf; payload types are our own words.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PublicKey
from p2pnode.core.keys import SigningKey

__all__ = ["Envelope", "open_untrusted", "seal", "signing_input"]

MAX_ENVELOPE_BYTES = 16_384  # a device record of 64 devices has about 7,000


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signing_input(domain: bytes, payload_type: bytes, payload: bytes) -> bytes:
    """Return the bytes that a signature covers: uvarint length and bytes of each of the three."""
    return b"".join(_varint(len(part)) + part for part in (domain, payload_type, payload))


class Envelope(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """public_key (32 bytes) · payload_type (1-64) · payload (0-16,000) · signature (64). MessagePack array of four."""

    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    payload_type: Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
    payload: Annotated[bytes, msgspec.Meta(max_length=16_000)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def seal(key: SigningKey, domain: bytes, payload_type: bytes, payload: bytes) -> bytes:
    """Sign `payload` for `domain` and return the encoded envelope."""
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
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadPacket("malformed") from exc
    if envelope.payload_type != payload_type:
        raise BadPacket("wrong_type")
    signer = PublicKey.from_untrusted(envelope.public_key)
    if not signer.verify(envelope.signature, signing_input(domain, payload_type, envelope.payload)):
        raise BadPacket("bad_signature")
    return signer, envelope.payload
