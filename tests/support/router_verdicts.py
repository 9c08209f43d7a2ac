"""What a probe must find behind each kind of router: derived from the kind's parameters, in either world."""

from __future__ import annotations

from p2pnode.nat.behaviour import UNKNOWN
from p2pnode.simulations.probing.verdict import Verdict
from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.routers.words import INDEPENDENT, Rule

STRICTNESS: tuple[Rule, ...] = ("endpoint-independent", "address-dependent", "address-and-port-dependent")


def strictest(kind: RouterKind, name: str) -> Rule:
    """Of two routers in a row the stricter one is what is seen."""
    own: Rule = getattr(kind, name)
    return own if kind.carrier is None else max(own, getattr(kind.carrier, name), key=STRICTNESS.index)


def expected(kind: RouterKind) -> dict[str, object]:
    """Return the fields of the verdict that follow from the kind."""
    outer = kind.carrier or kind
    speaks = kind.udp and kind.line
    mapping = strictest(kind, "mapping") if speaks else UNKNOWN
    allocation = outer.ports if kind.ports == "preserving" else kind.ports
    # A router hairpins for its own hosts; behind two, the outer one does, where the inner one need not.
    hairpin = any(each.hairpin != "off" for each in (kind, kind.carrier) if each is not None)
    allowed = () if not kind.line else (443, 80, 3478) if kind.tcp_ports is None else kind.tcp_ports
    found = {
        "udp": speaks,
        "nat": kind.translates if speaks else None,
        "mapping": mapping,
        "filtering": strictest(kind, "filtering") if speaks else UNKNOWN,
        "allocation": allocation if speaks else UNKNOWN,
        "step": kind.step if speaks and kind.ports == "sequential" else None,
        # With another port for each destination the sender's hairpinned packet comes from one that nobody asked for.
        "hairpin": (not kind.translates or (hairpin and mapping == INDEPENDENT)) if speaks else None,
        "tcp": allowed,
        "inbound_refresh": kind.inbound_refresh if speaks and kind.translates else None,
        "ipv6": {"none": "none", "open": "open", "firewall": "firewalled"}[kind.ipv6],
    }
    for protocol in ("nat-pmp", "pcp", "upnp"):
        found[protocol.replace("-", "_")] = protocol in kind.port_mapping if kind.translates else None
    return found


def differences(verdict: Verdict, wanted: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return what is other than wanted: field to (found, wanted)."""
    return {name: (getattr(verdict, name), value) for name, value in wanted.items() if getattr(verdict, name) != value}
