"""Half of all nodes vanish in one instant: are records found at once, and who holds them later?"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import measure_holders, read_all, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `half-die`."""

    share: Annotated[float, Meta(gt=0, lt=1, description="share of the nodes that vanish")] = 0.5
    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up, at once and again later")] = 500
    records: Annotated[int, Meta(ge=1, le=100_000, description="records written before")] = 100
    later_s: Annotated[float, Meta(ge=0, description="seconds until the second round of reading")] = 180.0
    settle_s: Annotated[float, Meta(ge=0, description="seconds before the first record is written")] = 120.0


async def run(run: Run[Settings]) -> None:
    """Write, kill, read, wait, read again."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(settings.settle_s)
    written = await write_all(run, population, count=settings.records, value_bytes=500)
    dying = population.sample(round(settings.share * run.nodes))
    for member in dying:
        member.kill()
    measure_holders(run, population, written, "after_death")
    await read_all(run, population, written, gets=settings.gets, name="lookup", phase="reading at once")
    await population.settle(settings.later_s, "waiting")
    measure_holders(run, population, written, "later")
    await read_all(run, population, written, gets=settings.gets, name="later_lookup", phase="reading later")
    await population.stop()


SCENARIO = Scenario(
    name="half-die",
    summary="Half of all nodes vanish in one instant: are records still found, and who holds them minutes later?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=8,
)
