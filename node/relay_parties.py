"""Whose the sides of a relay's flows are: address blocks that count together, and single addresses in them. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache

from p2pnode.dht.limits import wide_prefix_of

__all__ = ["Parties", "site_of"]

MAX_BLOCKS = 8  # of one /32; as of contacts in a table (dht/limits.py)


@lru_cache(maxsize=8192)
def site_of(ip: str) -> bytes:
    """Return what one home has: an IPv4 address (4 bytes), an IPv6 /64 (8)."""
    packed = ipaddress.ip_address(ip.partition("%")[0]).packed
    return packed if len(packed) == 4 else packed[:8]


class Parties:
    """Counts sides by party and, in it, by site. 200 bytes for each site that has one.

    A party is a /24 or /48. Of an IPv6 /32, which one provider, or one attacker, has whole with its 65,536 /48s, eight
    are parties at a time, and all others one party together.
    """

    def __init__(self) -> None:
        self._sites: dict[bytes, Counter[bytes]] = {}
        self._sides: Counter[bytes] = Counter()
        self._blocks: Counter[bytes] = Counter()  # /48s that are parties, by /32

    def choose(self, prefix: bytes) -> bytes:
        """Return the party of a side that begins in this block now."""
        if len(prefix) != 6 or prefix in self._sides:
            return prefix
        wide = wide_prefix_of(prefix)
        return wide if self._blocks[wide] >= MAX_BLOCKS else prefix

    def began(self, party: bytes, site: bytes) -> None:
        if party not in self._sites:
            self._sites[party] = Counter()
            if len(party) == 6:
                self._blocks[wide_prefix_of(party)] += 1
        self._sites[party][site] += 1
        self._sides[party] += 1

    def ended(self, party: bytes, site: bytes) -> None:
        """Call exactly once for each `began`."""
        _less(self._sites[party], site)
        _less(self._sides, party)
        if not self._sites[party]:
            del self._sites[party]
            if len(party) == 6:
                _less(self._blocks, wide_prefix_of(party))

    def sides(self, party: bytes) -> int:
        return self._sides.get(party, 0)

    def sides_of_site(self, party: bytes, site: bytes) -> int:
        sites = self._sites.get(party)
        return 0 if sites is None else sites.get(site, 0)

    def heaviest(self) -> tuple[bytes, int]:
        """Return the party with the most sides, and how many; there must be one."""
        return _most(self._sides)

    def heaviest_site(self, party: bytes) -> tuple[bytes, int]:
        """The same of a party's sites."""
        return _most(self._sites[party])


def _most(counter: Counter[bytes]) -> tuple[bytes, int]:
    name = max(counter, key=counter.__getitem__)
    return name, counter[name]


def _less(counter: Counter[bytes], name: bytes) -> None:
    counter[name] -= 1
    if counter[name] <= 0:
        del counter[name]
