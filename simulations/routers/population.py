"""How often each kind of router is met: populations of peers, from published measurements.

Each share says where it comes from. `measured` is a figure of the study; `derived` is computed from measured ones;
`assumed` was chosen by us because no study that we know gives it. docs/routers.md shows the calculation.

- Ford, Srisuresh, Kegel, "Peer-to-Peer Communication Across Network Address Translators", USENIX ATC 2005: 380 reports
  by volunteers; 82 % of routers keep UDP mappings consistent, 24 % hairpin UDP; 64 % are fit for TCP punching.
- Halkes, Pouwelse, "UDP NAT and Firewall Puncturing in the Wild", IFIP Networking 2011: 79 % of BitTorrent peers are
  not directly reachable, 64 % of all are behind something that punching passes, 11 % behind endpoint-dependent mapping;
  more than 80 % of attempts between punchable ones succeed.
- Richter et al., "A Multi-perspective Analysis of Carrier-Grade NAT Deployment", IMC 2016: carrier-grade NAT in 17 to
  18 % of non-cellular eyeball networks and over 92 % of cellular ones; of the latter's about 40 % symmetric and 20 %
  full cone, of the former's 11 % symmetric; symmetric home routers below 2 %. Counted by network, not by user.
- Langley et al., "The QUIC Transport Protocol", SIGCOMM 2017: 4.4 % of clients cannot use UDP (or have a small MTU).
- Trautwein et al., "Large Scale Measurement Campaign on Decentralized NAT Traversal", 2025: 70 +- 7.1 % of 4.4 million
  punching attempts succeed. Not an input here: what the shares are checked against.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from p2pnode.simulations.routers.kinds import RouterKind, kind_named

__all__ = ["POPULATIONS", "Population", "Share", "Traits"]


@dataclass(frozen=True)
class Share:
    """`share`: 0 to 1 of all peers."""

    kind: str
    share: float
    basis: Literal["measured", "derived", "assumed"]
    source: str


@dataclass(frozen=True)
class Traits:
    """What routers of translating kinds have besides, each with its own chance, independent of each other."""

    hairpin: float = 0.0
    ipv6: float = 0.0
    """Public IPv6 addresses behind a stateful firewall."""
    port_mapping: float = 0.0
    """UPnP, NAT-PMP and PCP."""


@dataclass(frozen=True)
class Population:
    """Shares sum up to 1."""

    name: str
    text: str
    shares: tuple[Share, ...]
    traits: Traits = Traits()

    def __post_init__(self) -> None:
        if abs(sum(each.share for each in self.shares) - 1) > 1e-9:
            raise ValueError(f"{self.name}: the shares sum up to {sum(each.share for each in self.shares):g}, not to 1")

    def draw(self, rng: random.Random) -> RouterKind:
        """Return the kind of the next peer; its name tells the traits: `port-restricted+ipv6`."""
        drawn = rng.choices(self.shares, [each.share for each in self.shares])[0]
        kind = kind_named(drawn.kind)
        chances = (rng.random(), rng.random(), rng.random())  # always three, so that kinds do not shift each other
        if not kind.translates:
            return kind
        traits = self.traits
        if chances[0] < traits.hairpin and kind.hairpin == "off":
            kind = replace(kind, name=f"{kind.name}+hairpin", hairpin="external")
        if chances[1] < traits.ipv6 and kind.ipv6 == "none":
            carrier = replace(kind.carrier, ipv6="open") if kind.carrier is not None else None
            kind = replace(kind, name=f"{kind.name}+ipv6", ipv6="firewall", carrier=carrier)
        if chances[2] < traits.port_mapping and not kind.port_mapping:
            kind = replace(kind, name=f"{kind.name}+upnp", port_mapping=frozenset(("nat-pmp", "pcp", "upnp")))
        return kind


_HALKES, _RICHTER, _LANGLEY, _FORD = "Halkes 2011", "Richter 2016", "Langley 2017", "Ford 2005"

# The factors of `field`. Measured:
_REACHABLE, _NO_UDP = 0.21, 0.044
_CARRIER_FIXED, _CARRIER_FIXED_SYMMETRIC = 0.175, 0.11
_CARRIER_MOBILE, _CARRIER_MOBILE_SYMMETRIC, _CARRIER_MOBILE_FULLCONE = 0.92, 0.40, 0.20
_HOME_SYMMETRIC, _HAIRPIN = 0.02, 0.24
# Assumed:
_MOBILE = 0.20  # of all peers
_ONLY_443 = 0.25  # of those without UDP
_SEQUENTIAL = 0.5  # of symmetric home routers
_LAX = 0.10  # of other home routers have a laxer filter than address and port; half of them none at all
_IPV6 = 0.45  # near the share of Google's users with IPv6, which the press put at 46 to 50 % in 2025 and 2026
_PORT_MAPPING = 0.30


def _field() -> tuple[Share, ...]:
    fixed, mobile = 1 - _MOBILE, _MOBILE
    behind = fixed * (1 - _REACHABLE - _NO_UDP)
    carrier, home = behind * _CARRIER_FIXED, behind * (1 - _CARRIER_FIXED)
    symmetric, plain = home * _HOME_SYMMETRIC, home * (1 - _HOME_SYMMETRIC)
    phones = mobile * _CARRIER_MOBILE
    phones_strict = phones * (1 - _CARRIER_MOBILE_SYMMETRIC - _CARRIER_MOBILE_FULLCONE)
    both = f"{_HALKES}, {_RICHTER}"
    return (
        Share("public", fixed * _REACHABLE + mobile * (1 - _CARRIER_MOBILE), "derived", both),
        Share("udp-blocked", fixed * _NO_UDP * (1 - _ONLY_443), "derived", _LANGLEY),
        Share("tcp-443", fixed * _NO_UDP * _ONLY_443, "derived", f"{_LANGLEY}; the split is assumed"),
        Share("cgnat", carrier * (1 - _CARRIER_FIXED_SYMMETRIC), "derived", _RICHTER),
        Share("cgnat-symmetric", carrier * _CARRIER_FIXED_SYMMETRIC, "derived", _RICHTER),
        Share(
            "symmetric",
            symmetric * (1 - _SEQUENTIAL) + phones * _CARRIER_MOBILE_SYMMETRIC,
            "derived",
            f"{_RICHTER}, homes and phones",
        ),
        Share("symmetric-sequential", symmetric * _SEQUENTIAL, "derived", f"{_RICHTER}; the split is assumed"),
        Share(
            "fullcone", plain * _LAX / 2 + phones * _CARRIER_MOBILE_FULLCONE, "derived", f"{_RICHTER}; homes assumed"
        ),
        Share("address-restricted", plain * _LAX / 2, "assumed", "no study tells it from port-restricted"),
        Share("port-restricted", plain * (1 - _LAX) + phones_strict, "derived", both),
    )


POPULATIONS: dict[str, Population] = {
    each.name: each
    for each in (
        Population(
            "field",
            "peers of today: homes, carriers and phones, each from its study",
            _field(),
            Traits(hairpin=_HAIRPIN, ipv6=_IPV6, port_mapping=_PORT_MAPPING),
        ),
        Population(
            "tribler-2010",
            "BitTorrent peers as Halkes and Pouwelse found them",
            (
                Share("public", 0.21, "measured", _HALKES),
                Share("port-restricted", 0.64 * 0.9, "derived", f"{_HALKES}; the split of the 64 % is assumed"),
                Share("address-restricted", 0.64 * 0.05, "assumed", _HALKES),
                Share("fullcone", 0.64 * 0.05, "assumed", _HALKES),
                Share("symmetric", 0.11, "measured", _HALKES),
                Share("udp-blocked", 0.04, "derived", f"{_HALKES}: what is left"),
            ),
            Traits(hairpin=_HAIRPIN),
        ),
    )
}
