"""`lab udp-blocked`: what a node says where no UDP passes, how it reaches others, and what it does once UDP passes.

Each pair is first relayed. Where both routers keep their TCP ports a TCP hole punch makes it direct, which the wire
must have seen: both sides opened the connection, and what is sent then goes by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import Recorder, Table
from p2pnode.simulations.netns.expectations import BY_TCP, expected
from p2pnode.simulations.netns.kinds import kind_named
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode

__all__ = ["run"]

Row = list[str | float | int | None]

HOMES = {"udp-blocked": "udp-blocked", "tcp-443": "tcp-443", "udp-blocked-2": "udp-blocked"}
UNBLOCKED_S = 30.0  # a node looks every 5 s whether UDP passes
RELAYED_S = 2.0  # the first byte by relay; 1.0 in virtual time: here processes share two cores
MESSAGE_S = 1.0  # the first message, by relay
DIRECT_S = 3.0  # since the call; one of the three pairs that can be may stay relayed: the bar is nine in ten
SETTLED_S = 3.0  # who was called follows the caller's packets, at most once a second
PINGS = 20  # that must go by the direct path
PING_BYTES = 160  # both ways together at least: IP, TCP, TLS and QUIC headers


def run(lab: Lab, found: Recorder, tell: Callable[[str], None]) -> None:
    """Networks without UDP, and a peer outside: they join by TLS on TCP, call and are called by relay, punch by TCP."""
    tell("Starting nodes")
    lab.bootstrap(3)
    outside = lab.join("outside", lab.home("outside", "port-restricted"))
    blocked = [lab.join(name, lab.home(f"home-{name}", kind)) for name, kind in HOMES.items()]
    lab.prove([node.host for node in (outside, *blocked)])
    outside.ready()
    states: list[Row] = []
    for node in blocked:
        tell(f"Asking the node behind {node.name}")
        node.ready()
        status = node.status()
        states.append([node.name, "yes" if status.alone else "no", status.nat])
    found.tables.append(Table("Without UDP", ["network", "alone", "nat"], states))
    udp, tcp, other = blocked
    # Each pair meets once: a node keeps a session, so the way back would measure nothing.
    rows: list[Row] = []
    for caller, callee in ((udp, outside), (outside, tcp), (udp, tcp), (udp, other), (outside, other)):
        tell(f"{caller.name} calls {callee.name}")
        rows.append([caller.name, callee.name, *_meet(lab, caller, callee, found)])
    late = [seconds for seconds in found.samples.get("direct_s", ()) if seconds > DIRECT_S]
    if len(late) > 1:
        found.failures.append(f"{len(late)} pairs were direct after more than {DIRECT_S:g} s: {late}.")
    columns = ["caller", "callee", "first path", "after s", "message s", "then", "after s"]
    found.tables.append(Table("Calls", columns, rows))
    tell("Letting UDP pass")
    _unblock(udp, lab.join("later", lab.home("later", "port-restricted")), found)


def _meet(lab: Lab, a: LabNode, b: LabNode, found: Recorder) -> Row:
    """Connect, send a message, wait for the direct path where there is to be one. Return what a row says of it."""
    pair = f"{a.name} to {b.name}"
    began = time.monotonic()
    try:
        answer = a.connect(b)
        sent = a.send(b, f"from {a.name}")
    except P2PError as error:
        found.failures.append(f"{pair}: {error.code}: {error.message}")
        return [error.code, None, None, None, None]
    found.samples.setdefault("connect_s", []).append(round(answer.seconds, 3))
    found.samples.setdefault("message_s", []).append(round(sent.seconds, 3))
    row: Row = [answer.path, round(answer.seconds, 3), round(sent.seconds, 3)]
    if answer.path != "relay" or answer.seconds > RELAYED_S:
        found.failures.append(f"{pair}: path {answer.path} after {answer.seconds:.2f} s.")
    if not sent.delivered or sent.seconds > MESSAGE_S:
        found.failures.append(f"{pair}: a message is {sent.state} after {sent.seconds:.2f} s.")
    if expected(a.host.kind, b.host.kind) != BY_TCP:
        return [*row, "relay", None]
    while (path := a.path_to(b)) == "relay" and time.monotonic() < began + 2 * DIRECT_S:
        time.sleep(0.02)
    seconds = time.monotonic() - began
    if path not in ("punched", "relay"):
        found.failures.append(f"{pair}: path {path} after {seconds:.2f} s.")
    found.samples.setdefault("direct_s", []).append(round(seconds, 3))
    if path == "punched":
        time.sleep(SETTLED_S)
        _witness(lab, a, b, found)
    return [*row, path, round(seconds, 3)]


def _witness(lab: Lab, a: LabNode, b: LabNode, found: Recorder) -> None:
    """The wire saw both sides open one connection, and sees in it what is sent now."""
    before = lab.tcp_bytes(a.host, b.host)
    for _ in range(PINGS):
        a.ping(b)
    carried = lab.tcp_bytes(a.host, b.host) - before
    if not lab.tcp_punched(a.host, b.host) or carried < PINGS * PING_BYTES:
        found.failures.append(
            f"{a.name} to {b.name}: direct by its own word, but the wire carried {carried} bytes of TCP between them."
        )


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
