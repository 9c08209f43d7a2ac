"""`lab roam`: a host changes its network while messages flow both ways."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness.scenario import Recorder, Table
from p2pnode.simulations.netns.lab import Lab
from p2pnode.simulations.netns.nodes import LabNode

__all__ = ["Flow", "run"]

EVERY_S = 0.25
BEFORE_S = 2.0  # messages flow for so long before each move
AGAIN_S = 60.0  # longer than any retry of the node
SLEEP_S = 30.0
ALL_S = 60.0  # until the last message must have arrived


@dataclass
class Flow:
    """Numbered messages from one node to another, without waiting for answers."""

    source: LabNode
    target: LabNode
    sent: dict[str, float] = field(default_factory=dict)
    """Text and when it was handed to the node (monotonic seconds)."""
    refused: list[str] = field(default_factory=list)
    """What the node said to those that it did not take."""

    def send(self) -> None:
        """Hand the next message to the node. It keeps what it cannot deliver yet."""
        text = f"{self.source.name} to {self.target.name} {len(self.sent) + len(self.refused) + 1}"
        at = time.monotonic()
        try:
            self.source.send(self.target, text, wait=0.0)
        except P2PError as error:
            self.refused.append(f"{error.code}: {error.message}")
            return
        self.sent[text] = at

    def first_after(self, moment: float) -> float | None:
        """Return when the first message that was sent after `moment` arrived, None as long as none has."""
        arrived = self.target.arrivals()
        return min((arrived[text] for text, at in self.sent.items() if at >= moment and text in arrived), default=None)

    def missing(self) -> int:
        """Return how many messages have not arrived."""
        arrived = self.target.arrivals()
        return sum(1 for text in self.sent if text not in arrived)

    def outcome(self) -> tuple[int, int]:
        """Return lost and doubled messages, by the receiver's history."""
        received = self.target.received()
        return sum(1 for text in self.sent if text not in received), sum(received[text] > 1 for text in self.sent)


class _Flows:
    """Both directions, on a thread each."""

    def __init__(self, one: LabNode, other: LabNode) -> None:
        self.both = (Flow(one, other), Flow(other, one))
        self.asleep: Flow | None = None
        """Whose sender sleeps: nobody types there."""
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(flow,), daemon=True) for flow in self.both]
        for thread in self._threads:
            thread.start()

    def _run(self, flow: Flow) -> None:
        while not self._stop.wait(EVERY_S):
            if flow is not self.asleep:
                flow.send()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run(lab: Lab, found: Recorder, tell: Callable[[str], None]) -> None:
    """Let a host roam in five ways, one after the other."""
    tell("Starting nodes")
    lab.bootstrap(3)
    for i in range(1, 5):
        lab.join(f"public{i}", lab.public(f"node{i}"))
    home, elsewhere = lab.router("home", "port-restricted"), lab.router("elsewhere", "address-restricted")
    a = lab.join("a", lab.behind(home, "laptop"))
    b = lab.join("b", lab.home("desk", "port-restricted"))
    lab.prove([a.host, b.host, lab.behind(elsewhere, "witness")])
    for node in lab.nodes.values():
        node.ready()
    a.befriend(b)
    found.notes.append(f"Both ends send a message each {EVERY_S:g} s; they are connected by path {a.connect(b).path}.")
    flows = _Flows(a, b)
    moves: tuple[tuple[str, str, Callable[[], None]], ...] = (
        ("router", "carried to another router", lambda: lab.move(a.host, elsewhere)),
        ("address", "another address in the same LAN", lambda: lab.move(a.host, elsewhere)),
        ("line", "the router's line has another public address", lambda: lab.renumber(elsewhere)),
        ("rebinding", "the router forgets its mappings", elsewhere.reboot),
        ("sleep", "sleeps with its lid closed", lambda: _sleep(lab, a, flows)),
    )
    rows: list[list[str | float | int | None]] = []
    try:
        for name, text, move in moves:
            tell(f"Moving: {text}")
            time.sleep(BEFORE_S)
            moved = time.monotonic()
            move()
            moved = time.monotonic() if name == "sleep" else moved  # what counts begins with waking
            times = [_again(flow, moved, name, found) for flow in flows.both]
            rows.append([text, *times])
            if None not in times:
                found.figures[f"roam_{name}_s"] = round(max(t for t in times if t is not None), 3)
        time.sleep(BEFORE_S)
    finally:
        flows.stop()
    tell("Waiting for the last messages")
    _account(flows.both, found)
    found.tables.append(Table("Seconds until messages flow again", ["move", "a to b", "b to a"], rows))


def _sleep(lab: Lab, node: LabNode, flows: _Flows) -> None:
    """Stop the node's process, lose what is sent to it meanwhile, and let it go on."""
    flows.asleep = next(flow for flow in flows.both if flow.source is node)
    time.sleep(2 * EVERY_S)  # a command that is under way comes to its end
    node.suspend()
    try:
        lab.set_up(False, node.host.link)
        time.sleep(SLEEP_S)
        lab.set_up(True, node.host.link)
    finally:
        node.resume()
    flows.asleep = None


def _again(flow: Flow, moved: float, name: str, found: Recorder) -> float | None:
    """Wait until a message that was sent after the move has arrived; return the seconds since the move."""
    while (arrived := flow.first_after(moved)) is None:
        if time.monotonic() > moved + AGAIN_S:
            found.failures.append(
                f"{name}: nothing from {flow.source.name} reached {flow.target.name} within {AGAIN_S:g} s."
            )
            return None
        time.sleep(0.02)
    return round(arrived - moved, 3)


def _account(flows: tuple[Flow, ...], found: Recorder) -> None:
    deadline = time.monotonic() + ALL_S
    while any(flow.missing() for flow in flows) and time.monotonic() < deadline:
        time.sleep(0.1)
    outcomes = [flow.outcome() for flow in flows]
    lost, doubled = sum(lost for lost, _ in outcomes), sum(doubled for _, doubled in outcomes)
    refused = [text for flow in flows for text in flow.refused]
    found.figures |= {
        "messages_sent": sum(len(flow.sent) for flow in flows),
        "messages_lost": lost,
        "messages_doubled": doubled,
        "messages_refused": len(refused),
    }
    if lost or doubled:
        found.failures.append(f"{lost} messages were lost and {doubled} came twice.")
    if refused:
        found.failures.append(f"The node did not take {len(refused)} messages, the first with {refused[0]}")
