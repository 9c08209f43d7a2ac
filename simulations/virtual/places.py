"""Where an address lives in the virtual world, and what a datagram is called in its trace.

What is asked for each datagram is remembered for good: a world has as many addresses as hosts, and `scope_of` parses.
"""

from __future__ import annotations

import ipaddress
from functools import cache

from p2pnode.core.address import Scope, scope_of

__all__ = [
    "INTERNET",
    "LOOPBACK_DELAY_S",
    "WALL_AT_START_S",
    "is_local",
    "is_loopback",
    "is_multicast",
    "is_public",
    "kind_of",
    "segment_of",
    "space_of",
]

# 2026-01-01 00:00:00 UTC: the wall clock at virtual time 0.
WALL_AT_START_S = 1_767_225_600.0
LOOPBACK_DELAY_S = 0.000_02
INTERNET = ""


@cache
def is_public(ip: str) -> bool:
    """Whether an address is reached from everywhere: laboratories use documentation networks as the public side."""
    return scope_of(ip) in (Scope.PUBLIC, Scope.DOCUMENTATION)


@cache
def is_loopback(ip: str) -> bool:
    """Whether a packet for this address stays on its host."""
    return scope_of(ip) is Scope.LOOPBACK


@cache
def is_multicast(ip: str) -> bool:
    """Whether an address is a group."""
    return scope_of(ip) is Scope.MULTICAST


@cache
def is_local(ip: str) -> bool:
    """Whether no router passes a packet for this address on."""
    return scope_of(ip) in (Scope.LINK_LOCAL, Scope.MULTICAST, Scope.LOOPBACK, Scope.UNSPECIFIED)


def segment_of(ip: str, lan: str | None) -> str | None:
    """Return the name of the segment that an address is on; None for a public one on no LAN."""
    if lan is not None:
        return f"lan/{lan}"
    if is_public(ip):
        return None
    prefix = 64 if ":" in ip else 24
    return str(ipaddress.ip_network(f"{ip.partition('%')[0]}/{prefix}", strict=False))


def space_of(ip: str, segment: str | None) -> str:
    """Return the name space in which an address is unique: everywhere, or its segment."""
    return INTERNET if is_public(ip) or segment is None else segment


def kind_of(data: bytes) -> str:
    """Name a datagram by its first byte, as the mux sorts it (docs/protocol.md, "One socket")."""
    return _KINDS[data[0]] if data else "empty"


def _kind(first: int) -> str:
    if first <= 0x03:
        return "stun"
    if 0x04 <= first <= 0x09:
        return f"dht-{first:02x}"
    if 0x0A <= first <= 0x0F:
        return "relay"
    return "quic" if 0x40 <= first <= 0x7F or first >= 0xC0 else "other"


_KINDS = tuple(_kind(first) for first in range(256))
