"""NAT64: how a host that has IPv6 only names IPv4 addresses. Pure.

Its network's router takes packets to addresses that begin with a prefix of the network's and end in an IPv4 address,
and sends them there from an IPv4 address of its own (RFC 6146). Which prefix, the network's DNS64 tells by what it
answers for `ipv4only.arpa`, whose IPv4 addresses everybody knows (RFC 7050).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache

from p2pnode.core.address import Address

__all__ = ["KNOWN_NAME", "Nat64", "prefix_of_answers"]

KNOWN_NAME = "ipv4only.arpa"  # RFC 7050, section 8.1
_KNOWN = frozenset(ipaddress.IPv4Address(ip).packed for ip in ("192.0.0.170", "192.0.0.171"))  # and 8.2
# Where the four bytes stand behind a prefix of so many bits; byte 8 is always 0. RFC 6052, section 2.2.
_PLACES = {
    96: (12, 13, 14, 15), 64: (9, 10, 11, 12), 56: (7, 9, 10, 11), 48: (6, 7, 9, 10), 40: (5, 6, 7, 9), 32: (4, 5, 6, 7)
}  # fmt: skip


def prefix_of_answers(ips: Iterable[str]) -> ipaddress.IPv6Network | None:
    """Return the prefix by the IPv6 addresses that DNS gave for `KNOWN_NAME`; None when they tell none.

    The longest prefix that fits first: the four bytes may, by bad luck, stand in the prefix as well.
    """
    for ip in ips:
        try:
            packed = ipaddress.IPv6Address(ip).packed
        except ValueError:
            continue
        for length, places in _PLACES.items():
            if bytes(packed[i] for i in places) in _KNOWN:
                return ipaddress.IPv6Network((packed, length), strict=False)
    return None


class Nat64:
    """Translates addresses with one prefix; those of late are remembered (twice 2,048 of 300 bytes)."""

    def __init__(self, prefix: ipaddress.IPv6Network, *, is_public: Callable[[str], bool]) -> None:
        """`is_public`: whether an IPv4 address is meant for everybody; others are never translated (RFC 6052, section
        3.1). Raise ValueError for a length that no prefix has."""
        if prefix.prefixlen not in _PLACES:
            raise ValueError("a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits")
        self.prefix = prefix
        self._places = _PLACES[prefix.prefixlen]
        self._is_public = is_public
        self.outward = lru_cache(maxsize=2048)(self._outward)
        """Return where to send what is for an address: itself, or its IPv6 form."""
        self.inward = lru_cache(maxsize=2048)(self._inward)
        """Return whom something came from: itself, or the IPv4 address in it."""

    def _outward(self, to: Address) -> Address:
        if to.is_ipv6 or not self._is_public(to.ip):
            return to
        packed = bytearray(self.prefix.network_address.packed)
        for place, byte in zip(self._places, ipaddress.IPv4Address(to.ip).packed, strict=True):
            packed[place] = byte
        return Address(str(ipaddress.IPv6Address(bytes(packed))), to.port)

    def _inward(self, source: Address) -> Address:
        if not source.is_ipv6 or "%" in source.ip:
            return source
        packed = ipaddress.IPv6Address(source.ip).packed
        inside = bytes(packed[place] for place in self._places)
        ip = str(ipaddress.IPv4Address(inside))
        # Only what `outward` could have made: one address has one form.
        return Address(ip, source.port) if self._outward(Address(ip, source.port)) == source else source
