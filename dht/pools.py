"""Pools: eight records beside each node's own, which anybody may write who works for it. Pure.

A pool's place has a key that follows from the place alone, not from a signer's key, so whoever reads knows where to
look, and whoever writes need not be known. What a place holds is decided by work: `seq` of such a record is not chosen
but follows from a hash of all that is in it (scrypt, 1 MiB, some 3 ms), so "the highest `seq` counts", by which all
records are stored, read, repaired and handed over, means here: who has worked most. A flood of eight places costs its
author what eight honest writers spent, again each week, and touches nothing but these eight places.

Turned down: SHA-256 as the work (hardware does a million times what a program does), places for whoever comes first
(holders would disagree about who that was), an entry per writer with a share for each address block, as topics have
(holders would need another kind of storage, and of repair), a key that the reader publishes for all (anybody empties).
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from p2pnode.core.errors import BadPacket

__all__ = ["MIN_WORK", "PLACES", "POOL_DOMAIN", "POOL_SALT", "STAMP_BYTES", "is_pool", "pool_salt", "work_of"]

POOL_SALT = b"mail/pool/"  # how the salt begins: 20 bytes of the pool's id and 1 of the place follow
POOL_DOMAIN = b"p2pnode/1/pool"
POOL_ID_BYTES = 20
PLACES = 8
STAMP_BYTES = 8  # with which a value begins: chosen so that the work is high
MEMORY_COST, BLOCK_SIZE = 1024, 8  # scrypt's n and r (RFC 7914): 1 MiB
BITS = 6  # 64 tries, a fifth of a second: less is not kept
MIN_WORK = 2**63 - 2 ** (63 - BITS)


def is_pool(salt: bytes) -> bool:
    """Whether a record of this salt stands in a pool."""
    return salt.startswith(POOL_SALT)


def pool_salt(pool: bytes, place: int) -> bytes:
    """Return the salt of a place. `pool`: 20 bytes; `place`: 0 to 7."""
    return POOL_SALT + pool + bytes((place,))


def check_work_untrusted(public_key: bytes, salt: bytes, expires: int, value: bytes, seq: int) -> None:
    """Raise BadPacket: `bad_place`, `too_little_work`, `false_work`. The last costs 3 ms."""
    if len(salt) != len(POOL_SALT) + POOL_ID_BYTES + 1 or salt[-1] >= PLACES or len(value) < STAMP_BYTES:
        raise BadPacket("bad_place")
    if seq < MIN_WORK:
        raise BadPacket("too_little_work")
    if seq != work_of(public_key, salt, expires, value):
        raise BadPacket("false_work")


@lru_cache(maxsize=512)  # the same record comes back from 20 holders; as many as a node keeps, 1 kB each
def work_of(public_key: bytes, salt: bytes, expires: int, value: bytes) -> int:
    """Return the `seq` of a record, 0 to 2^63 - 1: n bits of work give 2^63 - 2^(63 - n) or more."""
    kdf = Scrypt(salt=public_key + salt + expires.to_bytes(8, "big"), length=8, n=MEMORY_COST, r=BLOCK_SIZE, p=1)
    return 2**63 - 1 - (int.from_bytes(kdf.derive(POOL_DOMAIN + value), "big") >> 1)
