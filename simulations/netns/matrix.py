"""The matrix: every pair of kinds of network connects by id alone, and says so; the wire outside is the witness.

All nodes start at once and serve every cell; a cell is one or more pairs of nodes that never met before.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import msgspec

from p2pnode.core.errors import P2PError
from p2pnode.simulations.netns.expectations import ONE_ROUTER, SHARED, expected
from p2pnode.simulations.netns.kinds import KINDS, PUBLIC
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode
from p2pnode.simulations.netns.probes import Verdict

__all__ = [
    "FULL", "QUICK", "Attempt", "Cell", "Plan", "pairs_of", "pairs_plan", "run_matrix", "trace_of",
]  # fmt: skip

_REFUSED_AT_A_TIME = 8
_PUBLIC_NODES = 4  # besides the bootstrap nodes
_TEXT = "laboratory {}"
_MAPPED_S, _FOUND_S = 30.0, 2.0  # until a router's port is proven, and until others find it
_DIRECT_MESSAGES = 4
_READY_S = 90.0  # dozens of processes start at once


@dataclass(frozen=True)
class Plan:
    """Which cells, how many pairs of nodes in each (`samples`), how many of them at a time."""

    cells: tuple[tuple[str, str], ...]
    samples: int = 1
    at_a_time: int = 2
    timeout_s: float = 15.0
    """Seconds that one connect may take."""

    def samples_of(self, cell: tuple[str, str]) -> int:
        """Return how many pairs a cell gets: one where two hosts share a router, and where only a refusal is right."""
        return self.samples if cell[0] not in SHARED and expected(*cell).connected else 1

    def hosts_per_kind(self) -> dict[str, int]:
        """Return how many hosts of each kind give every cell its pairs of different hosts.

        Pairs and not repetitions: a node keeps a session, so a second connect would measure nothing.
        """
        need: dict[str, int] = {}
        for a, b in self.cells:
            if a in SHARED:
                continue
            n = 1 if a != b else 2
            while (n * n if a != b else n * (n - 1) // 2) < self.samples_of((a, b)):
                n += 1
            for kind in (a, b):
                need[kind] = max(need.get(kind, 0), n)
        return need


QUICK = Plan(
    (
        ("port-restricted", "port-restricted"),
        ("port-restricted", "fullcone"),
        ("port-restricted", "symmetric"),
        ("symmetric", "address-restricted"),
        ("symmetric", PUBLIC),
        (ONE_ROUTER, ONE_ROUTER),
    )
)
FULL = Plan((*itertools.combinations_with_replacement(KINDS, 2), *((name, name) for name in SHARED)))


def pairs_plan(names: Iterable[str]) -> Plan:
    """Return the plan of all pairs of some kinds, each also with itself; names of `SHARED` are cells of their own."""
    chosen = dict.fromkeys(names)
    kinds = [name for name in chosen if name not in SHARED]
    return Plan(
        (
            *itertools.combinations_with_replacement(kinds, 2),
            *((name, name) for name in chosen if name in SHARED),
        )
    )


@dataclass
class Attempt:
    """One pair of nodes. `seconds`: of `connect`, lookup included, or until it gave up.

    `witnessed`: whether the wire saw answered QUIC between the two public addresses; none for two hosts behind one
    router; none, but relay frames of both, for a relayed pair; where UDP is blocked, TCP. `code`: why it failed.
    `path`: the last one. `direct_seconds`: until a relayed connection had a direct path, None when it got none.
    """

    a: str
    b: str
    connected: bool = False
    path: str | None = None
    seconds: float = 0.0
    rtt_ms: float | None = None
    witnessed: bool = False
    delivered_once: bool = False
    send_seconds: float | None = None
    direct_seconds: float | None = None
    code: str | None = None
    message: str | None = None
    trace: list[Any] = field(default_factory=list)


@dataclass
class Cell:
    """A pair of kinds and its attempts."""

    a: str
    b: str
    attempts: list[Attempt]

    @property
    def as_expected(self) -> bool:
        """Whether every attempt did what is right for this pair, and the wire bears it out."""
        right = expected(self.a, self.b).results
        return bool(self.attempts) and all(
            (t.path in right and t.witnessed and t.delivered_once) if t.connected else t.code in right
            for t in self.attempts
        )

    def to_json(self) -> dict[str, Any]:
        """Return the cell as docs/lab.md has it; medians over the attempts, of the successful ones where some are."""
        good = [t for t in self.attempts if t.connected]
        counted = good or self.attempts
        sends = [t.send_seconds for t in good if t.send_seconds is not None]
        bad = next((t for t in self.attempts if not t.connected), None)
        return {
            "a": self.a,
            "b": self.b,
            "connected": len(good) == len(self.attempts),
            "path": "/".join(sorted({t.path or "" for t in good})) or None,
            "seconds": round(statistics.median(t.seconds for t in counted), 3),
            "seconds_max": round(max(t.seconds for t in counted), 3),
            "send_seconds": round(statistics.median(sends), 3) if sends else None,
            "delivered_once": bool(good) and all(t.delivered_once for t in good),
            "witnessed": bool(good) and all(t.witnessed for t in good),
            "as_expected": self.as_expected,
            "code": bad.code if bad else None,
            "message": bad.message if bad else None,
            "reason": expected(self.a, self.b).reason or None,
            "attempts": [msgspec.to_builtins(t) for t in self.attempts],
        }


def run_matrix(
    lab: Lab, plan: Plan, *, progress: Callable[[str], None] = lambda _text: None
) -> tuple[list[Cell], dict[str, Verdict]]:
    """Build the topology, prove every network, run every cell. Return the cells in the plan's order, and the verdicts.

    Raise LabError when a network is not what it should be or a node does not start.
    """
    progress("Starting nodes and probing networks")
    nodes = _start(lab, plan)
    for node in lab.nodes.values():
        node.ready(_READY_S)
    _wait_for_ports([node for kind, made in nodes.items() if kind not in SHARED for node in made
                     if KINDS[kind].port_mapping])  # fmt: skip
    work = [(cell, pair) for cell in plan.cells for pair in pairs_of(nodes, cell, plan.samples_of(cell))]
    # In any order but that of the plan: a node should not have to do all its connects at once.
    order = list(range(len(work)))
    random.Random(lab.settings.seed).shuffle(order)
    attempts: dict[int, Attempt] = {}
    # Those that will be refused wait for a time-out and cost nothing meanwhile: many at once, beside the others.
    pools = {False: ThreadPoolExecutor(_REFUSED_AT_A_TIME), True: ThreadPoolExecutor(plan.at_a_time)}
    try:
        running = {
            pools[expected(*work[i][0]).connected].submit(
                attempt,
                lab,
                *work[i][1],
                timeout_s=plan.timeout_s,
                direct_within_s=expected(*work[i][0]).direct_within_s,
            ): i
            for i in order
        }
        for future in as_completed(running):
            attempts[running[future]] = future.result()
            progress(f"{len(attempts)} of {len(work)} connects")
    finally:
        for pool in pools.values():
            pool.shutdown(wait=False, cancel_futures=True)  # after a Ctrl-C they end when the nodes do
    cells = [Cell(*cell, [attempts[i] for i, (other, _) in enumerate(work) if other == cell]) for cell in plan.cells]
    return cells, lab.verdicts


def attempt(lab: Lab, a: LabNode, b: LabNode, *, timeout_s: float, direct_within_s: float = 0.0) -> Attempt:
    """Connect `a` to `b` and send a message. Never raises what a node answers.

    `direct_within_s`: how long to wait for a direct path when the first one is relayed.
    """
    made = Attempt(a.name, b.name)
    began = time.monotonic()
    try:
        answer = a.connect(b, timeout_s)
    except P2PError as error:
        made.seconds = time.monotonic() - began
        made.code, made.message = error.code, error.message
        made.trace = trace_of(error)
        return made
    made.connected, made.path = answer.connected, answer.path
    made.seconds, made.rtt_ms = answer.seconds, answer.rtt_ms
    made.trace = [msgspec.to_builtins(step) for step in answer.trace]
    text = _TEXT.format(f"{a.name} {b.name}")
    try:
        sent = a.send(b, text)
        made.send_seconds = sent.seconds
        made.delivered_once = sent.delivered and b.times_received(text) == 1
    except P2PError as error:
        made.code, made.message = error.code, error.message
    while made.path == "relay" and time.monotonic() - began < direct_within_s:
        time.sleep(0.1)
        made.path = a.path_to(b) or made.path
        if made.path != "relay":
            made.direct_seconds = time.monotonic() - began
    if made.path == "relay":
        # Where it may be direct as well, a handshake that came too late leaves its packets on the wire.
        alone = direct_within_s > 0 or not lab.quic_seen(a.host, b.host)
        made.witnessed = alone and lab.relay_seen(a.host) and lab.relay_seen(b.host)
        return made
    if not (a.host.udp and b.host.udp):
        made.witnessed = not lab.quic_seen(a.host, b.host) and lab.tcp_bytes(a.host, b.host) > 0
        return made
    outside = a.host.edge is None or a.host.edge is not b.host.edge
    if made.direct_seconds is not None or (outside and not lab.quic_seen(a.host, b.host)):
        # What was sent before went by the relay, also where `connect` answered just after the move; the wire has to see
        # messages on the new path. Who was called follows the caller's packets, at most once a second.
        for number in range(_DIRECT_MESSAGES):
            with contextlib.suppress(P2PError):
                a.send(b, f"{text}, directly {number}")
            if lab.quic_seen(a.host, b.host):
                break
            time.sleep(0.5)
    made.witnessed = lab.quic_seen(a.host, b.host) is outside
    return made


def trace_of(error: P2PError) -> list[Any]:
    """Return what a failed connect tried, as far as the node told."""
    trace = error.facts.get("trace")
    return trace if isinstance(trace, list) else []


def _start(lab: Lab, plan: Plan) -> dict[str, list[LabNode]]:
    """Make all hosts, prove them, start all nodes; return the nodes by kind."""
    lab.bootstrap(3)
    for i in range(1, _PUBLIC_NODES + 1):
        lab.join(f"public{i}", lab.public(f"node{i}"))
    hosts = {
        kind: [lab.home(f"{kind}-{i}", kind) for i in range(1, count + 1)]
        for kind, count in plan.hosts_per_kind().items()
    }
    for name in dict.fromkeys(a for a, _ in plan.cells if a in SHARED):
        shared = SHARED[name]
        router = lab.router(name, shared.kind)
        homes = [lab.router(f"{name}-home{i}", shared.home, carrier=router) if shared.home else router for i in (1, 2)]
        hosts[name] = [lab.behind(home, f"{name}-{i}") for i, home in enumerate(homes, 1)]
    probed = [host for made in hosts.values() for host in made]
    nodes = {kind: [lab.join(host.name, host) for host in made] for kind, made in hosts.items()}
    lab.prove(probed)  # while the nodes start: they wait for each other anyway
    return nodes


def _wait_for_ports(nodes: list[LabNode]) -> None:
    """Wait until the ports that routers opened are proven: before, such a home is like any other."""
    deadline = time.monotonic() + _MAPPED_S
    for node in nodes:
        while time.monotonic() < deadline and not any(m.state == "believed" for m in node.status().port_mapping):
            time.sleep(0.2)
    if nodes:
        time.sleep(_FOUND_S)


def pairs_of(nodes: dict[str, list[LabNode]], cell: tuple[str, str], samples: int) -> list[tuple[LabNode, LabNode]]:
    """Return `samples` pairs of different nodes, every second one in the other direction."""
    a, b = cell
    if a == b:
        pairs: Sequence[tuple[LabNode, LabNode]] = list(itertools.combinations(nodes[a], 2))
    else:
        # along diagonals, so that few samples still use different hosts
        count = len(nodes[b])
        pairs = [(one, nodes[b][(i + shift) % count]) for shift in range(count) for i, one in enumerate(nodes[a])]
    return [pair if i % 2 == 0 else (pair[1], pair[0]) for i, pair in enumerate(pairs[:samples])]
