"""How fast is a record found that somebody else wrote, and what does it cost?"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import read_all, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `lookup`."""

    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up")] = 1000
    records: Annotated[int, Meta(ge=1, le=100_000, description="records written before")] = 100
    value_bytes: Annotated[int, Meta(ge=1, le=900, description="size of a record's value")] = 500
    join_s: Annotated[float, Meta(gt=0, description="seconds over which the nodes arrive")] = 60.0
    settle_s: Annotated[float, Meta(ge=0, description="seconds between the last arrival and the first record")] = 120.0


async def run(run: Run[Settings]) -> None:
    """Join, settle, write, read."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=settings.join_s)
    await population.settle(settings.settle_s)
    written = await write_all(run, population, count=settings.records, value_bytes=settings.value_bytes)
    await read_all(run, population, written, gets=settings.gets)
    await population.stop()


SCENARIO = Scenario(
    name="lookup",
    summary="How fast is a record found that somebody else wrote, and at what cost?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=4,
)
