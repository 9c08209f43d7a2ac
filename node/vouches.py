"""Where a peer is, as rendezvous nodes see it: guessed ports are tried nowhere else (security.md, C1).

What a peer says of its own address may aim at a victim. The rendezvous nodes that bring its offer or answer say where
that came from. One of them may lie for the peer, so two must agree, in different address blocks. For the callee they
are nodes that it chose itself: in a network that has no two such, it takes what there is. For the caller they are the
callee's choice, who could name one node of its own only: without two blocks there is no guessing. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from p2pnode.core.address import Address
from p2pnode.dht.limits import prefix_of

__all__ = ["Vouches"]

T = TypeVar("T", bound=Hashable)
VOUCHERS = 2
MAX_WAYS = 8  # ways that one message may come: four at most, of both families


class Vouches:
    """What was said of one peer in one attempt."""

    def __init__(self, ways: Iterable[Address], *, chosen_by_peer: bool) -> None:
        """`ways`: where the rendezvous nodes are by which its messages may come."""
        self._ways = tuple(ways)
        self._said: dict[Hashable, Address] = {}
        self._by_block = chosen_by_peer or len({prefix_of(way.ip) for way in self._ways}) >= VOUCHERS
        self._needed = VOUCHERS if chosen_by_peer else min(VOUCHERS, len(self._ways))

    def add(self, way: Address, seen: Address | None) -> None:
        """The node at `way` saw the peer at `seen`, or does not say. Its first word counts."""
        if seen is not None and not seen.is_ipv6 and way in self._ways and len(self._said) < MAX_WAYS:
            self._said.setdefault(prefix_of(way.ip) if self._by_block else way, seen)

    @property
    def address(self) -> Address | None:
        """The peer's one outside address, None without agreement."""
        return self._agreed(lambda seen: seen)

    @property
    def ip(self) -> str | None:
        """The peer's outside IPv4 address; its ports may differ."""
        return self._agreed(lambda seen: seen.ip)

    def _agreed(self, part: Callable[[Address], T]) -> T | None:
        votes = Counter(part(seen) for seen in self._said.values())
        if not votes:
            return None
        value, count = votes.most_common(1)[0]
        return value if count >= self._needed and 2 * count > votes.total() else None
