"""Kernel routers that forget quiet flows after 20 s: real nodes measure it, and keep their flows alive with it.

Ten routers at once, of kinds that translate differently: ten measurements in the time of one, about seven minutes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.lab import WHOLE, require_lab

from p2pnode.mapping_life import keep_alive_for
from p2pnode.simulations.netns import Lab, LabSettings
from p2pnode.simulations.netns.nodes import LabNode

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.slow,
    pytest.mark.skipif(not WHOLE, reason="takes seven minutes: P2PNODE_LAB=full"),
]

FORGETS_S = 20.0
KINDS = ("port-restricted", "symmetric", "cgnat", "address-restricted", "symmetric-sequential") * 2
READY_S = 120.0  # sixteen nodes start at once
FOUND_S = 900.0
WATCHED_S = 60.0  # three renewals of each flow
LOOK_S = 0.5
_ENTRY = re.compile(r"\budp\b .*?\bdst=(\S+) sport=4747 dport=(\d+) .*?\bdst=\S+ sport=\d+ dport=(\d+)")


def flows_of(node: LabNode) -> dict[str, str]:
    """The flows of the node's socket that its router knows now: far address to outside port, both as text."""
    router = node.host.router
    assert router is not None
    found = (_ENTRY.search(line) for line in router.conntrack())
    return {f"{entry[1]}:{entry[2]}": entry[3] for entry in found if entry is not None}


def watched(node: LabNode, seconds: float) -> tuple[int, set[str]]:
    """Return how often the router was looked at, and at which rendezvous nodes the flow was missing or another one."""
    first, wanted = flows_of(node), set(node.status().rendezvous)
    ended = time.monotonic() + seconds
    looks, lost = 0, set()
    while time.monotonic() < ended:
        now = flows_of(node)
        lost |= {each for each in wanted if now.get(each) is None or now[each] != first.get(each)}
        looks += 1
        time.sleep(LOOK_S)
    return looks, lost


def of_all(nodes: dict[str, LabNode], ask: Callable[[LabNode], object]) -> dict[str, object]:
    with ThreadPoolExecutor(len(nodes)) as pool:
        return dict(zip(nodes, pool.map(ask, nodes.values()), strict=True))


def test_the_kernels_memory_of_flows_is_measured_and_used() -> None:
    """Found to 2.5 s behind each router; from then on no flow to a rendezvous node is forgotten, and a stranger who
    calls after minutes of quiet gets through."""
    require_lab()
    with Lab(LabSettings(mapping_s=FORGETS_S)) as lab:
        boots = lab.bootstrap(5)
        for boot in boots:
            boot.ready(READY_S)
        nodes = {f"{kind}-{i}": lab.join(f"home{i}", lab.home(f"home{i}", kind)) for i, kind in enumerate(KINDS)}
        for node in nodes.values():
            node.ready(READY_S)
        time.sleep(30)  # joining's flows have ended; from here on the 25 s of a node that knows nothing are too slow
        _, before = watched(next(iter(nodes.values())), 60)
        assert before, "the router forgets nothing: there is nothing to measure"

        def measured(node: LabNode) -> float:
            deadline = time.monotonic() + FOUND_S
            while (flows := node.status().flows).mapping_lifetime_s is None:
                assert time.monotonic() < deadline, f"{node.name}: not within {FOUND_S:g} s"
                time.sleep(2)
            assert flows.keep_alive_s == keep_alive_for(flows.mapping_lifetime_s)
            return flows.mapping_lifetime_s

        found = of_all(nodes, measured)
        print(f"\nmeasured, of {FORGETS_S:g} s: {found}")
        for name, seconds in found.items():
            assert isinstance(seconds, float), name
            assert FORGETS_S - 2.5 <= seconds <= FORGETS_S + 1.5, name
        time.sleep(FORGETS_S + 5)  # each flow was renewed once at the new pace
        kept = of_all(nodes, lambda node: watched(node, WATCHED_S))
        print(f"looks, and flows lost, in {WATCHED_S:g} s: {kept}")
        assert not {name: lost for name, (_, lost) in kept.items() if lost}  # type: ignore[misc]
        caller = lab.join("caller", lab.public("caller"))
        caller.ready()
        for name, node in nodes.items():
            answer = caller.connect(node)
            assert answer.path in ("direct", "punched"), (name, answer)
