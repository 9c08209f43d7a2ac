"""Default routes: what systems print, and what this one says. No packet is sent."""

from __future__ import annotations

import asyncio

from p2pnode.core.real_network import RealNetwork
from p2pnode.core.routes import parse_linux_ipv4, parse_linux_ipv6, parse_route_get


def test_linux_default_routes() -> None:
    """The lowest metric wins; routes through an interface alone, and unreachable ones, name no gateway."""
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    lines = (
        "tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n"
        "wlan0\t00000000\t0107A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\nbroken\n"
    )
    assert parse_linux_ipv4(head + lines) == "192.168.1.1"
    assert parse_linux_ipv4(head) is None
    zeros, gateway = "0" * 32, "fe80000000000000020000fffe000001"
    six = (
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
        f"{zeros} 00 {zeros} 00 {gateway} 00000400 00000003 00000000 00450003     eth0\n"
        f"20010db8{'0' * 24} 40 {zeros} 00 {zeros} 00000100 00000002 00000000 00000001     eth0\n"
    )
    assert parse_linux_ipv6(six) == "fe80::200:ff:fe00:1%eth0"
    assert parse_linux_ipv6("") is None


def test_route_get_of_macos_and_the_bsds() -> None:
    """route(8) prints one value a line; a tunnel's route has an interface and no gateway."""
    text = "   route to: default\ndestination: default\n       mask: default\n    gateway: {}\n  interface: en0\n"
    assert parse_route_get(text.format("192.168.1.1")) == "192.168.1.1"
    assert parse_route_get(text.format("fe80::1%en0")) == "fe80::1%en0"
    assert parse_route_get(text.format("link#12")) is None
    assert parse_route_get("   route to: default\n  interface: utun3\n") is None


def test_our_address_toward_the_gateway_is_one_of_ours() -> None:
    """On this machine: at most one gateway of each family, and the address that packets to it would leave from."""
    network = RealNetwork()
    gateways = asyncio.run(network.gateways())
    ours = {ip for interface in network.interfaces() for ip in interface.addresses}
    assert all(gateway.local in ours and gateway.ip not in ours for gateway in gateways)
    assert len({":" in gateway.ip for gateway in gateways}) == len(gateways)
