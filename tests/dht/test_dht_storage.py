"""The storage's accounts: what a record weighs is taken off again, whatever becomes of it."""

from __future__ import annotations

import random

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.storage import OVERHEAD_BYTES, RecordStorage

TAG = bytes(8)
WALL = 1_000_000.0
KEY = NodeKey.generate(random.Random(1).randbytes)


def record(number: int, seq: int, expires: float, size: int = 100) -> SignedRecord:
    return SignedRecord.sign(KEY, TAG, b"%d" % number, seq, int(expires), bytes(size))


def test_p1_a_record_stored_anew_after_it_expired_is_counted_once() -> None:
    """Between its end and the round of upkeep that drops it, the author publishes again through another network: the
    old one leaves the accounts of bytes and prefixes, or a node would fill up with nothing."""
    storage = RecordStorage(TAG, DhtSettings())
    first = record(1, 1, WALL + 10)
    assert storage.store(first, Realm.PUBLIC, b"one", 0.0, WALL) is None
    later = 400.0  # past its expiry and the tolerance
    assert storage.read(Realm.PUBLIC, first.key, later) is None
    assert storage.store(record(1, 2, WALL + 1000), Realm.PUBLIC, b"two", later, WALL + later) is None
    assert storage.bytes == OVERHEAD_BYTES + 101
    assert storage.expire(5000.0) == 1
    assert (len(storage), storage.bytes, len(storage._accounts)) == (0, 0, 0)


def test_p1_accounts_hold_through_a_long_random_life() -> None:
    """Stores, updates and expiries of 40 records from six prefixes in a storage for 25: bytes and counts always add
    up to what is held, and everything is gone in the end."""
    rng = random.Random(7)
    storage = RecordStorage(TAG, DhtSettings(storage_bytes=25 * (OVERHEAD_BYTES + 200)))
    changed: set[bytes] = set()
    storage.on_change = lambda key: changed.add(key[1])
    now = 0.0
    for step in range(600):
        now += rng.uniform(0, 60)
        each = record(rng.randrange(40), step, WALL + now + rng.uniform(-200, 900), rng.randrange(300))
        storage.store(each, Realm.PUBLIC, b"%d" % rng.randrange(6), now, WALL + now)
        if rng.random() < 0.2:
            storage.expire(now)
        held = [stored for _, stored in storage]
        assert storage.bytes == sum(stored.size for stored in held) <= 25 * (OVERHEAD_BYTES + 200)
        assert sum(len(each) for each in storage._accounts._accounts.values()) == len(held)
    storage.expire(now + 10_000)
    assert (len(storage), storage.bytes, len(storage._accounts)) == (0, 0, 0)
    assert len(changed) == 40
