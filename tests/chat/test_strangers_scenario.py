"""The scenario `random`, small: nobody fails, most are matched soon. docs/random.md has figures of larger runs."""

from __future__ import annotations

import pytest

from p2pnode.simulations.harness.scenario import Run
from p2pnode.simulations.scenarios.random import SCENARIO, Settings
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


class Silent:
    """Nobody looks at the progress."""

    def phase(self, name: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass


@pytest.mark.long
def test_fourteen_users_are_matched() -> None:
    settings = Settings(join_s=10.0, begin_s=5.0, talk_s=10.0, keep_s=30.0, reported=0.2)

    async def main(world: VirtualWorld) -> Run[Settings]:
        run = Run(world, 14, 1, settings, Silent())
        await SCENARIO.run(run)
        return run

    found = run_virtual(main, seed=1, delay=settings.delay, loss=settings.loss, keep_trace=False)
    figures = found.recorder.figures
    print({name: round(value, 3) for name, value in figures.items()})
    assert not found.recorder.failures
    assert figures["conversations"] >= 5
    assert figures["matched_within_5_s_share"] >= 0.5
    assert figures["without_any_share"] <= 0.3
