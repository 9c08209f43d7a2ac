"""Who wants to be told when a record changes, where, and for how long. Pure, bounded; callers pass `now`.

When full, in all or for one key, the prefix that holds most places gives its oldest up, unless that would be the
newcomer's own (or one no heavier): as in `leases`, a flood from one block takes free room only (security.md P2).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht.limits import prefix_of
from p2pnode.dht.storage import StoreKey

__all__ = ["WatchLease", "Watches", "Way"]

Way = tuple[NodeId, Address]
"""A node that forwards to the watcher."""


@dataclass(slots=True, eq=False)
class WatchLease:
    """`node_id`, last seen at `address`, is told of changes at `place` until `until`.

    `seq`: of the version that it has. `misses`: notices in a row that it did not confirm. `told_at`: when the last one
    left. `queued`: a notice waits or is under way.
    """

    place: StoreKey
    node_id: bytes
    address: Address
    prefix: bytes
    until: float
    seq: int
    ways: tuple[Way, ...]
    misses: int = 0
    told_at: float = float("-inf")
    queued: bool = False


class Watches:
    """At most `capacity` leases of about 600 bytes, `per_key` of them for one key: one per key and node id."""

    def __init__(self, capacity: int, per_key: int) -> None:
        self._capacity, self._per_key = capacity, per_key
        self._by_place: dict[StoreKey, OrderedDict[bytes, WatchLease]] = {}
        self._by_prefix: dict[bytes, OrderedDict[tuple[StoreKey, bytes], WatchLease]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def grant(
        self, place: StoreKey, node_id: bytes, address: Address, ways: tuple[Way, ...], until: float, seq: int,
        now: float,
    ) -> WatchLease | None:  # fmt: skip
        """Make or renew a lease; return None when there is no room."""
        lease = self.find(place, node_id)
        prefix = prefix_of(address.ip)
        if lease is None:
            if not self._make_room(place, prefix, now):
                return None
            lease = WatchLease(place, node_id, address, prefix, until, seq, ways)
        else:
            self.drop(lease)  # it may have moved to another prefix, and is the newest again
            lease.address, lease.prefix, lease.ways, lease.until = address, prefix, ways, until
            lease.seq, lease.misses = max(lease.seq, seq), 0
        self._by_place.setdefault(place, OrderedDict())[node_id] = lease
        self._by_prefix.setdefault(prefix, OrderedDict())[place, node_id] = lease
        self._count += 1
        return lease

    def find(self, place: StoreKey, node_id: bytes) -> WatchLease | None:
        same_key = self._by_place.get(place)
        return same_key.get(node_id) if same_key is not None else None

    def of(self, place: StoreKey, now: float) -> list[WatchLease]:
        """Return the leases of a key that run."""
        same_key = self._by_place.get(place)
        return [lease for lease in same_key.values() if lease.until > now] if same_key is not None else []

    def holds(self, lease: WatchLease, now: float) -> bool:
        """Whether this lease still runs."""
        return lease.until > now and self.find(lease.place, lease.node_id) is lease

    def drop(self, lease: WatchLease) -> None:
        """End a lease; twice is harmless."""
        if self.find(lease.place, lease.node_id) is not lease:
            return
        self._count -= 1
        same_key, same_prefix = self._by_place[lease.place], self._by_prefix[lease.prefix]
        del same_key[lease.node_id]
        if not same_key:
            del self._by_place[lease.place]
        del same_prefix[lease.place, lease.node_id]
        if not same_prefix:
            del self._by_prefix[lease.prefix]

    def expire(self, now: float) -> None:
        over = [lease for group in self._by_place.values() for lease in group.values() if lease.until <= now]
        for lease in over:
            self.drop(lease)

    def _make_room(self, place: StoreKey, prefix: bytes, now: float) -> bool:
        same_key = list(self._by_place.get(place, OrderedDict()).values())
        if len(same_key) >= self._per_key and not self._displace(same_key, prefix, now):
            return False
        if self._count < self._capacity:
            return True
        self.expire(now)
        if self._count < self._capacity:
            return True
        heaviest = max(self._by_prefix.values(), key=len)
        if len(heaviest) <= len(self._by_prefix.get(prefix, ())) + 1:
            return False
        self.drop(next(iter(heaviest.values())))
        return True

    def _displace(self, leases: list[WatchLease], prefix: bytes, now: float) -> bool:
        """Drop one lease of a full key for a newcomer of `prefix`; return whether one could be."""
        over = next((lease for lease in leases if lease.until <= now), None)
        if over is not None:
            self.drop(over)
            return True
        weights = Counter(lease.prefix for lease in leases)
        heaviest, weight = weights.most_common(1)[0]
        if weight <= weights[prefix] + 1:
            return False
        self.drop(next(lease for lease in leases if lease.prefix == heaviest))
        return True
