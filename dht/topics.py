"""Topic entries kept for others, within quotas of their own: presence is never pushed out by topics. Pure.

Per node 8 MiB; per prefix of the announcing address 256 entries, beyond which only free room is given; when full, the
heaviest prefix loses first (security.md P1). Per signer 64 entries. Per shard 128. In a full shard a prefix has a share
of 4: one that has more gives way to newcomers. When nobody has more, newcomers go one deeper in the tree, and readers
are told; those whose prefix has its share follow them, but are refused where nobody went before. So a single block can
neither push anybody out, nor make the tree and the readings grow. Lives are counted on the monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

from p2pnode.core.address import Realm
from p2pnode.core.errors import BadPacket
from p2pnode.dht.accounts import Accounts
from p2pnode.dht.limits import wide_prefix_of
from p2pnode.dht.messages import ErrorCode
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.topic_entries import CLOCK_TOLERANCE, MAX_TOPIC_LIFE, Shard, TopicEntry, order_of

__all__ = ["Page", "TopicStorage"]

OVERHEAD_BYTES = 1_500  # Python objects around an entry, with its prefix's account: 1.4 to 1.6 kB by tracemalloc
SHARD_BYTES = 900  # those of a shard; charged to the entry that opens it
SIGNER_ENTRIES = 64  # on one node: a person in many rooms of a small network
PREFIX_SHARE = 4  # of a full shard's 128 places: 32 blocks are needed to fill one
WIDE_FACTOR = 4  # entries of an IPv6 /32 weigh as much as one of a /48 (S1: 2 per /48, 8 per /32)
SPLIT_LIFE = MAX_TOPIC_LIFE  # s after the last refusal: who went deeper asks here again within a third of that

Where = tuple[Realm, Shard]
EntryKey = tuple[Where, bytes]


class Page(NamedTuple):
    """`held`: live entries of the shard. `split`: there are others, one deeper. `more`: entries follow these, which are
    in the reader's order."""

    held: int
    split: bool
    more: bool
    entries: list[TopicEntry]


class _Kept:
    """An entry and what its keeper knows: who brought it, and until when it is kept (monotonic)."""

    __slots__ = ("entry", "expires_at", "prefix", "size")

    def __init__(self, entry: TopicEntry, prefix: bytes, expires_at: float) -> None:
        self.entry, self.prefix, self.expires_at = entry, prefix, expires_at
        self.size = len(entry.value) + OVERHEAD_BYTES


