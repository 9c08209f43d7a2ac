"""Kinds of routers as sets of parameters, each by a name that the laboratory of namespaces shares (docs/routers.md)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import Literal

from p2pnode.simulations.routers.words import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT, Allocation, Rule

__all__ = ["KINDS", "PUBLIC", "RouterKind", "kind_named"]

PUBLIC = "public"
# The shortest common life of an unused mapping; Linux has 30 s as long as nobody answered.
MAPPING_S = 30.0
PortProtocol = Literal["nat-pmp", "pcp", "upnp"]


@dataclass(frozen=True)
class RouterKind:
    """All parameters of a router. Times in seconds. The defaults are those of `port-restricted`."""

    name: str
    text: str
    translates: bool = True
    """False: no router at all, the host has a public address of its own."""

    mapping: Rule = INDEPENDENT
    """RFC 4787, REQ-1. With `overload` what a host sees that shares no port with another."""
    filtering: Rule = ADDRESS_AND_PORT
    """RFC 4787, REQ-8."""
    ports: Allocation = "preserving"
    """RFC 4787, section 4.2.1 "Port Assignment"; RFC 6056 of random ones."""
    fallback: Literal["random", "sequential"] = "random"
    """How a port is chosen where the preserved one is taken."""
    step: int = 1
    """Distance of sequential ports."""
    overload: bool = False
    """Two hosts may share an outside port toward different remote addresses, as with Linux: a new flow takes the port
    of its socket's last one, else the private one, else a random one, whichever is free toward that remote. Only where
    ports are preserved and filters look at address and port. Against REQ-3; RFC 7857, section 3, allows it."""
    parity: bool = False
    """An even port gets an even one. RFC 4787, REQ-4."""
    port_range: tuple[int, int] = (1024, 65535)
    """From which ports are given out, both ends included; inside ports below 1024 get one of 1..1023 (REQ-3a)."""
    pool: int = 1
    """How many outside addresses it needs."""
    pooling: Literal["paired", "arbitrary"] = "paired"
    """Whether a host always gets the same one of them. RFC 4787, REQ-2."""
    port_block: int = 0
    """Ports are handed to hosts in blocks of this size; 0: from all. RFC 7422, RFC 6888 section 5."""
    quota: int = 0
    """Most mappings of one host, UDP and TCP counted apart; 0: no limit. RFC 6888, REQ-4."""
    table_max: int = 0
    """Most sessions in all, per protocol; 0: no limit. What a cheap router's memory holds."""

    udp_lifetime_s: float = MAPPING_S
    """RFC 4787, REQ-5: at least 120, better 300. Home routers have less."""
    udp_answered_lifetime_s: float | None = None
    """Once packets went both ways; None: the same."""
    inbound_refresh: bool = True
    """Whether packets from outside keep a mapping alive. RFC 4787, REQ-6."""
    tcp_open_s: float = 240.0
    """A handshake that is not finished. RFC 5382, REQ-5; RFC 7857, section 2.1."""
    tcp_established_s: float = 7440.0
    """RFC 5382, REQ-5: 2 h 4 min."""
    tcp_closing_s: float = 240.0
    """After both FINs, or a RST. RFC 7857, sections 2.1 and 2.2."""
    tcp_unsolicited: Literal["drop", "reject"] = "drop"
    """What a SYN that nobody asked for gets: silence (RFC 5382, REQ-4) or a RST at once, which spoils TCP punching."""

    hairpin: Literal["off", "internal", "external"] = "off"
    """Whether hosts reach each other through the outside address, and which address the sender then has. REQ-9."""

    udp: bool = True
    """Whether UDP passes at all."""
    tcp_ports: tuple[int, ...] | None = None
    """Remote TCP ports that may be connected to; None: all."""
    line: bool = True
    """False: the line is dead; the LAN works."""

    ipv6: Literal["none", "open", "firewall"] = "none"
    """Whether hosts have public IPv6 addresses, and whether a stateful firewall guards them (RFC 6092)."""
    ipv6_filtering: Rule = ADDRESS_AND_PORT
    """Of that firewall. RFC 6092, sections 3.2.3 and 3.3.1, recommends endpoint-independent; homes do not have it."""

    nat64: str = ""
    """The /96 prefix behind which hosts with IPv6 alone find IPv4 (RFC 6146), such as 64:ff9b::/96; empty: none."""

    port_mapping: frozenset[PortProtocol] = frozenset()
    """Which port-mapping protocols it answers on its inside address."""
    upnp_leases: bool = True
    """False: UPnP mappings are permanent only (error 725), as on many old routers."""
    mapping_lease_max_s: int = 7200
    """Longest lifetime that NAT-PMP and PCP grant. RFC 6886, section 3.3, recommends 7200 to ask for."""

    carrier: RouterKind | None = field(default=None, repr=False)
    """The router of the provider behind which this one stands; 100.64.0.0/10 lies between them."""

    def __post_init__(self) -> None:
        if self.overload and (self.ports != "preserving" or self.filtering != ADDRESS_AND_PORT):
            raise ValueError(f"{self.name}: only preserved ports with strict filters can be overloaded")
        low, high = self.port_range
        if not 1 <= low < high <= 65535 or self.step < 1 or self.pool < 1:
            raise ValueError(f"{self.name}: port_range lies in 1..65535, step and pool are at least 1")
        if self.port_block and high - low + 1 < self.port_block:
            raise ValueError(f"{self.name}: port_block is larger than port_range")
        if min(self.udp_lifetime_s, self.tcp_open_s, self.tcp_established_s, self.tcp_closing_s) <= 0:
            raise ValueError(f"{self.name}: lifetimes are above 0")

    @property
    def answered_lifetime_s(self) -> float:
        """Life of a UDP mapping that was answered."""
        return self.udp_lifetime_s if self.udp_answered_lifetime_s is None else self.udp_answered_lifetime_s

    def with_lifetime(self, seconds: float) -> RouterKind:
        """Return the same kind with another life of UDP mappings, the carrier's too."""
        carrier = self.carrier.with_lifetime(seconds) if self.carrier is not None else None
        return replace(self, udp_lifetime_s=seconds, udp_answered_lifetime_s=None, carrier=carrier)


