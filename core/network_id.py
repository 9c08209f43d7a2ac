"""The network id: nodes of different networks never mix, even when their packets meet.

A network is named by an id, which anybody may know, and, when it is private, by a secret as well. The secret becomes a
key once per process, with a function that is slow on purpose; everything else is derived from that key.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["NETWORK_TAG_BYTES", "network_subkey", "network_tag", "private_network_key"]

NETWORK_TAG_BYTES = 8
KEY_BYTES = 32
# RFC 9106, section 4 "Parameter Choice", the second recommended option: 64 MiB, about 0.1 s.
ARGON_KIB, ARGON_ITERATIONS, ARGON_LANES = 65_536, 3, 4


def network_tag(network_id: str, key: bytes = b"") -> bytes:
    """Return the 8 bytes that name a network on the wire.

    Public (no `key`): SHA-256("p2pnode/network/1" || UTF-8 of the id)[:8]; private: derived from its key.
    """
    if key:
        return network_subkey(key, "tag", NETWORK_TAG_BYTES)
    return hashlib.sha256(b"p2pnode/network/1" + network_id.encode()).digest()[:NETWORK_TAG_BYTES]


@lru_cache(maxsize=16)
def private_network_key(network_id: str, secret: str) -> bytes:
    """Return the 32 bytes that all members of a private network share; b"" without a secret: the network is public.

    Argon2id of the secret (Unicode NFC, UTF-8), salt SHA-256("p2pnode/private-network/1" || UTF-8 of the id)[:16].
    Takes 0.1 s and 64 MiB, once per process: who records a datagram can try secrets, but pays that for each.
    """
    if not secret:
        return b""
    salt = hashlib.sha256(b"p2pnode/private-network/1" + network_id.encode()).digest()[:16]
    function = Argon2id(
        salt=salt, length=KEY_BYTES, iterations=ARGON_ITERATIONS, lanes=ARGON_LANES, memory_cost=ARGON_KIB
    )
    return function.derive(unicodedata.normalize("NFC", secret).encode())


def network_subkey(key: bytes, purpose: str, count: int) -> bytes:
    """Derive `count` bytes from a private network's key: HKDF-Expand-SHA256, info "p2pnode/1/network/" || purpose."""
    return HKDFExpand(SHA256(), count, b"p2pnode/1/network/" + purpose.encode()).derive(key)
