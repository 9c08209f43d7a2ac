"""Safety numbers: what two people read to each other to be sure that nobody sits between them.

As Signal's numeric fingerprint (libsignal, "Numeric fingerprint", 2016): 30 digits for each side from an iterated hash
of its key, the smaller half first. Differences: our domain string instead of a version number, and no separate stable
identifier, since here the key *is* the identity.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from p2pnode.core.ids import PublicKey

__all__ = ["own_safety_number", "safety_number"]

_DOMAIN = b"p2pnode/1/safety"
_ROUNDS = 5200  # Signal's: grinding a key for given digits (100 bits) costs 5,200 times more; a few ms for us
_GROUPS = 6  # of 5 digits, per side; 5 bytes each, so that the remainder's bias is below 2^-23
_GROUP_BYTES = 5


@lru_cache(maxsize=256)
def _half(kind: bytes, raw: bytes) -> str:
    digest = _DOMAIN + kind + raw
    for _ in range(_ROUNDS):
        digest = hashlib.sha512(digest + raw).digest()
    chunks = (digest[i * _GROUP_BYTES : (i + 1) * _GROUP_BYTES] for i in range(_GROUPS))
    return " ".join(f"{int.from_bytes(chunk, 'big') % 100_000:05d}" for chunk in chunks)


def own_safety_number(key: PublicKey) -> str:
    """Return the 30 digits of one key, six groups of five: the half that it has in every number with somebody."""
    return _half(type(key).__name__.encode(), key.raw)


def safety_number(one: PublicKey, other: PublicKey) -> str:
    """Return 60 digits, twelve groups of five with spaces between; the same whichever side asks.

    Compare users with users (or peers with peers): both sides must take the same kind of id. A few milliseconds for a
    key not seen before.
    """
    return " ".join(sorted((own_safety_number(one), own_safety_number(other))))