class _Group:
    """The entries of one shard by signer, oldest first."""

    __slots__ = ("_nonce", "_order", "kept", "prefixes", "split_until", "wides")

    def __init__(self) -> None:
        self.kept: dict[bytes, _Kept] = {}
        self.prefixes: Counter[bytes] = Counter()
        self.wides: Counter[bytes] = Counter()
        self.split_until = float("-inf")
        self._nonce = b""
        self._order: list[tuple[bytes, bytes]] = []

    def order_for(self, nonce: bytes) -> list[tuple[bytes, bytes]]:
        """Return (place, signer) of all entries, in order; kept for the next page of the same reader."""
        if self._nonce != nonce:
            self._nonce = nonce
            self._order = sorted(
                (order_of(nonce, signer, withdrawn=not kept.entry.value), signer) for signer, kept in self.kept.items()
            )
        return self._order

    def reorder(self) -> None:
        """An entry came, went, was withdrawn, or is back."""
        self._nonce, self._order = b"", []

    def count(self, prefix: bytes, by: int) -> None:
        """An entry of this prefix came (1) or went (-1)."""
        self.reorder()
        for counts, name in ((self.prefixes, prefix), (self.wides, wide_prefix_of(prefix))):
            counts[name] += by
            if not counts[name]:
                del counts[name]

    def weight(self, prefix: bytes) -> int:
        """Return how heavy a prefix is: its own entries, or its part of what its wide prefix has."""
        return max(self.prefixes[prefix], self.wides[wide_prefix_of(prefix)] // WIDE_FACTOR)

    def loser(self, prefix: bytes, realm: Realm) -> bytes | None:
        """Return whose entry gives way to a newcomer from `prefix`: what was withdrawn, else the newest of the heaviest
        prefix, when that has more than its share and the newcomer's has not. None: nobody's."""
        for signer, kept in self.kept.items():
            if not kept.entry.value:
                return signer
        if self.has_its_share(prefix, realm):
            return None
        heaviest = max(self.prefixes, key=self.weight)
        if realm is not Realm.PUBLIC or self.weight(heaviest) <= PREFIX_SHARE:
            return None
        return next(signer for signer in reversed(self.kept) if self.kept[signer].prefix == heaviest)

    def has_its_share(self, prefix: bytes, realm: Realm) -> bool:
        """A network within one machine or LAN is one prefix: its members need not fear each other's addresses."""
        return realm is Realm.PUBLIC and self.weight(prefix) >= PREFIX_SHARE


class TopicStorage:
    """Topic entries by realm, shard and signer."""

    def __init__(self, network_tag: bytes, settings: DhtSettings) -> None:
        self._tag = network_tag
        self._places = settings.topic_shard_entries
        self._groups: dict[Where, _Group] = {}
        self._signers: Counter[bytes] = Counter()
        self._accounts: Accounts[EntryKey] = Accounts(settings.topic_bytes, settings.prefix_topic_entries)
        # First to expire, by a serial number; what is no longer true is skipped, as in the storage of records.
        self._expiring: list[tuple[float, int, EntryKey]] = []
        self._serial = 0
        self._count = 0

    def store(
        self, shard: Shard, entry: TopicEntry, realm: Realm, prefix: bytes, now: float, wall: float
    ) -> tuple[ErrorCode, int] | None:
        """Keep `entry` for a node in `prefix`. Return None when it is kept, else why not (code, detail).

        Checks what is cheap first, the signature last. `now` monotonic, `wall` unix seconds.
        """
        where = (realm, shard)
        group = self._groups.get(where)
        held = group.kept.get(entry.public_key) if group is not None else None
        if held is not None and held.expires_at <= now:
            self.expire(now)
            group, held = self._groups.get(where), None
        if held is not None:
            if held.entry == entry:
                return None
            if held.entry.seq >= entry.seq:
                return ErrorCode.LOWER_SEQ, held.entry.seq
        if held is None:
            if not entry.value:
                return None  # nothing to withdraw
            refusal = self._refusal(group, entry, realm, prefix, now)
            if refusal is ErrorCode.FULL:
                return refusal, 0
        try:
            entry.verify(self._tag, shard.topic, wall)
        except BadPacket as bad:
            late = bad.reason in ("entry_expired", "entry_expires_too_far")
            return (ErrorCode.EXPIRES if late else ErrorCode.BAD_RECORD), 0
        if held is None and group is not None and refusal is ErrorCode.DEEPER:
            if not group.has_its_share(prefix, realm):
                group.split_until = now + SPLIT_LIFE
            return refusal, 0
        life = min(max(entry.expires - wall, 0.0), MAX_TOPIC_LIFE) + CLOCK_TOLERANCE
        if held is not None:
            # The signer's update, through whomever, keeps its place in the accounts.
            return self._update(where, held, _Kept(entry, held.prefix, now + life), now)
        return self._admit(where, _Kept(entry, prefix, now + life), now)

    def page(self, realm: Realm, shard: Shard, nonce: bytes, after: bytes, limit: int, now: float) -> Page:
        """Return up to `limit` entries that come after `after` in the order that `nonce` makes; withdrawn ones as well.

        The first page of a reader costs 128 keyed hashes, about 0.1 ms; its others find the order made.
        """
        group = self._groups.get((realm, shard))
        if group is None:
            return Page(0, False, False, [])
        live = {signer: kept.entry for signer, kept in group.kept.items() if kept.expires_at > now}
        order = group.order_for(nonce)
        at = bisect_right(order, after, key=_place)
        found = [live[signer] for _, signer in itertools.islice(order, at, None) if signer in live]
        held = sum(1 for entry in live.values() if entry.value)
        return Page(held, group.split_until > now, len(found) > limit, found[:limit])

    def expire(self, now: float) -> int:
        """Drop what expired; return how many."""
        dropped = 0
        while self._expiring and self._expiring[0][0] <= now:
            expires_at, _, (where, signer) = heapq.heappop(self._expiring)
            group = self._groups.get(where)
            kept = group.kept.get(signer) if group is not None else None
            if kept is not None and kept.expires_at == expires_at:
                self._remove((where, signer))
                dropped += 1
        return dropped

    @property
    def held_bytes(self) -> int:
        """Estimated memory, values and objects."""
        return self._accounts.bytes

    def __len__(self) -> int:
        return self._count

    @property
    def shards(self) -> int:
        return len(self._groups)

    def _refusal(
        self, group: _Group | None, entry: TopicEntry, realm: Realm, prefix: bytes, now: float
    ) -> ErrorCode | None:
        """Return why there is no place for a new signer's entry; None: there is, or somebody gives way."""
        if self._signers[entry.public_key] >= SIGNER_ENTRIES:
            return ErrorCode.FULL
        if group is None or len(group.kept) < self._places:
            return None
        self.expire(now)
        if len(group.kept) < self._places or group.loser(prefix, realm) is not None:
            return None
        # Where others have made the tree grow, readers follow anyway.
        is_split = group.split_until > now
        return ErrorCode.DEEPER if is_split or not group.has_its_share(prefix, realm) else ErrorCode.FULL

    def _admit(self, where: Where, kept: _Kept, now: float) -> tuple[ErrorCode, int] | None:
        group = self._groups.get(where)
        gone: _Kept | None = None
        if (
            group is not None
            and len(group.kept) >= self._places
            and (loser := group.loser(kept.prefix, where[0])) is not None
        ):
            gone = self._remove((where, loser))
        elif group is None:
            kept.size += SHARD_BYTES
        if not self._make_room(kept, now):
            if gone is not None:
                self._add(where, gone)
            return ErrorCode.FULL, 0
        self._add(where, kept)
        return None

    def _update(self, where: Where, held: _Kept, kept: _Kept, now: float) -> tuple[ErrorCode, int] | None:
        key = (where, kept.entry.public_key)
        kept.size = held.size + len(kept.entry.value) - len(held.entry.value)
        self._accounts.remove(held.prefix, key, held.size)
        full = not self._make_room(kept, now)  # it may be longer than what it replaces
        kept = held if full else kept
        self._accounts.add(kept.prefix, key, kept.size)
        self._groups[where].kept[kept.entry.public_key] = kept  # where it stood: the newest of a prefix loses first
        self._groups[where].reorder()
        self._expire_later(kept.expires_at, key)
        return (ErrorCode.FULL, 0) if full else None

    def _make_room(self, kept: _Kept, now: float) -> bool:
        accounts = self._accounts
        if not accounts.fits(kept.size):
            self.expire(now)
        while not accounts.fits(kept.size):
            loser = accounts.loser(kept.prefix, kept.size)
            if loser is None:
                return False
            self._remove(loser)
        return True

    def _add(self, where: Where, kept: _Kept) -> None:
        signer = kept.entry.public_key
        group = self._groups.setdefault(where, _Group())
        group.kept[signer] = kept
        group.count(kept.prefix, 1)
        self._count += 1
        self._signers[signer] += 1
        self._accounts.add(kept.prefix, (where, signer), kept.size)
        self._expire_later(kept.expires_at, (where, signer))

    def _expire_later(self, at: float, key: EntryKey) -> None:
        self._serial += 1
        heapq.heappush(self._expiring, (at, self._serial, key))
        if len(self._expiring) > 4 * self._count + 64:
            self._rebuild()

    def _rebuild(self) -> None:
        self._expiring = [
            (kept.expires_at, number, (where, signer))
            for number, (where, signer, kept) in enumerate(
                (where, signer, kept) for where, group in self._groups.items() for signer, kept in group.kept.items()
            )
        ]
        self._serial = len(self._expiring)
        heapq.heapify(self._expiring)

    def _remove(self, key: EntryKey) -> _Kept:
        where, signer = key
        group = self._groups[where]
        kept = group.kept.pop(signer)
        group.count(kept.prefix, -1)
        self._count -= 1
        self._signers[signer] -= 1
        if not self._signers[signer]:
            del self._signers[signer]
        self._accounts.remove(kept.prefix, key, kept.size)
        if not group.kept:
            del self._groups[where]
        return kept


def _place(placed: tuple[bytes, bytes]) -> bytes:
    return placed[0]
