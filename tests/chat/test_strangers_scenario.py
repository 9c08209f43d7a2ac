"""The scenario `random`, small: nobody fails, all are matched soon. docs/random.md has figures of larger runs."""

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
def test_95_of_100_searches_in_company_take_five_seconds_at_most() -> None:
    """Thirty users: alone, or with the last partner, one is at times; these seconds do not count."""
    settings = Settings(join_s=15.0, begin_s=5.0, talk_s=10.0, keep_s=45.0, reported=0.2)

    async def main(world: VirtualWorld) -> Run[Settings]:
        run = Run(world, 30, 1, settings, Silent())
        await SCENARIO.run(run)
        return run

    found = run_virtual(main, seed=1, delay=settings.delay, loss=settings.loss, keep_trace=False)
    figures = found.recorder.figures
    searches = found.recorder.samples["search_in_company_s"]
    print({name: round(value, 3) for name, value in figures.items()}, f"{len(searches)} searches")
    assert not found.recorder.failures
    assert len(searches) >= 50
    assert figures["in_company_within_5_s_share"] >= 0.95
    assert figures["without_any_share"] == 0.0
