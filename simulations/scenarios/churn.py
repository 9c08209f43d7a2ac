"""Nodes come and go all the time: are records found whose authors are there and keep them fresh?"""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Member, Population, PopulationSettings
from p2pnode.simulations.harness.records import Written, measure_holders, read_all, write_one
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `churn`."""

    session_min: Annotated[float, Meta(gt=0, description="mean minutes that a node stays (exponential)")] = 15.0
    polite: Annotated[float, Meta(ge=0, le=1, description="share that says goodbye; the others just vanish")] = 0.5
    churn_s: Annotated[float, Meta(gt=0, description="seconds of churn before the reads and during them")] = 300.0
    refresh_s: Annotated[float, Meta(gt=0, description="seconds between two writes of a record by its author")] = 300.0
    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up")] = 1000
    records: Annotated[int, Meta(ge=1, le=100_000, description="records kept by their authors, who stay")] = 50


async def run(run: Run[Settings]) -> None:
    """Keep `run.nodes` nodes alive on average while they come and go; authors and bootstrap nodes stay."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(60.0)
    written: list[Written] = []
    authors = population.sample(settings.records)
    staying = {*authors, *population.bootstrap_nodes}
    tasks = [asyncio.create_task(_keep_fresh(run, author, written)) for author in authors]
    mean_s = settings.session_min * 60 / max(1, run.nodes - len(staying))
    leavers = population.come_and_go(mean_s, polite=settings.polite, staying=staying)
    tasks.append(asyncio.create_task(leavers))
    await population.settle(settings.churn_s, "churning")
    newcomers = [member for member in population.alive[run.nodes // 2 :] if member.joined_s is not None]
    measure_holders(run, population, written, "under_churn")
    await read_all(run, population, written, gets=settings.gets, rate=settings.gets / settings.churn_s)
    run.figure("nodes_alive", len(population.alive))
    run.figure("newcomers_joined", len(newcomers))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await population.stop()


async def _keep_fresh(run: Run[Settings], author: Member, written: list[Written]) -> None:
    await asyncio.sleep(run.rng.uniform(0, 5))
    each = await write_one(run, author, value_bytes=500)
    written.append(each)
    while True:
        await asyncio.sleep(run.settings.refresh_s * run.rng.uniform(0.8, 1.0))
        fresh = await write_one(run, author, value_bytes=500, key=each.key)
        written[written.index(each)] = fresh
        each = fresh


SCENARIO = Scenario(
    name="churn",
    summary="Nodes come and go with a mean session of minutes: are records found that their authors keep fresh?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=20,
)
