"""Which addresses are ours, by realm. A pure function of sockets and interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import zip_longest

from p2pnode.core.address import Address, Realm, Scope, realm_of
from p2pnode.core.network import Interface
from p2pnode.interfaces import advertised

__all__ = ["bound_ip", "dial_order", "own_addresses"]


def bound_ip(bound: Sequence[Address], *, ipv6: bool) -> str | None:
    """Return where our socket of a family is bound, the wildcard when to all; None without one."""
    return next((address.ip for address in bound if address.is_ipv6 is ipv6), None)


_NEAREST_FIRST = {Realm.LOOPBACK: 0, Realm.PRIVATE: 1, Realm.PUBLIC: 2, None: 3}


def dial_order(addresses: Iterable[Address], *, allow_documentation: bool = False) -> list[Address]:
    """Return a peer's addresses in the order in which they are dialled: the nearest realm first, and within one IPv6
    and IPv4 by turns, IPv6 first (RFC 8305, section 4, "Sorting Addresses"), so that the limit on addresses never
    leaves a family out. Otherwise in the peer's order.
    """
    groups: dict[int, tuple[list[Address], list[Address]]] = {}
    for address in addresses:
        realm = realm_of(address.ip, allow_documentation=allow_documentation)
        groups.setdefault(_NEAREST_FIRST[realm], ([], []))[not address.is_ipv6].append(address)
    return [
        address
        for _, families in sorted(groups.items())
        for pair in zip_longest(*families)
        for address in pair
        if address
    ]


def own_addresses(
    bound: Sequence[Address], interfaces: Iterable[Interface], *, allow_documentation: bool = False
) -> dict[Realm, tuple[Address, ...]]:
    """Return what others can dial, by realm; realms without an address are absent.

    `bound`: where our sockets are bound; a wildcard stands for every address of its family on a loopback or real
    interface. VPNs' and containers' are left out where there is anything else (`interfaces.advertised`), link-local
    ones always: they mean nothing without the other side's interface name. A socket bound to one address has that one,
    wherever it is: somebody chose it. IPv4 first (today the better tested path on most home networks), otherwise in
    the system's order.
    """
    return dict(_own_addresses(tuple(bound), tuple(interfaces), allow_documentation))


@lru_cache(maxsize=256)  # asked several times a minute, for ever, and the answer seldom changes
def _own_addresses(
    bound: tuple[Address, ...], interfaces: tuple[Interface, ...], allow_documentation: bool
) -> dict[Realm, tuple[Address, ...]]:
    found: dict[Realm, dict[Address, None]] = {}
    available = [ip for interface in advertised(interfaces) for ip in interface.addresses]
    for local in sorted(bound, key=lambda a: a.is_ipv6):
        if local.scope is Scope.UNSPECIFIED:
            candidates = [Address(ip, local.port) for ip in available if (":" in ip) == local.is_ipv6]
        else:
            candidates = [local]
        for address in candidates:
            if address.scope is Scope.LINK_LOCAL:
                continue
            realm = realm_of(address.ip, allow_documentation=allow_documentation)
            if realm is not None:
                found.setdefault(realm, {})[address] = None
    return {realm: tuple(addresses) for realm, addresses in found.items()}
