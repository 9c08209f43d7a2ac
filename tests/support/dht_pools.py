"""Records of pools, with the work done."""

from __future__ import annotations

import random

from support.dht_pair import WALL, World

from p2pnode.core.keys import SigningKey
from p2pnode.dht import MAIL_LIFE, MIN_WORK, DhtSettings, SignedRecord, pool_salt, work_of
from p2pnode.dht.storage import RecordStorage

__all__ = ["EXPIRES", "POOL", "TAG", "storage", "worked"]

POOL = bytes(range(20))
EXPIRES = int(WALL) + MAIL_LIFE
TAG = World().peer("5.0.0.1").tag
STAMPS = {1: 8, 2: 53, 3: 444, 100: 47, 101: 348, 102: 37, 103: 144, 104: 1, 105: 79, 106: 15}
"""The work of some, by number: where the search begins."""


def worked(
    number: int, place: int = 0, least: int = MIN_WORK, pool: bytes = POOL, value: bytes = b"letter"
) -> SignedRecord:
    """A valid record with at least so much work in it."""
    key, salt = SigningKey(random.Random(number).randbytes(32)), pool_salt(pool, place)
    for stamp in range(STAMPS.get(number, 0), 100_000):
        stamped = stamp.to_bytes(8, "big") + value
        if (seq := work_of(key.public_raw, salt, EXPIRES, stamped)) >= least:
            return SignedRecord.sign(key, TAG, salt, seq, EXPIRES, stamped)
    raise AssertionError("no luck")


def storage(**settings: int) -> RecordStorage:
    return RecordStorage(TAG, DhtSettings(**settings))  # type: ignore[arg-type]
