"""Which interfaces are VPNs and container bridges, and what is advertised."""

import pytest

from p2pnode.core.network import Interface
from p2pnode.interfaces import InterfaceKind, advertised, classify

CASES = {
    InterfaceKind.LOOPBACK: ["lo", "lo0", "Loopback Pseudo-Interface 1"],
    InterfaceKind.REAL: ["eth0", "enp3s0", "wlan0", "en0", "Wi-Fi", "Ethernet 2", "br0", "bridge0", "bond0", "usb0",
                         "wwan0", "rmnet_data0", "tether", "p2p0", "eno1.20", "tunnelbear"],
    InterfaceKind.VPN: ["tun0", "tap1", "wg0", "wg-office", "ppp0", "utun3", "tailscale0", "Tailscale", "ztabcdef12",
                        "nordlynx", "OpenVPN Wintun", "WireGuard Tunnel"],
    InterfaceKind.CONTAINER: ["docker0", "docker_gwbridge", "br-1f2e3d4c5b6a", "veth12ab", "virbr0", "cni0", "cali1a2b",
                              "vmnet8", "vEthernet (WSL)", "VirtualBox Host-Only Network", "bridge100", "lxdbr0"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in CASES.items() for name in names])
def test_interfaces_are_recognised_by_name(kind: InterfaceKind, name: str) -> None:
    """The default names of each system's interfaces give their kind."""
    ip = "127.0.0.1" if kind is InterfaceKind.LOOPBACK else "192.168.1.7"
    assert classify(Interface(name, (ip,))) is kind


LO = Interface("lo", ("127.0.0.1", "::1"))
CARD = Interface("eth0", ("192.168.1.7",))
DOCKER = Interface("docker0", ("172.17.0.1",))
VPN = Interface("wg0", ("10.8.0.2",))


def test_vpn_and_container_addresses_are_not_advertised() -> None:
    """Beside a real interface they are left out."""
    assert advertised([LO, CARD, DOCKER, VPN]) == [LO, CARD]


@pytest.mark.parametrize("card", [None, Interface("eth0", ("fe80::1",)), Interface("eth0", ())])
def test_host_that_has_nothing_else_still_works(card: Interface | None) -> None:
    """Without a usable address on a real interface all are advertised."""
    interfaces = [LO, *([card] if card else []), DOCKER, VPN]
    assert advertised(interfaces) == interfaces


def test_host_without_network_keeps_loopback() -> None:
    """One machine on its own is a network too."""
    assert advertised([LO]) == [LO]
    assert advertised([]) == []
