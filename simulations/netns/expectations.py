"""What is right for a pair of networks: the path that must be found, or the honest refusal. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.simulations.netns.errors import LabError, nearest
from p2pnode.simulations.netns.kinds import ADDRESS_AND_PORT, INDEPENDENT, KINDS, PUBLIC

__all__ = ["ONE_CARRIER", "ONE_HAIRPIN_ROUTER", "ONE_ROUTER", "SHARED", "Expected", "Shared", "expected", "known_name"]

ONE_ROUTER, ONE_HAIRPIN_ROUTER, ONE_CARRIER = "one-router", "one-hairpin-router", "one-carrier"


@dataclass(frozen=True)
class Expected:
    """`results`: paths, or error codes, that are right. `reason`: why it cannot be better; empty for a connection.

    `within_s`: how long a connection may take. `direct_within_s`: how long a relayed one is watched for its direct
    path; 0: there is none.
    """

    results: tuple[str, ...]
    reason: str = ""
    within_s: float = 2.0
    direct_within_s: float = 0.0

    @property
    def connected(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Shared:
    """A cell of two hosts that share one router of `kind`; `home`: the kind of their own routers behind it, if any."""

    kind: str
    expected: Expected
    home: str = ""


LAN = Expected(("lan",))
DIRECT = Expected(("direct",))
PUNCHED = Expected(("punched",))
GUESSED = Expected(("punched", "relay"), direct_within_s=15.0)
"""By relay first; 98 of 100 move to a guessed port."""
RELAYED = Expected(("relay",))
"""Neither side can know the other's next public port."""
BY_TCP = Expected(("punched", "relay"), direct_within_s=5.0)
"""By relay first; then both connect to each other by TCP, where routers keep ports."""
BY_TCP_TO_MAPPED = Expected(("direct", "punched", "relay"), direct_within_s=5.0)
"""The same, and the hole is also there for a link to the address that the mapped side has published."""
BY_TLS = Expected(("direct", "relay"))
"""To a public node over TLS on TCP; until strangers have dialled that node back, it waits to be called, by relay."""
NO_LINE = Expected(("peer_not_found",), "there is no internet")

SHARED = {
    ONE_ROUTER: Shared("port-restricted", LAN),
    ONE_HAIRPIN_ROUTER: Shared("hairpin", LAN),
    ONE_CARRIER: Shared("carrier", PUNCHED, home="cgnat"),
}
"""Names that stand for both sides of a cell."""


def known_name(name: str) -> str:
    """Return a name of a kind, or of a shared router. Raise LabError that suggests the nearest."""
    if name not in KINDS and name not in SHARED:
        raise LabError(f"There is no kind of network {name[:40]!r}; {nearest(name, (*KINDS, *SHARED))}")
    return name


def expected(a: str, b: str) -> Expected:
    """Return what is right for two kinds, or twice a name of `SHARED`.

    RFC 5128, section 3.3 "UDP Hole Punching": one side's public port must be known to the other, unless that side lets
    in what comes from another port of an address that it sent to. One unknown port can be guessed, two can where both
    are given out in sequence (docs/reach.md).
    """
    if a == b and a in SHARED:
        return SHARED[a].expected
    kinds = (KINDS[a], KINDS[b])
    if not all(kind.line for kind in kinds):
        return NO_LINE
    if not all(kind.udp for kind in kinds):
        if not all(kind.tcp == "all" for kind in kinds):
            return RELAYED
        if PUBLIC in (a, b):
            return BY_TLS
        if not all(kind.mapping == INDEPENDENT for kind in kinds):
            return RELAYED
        return BY_TCP_TO_MAPPED if any(kind.port_mapping for kind in kinds) else BY_TCP
    if PUBLIC in (a, b) or any(kind.port_mapping for kind in kinds):
        return DIRECT
    easy = [kind for kind in kinds if kind.mapping == INDEPENDENT]
    if not easy:
        return GUESSED if all(kind.sequential for kind in kinds) else RELAYED
    return GUESSED if len(easy) == 1 and easy[0].filtering == ADDRESS_AND_PORT else PUNCHED
