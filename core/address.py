"""Addresses and their scopes.

`ipaddress.is_private` calls documentation networks private and 100.64/10 neither; reachability needs its own table
(IANA special-purpose registries). A *realm* is a set of scopes inside which addresses mean the same: records signed for
one realm are stored only on nodes reached in it.
"""

from __future__ import annotations

import enum
import ipaddress
from functools import lru_cache
from typing import NamedTuple

from p2pnode.core.errors import BadPacket

__all__ = ["DEFAULT_PORT", "Address", "Realm", "Scope", "link_address", "realm_of", "scope_of", "split_host_port"]


DEFAULT_PORT = 4747
_LINK_ZONE = "%tcp"


class Scope(enum.Enum):
    """Where an IP address means something."""

    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    PRIVATE = "private"
    SHARED = "shared"
    MULTICAST = "multicast"
    DOCUMENTATION = "documentation"
    RESERVED = "reserved"
    PUBLIC = "public"


class Realm(enum.Enum):
    """Where a record is valid: this machine, this local network, or everywhere."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"

    def __init__(self, _text: str) -> None:
        self._width = len(type(self).__members__)

    def __hash__(self) -> int:
        return self._width  # Enum's is that of the name, which would order sets of realms differently in every process


_TABLE: tuple[tuple[Scope, tuple[str, ...]], ...] = (
    (Scope.LOOPBACK, ("127.0.0.0/8", "::1/128")),
    (Scope.LINK_LOCAL, ("169.254.0.0/16", "fe80::/10")),
    (Scope.PRIVATE, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")),
    (Scope.SHARED, ("100.64.0.0/10",)),
    (Scope.MULTICAST, ("224.0.0.0/4", "ff00::/8")),
    (Scope.DOCUMENTATION, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    (
        Scope.RESERVED,
        # IPv4: this-network, protocol assignments, the dead 6to4 anycast, benchmarking, class E and broadcast.
        # IPv6: protocol assignments with Teredo and ORCHID, 6to4 (an address in those reaches a third party).
        # Whatever lies outside 2000::/3 is not global unicast either; `scope_of` says so in one line.
        ("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4", "2001::/23", "2002::/16"),
    ),
)  # fmt: skip
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # IANA, "Internet Protocol Version 6 Address Space"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1 "Well-Known Prefix"
_NETWORKS = [(scope, ipaddress.ip_network(net)) for scope, nets in _TABLE for net in nets]
_REALMS = {
    Scope.LOOPBACK: Realm.LOOPBACK,
    Scope.LINK_LOCAL: Realm.PRIVATE,
    Scope.PRIVATE: Realm.PRIVATE,
    Scope.SHARED: Realm.PRIVATE,
    Scope.PUBLIC: Realm.PUBLIC,
}


@lru_cache(maxsize=16_384)
def scope_of(ip: str) -> Scope:
    """Return the scope of an IP address in text form (a zone such as %eth0 is ignored).

    Raise ValueError when it is not one. IPv4-mapped IPv6 has the scope of its IPv4 address.
    """
    parsed = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_unspecified:
        return Scope.UNSPECIFIED
    for scope, network in _NETWORKS:
        if parsed.version == network.version and parsed in network:
            return scope
    if parsed.version == 4:
        return Scope.PUBLIC
    if parsed in _NAT64:
        # A node in an IPv6-only network reaches IPv4 this way. RFC 6052, section 3.1 "Restrictions on the Use of the
        # Well-Known Prefix": never for a non-global IPv4 address, or the gateway would carry packets into its own LAN.
        inner = scope_of(str(ipaddress.IPv4Address(parsed.packed[12:])))
        return Scope.PUBLIC if inner is Scope.PUBLIC else Scope.RESERVED
    return Scope.PUBLIC if parsed in _GLOBAL_UNICAST else Scope.RESERVED


def realm_of(ip: str, *, allow_documentation: bool = False) -> Realm | None:
    """Return the realm of an address, None when no packet should ever go there (multicast, reserved, ...).

    `allow_documentation`: laboratories use documentation networks as their public side; off for everybody else.
    """
    scope = scope_of(ip)
    if scope is Scope.DOCUMENTATION and allow_documentation:
        return Realm.PUBLIC
    return _REALMS.get(scope)


class Address(NamedTuple):
    """An IP address (canonical text, never IPv4-mapped IPv6) and a UDP or TCP port (1..65535; 0 only to bind)."""

    ip: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.ip

    @property
    def scope(self) -> Scope:
        return scope_of(self.ip)

    @property
    def is_link(self) -> bool:
        """Whether this is the far end of a TLS link (`link_address`), which no datagram socket reaches."""
        return self.ip.endswith(_LINK_ZONE)

    def __str__(self) -> str:
        if self.is_link:
            return f"tcp:{self._replace(ip=self.ip.removesuffix(_LINK_ZONE))}"
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @classmethod
    def of(cls, ip: str, port: int) -> Address:
        """Canonicalise: lower-case compressed IPv6, IPv4-mapped to IPv4. Raise ValueError.

        A zone (`%eth0`) stays only where it means something, on link-local addresses.
        """
        if not 0 <= port <= 65535:
            raise ValueError("a port is a number from 0 to 65535")
        return cls(_canonical(ip), port)

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Address:
        """Read `1.2.3.4:5`, `[::1]:5`, or without port when `default_port` is given. Raise ValueError."""
        host, port = split_host_port(text, default_port=default_port)
        return cls.of(host, port)

    def pack(self) -> bytes:
        """4 or 16 bytes of address, then 2 of port, big endian: the form in all our binary messages."""
        return _packed_ip(self.ip) + self.port.to_bytes(2, "big")

    @classmethod
    def unpack_untrusted(cls, data: bytes) -> Address:
        """Read `pack`'s form. Raise BadPacket("bad_address") on a wrong length, port 0 or an IPv4-mapped address.

        Any scope passes, multicast too: the caller asks `realm_of` before it believes or sends anything.
        """
        if len(data) not in (6, 18):
            raise BadPacket("bad_address")
        port = int.from_bytes(data[-2:], "big")
        ip = str(ipaddress.ip_address(data[:-2]))
        if port == 0 or _canonical(ip) != ip:
            raise BadPacket("bad_address")
        return cls(ip, port)


def link_address(remote: Address) -> Address:
    """Return the name by which this process calls the far end of a TLS link: the address of its TCP connection, with a
    zone that keeps it apart from the UDP address with the same numbers, which may be somebody else's.

    Scope, realm, address block and packed form are those of the TCP address. It never leaves the process.
    """
    return Address(remote.ip.partition("%")[0] + _LINK_ZONE, remote.port)


@lru_cache(maxsize=16_384)  # every answer of the DHT tells the asker its address: a tenth of the CPU without
def _packed_ip(ip: str) -> bytes:
    return ipaddress.ip_address(ip.partition("%")[0]).packed


@lru_cache(maxsize=16_384)
def _canonical(ip: str) -> str:
    base, percent, zone = ip.partition("%")
    parsed = ipaddress.ip_address(base)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if percent and not (zone.isascii() and zone.isprintable() and 0 < len(zone) <= 32):
            raise ValueError(f"{ip[:80]!r} has no usable zone after %")
        return str(parsed) + percent + zone if parsed.is_link_local else str(parsed)
    if percent:
        raise ValueError(f"{ip[:80]!r}: an IPv4 address has no zone")
    return str(parsed)


def split_host_port(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port`, `host` or a bare IPv6 into (host, port). Raise ValueError with the reason.

    The host may be a name; only what stands in brackets must be an IPv6 address.
    """
    text = text.strip()
    shown = repr(text[:80])
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError(f"{shown}: write an IPv6 address as [::1]:4747")
        colon, port_text = rest[:1], rest[1:]
    elif text.count(":") > 1:
        host, colon, port_text = text, "", ""
    else:
        host, colon, port_text = text.partition(":")
    if not host:
        raise ValueError(f"{shown} names no host")
    if not port_text:
        if colon or default_port is None:
            raise ValueError(f"{shown} names no port")
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5 or int(port_text) > 65535:
        raise ValueError(f"{port_text[:80]!r} is not a port (0 to 65535)")
    return host, int(port_text)
