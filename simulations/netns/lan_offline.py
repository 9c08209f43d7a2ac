"""`lab lan-offline`: a LAN whose line is dead; nodes find each other by multicast and chat."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import Recorder
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode

__all__ = ["run"]

HOSTS = 4
FOUND_S = 30.0


def run(lab: Lab, found: Recorder, tell: Callable[[str], None]) -> None:
    """Four computers; two know bootstrap nodes, which they cannot reach. All pairs connect and send."""
    tell("Starting nodes")
    router = lab.router("router", "offline")
    hosts = [lab.behind(router, f"pc{i}") for i in range(1, HOSTS + 1)]
    lab.prove(hosts[:1])
    fresh = [lab.join(f"n{i}", host) for i, host in enumerate(hosts[:2], 1)]
    lab.bootstrap(1)
    nodes = [*fresh, *(lab.join(f"n{i}", host) for i, host in enumerate(hosts[2:], 3))]
    for node in nodes:
        ready = node.ready()
        found.samples.setdefault("ready_s", []).append(ready["seconds"])
    tell("Waiting until they have found each other")
    before = router.counts()
    for node in nodes:
        if not _until(lambda node=node: not node.status().alone):  # type: ignore[misc]
            found.failures.append(f"{node.name} is still alone after {FOUND_S:g} s.")
        found.samples.setdefault("found_s", []).append(round(time.monotonic() - node.started_at, 3))
    tell("Connecting all pairs")
    for a, b in itertools.permutations(nodes, 2):
        _meet(a, b, found)
    if (router.counts() - before).received_bytes:
        found.failures.append("Something came in over the dead line.")


def _until(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + FOUND_S
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _meet(a: LabNode, b: LabNode, found: Recorder) -> None:
    text = f"{a.name} to {b.name}"
    try:
        answer = a.connect(b)
        found.samples.setdefault("connect_s", []).append(answer.seconds)
        if answer.path != "lan":
            found.failures.append(f"{text}: path {answer.path} instead of lan.")
        sent = a.send(b, text)
        found.samples.setdefault("send_s", []).append(sent.seconds)
        if not sent.delivered or b.times_received(text) != 1:
            found.failures.append(f"{text}: the message did not arrive once.")
    except P2PError as error:
        found.failures.append(f"{text}: {error.code}: {error.message}")
