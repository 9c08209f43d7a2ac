"""Who stored how much: bytes and keys by address prefix, and which prefix is the heaviest. Pure.

What is stored for others is bounded in all; when it is full, the heaviest prefix loses first (security.md P1).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Account", "Accounts"]

K = TypeVar("K", bound=Hashable)


class Account(Generic[K]):
    """Of one prefix: bytes, and its keys, oldest first. Most have one key, for which a dictionary is too much."""

    __slots__ = ("_many", "_one", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._one: K | None = None
        self._many: OrderedDict[K, None] | None = None

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


class Accounts(Generic[K]):
    """All accounts of one storage of `capacity` bytes."""

    def __init__(self, capacity: int, prefix_keys: int) -> None:
        """`prefix_keys`: how many keys a prefix may have beyond free room."""
        self._capacity, self._prefix_keys = capacity, prefix_keys
        self._accounts: dict[bytes, Account[K]] = {}
        # What is no longer true is skipped; built anew when it holds twice as many as there are accounts.
        self._heaviest: list[tuple[int, bytes]] = []
        self.bytes = 0

    def add(self, prefix: bytes, key: K, size: int) -> None:
        self.bytes += size
        account = self._accounts.get(prefix)
        if account is None:
            account = self._accounts[prefix] = Account()
        account.bytes += size
        account.add(key)
        self._weigh(prefix, account)

    def remove(self, prefix: bytes, key: K, size: int) -> None:
        self.bytes -= size
        account = self._accounts[prefix]
        account.bytes -= size
        account.remove(key)
        if len(account):
            self._weigh(prefix, account)
        else:
            del self._accounts[prefix]

    def fits(self, size: int) -> bool:
        return self.bytes + size <= self._capacity

    def loser(self, prefix: bytes, size: int) -> K | None:
        """Return what must go so that `prefix` may store `size` more; None: the newcomer itself has to stay out.

        Whoever is heaviest loses; when that would be the newcomer's own prefix, the newcomer loses.
        """
        own = self._accounts.get(prefix)
        if own is not None and len(own) >= self._prefix_keys:
            return None
        heaviest = self._heaviest_account()
        if heaviest is None or (own is not None and heaviest.bytes <= own.bytes + size):
            return None
        return heaviest.oldest()

    def __len__(self) -> int:
        return len(self._accounts)

    def _heaviest_account(self) -> Account[K] | None:
        while self._heaviest:
            weight, prefix = self._heaviest[0]
            account = self._accounts.get(prefix)
            if account is not None and account.bytes == -weight:
                return account
            heapq.heappop(self._heaviest)
        return None

    def _weigh(self, prefix: bytes, account: Account[K]) -> None:
        heapq.heappush(self._heaviest, (-account.bytes, prefix))
        if len(self._heaviest) > 2 * len(self._accounts) + 64:
            self._heaviest = [(-other.bytes, name) for name, other in self._accounts.items()]
            heapq.heapify(self._heaviest)
