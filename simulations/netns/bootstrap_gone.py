"""`lab bootstrap-gone`: every bootstrap node is killed; the others go on without them."""

from __future__ import annotations

import time
from collections.abc import Callable

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import Recorder
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode

__all__ = ["run"]

REJOIN_S = 30.0
KNOWN_S = 30.0
REACHED_S = 30.0


def run(lab: Lab, found: Recorder, tell: Callable[[str], None]) -> None:
    """An open session, a new connect, a warm start, and a connect to who started so."""
    tell("Starting nodes")
    boots = lab.bootstrap(3)
    for i in range(1, 5):
        lab.join(f"public{i}", lab.public(f"node{i}"))
    kinds = {"a": "port-restricted", "b": "fullcone", "c": "port-restricted", "d": "address-restricted"}
    a, b, c, d = (lab.join(name, lab.home(f"home-{name}", kind)) for name, kind in kinds.items())
    lab.prove([node.host for node in (a, b, c, d)])
    for node in lab.nodes.values():
        node.ready()
    _wait_until_known([a, b, c, d], len(boots), found)
    a.befriend(b)
    a.connect(b)
    tell("Killing the bootstrap nodes")
    for node in boots:
        node.kill()
    _message(a, b, "send_s", found)
    _connect(a, c, "connect_s", found)
    tell("Restarting a peer")
    d.stop()
    d.start()
    ready = d.ready(REJOIN_S)
    found.figures["rejoin_s"] = ready["seconds"]
    if ready["peers"] == 0:
        found.failures.append("The restarted peer is alone: it remembered nobody who still lives.")
        return
    _connect(a, d, "reached_again_s", found)


def _wait_until_known(nodes: list[LabNode], more_than: int, found: Recorder) -> None:
    """Wait until each node knows others than the bootstrap nodes: a network that has just begun has none."""
    deadline = time.monotonic() + KNOWN_S
    for node in nodes:
        while node.status().routing_table <= more_than:
            if time.monotonic() > deadline:
                found.failures.append(f"{node.name} knows nobody but bootstrap nodes after {KNOWN_S:g} s.")
                return
            time.sleep(0.1)


def _message(a: LabNode, b: LabNode, figure: str, found: Recorder) -> None:
    try:
        answer = a.send(b, figure)
        if not answer.delivered or b.times_received(figure) != 1:
            found.failures.append(f"{figure}: the message did not arrive once.")
        found.figures[figure] = answer.seconds
    except P2PError as error:
        found.failures.append(f"{figure}: {error.code}: {error.message}")


def _connect(a: LabNode, b: LabNode, figure: str, found: Recorder) -> None:
    """Connect until it works; seconds from the first try."""
    began = time.monotonic()
    while True:
        try:
            answer = a.connect(b)
        except P2PError as error:
            if time.monotonic() < began + REACHED_S:
                continue
            found.failures.append(f"{figure}: {error.code}: {error.message}")
            return
        found.figures[figure] = round(time.monotonic() - began, 3)
        found.notes.append(f"{figure}: from {a.name} to {b.name}, path {answer.path}.")
        _message(a, b, figure.replace("_s", "_send_s"), found)
        return
