"""Which scenarios the laboratory has, a line for each. Pure, and imported at once: the command line names them."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.simulations.netns.errors import LabError, nearest

__all__ = ["SCENARIOS", "LabScenario", "scenario_named"]


@dataclass(frozen=True)
class LabScenario:
    """`module`: where its `run(lab, found, tell)` is; empty for those that have options and an answer of their own."""

    name: str
    summary: str
    module: str = ""


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        LabScenario("matrix", "Every pair of networks connects by id alone: path, seconds, message delivered once."),
        LabScenario("roam", "A host changes router and address while messages flow: how long they stop.", "roam"),
        LabScenario("bootstrap-gone", "All bootstrap nodes are killed: what still works.", "bootstrap_gone"),
        LabScenario(
            "udp-blocked", "No UDP passes: what the node says, and what it does once UDP passes.", "udp_blocked"
        ),
        LabScenario(
            "lan-offline", "A LAN without internet: nodes find each other by multicast and chat.", "lan_offline"
        ),
        LabScenario("kinds", "One network of each kind, probed: what its router really does."),
        LabScenario("shell", "A topology to play in: a shell on each host."),
    )
}


def scenario_named(name: str) -> LabScenario:
    """Return a scenario. Raise LabError that suggests the nearest name."""
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise LabError(f"There is no scenario {name[:40]!r}; {nearest(name, SCENARIOS)}")
    return scenario
