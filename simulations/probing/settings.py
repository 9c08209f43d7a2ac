"""What to probe, against which servers, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.address import Address

__all__ = ["ProbeServers", "ProbeSettings"]

STUN_PORTS = (3478, 3479)  # RFC 8489, section 18.6 "Updated Service Names and Port Numbers Registry", and the next one
TCP_PORTS = (443, 80, 3478)


@dataclass(frozen=True)
class ProbeServers:
    """Where a `ProbeServer` listens: the product of addresses and ports."""

    ips: tuple[str, str]
    """Two IPv4 addresses of one server."""
    ports: tuple[int, int] = STUN_PORTS
    ips6: tuple[str, ...] = ()
    """None or two IPv6 addresses of it."""
    tcp_ports: tuple[int, ...] = TCP_PORTS
    """Where it takes TCP connections, on the first address; may be empty."""

    def at(self, ip: int, port: int, *, ipv6: bool = False) -> Address:
        """Return the address by numbers 0 or 1."""
        return Address((self.ips6 if ipv6 else self.ips)[ip], self.ports[port])


@dataclass(frozen=True)
class ProbeSettings:
    """Times in seconds. The defaults suit the Internet, and virtual time, where waiting costs nothing."""

    wait_s: float = 3.0
    """How long silence is waited for before it counts; several times the round trip."""
    tries: int = 3
    """How often a request is sent within `wait_s`."""
    lifetime_max_s: float = 0.0
    """Longest silence that the search for the lifetime of mappings tries; 0: no search."""
    lifetime_step_s: float = 1.0
    """How exact it shall be. It takes about 2.5 times the lifetime, or `lifetime_max_s` where that is less."""
    allocation_sockets: int = 6
    """How many sockets are opened one after the other to see how ports are given out."""
    gateway: str | None = None
    """Inside address of the router, for port-mapping protocols. None: the first address of the own /24."""
    hairpin: bool = True
    tcp: bool = True
    port_mapping: bool = True
    """Ask the gateway for NAT-PMP, PCP and UPnP."""

    def __post_init__(self) -> None:
        if not 0 < self.wait_s <= 60 or not 1 <= self.tries <= 10 or not 3 <= self.allocation_sockets <= 64:
            raise ValueError("wait_s is above 0 and at most 60, tries 1 to 10, allocation_sockets 3 to 64")
        if self.lifetime_max_s < 0 or self.lifetime_step_s <= 0:
            raise ValueError("lifetime_max_s is not negative, lifetime_step_s above 0")
