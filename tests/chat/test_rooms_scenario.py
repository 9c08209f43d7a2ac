"""The scenario `room`, small: all show the same history. docs/chat.md has figures of larger runs."""

from __future__ import annotations

import pytest

from p2pnode.simulations.harness.scenario import Run
from p2pnode.simulations.scenarios.room import SCENARIO, Settings
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


class Silent:
    """Nobody looks at the progress."""

    def phase(self, name: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass


@pytest.mark.long
def test_ten_members_on_a_bad_wire_show_one_history() -> None:
    settings = Settings(join_s=10.0, keep_s=10.0, rate=3.0, latecomers=1)

    async def main(world: VirtualWorld) -> Run[Settings]:
        run = Run(world, 10, 1, settings, Silent())
        await SCENARIO.run(run)
        return run

    found = run_virtual(main, seed=1, delay=settings.delay, loss=settings.loss, keep_trace=False)
    figures = found.recorder.figures
    print({name: round(value, 3) for name, value in figures.items()})
    assert not found.recorder.failures
    assert figures["same_history_share"] == 1.0
    assert figures["equal_after_s"] <= settings.within_s
