"""The networks of contacts that a node is in at once: one per realm and address family. Pure.

Who has only IPv4 can neither ask an IPv6 node nor store on it, so the two families are two Kademlia networks with the
same ids, "side by side" as in BEP 32: one table each, lookups and stores in both, a node with both families in both.
"""

from __future__ import annotations

import enum

from p2pnode.core.address import Address, Realm

__all__ = ["WANTS_BOTH", "Overlay"]

WANTS_BOTH = 16  # flag: name a few contacts of the other address family too (BEP 32's `want`)


class Overlay(enum.Enum):
    """A realm in one address family. `flag`: its bit in the flags byte of frames, set by those who serve there."""

    LOOPBACK_IPV4 = Realm.LOOPBACK, False, 1
    LOOPBACK_IPV6 = Realm.LOOPBACK, True, 1
    PRIVATE_IPV4 = Realm.PRIVATE, False, 2
    PRIVATE_IPV6 = Realm.PRIVATE, True, 2
    PUBLIC_IPV4 = Realm.PUBLIC, False, 4
    PUBLIC_IPV6 = Realm.PUBLIC, True, 8

    def __init__(self, realm: Realm, is_ipv6: bool, flag: int) -> None:
        self.realm, self.is_ipv6, self.flag = realm, is_ipv6, flag
        self.is_public = realm is Realm.PUBLIC
        self.family = "ipv6" if is_ipv6 else "ipv4"
        self.label = f"{realm.value}/{self.family}"
        """For people and metrics: `public/ipv4`."""

    # Members are compared by identity; enum's own hash is Python code, and each datagram asks several times.
    __hash__ = object.__hash__

    @classmethod
    def of(cls, realm: Realm, *, is_ipv6: bool) -> Overlay:
        for each in _ALL:  # every contact of an answer asks
            if each.realm is realm and each.is_ipv6 is is_ipv6:
                return each
        raise ValueError(realm)

    @classmethod
    def both(cls, realm: Realm) -> tuple[Overlay, Overlay]:
        """Return the realm's two, IPv4 first."""
        return cls.of(realm, is_ipv6=False), cls.of(realm, is_ipv6=True)

    @property
    def other_family(self) -> Overlay:
        return Overlay.of(self.realm, is_ipv6=not self.is_ipv6)

    def holds(self, address: Address) -> bool:
        """Whether an address is of this family; its realm is the caller's to know."""
        return address.is_ipv6 is self.is_ipv6


_ALL = tuple(Overlay)
