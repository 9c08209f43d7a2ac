"""What to do about what was found: plain words. Pure."""

from __future__ import annotations

from p2pnode.core.address import Scope, scope_of
from p2pnode.nat.behaviour import ADDRESS_AND_PORT, INDEPENDENT, SEQUENTIAL, UNKNOWN
from p2pnode.netcheck_report import Advice, FamilyReport, NetcheckReport

__all__ = ["advice_for"]

SHORT_LIFE_S = 30
LEAST_MTU = 1280  # IPv6's; our largest datagrams with all headers
OPEN_PORT = "Switch on UPnP, NAT-PMP or PCP in the router, or forward this node's UDP port there"


def advice_for(report: NetcheckReport) -> tuple[Advice, ...]:
    """Return what helps most first; never empty."""
    found = [*_outside(report)]
    if report.udp:
        if report.ipv4 is not None:
            found += _ipv4(report, report.ipv4)
        found += _ipv6(report)
    vpns = [i.name for i in report.interfaces if i.kind == "vpn" and not i.advertised]
    if vpns:
        text = f"The addresses of {_and(vpns)} (a VPN) are told to nobody, since they mean nothing to others."
        found.append(Advice("vpn_hidden", text))
    if not found:
        found.append(Advice("nothing_to_do", "Nothing to do: others reach this node directly."))
    return tuple(found)


def _outside(report: NetcheckReport) -> list[Advice]:
    if report.internet == "captive-portal":
        text = "A login page stands before the internet: open any web page in a browser, and log in."
        return [Advice("captive_portal", text)]
    if report.internet == "no":
        text = "There is no way to the internet: look at the cable, the Wi-Fi, the router. On this network all goes on."
        return [Advice("no_internet", text)]
    if report.udp is False:
        text = (
            "UDP does not pass this network's firewall. Ask its administrator to let outgoing UDP through, or use"
            " another network; until then there is no direct way to most peers."
        )
        return [Advice("udp_blocked", text)]
    if not report.udp:
        text = "No node of the public network answered: join one first (--bootstrap ID@HOST:PORT), then check again."
        return [Advice("nobody_asked", text)]
    if report.helpers < 2:
        return [Advice("too_few_nodes", "One node is known; two can tell more. Check again when others have joined.")]
    return []


def _ipv4(report: NetcheckReport, ipv4: FamilyReport) -> list[Advice]:
    found = []
    if ipv4.nat and ipv4.mapping not in (INDEPENDENT, UNKNOWN):
        order = "in sequence" if ipv4.allocation == SEQUENTIAL else "of its own choice"
        text = (
            f"The router gives each destination another public port, {order} (a symmetric NAT): peers behind a like"
            f" router are reached through relays. {OPEN_PORT}, and they are reached directly."
        )
        found.append(Advice("symmetric_nat", text))
    elif ipv4.nat and ipv4.filtering == ADDRESS_AND_PORT and not any(report.portmap.values()):
        text = (
            f"The router lets in answers only, as most do: most peers are reached directly. {OPEN_PORT} to reach all."
        )
        found.append(Advice("strict_filter", text))
    shared = any(scope_of(ip) is Scope.SHARED for i in report.interfaces if i.advertised for ip in i.addresses)
    if report.routers == 2 and not shared:
        text = "Two routers translate, one behind the other: make one of them a bridge, or open the port in both."
        found.append(Advice("double_nat", text))
    if shared:
        text = "The provider translates addresses too (carrier-grade NAT, 100.64.0.0/10): ask it for a public address."
        found.append(Advice("carrier_nat", text))
    if ipv4.firewall:
        text = "A firewall drops what comes unasked: let UDP to this node's port through, and anybody can reach it."
        found.append(Advice("firewall", text))
    life = ipv4.mapping_lifetime_s
    if life is not None and life < SHORT_LIFE_S and not ipv4.lifetime_open:
        text = f"The router forgets quiet connections after {life} s, so more packets are needed to stay reachable."
        found.append(Advice("short_lifetime", text))
    return found + _mtu(ipv4)


def _ipv6(report: NetcheckReport) -> list[Advice]:
    if report.ipv6 is None:
        if report.ipv4 is not None and report.ipv4.nat:
            text = "There is no IPv6. If the provider offers it, switch it on: it needs no translation."
            return [Advice("no_ipv6", text)]
        return []
    found = []
    if report.ipv6.firewall:
        text = "The IPv6 firewall drops what comes unasked; that is well as it is, peers that both call get through."
        found.append(Advice("ipv6_firewall", text))
    return found + _mtu(report.ipv6)


def _mtu(family: FamilyReport) -> list[Advice]:
    if family.mtu is None or family.mtu >= LEAST_MTU:
        return []
    text = f"Packets above {family.mtu} bytes do not pass; often a VPN is why. Connections may fail."
    return [Advice("small_mtu", text)]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
