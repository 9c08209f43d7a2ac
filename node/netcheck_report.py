"""What `netcheck` found. Whatever could not be found out is None or `unknown`; each verdict has its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.nat.behaviour import UNKNOWN

__all__ = ["Advice", "FamilyReport", "InterfaceReport", "NetcheckReport"]


@dataclass(frozen=True, slots=True)
class Advice:
    """`code` is stable; `text`: plain words."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class InterfaceReport:
    """`kind`: loopback, real, vpn or container; `advertised`: whether others hear of its addresses."""

    name: str
    kind: str
    addresses: tuple[str, ...]
    advertised: bool


@dataclass(slots=True)
class FamilyReport:
    """One address family. `evidence`: by field name, in plain words."""

    public: str | None = None
    """Our address as others see it."""
    nat: bool | None = None
    """Whether that is another than our own."""
    mapping: str = UNKNOWN
    """Without a NAT `endpoint-independent`."""
    filtering: str = UNKNOWN
    allocation: str = UNKNOWN
    """How public ports are given out: preserving, sequential, random."""
    step: int | None = None
    """Between sequential ports."""
    mapping_lifetime_s: int | None = None
    lifetime_open: bool = False
    """Whether a mapping lives at least so long, and perhaps longer."""
    hairpin: bool | None = None
    """Whether two sockets behind the router meet at its public address; None without a NAT."""
    firewall: bool | None = None
    """Without a NAT: whether something drops what comes unasked."""
    mtu: int | None = None
    """Bytes of the largest IP packet that reached a node: 1500 at most is tried."""
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class NetcheckReport:
    """The whole verdict. `internet`: yes, no, captive-portal or unknown."""

    udp: bool | None = None
    internet: str = UNKNOWN
    ipv4: FamilyReport | None = None
    ipv6: FamilyReport | None = None
    portmap: dict[str, bool | None] = field(default_factory=lambda: {"nat-pmp": None, "pcp": None, "upnp": None})
    """None: not asked."""
    routers: int | None = None
    """How many translate one after the other, as far as it shows: 2 means at least 2."""
    interfaces: tuple[InterfaceReport, ...] = ()
    advice: tuple[Advice, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    helpers: int = 0
    """Nodes that were asked."""
    packets: int = 0
    """Datagrams that this cost us, without the background's search for the lifetime."""
    seconds: float = 0.0
