"""The network id: nodes of different networks never mix, even when their packets meet."""

from __future__ import annotations

import hashlib

__all__ = ["NETWORK_TAG_BYTES", "network_tag"]

NETWORK_TAG_BYTES = 8


def network_tag(network_id: str) -> bytes:
    """Return the 8 bytes that name a network on the wire: SHA-256("p2pnode/network/1" || UTF-8 of the id)[:8]."""
    return hashlib.sha256(b"p2pnode/network/1" + network_id.encode()).digest()[:NETWORK_TAG_BYTES]
