"""`lab udp-blocked`: what a node says where no UDP passes, and what it does once UDP passes again."""

from __future__ import annotations

import time
from collections.abc import Callable

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import Recorder, Table
from p2pnode.simulations.netns.expectations import NO_UDP
from p2pnode.simulations.netns.kinds import kind_named
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode

__all__ = ["run"]

KINDS = ("udp-blocked", "tcp-443")
JOIN_S = 90.0  # above the longest pause between tries to join
REFUSED_S = 16.0  # a connect gives up after 15


def run(lab: Lab, found: Recorder, tell: Callable[[str], None]) -> None:
    """Two networks without UDP, and a peer outside. No relay over TLS exists yet: every connect is refused."""
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
        calls = _refusal(node, outside, found)
        called = _refusal(outside, node, found)
        rows.append([node.name, "yes" if status.alone else "no", status.nat, calls[0], called[0]])
        found.notes.append(f"{node.name}: {calls[1]}")
        found.notes.append(f"Who calls it: {called[1]}")
    found.tables.append(Table("What nodes say", ["network", "alone", "nat", "calls", "is called"], rows))
    found.notes.append(f"It cannot be better yet: {NO_UDP.reason}.")
    tell("Letting UDP pass")
    _unblock(blocked[0], outside, found)


def _refusal(a: LabNode, b: LabNode, found: Recorder) -> tuple[str, str]:
    """Connect in vain; return code and sentence."""
    began = time.monotonic()
    try:
        path = a.connect(b).path
    except P2PError as error:
        seconds = time.monotonic() - began
        found.samples.setdefault("refusal_s", []).append(round(seconds, 3))
        if error.code not in NO_UDP.results or seconds > REFUSED_S:
            found.failures.append(f"{a.name} to {b.name}: {error.code} after {seconds:.1f} s.")
        return error.code, error.message
    found.failures.append(f"{a.name} reached {b.name} by path {path}, though no UDP passes.")
    return path, ""


def _unblock(node: LabNode, outside: LabNode, found: Recorder) -> None:
    """The router becomes an ordinary one: the node joins by itself."""
    router = node.host.router
    assert router is not None  # noqa: S101 - made so above
    router.kind = kind_named("port-restricted")
    router.reboot()
    began = time.monotonic()
    while node.status().alone:
        if time.monotonic() > began + JOIN_S:
            found.failures.append(f"UDP passes, but the node has not joined within {JOIN_S:g} s.")
            return
        time.sleep(0.1)
    found.figures["joined_after_unblock_s"] = round(time.monotonic() - began, 3)
    try:
        found.notes.append(f"Once UDP passes it connects by path {node.connect(outside).path}.")
    except P2PError as error:
        found.failures.append(f"UDP passes, but connecting fails: {error.code}: {error.message}")
