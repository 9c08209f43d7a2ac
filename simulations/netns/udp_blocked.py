"""`lab udp-blocked`: what a node says where no UDP passes, and what it does once UDP passes again."""

from __future__ import annotations

import time
from collections.abc import Callable

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import Recorder, Table
from p2pnode.simulations.netns.kinds import kind_named
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode

__all__ = ["run"]

KINDS = ("udp-blocked", "tcp-443")
UNBLOCKED_S = 30.0  # a node looks every 5 s whether UDP passes
RELAYED_S = 2.0  # 1.0 in virtual time; here processes share two cores


def run(lab: Lab, found: Recorder, tell: Callable[[str], None]) -> None:
    """Two networks without UDP, and a peer outside: they join by TLS on TCP, and call and are called by relay."""
    tell("Starting nodes")
    lab.bootstrap(3)
    outside = lab.join("outside", lab.home("outside", "port-restricted"))
    blocked = [lab.join(kind, lab.home(f"home-{kind}", kind)) for kind in KINDS]
    lab.prove([node.host for node in (outside, *blocked)])
    outside.ready()
    rows: list[list[str | float | int | None]] = []
    for node in blocked:
        tell(f"Asking the node behind {node.name}")
        node.ready()
        status = node.status()
        # Each pair meets once: a node keeps a session, so the way back would measure nothing.
        caller, callee = (node, outside) if node is blocked[0] else (outside, node)
        rows.append(
            [node.name, "yes" if status.alone else "no", status.nat, caller.name, _relayed(caller, callee, found)]
        )
    rows.append(["both", "no", "", blocked[0].name, _relayed(blocked[0], blocked[1], found)])
    found.tables.append(Table("Without UDP", ["network", "alone", "nat", "caller", "path"], rows))
    tell("Letting UDP pass")
    _unblock(blocked[0], lab.join("later", lab.home("later", "port-restricted")), found)


def _relayed(a: LabNode, b: LabNode, found: Recorder) -> str:
    """Connect; return the path."""
    try:
        answer = a.connect(b)
    except P2PError as error:
        found.failures.append(f"{a.name} to {b.name}: {error.code}: {error.message}")
        return error.code
    found.samples.setdefault("connect_s", []).append(round(answer.seconds, 3))
    if answer.path != "relay" or answer.seconds > RELAYED_S:
        found.failures.append(f"{a.name} to {b.name}: path {answer.path} after {answer.seconds:.2f} s.")
    return answer.path or ""


def _unblock(node: LabNode, later: LabNode, found: Recorder) -> None:
    """The router becomes an ordinary one: the node notices by itself, and is reached without a relay."""
    later.ready()
    router = node.host.router
    assert router is not None  # noqa: S101 - made so above
    router.kind = kind_named("port-restricted")
    router.reboot()
    began = time.monotonic()
    while node.status().nat in ("udp-blocked", "unknown"):
        if time.monotonic() > began + UNBLOCKED_S:
            found.failures.append(f"UDP passes, but the node has not noticed within {UNBLOCKED_S:g} s.")
            return
        time.sleep(0.1)
    found.figures["noticed_after_unblock_s"] = round(time.monotonic() - began, 3)
    try:
        path = node.connect(later).path
        found.notes.append(f"Once UDP passes it connects by path {path}.")
        if path != "punched":
            found.failures.append(f"UDP passes, but the path is {path}.")
    except P2PError as error:
        found.failures.append(f"UDP passes, but connecting fails: {error.code}: {error.message}")