_HOME = RouterKind(
    "port-restricted",
    "one public port for all; only address and port that were sent to may answer",
)
_CARRIER = RouterKind(
    "carrier",
    "a carrier's router: one random public port for all, of two addresses, at most 1,000 per customer",
    ports="random",
    pool=2,
    quota=1000,
    hairpin="external",
)

KINDS: dict[str, RouterKind] = {
    kind.name: kind
    for kind in (
        RouterKind(
            PUBLIC, "no router: a public address of its own", translates=False, filtering=INDEPENDENT, ipv6="open"
        ),
        RouterKind("fullcone", "one public port for all; anybody may send to it", filtering=INDEPENDENT),
        RouterKind(
            "address-restricted",
            "one public port for all; only addresses that were sent to may answer",
            filtering=ADDRESS,
        ),
        _HOME,
        RouterKind(
            "symmetric",
            "another random public port for every destination; only that may answer",
            mapping=ADDRESS_AND_PORT,
            ports="random",
        ),
        RouterKind(
            "symmetric-sequential",
            "the next public port for every destination; only that may answer",
            mapping=ADDRESS_AND_PORT,
            ports="sequential",
        ),
        replace(
            _HOME,
            name="masquerade",
            text="Linux's plain masquerade: port-restricted; hosts share a public port toward different destinations",
            overload=True,
        ),
        replace(_HOME, name="cgnat", text="port-restricted, and behind a carrier's router", carrier=_CARRIER),
        replace(
            _HOME,
            name="cgnat-symmetric",
            text="port-restricted, and behind a carrier's router with another random port for every destination",
            carrier=replace(_CARRIER, mapping=ADDRESS_AND_PORT),
        ),
        replace(
            _HOME,
            name="hairpin",
            text="port-restricted, and two hosts behind it reach each other through the public address",
            hairpin="external",
        ),
        replace(_HOME, name="udp-blocked", text="UDP does not pass; TCP does", udp=False),
        replace(_HOME, name="tcp-443", text="nothing but TCP to port 443 passes", udp=False, tcp_ports=(443,)),
        replace(
            _HOME,
            name="ipv6-firewall",
            text="IPv6 without translation, but nothing comes in unasked; IPv4 port-restricted",
            ipv6="firewall",
        ),
        replace(_HOME, name="offline", text="a router whose line is dead", line=False),
        replace(
            _HOME,
            name="upnp",
            text="port-restricted, and opens ports when asked by UPnP, NAT-PMP or PCP",
            port_mapping=frozenset(("nat-pmp", "pcp", "upnp")),
        ),
    )
}


def kind_named(name: str) -> RouterKind:
    """Return a kind. Raise ValueError that suggests the nearest name."""
    kind = KINDS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name.lower(), KINDS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(KINDS)}."
        raise ValueError(f"There is no kind of router {name[:40]!r}; {hint}")
    return kind
