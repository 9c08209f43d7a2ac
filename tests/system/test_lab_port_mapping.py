"""A real miniupnpd opens a port for a real node: proven, published, dialled by a stranger, opened again, closed."""

from __future__ import annotations

import subprocess

import pytest
from support.lab import require_lab, until

from p2pnode.api.types import PortMapping
from p2pnode.simulations.netns import Lab
from p2pnode.simulations.netns.nodes import LabNode
from p2pnode.simulations.netns.spaces import find_tool
from p2pnode.simulations.netns.topology import Router

pytestmark = [pytest.mark.namespace, pytest.mark.slow]


def mapping_of(node: LabNode) -> PortMapping:
    return next(each for each in node.status().port_mapping if each.internal is None or "[" not in each.internal)


def rules(router: Router) -> str:
    """The router's nftables rules: miniupnpd's openings are some of them."""
    list_rules = [find_tool("nft"), "list", "ruleset"]
    return router.space.run(lambda: subprocess.run(list_rules, capture_output=True, text=True, check=True).stdout)


def test_miniupnpd_makes_a_peer_direct() -> None:
    """Behind a port-restricted router that opens ports, called from behind a symmetric one: direct, at the mapped
    address; after the daemon's restart again; when the node leaves the port is closed."""
    require_lab()
    with Lab() as lab:
        boots = lab.bootstrap(3)
        for number in (1, 2):
            lab.join(f"public{number}", lab.public(f"node{number}"))
        home = lab.home("home", "upnp")
        router = home.router
        assert router is not None
        mapped = lab.join("mapped", home)
        stranger = lab.join("stranger", lab.home("far", "symmetric"))
        for node in (*boots, mapped, stranger):
            node.ready()
        seconds = until(lambda: mapping_of(mapped).state == "believed", 30, "the port is believed")
        mapping = mapping_of(mapped)
        print(f"\nbelieved after {seconds:.1f} s: {mapping}")
        assert mapping.external is not None
        assert mapping.external.startswith(router.public_ip)
        assert mapping.protocol == "pcp"
        assert mapping.external in mapped.status().addresses
        shown = mapped.cli("status").stdout
        assert f"{mapping.external} by pcp, " in shown, shown
        answer = stranger.connect(mapped)
        assert answer.path == "direct", answer
        assert router.port_mapper is not None
        router.port_mapper.restart()
        until(lambda: (mapping_of(mapped).lifetime_left_s or 0) > 7195, 30, "the port is open again")
        other = lab.join("other", lab.home("farther", "symmetric"))
        other.ready()
        assert other.connect(mapped).path == "direct"
        assert "dport 4747" in rules(router)
        assert mapped.stop() == 0
        assert "dport 4747" not in rules(router)


def test_miniupnpd_by_upnp_alone() -> None:
    """Where a router answers neither PCP nor NAT-PMP: found by SSDP, asked by SOAP, given back."""
    require_lab()
    with Lab() as lab:
        lab.bootstrap(3)
        home = lab.home("home", "upnp")
        router = home.router
        assert router is not None
        router.space.nft(
            "table inet silent { chain in { type filter hook input priority -9;\nudp dport 5351 drop\n}\n}"
        )
        mapped = lab.join("mapped", home)
        mapped.ready()
        seconds = until(lambda: mapping_of(mapped).state == "believed", 40, "the port is believed")
        mapping = mapping_of(mapped)
        print(f"\nbelieved after {seconds:.1f} s: {mapping}")
        assert mapping.protocol == "upnp"
        assert mapping.external == f"{router.public_ip}:4747"
        assert "dport 4747" in rules(router)
        assert mapped.stop() == 0
        assert "dport 4747" not in rules(router)
