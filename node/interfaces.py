"""What kind of network interface has which address, by name. Pure.

Containers' bridges and VPNs have addresses that look like a LAN's, and no peer on the LAN can use them: advertised,
they cost every caller a dial into the void, and a VPN's tells where somebody works. Names differ by system: Linux and
the BSDs say what an interface is, macOS and Windows nearly so. What no pattern knows counts as a real interface: a
wrongly advertised address costs a packet, a wrongly hidden one a connection.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from p2pnode.core.address import Scope, scope_of
from p2pnode.core.network import Interface

__all__ = ["InterfaceKind", "advertised", "classify"]


class InterfaceKind(enum.Enum):
    """What an interface is for."""

    LOOPBACK = "loopback"
    REAL = "real"
    VPN = "vpn"
    CONTAINER = "container"
    """Bridges and pairs of virtual machines and containers on this host."""


# Lower case; the first pattern that fits decides. Chosen by us, from the names that each program gives by default.
_PATTERNS: tuple[tuple[InterfaceKind, tuple[str, ...]], ...] = (
    (
        InterfaceKind.VPN,
        (
            "tun[0-9]*", "tap[0-9]*", "wg*", "ppp[0-9]*", "utun[0-9]*", "ipsec*", "tailscale*", "zt*", "nordlynx*",
            "proton*", "mullvad*", "vpn*", "gpd[0-9]*", "cscotun*", "nebula*", "feth[0-9]*", "*wireguard*", "*openvpn*",
            "*wintun*", "*anyconnect*", "*tap-windows*", "*zerotier*",
        ),
    ),
    (
        InterfaceKind.CONTAINER,
        (
            "docker*", "br-*", "veth*", "virbr*", "vnet[0-9]*", "vmnet*", "cni*", "cali*", "flannel*", "cilium*",
            "lxcbr*", "lxdbr*", "incusbr*", "podman*", "kube-*", "vboxnet*", "vethernet*", "*virtualbox*", "*vmware*",
            "bridge[0-9][0-9][0-9]*",  # macOS: virtual machines' bridges begin at 100
        ),
    ),
)  # fmt: skip


def classify(interface: Interface) -> InterfaceKind:
    """Return what an interface is, by its name and addresses.

    A bridge called `br0` or `bridge0` is real: it usually joins a host's own card to its LAN.
    """
    if interface.addresses and all(scope_of(ip) is Scope.LOOPBACK for ip in interface.addresses):
        return InterfaceKind.LOOPBACK
    return _by_name(interface.name.lower())


@lru_cache(maxsize=256)  # asked several times a minute, for ever, of the few names that a host has
def _by_name(name: str) -> InterfaceKind:
    for kind, patterns in _PATTERNS:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return kind
    return InterfaceKind.REAL


def advertised(interfaces: Iterable[Interface]) -> list[Interface]:
    """Return the interfaces whose addresses others should hear of: loopback and real ones.

    A host whose only usable addresses are a VPN's or a container's (a phone's tether, a laboratory, a container whose
    card is called `tun0`) has nothing better: then all are returned.
    """
    every = list(interfaces)
    chosen = [i for i in every if classify(i) in (InterfaceKind.LOOPBACK, InterfaceKind.REAL)]
    return chosen if any(_usable(i) for i in chosen) else every


def _usable(interface: Interface) -> bool:
    return any(scope_of(ip) not in (Scope.LOOPBACK, Scope.LINK_LOCAL) for ip in interface.addresses)
