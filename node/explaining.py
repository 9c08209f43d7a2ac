"""Why a session has the path that it has: a stable code, and a sentence or two for people. Pure.

docs/reasons.md lists every code; a test compares the page with this module. What is said rests on what this node knows
itself, and on what the peer said of its own router in its offer or answer: about a router, nobody else can tell.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from p2pnode.core.address import Address, Scope
from p2pnode.reachability import NatKind

__all__ = ["Between", "Explanation", "PathReason", "PathView", "explain"]


class PathReason(enum.Enum):
    """Why a path is what it is. The values are stable: added to, never renamed."""

    SAME_MACHINE = "same_machine"
    LAN = "lan"
    PEER_IS_PUBLIC = "peer_is_public"
    BY_TLS = "by_tls"
    WE_ARE_PUBLIC = "we_are_public"
    OUR_PORT_IS_MAPPED = "our_port_is_mapped"
    PUNCHED = "punched"
    PUNCHED_FIREWALLS = "punched_firewalls"
    PUNCHED_TCP = "punched_tcp"
    PUNCHED_RANDOM_PORT = "punched_random_port"
    RELAY_BOTH_RANDOM = "relay_both_random"
    RELAY_OUR_RANDOM_PORT = "relay_our_random_port"
    RELAY_THEIR_RANDOM_PORT = "relay_their_random_port"
    RELAY_OUR_UDP_BLOCKED = "relay_our_udp_blocked"
    RELAY_THEIR_UDP_BLOCKED = "relay_their_udp_blocked"
    RELAY_NOTHING_PASSED = "relay_nothing_passed"
    RELAY_PATH_DIED = "relay_path_died"
    RELAY_ONLY = "relay_only"


@dataclass(frozen=True, slots=True)
class Between:
    """The routers between two nodes, as both sides see their own when they meet. `hidden`: one side told no address."""

    own: NatKind
    theirs: NatKind
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class PathView:
    """What is known of a session's path.

    `path`: as in `connect --json`. `remote`: where packets go, of a relayed path the relay. `dialled`: by us.
    `between`: None where the two never met through rendezvous nodes. `was_direct`: it had a direct path before.
    `mapping`: the state of our own port mapping in the family of `remote`, as in `PortMappingStatus`. `udp_blocked`:
    no UDP passes here, so packets travel inside TLS.
    """

    path: str
    remote: Address
    dialled: bool
    between: Between | None
    was_direct: bool
    mapping: str
    udp_blocked: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """`text`: one or two sentences."""

    reason: PathReason
    text: str


DEPENDENT = (NatKind.ADDRESS_DEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT)


def explain(view: PathView) -> Explanation:
    """Say why a session's path is what it is."""
    if view.path == "relay":
        return _relayed(view)
    return _punched(view) if view.path == "punched" else _dialled(view)


def _dialled(view: PathView) -> Explanation:
    if view.remote.scope is Scope.LOOPBACK:
        return Explanation(PathReason.SAME_MACHINE, "Direct: both nodes run on this machine.")
    if view.path == "lan":
        return Explanation(PathReason.LAN, "Direct on the local network, past every router.")
    if view.udp_blocked:
        return Explanation(
            PathReason.BY_TLS,
            f"Direct to {view.remote}, but inside TLS on TCP, since our network lets no UDP pass. Letting UDP out would"
            " make it faster.",
        )
    if view.dialled:
        return Explanation(PathReason.PEER_IS_PUBLIC, f"Direct: the peer can be dialled by anybody, at {view.remote}.")
    if view.mapping == "believed":
        return Explanation(
            PathReason.OUR_PORT_IS_MAPPED, "Direct: the peer dialled the port that our router opened for this node."
        )
    return Explanation(PathReason.WE_ARE_PUBLIC, "Direct: the peer dialled this node, which anybody can dial.")


def _punched(view: PathView) -> Explanation:
    between = view.between
    if view.remote.is_link:
        return Explanation(
            PathReason.PUNCHED_TCP,
            "Direct by TCP, because UDP is blocked: both sides connected to each other at the same time.",
        )
    if view.remote.is_ipv6:
        return Explanation(
            PathReason.PUNCHED_FIREWALLS,
            "Direct by IPv6: both sides sent at the same time, so each firewall let the other side's packets in.",
        )
    if between is not None and (between.own in DEPENDENT or between.theirs in DEPENDENT):
        whose = "our router" if between.own in DEPENDENT else "the peer's router"
        return Explanation(
            PathReason.PUNCHED_RANDOM_PORT,
            f"Direct through both routers, although {whose} chooses a new port for each destination (symmetric NAT):"
            " the port was guessed, or learnt from the first packet that came.",
        )
    return Explanation(
        PathReason.PUNCHED,
        "Direct through both routers: each side learnt from rendezvous nodes how the other looks from outside, and both"
        " sent at the same time.",
    )


def _relayed(view: PathView) -> Explanation:
    start = f"Relayed through {view.remote}, because"
    between = view.between
    if between is None:
        return Explanation(
            PathReason.RELAY_PATH_DIED if view.was_direct else PathReason.RELAY_NOTHING_PASSED,
            f"{start} {'the direct path has died' if view.was_direct else 'no direct way has worked so far'}."
            " A direct one is taken as soon as there is one.",
        )
    if between.hidden:
        return Explanation(
            PathReason.RELAY_ONLY, f"{start} one side tells no peer its address (--relay-only). It stays so."
        )
    if NatKind.UDP_BLOCKED in (between.own, between.theirs):
        ours = between.own is NatKind.UDP_BLOCKED
        whose = "our" if ours else "the peer's"
        return Explanation(
            PathReason.RELAY_OUR_UDP_BLOCKED if ours else PathReason.RELAY_THEIR_UDP_BLOCKED,
            f"{start} {whose} network lets no UDP pass; everything goes by TLS on TCP there. A firewall that lets UDP"
            " out would make it direct.",
        )
    ours, theirs = between.own in DEPENDENT, between.theirs in DEPENDENT
    if ours and theirs:
        return Explanation(
            PathReason.RELAY_BOTH_RANDOM,
            f"{start} both routers choose a new random port for each destination (symmetric NAT)."
            f" {_advice(view.mapping)}",
        )
    if ours or theirs:
        reason = PathReason.RELAY_OUR_RANDOM_PORT if ours else PathReason.RELAY_THEIR_RANDOM_PORT
        whose, other = ("our router", "the peer's") if ours else ("the peer's router", "ours")
        return Explanation(
            reason,
            f"{start} {whose} chooses a new port for each destination (symmetric NAT), and {other} lets in only what"
            f" was asked for at exactly that port. {_advice(view.mapping)}",
        )
    if view.was_direct:
        return Explanation(
            PathReason.RELAY_PATH_DIED,
            f"{start} the direct path has died. Another one is taken as soon as there is one.",
        )
    return Explanation(
        PathReason.RELAY_NOTHING_PASSED,
        f"{start} no packet got through between the two routers; a firewall may stand there. {_advice(view.mapping)}",
    )


def _advice(mapping: str) -> str:
    """Say what would make it direct. `mapping`: as in `PathView`."""
    if mapping == "off":
        return "Port mapping is switched off here (--no-portmap): allowing it may make this direct."
    if mapping == "refused":
        return "Our router refuses to open ports: allowing it there, or on the peer's router, would make this direct."
    if mapping == "unproven":
        return "Our router says that it opened a port, but nobody gets in: it may stand behind another router."
    return "Enabling UPnP, NAT-PMP or PCP on either router would make it direct."
