"""The matrix in containers: peers in two private networks behind router containers connect by id alone.

What `p2pnode lab matrix` does in namespaces, on an engine as people have it, with its bridges, firewall rules and
addresses. Every router is probed before anything is concluded, and is the witness of what passed outside. One pair of
kinds after the other: the two routers and the peers behind them are made anew, the bootstrap nodes stay.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from p2pnode.simulations.docker.images import find_images
from p2pnode.simulations.docker.prober import verdict_from_json
from p2pnode.simulations.docker.project import PYTHON, Container, Project
from p2pnode.simulations.docker.router import MAPPING_S, Flow, flows_from_json, router_kind
from p2pnode.simulations.docker.tools import Tools
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.lab import LabSettings
from p2pnode.simulations.netns.matrix import Attempt, Cell, Plan, pairs_plan
from p2pnode.simulations.netns.proof import differences
from p2pnode.simulations.netns.scenarios import Tell, report_of_matrix
from p2pnode.simulations.probing import Verdict
from p2pnode.simulations.report import Report

__all__ = ["FULL", "QUICK", "matrix_report"]

_BOOTSTRAP = ("boot1", "boot2", "boot3")
_WAN = "203.0.113"  # as in compose.yaml
_PROBER = (f"{_WAN}.21", f"{_WAN}.22")
_PUBLIC = {"a": f"{_WAN}.51", "b": f"{_WAN}.52"}
_PATIENCE_S = ("1", "3")  # a wrong verdict is asked for again with a longer wait: a busy machine answers late

QUICK = Plan((("port-restricted", "port-restricted"), ("symmetric", "fullcone"), ("port-restricted", "symmetric")))
FULL = pairs_plan(("fullcone", "address-restricted", "port-restricted", "symmetric"))


def matrix_report(plan: Plan, options: str, tell: Tell) -> Report:
    """Run every pair of kinds with the plan's number of pairs of peers; nothing is left behind.

    `options`: what to type after `matrix` to get this plan again. Raise LabError when there is no engine, a kind is
    none for a container, or a router is not what it is called.
    """
    began = time.monotonic()
    for kind in {kind for cell in plan.cells for kind in cell}:
        router_kind(kind)
    tools = Tools()
    images = find_images(tools, tell)
    cells: list[Cell] = []
    verdicts: dict[str, Verdict] = {}
    with Project(tools, images) as project:
        tell("Starting containers")
        project.up(dict.fromkeys((*_BOOTSTRAP, "prober"), 1))
        bootstrap = [each for name in _BOOTSTRAP for each in project.containers(name)]
        project.wait_ready(bootstrap)
        project.environ["BOOTSTRAP"] = " ".join(each.event["bootstrap"] for each in bootstrap)
        nodes = len(bootstrap)
        for done, cell in enumerate(plan.cells):
            tell(f"{' with '.join(cell)}: {done} of {len(plan.cells)} pairs done")
            cells.append(_cell(project, *cell, plan, verdicts))
            nodes += 2 * plan.samples_of(cell)
    report = report_of_matrix(cells, verdicts, LabSettings(), nodes=nodes, real_s=time.monotonic() - began, options="")
    report.command = f"p2pnode lab --docker matrix {options}".rstrip()
    # The engine's bridges neither delay nor lose.
    report.settings = {"delay_ms": 0.0, "loss": 0.0, "mapping_s": MAPPING_S, "engine": tools.version}
    return report


def _cell(project: Project, a: str, b: str, plan: Plan, verdicts: dict[str, Verdict]) -> Cell:
    """Make routers of two kinds and peers behind them; connect. The verdicts are added."""
    # First those of the pair before: what its peers still send would make mappings in the new routers.
    project.remove("peer-a", "peer-b", "router-a", "router-b")
    project.up({"router-a": 1, "router-b": 1}, ROUTER_A=router_kind(a).name, ROUTER_B=router_kind(b).name)
    routers = [project.containers(f"router-{side}")[0] for side in "ab"]
    project.wait_ready(routers)
    project.up(dict.fromkeys(("peer-a", "peer-b"), plan.samples_of((a, b))))
    sides = [project.containers(f"peer-{side}") for side in "ab"]
    pool = ThreadPoolExecutor(2)
    try:  # while the nodes start
        proved = list(pool.map(_prove, (a, b), "ab", [peers[0] for peers in sides]))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after a Ctrl-C they end with the containers
    verdicts |= {f"{kind}-{side}": verdict for kind, side, verdict in zip((a, b), "ab", proved, strict=True)}
    project.wait_ready([*sides[0], *sides[1]])
    attempts: list[Attempt] = []
    seen: set[tuple[Flow, Flow]] = set()
    for i, (one, other) in enumerate(zip(*sides, strict=True)):
        named = (f"{a}-a{i + 1}", one), (f"{b}-b{i + 1}", other)
        attempt = _attempt(*(named if i % 2 == 0 else named[::-1]), timeout_s=plan.timeout_s)
        now = _answered(*routers)
        attempt.witnessed = bool(now - seen) is (attempt.path != "relay")
        seen |= now
        attempts.append(attempt)
    return Cell(a, b, attempts)


def _prove(name: str, side: str, peer: Container) -> Verdict:
    """Probe the router before a peer. Raise LabError when it is not of its kind."""
    for wait_s in _PATIENCE_S:
        asked = peer.run(PYTHON, "-m", "p2pnode.simulations.docker.prober", "ask", *_PROBER, wait_s)
        if asked.returncode != 0:
            raise LabError(f"The router {name} could not be probed: {asked.stderr.strip()[-300:]}")
        verdict = verdict_from_json(asked.stdout)
        wrong = list(differences(router_kind(name), verdict, _PUBLIC[side]))
        if not wrong:
            return verdict
    raise LabError(f"The router before {peer.name} is not {name}: {'; '.join(wrong)}.", verdict=verdict)


def _attempt(a: tuple[str, Container], b: tuple[str, Container], *, timeout_s: float) -> Attempt:
    """Connect the first to the second by id and send a message, both as a user would: by the command."""
    (name, one), (other_name, other) = a, b
    made = Attempt(name, other_name)
    began = time.monotonic()
    answer = one.ask("connect", other.peer_id, "--json", "--timeout", f"{timeout_s:g}")
    if (error := answer.get("error")) is not None:
        made.seconds = time.monotonic() - began
        made.code, made.message, made.trace = error["code"], error["message"], error.get("trace") or []
        return made
    made.connected, made.path, made.seconds = answer["connected"], answer["path"], answer["seconds"]
    made.rtt_ms, made.trace = answer["rtt_ms"], answer["trace"]
    text = f"from {name} to {other_name}"
    sent = one.ask("send", other.peer_id, text, "--json")
    if (error := sent.get("error")) is not None:
        made.code, made.message = error["code"], error["message"]
        return made
    made.send_seconds = sent["seconds"]
    arrived = [m for m in other.ask("messages", "--json")["messages"] if m["direction"] == "in" and m["text"] == text]
    made.delivered_once = sent["delivered"] and len(arrived) == 1
    return made


def _answered(router_a: Container, router_b: Container) -> set[tuple[Flow, Flow]]:
    """Return the flows of QUIC between the two routers that both saw in both directions, as each of them saw it."""
    both: list[set[Flow]] = []
    for router in (router_a, router_b):
        listed = router.run("nft", "--json", "list", "table", "ip", "witness")
        if listed.returncode != 0:
            raise LabError(f"The router {router.name} does not tell what it saw: {listed.stderr.strip()[-300:]}")
        flows = flows_from_json(listed.stdout)
        both.append(flows["sent"] & flows["received"])
    return {
        (one, other)
        for one in both[0]
        for other in both[1]
        if one == (_PUBLIC["b"], other[2], one[2]) and other == (_PUBLIC["a"], one[2], other[2])
    }
