"""HPKE base mode, written from RFC 9180: an oracle for the library's, with a chosen ephemeral key for vectors.

DHKEM(X25519, HKDF-SHA256) 0x0020, HKDF-SHA256 0x0001, ChaCha20-Poly1305 0x0003; one message, no AAD.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
HPKE_SUITE = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x0020, 0x0001, 0x0003))


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # At most 32 bytes are asked for: one block of HKDF-Expand.
    return hmac.digest(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info + b"\1", "sha256")[:length]


def seal_base(receiver_public: bytes, info: bytes, text: bytes, ephemeral_seed: bytes) -> bytes:
    """Return enc (32 bytes) and ciphertext. RFC 9180, sections 4.1 "DH-Based KEM", 5.1 "Creating the Context", 6.1."""
    ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_seed)
    enc = ephemeral.public_key().public_bytes_raw()
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(receiver_public))
    eae = _extract(KEM_SUITE, b"", b"eae_prk", dh)
    shared = _expand(KEM_SUITE, eae, b"shared_secret", enc + receiver_public, 32)
    psk_id_hash = _extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
    info_hash = _extract(HPKE_SUITE, b"", b"info_hash", info)
    context = b"\0" + psk_id_hash + info_hash
    secret = _extract(HPKE_SUITE, shared, b"secret", b"")
    key = _expand(HPKE_SUITE, secret, b"key", context, 32)
    nonce = _expand(HPKE_SUITE, secret, b"base_nonce", context, 12)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, text, b"")
