"""Everybody comes at once: how long until a newcomer is useful, and does the network hold?"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import read_all, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `join-storm`."""

    join_s: Annotated[float, Meta(gt=0, description="seconds within which all arrive")] = 10.0
    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up right afterwards")] = 200
    records: Annotated[int, Meta(ge=1, le=100_000, description="records written right afterwards")] = 20


async def run(run: Run[Settings]) -> None:
    """Join within seconds; write and read at once."""
    settings = run.settings
    population = Population(run)
    joined = await population.grow(run.nodes, seconds=settings.join_s)
    newcomers = [member for member in joined if not member.is_bootstrap]
    run.figure("join_success", sum(member.joined_s is not None for member in newcomers) / max(1, len(newcomers)))
    sent = run.world.counts["sent"]
    run.figure("datagrams_per_join", sent / run.nodes)
    for member in population.alive:
        run.sample("contacts_after_join", sum(member.dht.statistics().contacts.values()))
    written = await write_all(run, population, count=settings.records, value_bytes=500)
    await read_all(run, population, written, gets=settings.gets)
    await population.stop()


SCENARIO = Scenario(
    name="join-storm",
    summary="All nodes join within seconds: how long until each is useful, and are records found at once?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=4,
)
