"""Kinds of networks that a host can be in, and what a probe must find there. Pure: no I/O.

Names are those of `simulations/routers`, so that both worlds can be compared; RFC 4787 ("NAT Behavioral Requirements
for Unicast UDP") words in brackets.

- `public`: no router
- `fullcone`: one public port per private one, anybody may send to it (endpoint-independent mapping and filtering)
- `address-restricted`: the same port, only addresses that were sent to (address-dependent filtering)
- `port-restricted`: the same port, only address and port that were sent to (address-and-port-dependent filtering)
- `symmetric`: another, random port for every destination; `symmetric-sequential`: the next free one
- `cgnat`: a port-restricted router behind that of a carrier, which gives each private port one public port of its own
  choice (RFC 6888, "Common Requirements for Carrier-Grade NATs"); 100.64.0.0/10 between the two
- `cgnat-symmetric`: the same, but the carrier's router is symmetric
- `hairpin`: port-restricted, and two hosts behind it reach each other through the public address
- `udp-blocked`: UDP does not pass; `tcp-443`: nothing but TCP to port 443 does
- `ipv6-firewall`: IPv6 without translation, but nothing comes in unasked; IPv4 through a port-restricted router
- `offline`: a router whose line is dead
- `upnp`: port-restricted, and opens ports when asked by UPnP, NAT-PMP or PCP
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from p2pnode.simulations.netns.errors import LabError, nearest

__all__ = ["ADDRESS", "ADDRESS_AND_PORT", "INDEPENDENT", "KINDS", "PUBLIC", "NatKind", "kind_named"]

INDEPENDENT = "endpoint-independent"
ADDRESS = "address-dependent"
ADDRESS_AND_PORT = "address-and-port-dependent"
PUBLIC = "public"
CARRIER_LAN = "100.64.0"  # RFC 6598, "IANA-Reserved IPv4 Prefix for Shared Address Space"

Ports = Literal["kept", "pooled", "random", "sequential"]
"""How public ports are chosen: the private one when it is free, a random one per private port, a random one or the next
one per connection."""


@dataclass(frozen=True)
class NatKind:
    """One kind of network. Fields say what a probe must find; `rules.ruleset` makes a router of them."""

    name: str
    text: str
    filtering: str = ADDRESS_AND_PORT
    ports: Ports = "kept"
    hairpin: bool = False
    udp: bool = True
    """Whether UDP passes to the internet."""
    tcp: Literal["all", "443", "none"] = "all"
    ipv6: bool = False
    """Whether hosts have global IPv6 addresses."""
    carrier: str = ""
    """Kind of the carrier's router, where there is one in front."""
    lan: str = "192.168.1"
    """First three numbers of its own address inside and of its hosts': behind every home router the same, as in life,
    so that private addresses of two homes collide."""
    line: bool = True
    """False: the router's line is dead."""
    port_mapping: bool = False
    """Whether miniupnpd runs on it."""

    @property
    def is_router(self) -> bool:
        return self.name != PUBLIC

    @property
    def own_mapping(self) -> str:
        """How this router alone maps."""
        return ADDRESS_AND_PORT if self.ports in ("random", "sequential") else INDEPENDENT

    @property
    def outermost(self) -> NatKind:
        """The router that is on the wire: the carrier's, where there is one."""
        return _EVERY[self.carrier] if self.carrier else self

    @property
    def mapping(self) -> str:
        """How it maps together with the carrier's router: the stricter of the two counts."""
        return max(self.own_mapping, self.outermost.own_mapping, key=_STRICTNESS.index)

    @property
    def sequential(self) -> bool:
        """Whether its next public port can be told from the last one."""
        return self.ports == "sequential" and not self.carrier

    @property
    def port_kept(self) -> bool:
        """Whether a private port is its public port, when no other host has it."""
        return self.ports == self.outermost.ports == "kept"

    @property
    def has_internet(self) -> bool:
        """Whether any UDP gets out."""
        return self.udp and self.line


_STRICTNESS = (INDEPENDENT, ADDRESS, ADDRESS_AND_PORT)

# In front of `cgnat`; nobody's home router. RFC 6888, REQ-1: endpoint-independent mapping and hairpinning (RFC 4787);
# ports are its own choice. Mobile carriers' are often symmetric all the same.
_CARRIERS = {
    kind.name: kind
    for kind in (
        NatKind("carrier", "a carrier's router", ports="pooled", hairpin=True, lan=CARRIER_LAN),
        NatKind("carrier-symmetric", "a carrier's symmetric router", ports="random", lan=CARRIER_LAN),
    )
}

KINDS: dict[str, NatKind] = {
    kind.name: kind
    for kind in (
        NatKind(PUBLIC, "no router: a public address of its own", filtering=INDEPENDENT, ipv6=True),
        NatKind("fullcone", "one public port for all; anybody may send to it", filtering=INDEPENDENT),
        NatKind("address-restricted", "one public port for all; only addresses that were sent to may answer", ADDRESS),
        NatKind("port-restricted", "one public port for all; only address and port that were sent to may answer"),
        NatKind("symmetric", "another random public port for every destination", ports="random"),
        NatKind("symmetric-sequential", "the next public port for every destination", ports="sequential"),
        NatKind("cgnat", "a port-restricted router behind a carrier's router", carrier="carrier"),
        NatKind("cgnat-symmetric", "a port-restricted router behind a symmetric one", carrier="carrier-symmetric"),
        NatKind("hairpin", "port-restricted; hosts behind it reach each other by the public address", hairpin=True),
        NatKind("udp-blocked", "UDP does not pass", udp=False),
        NatKind("tcp-443", "nothing but TCP to port 443 passes", udp=False, tcp="443"),
        NatKind("ipv6-firewall", "IPv6 behind a firewall, IPv4 through a port-restricted router", ipv6=True),
        NatKind("offline", "no internet at all", line=False, tcp="none"),
        NatKind("upnp", "port-restricted; opens ports by UPnP, NAT-PMP and PCP", port_mapping=True),
    )
}
_EVERY = {**KINDS, **_CARRIERS}


def kind_named(name: str, *, carriers: bool = False) -> NatKind:
    """Return a kind; with `carriers` also a carrier's router. Raise LabError that suggests the nearest name."""
    kind = (_EVERY if carriers else KINDS).get(name)
    if kind is None:
        raise LabError(f"There is no kind of network {name[:40]!r}; {nearest(name, KINDS)}")
    return kind
