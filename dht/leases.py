"""Who may be forwarded to, where, and for how long. Pure, bounded; callers pass `now`.

When full, the prefix that holds most places gives its oldest up, unless that would be the newcomer's own (or one no
heavier): a flood from one block takes free room only, and nobody is starved by a limit while there is room.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from p2pnode.core.address import Address
from p2pnode.dht.limits import Budget, prefix_of

__all__ = ["Lease", "Leases"]

MISSES_TO_DROP = 3  # deliveries in a row that nobody confirmed, each sent three times: nine datagrams
MAX_WANTED = 16


@dataclass(slots=True)
class Lease:
    """A node that wants to be forwarded to at `address`, until `until`.

    `strangers`: how much of others' wish to reach it is granted. `wanted`: node ids that it forwarded to itself, newest
    last, each with its own small budget: they get through while strangers crowd.
    """

    node_id: bytes
    address: Address
    prefix: bytes
    until: float
    strangers: Budget
    wanted: OrderedDict[bytes, Budget] = field(default_factory=OrderedDict)
    misses: int = 0

    def want(self, node_id: bytes, rate: float, burst: float) -> None:
        """This node itself spoke to `node_id`: an answer is welcome."""
        self.wanted.setdefault(node_id, Budget(rate, burst))
        self.wanted.move_to_end(node_id)
        if len(self.wanted) > MAX_WANTED:
            self.wanted.popitem(last=False)

    def admit(self, sender: bytes, now: float) -> bool:
        """Count one delivery from `sender`; return whether it is within the limits."""
        own = self.wanted.get(sender)
        return (own is not None and own.take(now)) or self.strangers.take(now)


class Leases:
    """At most `capacity` leases of about 500 bytes, with all that is wanted 4 kB: one per node id, its newest."""

    def __init__(self, capacity: int, target_rate: float, target_burst: float) -> None:
        """`target_rate`, `target_burst`: deliveries of strangers per second to one node, and at once."""
        self._capacity, self._rate, self._burst = capacity, target_rate, target_burst
        self._by_id: dict[bytes, Lease] = {}
        self._by_prefix: dict[bytes, OrderedDict[bytes, Lease]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def grant(self, node_id: bytes, address: Address, until: float, now: float) -> bool:
        """Make or renew the lease of `node_id`; return False when there is no room."""
        lease = self._by_id.get(node_id)
        prefix = prefix_of(address.ip)
        if lease is None:
            if len(self._by_id) >= self._capacity and not self._make_room(prefix, now):
                return False
            lease = Lease(node_id, address, prefix, until, Budget(self._rate, self._burst))
        else:
            self.drop(node_id)  # it may have moved to another prefix, and is the newest again
            lease.address, lease.prefix, lease.until, lease.misses = address, prefix, until, 0
        self._by_id[node_id] = lease
        self._by_prefix.setdefault(prefix, OrderedDict())[node_id] = lease
        return True

    def find(self, node_id: bytes, now: float) -> Lease | None:
        lease = self._by_id.get(node_id)
        return lease if lease is not None and lease.until > now else None

    def missed(self, lease: Lease) -> None:
        """A delivery was not confirmed. The third in a row ends the lease: the node asks for a new one when alive."""
        if self._by_id.get(lease.node_id) is not lease:
            return
        lease.misses += 1
        if lease.misses >= MISSES_TO_DROP:
            self.drop(lease.node_id)

    def drop(self, node_id: bytes) -> None:
        lease = self._by_id.pop(node_id, None)
        if lease is None:
            return
        group = self._by_prefix[lease.prefix]
        del group[node_id]
        if not group:
            del self._by_prefix[lease.prefix]

    def expire(self, now: float) -> None:
        for node_id in [lease.node_id for lease in self._by_id.values() if lease.until <= now]:
            self.drop(node_id)

    def _make_room(self, prefix: bytes, now: float) -> bool:
        self.expire(now)
        if len(self._by_id) < self._capacity:
            return True
        heaviest = max(self._by_prefix.values(), key=len)
        if len(heaviest) <= len(self._by_prefix.get(prefix, ())) + 1:
            return False
        self.drop(next(iter(heaviest)))
        return True
