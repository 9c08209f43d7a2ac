"""TCP hole punches in the laboratory: many pairs between networks without UDP, and with one that has it."""

from __future__ import annotations

import time

import pytest
from support.lab import WHOLE, require_lab

from p2pnode.simulations.netns import Lab, LabSettings

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.slow,
    pytest.mark.skipif(not WHOLE, reason="half a minute of real time: P2PNODE_LAB=full"),
]

BAR_S, SHARE = 3.0, 0.9
CALLERS, CALLEES = ("udp-blocked",) * 4, ("udp-blocked", "port-restricted") * 2


def test_nine_in_ten_pairs_without_udp_are_direct_within_three_seconds() -> None:
    """Sixteen pairs, called from either side, each once: nodes that have punched before punch again at once."""
    require_lab()
    with Lab(LabSettings()) as lab:
        lab.bootstrap(3)
        left = [lab.join(f"l{n}", lab.home(f"home-l{n}", kind)) for n, kind in enumerate(CALLERS)]
        right = [lab.join(f"r{n}", lab.home(f"home-r{n}", kind)) for n, kind in enumerate(CALLEES)]
        lab.prove([node.host for node in (*left, *right)])
        for node in (*left, *right):
            node.ready()
        taken: list[float] = []
        for number, (one, other) in enumerate((one, other) for one in left for other in right):
            caller, callee = (one, other) if number % 2 else (other, one)
            began = time.monotonic()
            caller.connect(callee)
            while caller.path_to(callee) != "punched" and time.monotonic() < began + 2 * BAR_S:
                time.sleep(0.05)
            taken.append(time.monotonic() - began)
    print("direct by TCP after", ", ".join(f"{seconds:.2f}" for seconds in sorted(taken)), "s")
    assert sum(seconds <= BAR_S for seconds in taken) >= SHARE * len(taken)
