"""What a running scenario tells of how far it is: steps of its own phases, whoever comes and goes meanwhile."""

import pytest

from p2pnode.simulations.harness.execution import Execution
from p2pnode.simulations.scenarios.offline_delivery import SCENARIO, Settings


class Steps:
    """Takes what a scenario tells."""

    def __init__(self) -> None:
        self.phases: list[list[object]] = []

    def phase(self, name: str, total: int) -> None:
        self.phases.append([name, 0, total])

    def advance(self, steps: int = 1) -> None:
        self.phases[-1][1] += steps  # type: ignore[operator]


@pytest.mark.slow
def test_nodes_that_come_and_go_are_no_steps_of_a_phase() -> None:
    """It said "away 86 of 24": the hours of the phase and the nodes that came in them were counted together."""
    steps = Steps()
    settings = Settings(messages=4, readers=2, away_h=2.0, churn_per_hour=0.5)
    execution = Execution(SCENARIO, 8, 1, settings)
    execution.run.progress = steps
    execution.execute()
    assert [(name, done) for name, done, _ in steps.phases] == [(name, total) for name, _, total in steps.phases]
    assert ["away", 2, 2] in steps.phases
