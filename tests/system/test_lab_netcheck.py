"""A real node behind each kind of kernel router finds out which: `netcheck` says what the kind is proven to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.lab import WHOLE, require_lab

from p2pnode.api.netcheck_types import NetcheckAnswer
from p2pnode.simulations.netns import KINDS, Lab, LabSettings
from p2pnode.simulations.netns.kinds import NatKind
from p2pnode.simulations.netns.nodes import LabNode
from p2pnode.simulations.netns.proof import ALLOCATION

pytestmark = [pytest.mark.namespace, pytest.mark.slow]

CHECKED = tuple(KINDS) if WHOLE else ("public", "address-restricted", "symmetric-sequential", "udp-blocked")
MAPPING_S = 20.0
READY_S = 120.0  # twenty nodes start at once
AT_A_TIME = 3  # checks wait most of the time


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, LabNode]]:
    """A node in a home of each kind, joined through five public ones in both families."""
    require_lab()
    with Lab(LabSettings(mapping_s=MAPPING_S)) as lab:
        boots = lab.bootstrap(5 if WHOLE else 3)
        for boot in boots:
            boot.ready(READY_S)
        ipv6 = [f"--bootstrap={boot.peer_id}@[{boot.host.ipv6}]:4747" for boot in boots if boot.host.ipv6 is not None]
        made = {name: lab.join(name, lab.home(name, name), *ipv6) for name in CHECKED}
        for node in made.values():
            node.ready(READY_S)
        time.sleep(5)  # the links are warm, contacts have been met
        yield made


def differences(kind: NatKind, found: NetcheckAnswer, public_ip: str) -> dict[str, tuple[object, object]]:
    """Return what is other than the kind says: field to (found, right)."""
    right: dict[str, object] = {
        "udp": True if kind.has_internet else None if not kind.line else False,
        "internet": "yes" if kind.line else "no",
        "ipv6": kind.ipv6,
    }
    got: dict[str, object] = {"udp": found.udp, "internet": found.internet, "ipv6": found.ipv6 is not None}
    if kind.has_internet:
        assert found.ipv4 is not None
        right |= {
            "public": public_ip,
            "nat": kind.is_router,
            "mapping": kind.mapping,
            "filtering": kind.filtering,
            "allocation": "preserving" if kind.port_kept else ALLOCATION[kind.outermost.ports],
            "hairpin": kind.outermost.hairpin if kind.is_router else None,
            "firewall": None if kind.is_router else False,
            "mtu": 1500,
        }
        got |= {name: getattr(found.ipv4, name) for name in right.keys() - got.keys()}
    if kind.ipv6 and found.ipv6 is not None:
        right |= {"IPv6 firewall": kind.is_router, "IPv6 mapping": "endpoint-independent"}
        got |= {"IPv6 firewall": found.ipv6.firewall, "IPv6 mapping": found.ipv6.mapping}
    if kind.is_router:
        right["portmap"] = dict.fromkeys(("nat-pmp", "pcp", "upnp"), kind.port_mapping)
        got["portmap"] = found.portmap
    return {name: (got[name], value) for name, value in right.items() if got[name] != value}


def test_every_kernel_router_is_recognised(nodes: dict[str, LabNode]) -> None:
    """What differs is asked for once more: a busy machine answers late."""

    def check(name: str) -> tuple[NetcheckAnswer, dict[str, tuple[object, object]]]:
        for _ in range(2):
            found = nodes[name].netcheck()
            wrong = differences(KINDS[name], found, nodes[name].host.public_ip)
            if not wrong:
                break
        return found, wrong

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        results = dict(zip(CHECKED, pool.map(check, CHECKED), strict=True))
    for name, (found, wrong) in results.items():
        print(f"{name}: {found.packets} datagrams, {found.seconds:.1f} s, {found.advice_codes} {wrong or ''}")
    assert not {name: wrong for name, (_, wrong) in results.items() if wrong}


def test_text_of_the_command(nodes: dict[str, LabNode]) -> None:
    """As people see it, behind a router that gives each destination the next port."""
    shown = nodes["symmetric-sequential"].cli("netcheck").stdout
    print(shown)
    assert "address-and-port-dependent" in shown
    assert "sequential, by 1" in shown
    assert max(map(len, shown.splitlines())) < 80
