"""What must hold behind routers when things fail: dead bootstrap nodes, a rebooted router, loss; and what idling costs.

With P2PNODE_LAB=full: sixty connects under loss instead of six, and a whole minute of idling.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.lab import WHOLE, require_lab, until

from p2pnode import P2PError
from p2pnode.simulations.netns import Lab, LabNode
from p2pnode.simulations.netns.matrix import trace_of

pytestmark = [pytest.mark.namespace, pytest.mark.slow]

PAIRS = 60 if WHOLE else 6
IDLE_S = 60.0 if WHOLE else 3.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_lab()
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def peers(lab: Lab) -> list[LabNode]:
    """Peers behind routers of their own; three bootstrap and four more public nodes."""
    lab.bootstrap(3)
    for i in range(1, 5):
        lab.join(f"public{i}", lab.public(f"node{i}"))
    count = next(n for n in itertools.count(2) if n * (n - 1) // 2 >= PAIRS + 3)
    kinds = ("port-restricted", "address-restricted", "fullcone")
    made = [lab.join(f"peer{i}", lab.home(f"home{i}", kinds[i % 3])) for i in range(count)]
    for node in lab.nodes.values():
        node.ready()
    return made


def pairs(peers: list[LabNode]) -> list[tuple[LabNode, LabNode]]:
    """All pairs; the first three are for the other tests, which use them alone."""
    return list(itertools.combinations(peers, 2))


def test_idle_peer_sends_little(lab: Lab, peers: list[LabNode]) -> None:
    """At most 120 datagrams a minute in all, at most 64 connections remembered by its router (median of the peers)."""
    time.sleep(5.0 if WHOLE else 1.0)  # joining is over
    before = {peer.name: lab.counts(peer.host) for peer in peers}
    time.sleep(IDLE_S)
    used = {peer.name: lab.counts(peer.host) - before[peer.name] for peer in peers}
    a_minute = [counts.packets * 60 / IDLE_S for counts in used.values()]
    remembered = [peer.host.router.conntrack_count() for peer in peers if peer.host.router is not None]
    print(f"\nidle: {sorted(round(n) for n in a_minute)} datagrams a minute, conntrack {sorted(remembered)}")
    print("; ".join(f"{name} {counts.by_kind()}" for name, counts in used.items()))
    assert statistics.median(remembered) <= 64
    if WHOLE:
        assert statistics.median(a_minute) <= 120


@pytest.fixture(scope="module")
def symmetric(lab: Lab, peers: list[LabNode]) -> LabNode:
    """A peer whose router gives it another public port after a reboot; that of the others gives the same again."""
    made = lab.join("symmetric", lab.home("symmetric", "symmetric"))
    made.ready()
    return made


@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
@pytest.mark.parametrize("first", ["inside", "outside"])
def test_rebooted_router_is_overcome(lab: Lab, peers: list[LabNode], symmetric: LabNode, kind: str, first: str) -> None:
    """Mappings are gone on one side: messages flow again within 10 s, whoever writes first, each arrives once."""
    a, b = symmetric if kind == "symmetric" else peers[0], peers[1]
    assert a.connect(b).path == "punched"
    a.befriend(b)
    assert a.send(b, f"before, {kind}, {first}").delivered
    assert a.host.router is not None
    a.host.router.reboot()
    began = time.monotonic()
    for one, other in ((a, b), (b, a)) if first == "inside" else ((b, a), (a, b)):
        text = f"{one.name} after {kind}, {first}"
        assert one.send(other, text, wait=10.0).delivered
        assert other.times_received(text) == 1
    seconds = time.monotonic() - began
    print(f"\n{kind} router rebooted, first from {first}: messages both ways after {seconds:.2f} s")
    assert seconds <= 10.0


def test_connects_under_loss(lab: Lab, peers: list[LabNode]) -> None:
    """10 % on every link: all connect, nearly all within 6 s, every message arrives once."""
    chosen = pairs(peers)[3 : 3 + PAIRS]

    def meet(pair: tuple[LabNode, LabNode]) -> float | str:
        a, b = pair
        text = f"{a.name} to {b.name}"
        try:
            seconds = a.connect(b).seconds
            delivered = a.send(b, text, wait=20.0).delivered and b.times_received(text) == 1
        except P2PError as error:
            steps = [f"  {step['at_s']:.3f} {step['step']}: {step['result']}" for step in trace_of(error)]
            return "\n".join((f"{text}: {error.code}: {error.message}", *steps))
        return seconds if delivered else f"{text}: connected, but the message did not arrive once"

    lab.set_loss(0.1)
    try:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(meet, chosen))
    finally:
        lab.set_loss(0.0)
    failed = [result for result in results if isinstance(result, str)]
    times = sorted(result for result in results if not isinstance(result, str))
    slow = [round(t, 2) for t in times if t > 6]
    print(
        f"\n10 % loss on each link, {len(times)} connects: median {statistics.median(times):.2f} s, above 6 s: {slow}"
    )
    assert not failed, "\n".join(failed)
    assert len(slow) <= len(times) // 30


def test_all_bootstrap_nodes_are_dead(lab: Lab, peers: list[LabNode]) -> None:
    """Open sessions go on, a new connect works, a restarted peer rejoins warm within 3 s and is reached."""
    (a, b), (_, c), (_, d) = pairs(peers)[:3]
    assert a.connect(b).connected
    a.befriend(b)
    for node in lab.nodes.values():
        if node.name.startswith("boot"):
            node.kill()
    assert a.send(b, "bootstrap nodes are dead").delivered
    fresh = a.connect(c)
    assert fresh.path == "punched"
    assert d.stop() == 0
    d.start()
    ready = d.ready()
    print(f"\nno bootstrap nodes: connect {fresh.seconds:.2f} s, warm rejoin {ready['seconds']:.2f} s")
    assert not ready["alone"]
    assert ready["seconds"] <= 3.0
    until(lambda: a.connect(d).connected, 15, "the restarted peer is reached")
