"""QUIC Initial packets with frames of our choice. Everybody can make them: their keys follow from the packet itself.

RFC 9001, section 5.2, "Initial Secrets", and section 5.4, "Header Protection".
"""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["CID", "CLIENT_CID", "initial_packet"]

CID, CLIENT_CID = b"destcid8", b"client08"
SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
PACKET_BYTES, TAG_BYTES, NUMBER_BYTES = 1_200, 16, 4


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """TLS 1.3's HKDF-Expand-Label without context (RFC 8446, section 7.1)."""
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


@cache
def _client_keys(cid: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (AEAD key, iv, header protection key)."""
    extract = hmac.HMAC(SALT, hashes.SHA256())
    extract.update(cid)
    secret = _expand(extract.finalize(), b"client in", 32)
    return _expand(secret, b"quic key", 16), _expand(secret, b"quic iv", 12), _expand(secret, b"quic hp", 16)


def initial_packet(frames: bytes, number: int, cid: bytes = CID) -> bytes:
    """Return a client's Initial packet of 1,200 bytes; `frames` are cut or padded to fill it."""
    key, iv, protection = _client_keys(cid)
    head = b"\xc3\0\0\0\x01" + bytes((len(cid),)) + cid + bytes((len(CLIENT_CID),)) + CLIENT_CID + b"\0"
    length = PACKET_BYTES - len(head) - 2
    number_field = number.to_bytes(NUMBER_BYTES, "big")
    head += (0x4000 | length).to_bytes(2, "big") + number_field
    room = length - NUMBER_BYTES - TAG_BYTES
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    sealed = AESGCM(key).encrypt(nonce, frames[:room].ljust(room, b"\0"), head)
    mask = Cipher(algorithms.AES(protection), modes.ECB()).encryptor().update(sealed[:16])  # noqa: S305 - RFC 9001
    first = bytes((head[0] ^ mask[0] & 0x0F,))
    number_masked = bytes(a ^ b for a, b in zip(number_field, mask[1:5], strict=True))
    return first + head[1:-NUMBER_BYTES] + number_masked + sealed
