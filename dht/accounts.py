"""Who stored how much: bytes and keys by address prefix, and which prefix is the heaviest. Pure.

What is stored for others is bounded in all; when it is full, the heaviest prefix loses first (security.md P1). An IPv6
/32, of which its owner has 65,536 prefixes, weighs a quarter of what they have together.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from p2pnode.dht.limits import wide_prefix_of

__all__ = ["Account", "Accounts"]

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound="_Weighed")

IPV6_PREFIX_BYTES = 6
WIDE_FACTOR = 4  # what an IPv6 /32 has weighs as much as a quarter of it in one /48 (S1: 2 per /48, 8 per /32)


class Account(Generic[K]):
    """Of one prefix: bytes, and its keys, oldest first. Most have one key, for which a dictionary is too much."""

    __slots__ = ("_many", "_one", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._one: K | None = None
        self._many: OrderedDict[K, None] | None = None

    @property
    def weight(self) -> int:
        return self.bytes

    def __len__(self) -> int:
        return len(self._many) if self._many is not None else int(self._one is not None)

    def add(self, key: K) -> None:
        if self._many is not None:
            self._many[key] = None
        elif self._one is None:
            self._one = key
        else:
            self._many = OrderedDict(((self._one, None), (key, None)))
            self._one = None

    def remove(self, key: K) -> None:
        if self._many is not None:
            del self._many[key]
        else:
            self._one = None

    def oldest(self) -> K | None:
        return self._one if self._many is None else next(iter(self._many), None)


class _Wide:
    """The accounts of one IPv6 /32: about 100 bytes for each."""

    __slots__ = ("bytes", "keys", "prefixes")

    def __init__(self) -> None:
        self.bytes = self.keys = 0
        self.prefixes: dict[bytes, None] = {}

    @property
    def weight(self) -> int:
        return self.bytes // WIDE_FACTOR


class _Weighed(Protocol):
    @property
    def weight(self) -> int: ...


class _Heaviest(Generic[W]):
    """Which of `kept` is the heaviest. What is no longer true is skipped; built anew when it holds twice as many."""

    __slots__ = ("_heap", "_kept")

    def __init__(self, kept: dict[bytes, W]) -> None:
        self._kept = kept
        self._heap: list[tuple[int, bytes]] = []

    def weigh(self, name: bytes, one: W) -> None:
        heapq.heappush(self._heap, (-one.weight, name))
        if len(self._heap) > 2 * len(self._kept) + 64:
            self._heap = [(-other.weight, each) for each, other in self._kept.items()]
            heapq.heapify(self._heap)

    def find(self) -> W | None:
        while self._heap:
            weight, name = self._heap[0]
            one = self._kept.get(name)
            if one is not None and one.weight == -weight:
                return one
            heapq.heappop(self._heap)
        return None


class Accounts(Generic[K]):
    """All accounts of one storage of `capacity` bytes."""

    def __init__(self, capacity: int, prefix_keys: int) -> None:
        """`prefix_keys`: how many keys a prefix may have beyond free room; an IPv6 /32 four times as many."""
        self._capacity, self._prefix_keys = capacity, prefix_keys
        self._accounts: dict[bytes, Account[K]] = {}
        self._wides: dict[bytes, _Wide] = {}
        self._heaviest = _Heaviest(self._accounts)
        self._heaviest_wide = _Heaviest(self._wides)
        self.bytes = 0

    def add(self, prefix: bytes, key: K, size: int) -> None:
        self.bytes += size
        account = self._accounts.get(prefix)
        if account is None:
            account = self._accounts[prefix] = Account()
        account.bytes += size
        account.add(key)
        self._heaviest.weigh(prefix, account)
        if len(prefix) == IPV6_PREFIX_BYTES:
            name = wide_prefix_of(prefix)
            wide = self._wides.setdefault(name, _Wide())
            wide.bytes, wide.keys = wide.bytes + size, wide.keys + 1
            wide.prefixes[prefix] = None
            self._heaviest_wide.weigh(name, wide)

    def remove(self, prefix: bytes, key: K, size: int) -> None:
        self.bytes -= size
        account = self._accounts[prefix]
        account.bytes -= size
        account.remove(key)
        if len(account):
            self._heaviest.weigh(prefix, account)
        else:
            del self._accounts[prefix]
        if len(prefix) == IPV6_PREFIX_BYTES:
            self._remove_wide(prefix, size)

    def _remove_wide(self, prefix: bytes, size: int) -> None:
        name = wide_prefix_of(prefix)
        wide = self._wides[name]
        wide.bytes, wide.keys = wide.bytes - size, wide.keys - 1
        if prefix not in self._accounts:
            del wide.prefixes[prefix]
        if wide.keys:
            self._heaviest_wide.weigh(name, wide)
        else:
            del self._wides[name]

    def fits(self, size: int) -> bool:
        return self.bytes + size <= self._capacity

    def loser(self, prefix: bytes, size: int) -> K | None:
        """Return what must go so that `prefix` may store `size` more; None: the newcomer itself has to stay out.

        Whoever is heaviest loses; when that would be the newcomer's own prefix, the newcomer loses.
        """
        own = self._accounts.get(prefix)
        around = self._wides.get(wide_prefix_of(prefix)) if len(prefix) == IPV6_PREFIX_BYTES else None
        if own is not None and len(own) >= self._prefix_keys:
            return None
        if around is not None and around.keys >= WIDE_FACTOR * self._prefix_keys:
            return None
        own_weight = max(own.weight if own is not None else 0, around.weight if around is not None else 0)
        heaviest, wide = self._heaviest.find(), self._heaviest_wide.find()
        if heaviest is None or (own_weight and self._weight_of(heaviest, wide) <= own_weight + size):
            return None
        if wide is not None and wide.weight > heaviest.weight:
            return self._accounts[next(iter(wide.prefixes))].oldest()
        return heaviest.oldest()

    def __len__(self) -> int:
        return len(self._accounts)

    @staticmethod
    def _weight_of(heaviest: Account[K], wide: _Wide | None) -> int:
        return max(heaviest.weight, wide.weight if wide is not None else 0)
