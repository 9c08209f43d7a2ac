"""Records kept for others, within quotas. `kademlia`'s storage interface, with judgement added.

Per node 32 MiB, and beside them 16 MiB for mail and 1 MiB for pools, so that none takes room from another; per prefix
of the storing address 64 records of each kind (8 in pools), beyond which only free room is given; when full, the
heaviest prefix loses first (security.md P1). The life of a record is counted on the monotonic clock: a wall clock that
jumps drops nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator

from kademlia.storage import IStorage

from p2pnode.core.address import Realm
from p2pnode.core.errors import BadPacket
from p2pnode.dht.accounts import Accounts
from p2pnode.dht.limits import Budget, PrefixBudgets
from p2pnode.dht.messages import ErrorCode
from p2pnode.dht.pools import is_pool
from p2pnode.dht.records import SignedRecord, is_mail, max_life
from p2pnode.dht.settings import DhtSettings

__all__ = ["RecordStorage", "StoreKey", "StoredRecord"]

OVERHEAD_BYTES = 1_200  # resident memory around a record from a prefix of its own: benchmarks/dht_memory.py
SLOT = 16.0  # s
WORKS_PER_S, WORKS_BURST = 10.0, 40.0  # records of pools that are judged: 3 ms each
PREFIX_WORKS_PER_S, PREFIX_WORKS_BURST = 0.2, 16.0
StoreKey = tuple[Realm, bytes]


class StoredRecord:
    """A record and what its keeper knows: who brought it, and until when it is kept (monotonic)."""

    __slots__ = ("expires_at", "prefix", "record", "size", "stored_at")

    def __init__(self, record: SignedRecord, prefix: bytes, stored_at: float, expires_at: float) -> None:
        self.record, self.prefix = record, prefix
        self.stored_at, self.expires_at = stored_at, expires_at
        self.size = len(record.value) + len(record.salt) + OVERHEAD_BYTES


class RecordStorage(IStorage):
    """Signed records by (realm, key)."""

    def __init__(self, network_tag: bytes, settings: DhtSettings) -> None:
        self._tag = network_tag
        self._max_life = settings.max_record_life
        self._tolerance = settings.clock_tolerance
        self._records: dict[StoreKey, StoredRecord] = {}
        self._accounts: Accounts[StoreKey] = Accounts(settings.storage_bytes, settings.prefix_records)
        self._mail: Accounts[StoreKey] = Accounts(settings.mail_bytes, settings.prefix_records)
        self._pools: Accounts[StoreKey] = Accounts(settings.pool_bytes, settings.prefix_pool_records)
        self._works = PrefixBudgets(Budget(WORKS_PER_S, WORKS_BURST), PREFIX_WORKS_PER_S, PREFIX_WORKS_BURST)
        # What expires within the 16 seconds of a slot: 8 bytes for each record, where a heap takes 80. Slots in order.
        # Built anew when it names twice as many records as there are.
        self._slots: dict[int, list[StoreKey]] = {}
        self._slot_order: list[int] = []
        self._slotted = 0
        self.bytes = 0
        self.on_stored: Callable[[Realm, SignedRecord, bool, float, float], None] | None = None
        """Called with (realm, record, whether its value is another one, now, wall) after each new version is stored."""
        self.on_change: Callable[[StoreKey], None] | None = None
        """Called when a record came in or went."""

    def store(
        self, record: SignedRecord, realm: Realm, prefix: bytes, now: float, wall: float, until: float = math.inf
    ) -> tuple[ErrorCode, int] | None:
        """Keep `record` for a node in `prefix`. Return None when it is kept, else why not (code, detail).

        Checks what is cheap first, the signature last. `now` monotonic, `wall` unix seconds. `until`: not longer than
        this (monotonic), for a record that was kept before.
        """
        key: StoreKey = (realm, record.key)
        held = self._live(key, now)
        if held is not None:
            if held.record == record:
                return None
            if held.record.seq >= record.seq:
                return ErrorCode.LOWER_SEQ, held.record.seq
        if is_pool(record.salt) and until == math.inf and not self._works.take(prefix, now):
            return ErrorCode.BUSY, 0
        try:
            record.verify(self._tag, wall)
        except BadPacket as bad:
            code = ErrorCode.EXPIRES if bad.reason in ("record_expired", "expires_too_far") else ErrorCode.BAD_RECORD
            return code, 0
        longest = max_life(record.salt) if is_mail(record.salt) else self._max_life
        life = min(max(record.expires - wall, 0.0), longest) + self._tolerance
        entry = StoredRecord(record, prefix, now, min(now + life, until))
        if entry.expires_at <= now:
            return ErrorCode.EXPIRES, 0
        if held is not None and held.record.public_key == record.public_key:
            entry.prefix = held.prefix  # the author's update, through whomever, keeps its place in the accounts
        if key in self._records:  # also one that has expired and was not dropped yet: it must leave the accounts
            self._remove(key)
        if not self._make_room(entry, now):  # an update may be longer than what it replaces
            if held is not None:
                self._add(key, held)
            return ErrorCode.FULL, 0
        self._add(key, entry)
        if self.on_stored is not None:
            self.on_stored(realm, record, held is None or held.record.value != record.value, now, wall)
        return None

    def read(self, realm: Realm, key: bytes, now: float) -> SignedRecord | None:
        """Return the record, None when there is none or it expired."""
        held = self._live((realm, key), now)
        return held.record if held is not None else None

    def expire(self, now: float) -> int:
        """Drop what expired more than 16 seconds ago, and some of what did since; return how many."""
        dropped = 0
        while self._slot_order and (self._slot_order[0] + 1) * SLOT <= now:
            keys = self._slots.pop(heapq.heappop(self._slot_order))
            self._slotted -= len(keys)
            for key in keys:
                held = self._records.get(key)
                if held is not None and held.expires_at <= now:
                    self._remove(key)
                    dropped += 1
        return dropped

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: StoreKey) -> StoredRecord:
        return self._records[key]

    def get(self, key: StoreKey, default: StoredRecord | None = None) -> StoredRecord | None:
        return self._records.get(key, default)

    def __setitem__(self, key: StoreKey, value: object) -> None:
        raise TypeError("a record is kept by store(), which checks it")

    def iter_older_than(self, seconds_old: float) -> list[tuple[StoreKey, StoredRecord]]:
        """Return the records stored at or before that monotonic time (the original's clock is not read here)."""
        return [(key, held) for key, held in self._records.items() if held.stored_at <= seconds_old]

    def __iter__(self) -> Iterator[tuple[StoreKey, StoredRecord]]:
        return iter(list(self._records.items()))

    def _live(self, key: StoreKey, now: float) -> StoredRecord | None:
        held = self._records.get(key)
        return held if held is not None and held.expires_at > now else None

    def _make_room(self, entry: StoredRecord, now: float) -> bool:
        accounts = self._accounts_of(entry)
        if accounts.fits(entry.size):
            return True
        self.expire(now)
        while not accounts.fits(entry.size):
            loser = accounts.loser(entry.prefix, entry.size)
            if loser is None:
                return False
            self._remove(loser)
        return True

    def _accounts_of(self, entry: StoredRecord) -> Accounts[StoreKey]:
        salt = entry.record.salt
        return self._pools if is_pool(salt) else self._mail if is_mail(salt) else self._accounts

    def _add(self, key: StoreKey, entry: StoredRecord) -> None:
        self._records[key] = entry
        if self.on_change is not None:
            self.on_change(key)
        self._accounts_of(entry).add(entry.prefix, key, entry.size)
        self.bytes += entry.size
        self._slot(key, entry.expires_at)
        if self._slotted > 2 * len(self._records) + 64:
            self._slots, self._slot_order, self._slotted = {}, [], 0
            for name, held in self._records.items():
                self._slot(name, held.expires_at)

    def _slot(self, key: StoreKey, expires_at: float) -> None:
        number = int(expires_at // SLOT)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = []
            heapq.heappush(self._slot_order, number)
        slot.append(key)
        self._slotted += 1

    def _remove(self, key: StoreKey) -> None:
        held = self._records.pop(key)
        if self.on_change is not None:
            self.on_change(key)
        self._accounts_of(held).remove(held.prefix, key, held.size)
        self.bytes -= held.size
