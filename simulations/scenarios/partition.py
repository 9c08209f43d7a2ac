"""The network falls apart into two halves and heals: what is found meanwhile, and how soon is all found again?"""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import read_all, read_one, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario
from p2pnode.simulations.virtual.faults import partition

__all__ = ["SCENARIO", "Settings"]

PROBES = 20


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `partition`."""

    apart_s: Annotated[float, Meta(gt=0, description="seconds that the halves cannot hear each other")] = 600.0
    heal_s: Annotated[float, Meta(gt=0, description="seconds watched after they can again")] = 300.0
    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up in each phase")] = 200
    records: Annotated[int, Meta(ge=1, le=100_000, description="records written in each phase and half")] = 30


async def run(run: Run[Settings]) -> None:
    """Write before and during the partition; read in each half, and across after healing."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(120.0)
    before = await write_all(run, population, count=settings.records, value_bytes=500)
    left = population.members[: run.nodes // 2]
    right = population.members[run.nodes // 2 :]
    heal = partition(run.world, *([host for member in side for host in member.hosts] for side in (left, right)))
    await population.settle(settings.apart_s, "apart")
    sides = (left, right)
    for name, side in zip(("left", "right"), sides, strict=True):
        await read_all(run, population, before, gets=settings.gets, readers=side, name=f"{name}_lookup",
                       phase=f"reading on the {name}")  # fmt: skip
    new = [await write_all(run, population, count=settings.records, value_bytes=500, authors=side) for side in sides]
    heal()
    healed_at = run.world.loop.time()
    run.progress.phase("healing", PROBES)
    all_found_at: float | None = None
    for _ in range(PROBES):
        good = 0
        for written, readers in zip(new, reversed(sides), strict=True):
            for each in written[: settings.records]:
                good += (await read_one(run, each, population.choice(readers), "crossing_lookup")).good
        share = good / (2 * settings.records)
        run.point("crossing_lookup_success", share)
        if share >= 0.99 and all_found_at is None:
            all_found_at = run.world.loop.time()
            run.figure("healed_s", all_found_at - healed_at)
        run.progress.advance()
        await asyncio.sleep(settings.heal_s / PROBES)
    run.figure("crossing_lookup_end_success", share)
    await population.stop()


SCENARIO = Scenario(
    name="partition",
    summary="Two halves cannot hear each other for minutes, then heal: how soon is everything found again?",
    run=run,
    settings=Settings,
    nodes=100,
    nodes_min=10,
)
