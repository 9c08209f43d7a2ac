"""The words of RFC 4787 ("NAT Behavioral Requirements for Unicast UDP") and RFC 5382 (TCP), as spelled here."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Literal

from p2pnode.core.address import Address

__all__ = [
    "ADDRESS",
    "ADDRESS_AND_PORT",
    "INDEPENDENT",
    "Allocation",
    "Direction",
    "Protocol",
    "Rule",
    "Segment",
    "part",
]

Rule = Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"]
"""What of the remote address counts: of mappings section 4.1, of filters section 5."""
INDEPENDENT: Final = "endpoint-independent"
ADDRESS: Final = "address-dependent"
ADDRESS_AND_PORT: Final = "address-and-port-dependent"

Allocation = Literal["preserving", "sequential", "random"]
"""How the outside port is chosen: the inside one where it is free, the next one, any. Section 4.2."""
Protocol = Literal["udp", "tcp"]
Segment = Literal["", "syn", "syn-ack", "ack", "fin", "rst"]
"""What of a TCP segment a router looks at; data counts as `ack`. Empty for UDP."""
Direction = Literal["out", "in"]


def part(rule: Rule, remote: Address) -> Hashable:
    """Return what of a remote address a rule looks at."""
    if rule == INDEPENDENT:
        return None
    return remote.ip if rule == ADDRESS else remote
