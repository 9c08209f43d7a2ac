"""Thousands announce themselves under one topic: who finds them, and how hot does the hottest holder grow?"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

from msgspec import Meta

from p2pnode.core.keys import NodeKey
from p2pnode.dht import topic_id
from p2pnode.simulations.harness.population import Member, Population, PopulationSettings
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]

TOPIC = topic_id("simulation")
SAMPLE = 10


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `topic`."""

    full: Annotated[bool, Meta(description="whole nodes; false: DHT servers alone")] = False
    announcers: Annotated[int, Meta(ge=1, le=20_000, description="signers in the one topic")] = 1000
    join_s: Annotated[float, Meta(gt=0, description="seconds over which the nodes arrive")] = 60.0
    announce_s: Annotated[float, Meta(gt=0, description="seconds over which the signers come")] = 300.0
    samples: Annotated[int, Meta(ge=0, le=100_000, description="random samples of ten that are read")] = 100
    keep_s: Annotated[float, Meta(ge=0, description="seconds of upkeep that are measured")] = 600.0


async def run(run: Run[Settings]) -> None:
    """Join, announce, read all, read samples, and let the announcers refresh."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=settings.join_s)
    await population.settle(60.0)
    await _announce(run, population)
    _measure_load(run, population, "announcing", settings.announce_s)
    await _read(run, population)
    before = {member: _requests(member) for member in population.alive}
    await population.settle(settings.keep_s, "refreshing")
    _measure_load(run, population, "refreshing", settings.keep_s, before)
    found = await population.choice(population.alive).dht.topic(TOPIC, limit=10_000)
    run.figure("found_after_refresh_share", len(found.entries) / settings.announcers)
    await population.stop()


async def _announce(run: Run[Settings], population: Population) -> None:
    settings = run.settings
    run.progress.phase("announcing", settings.announcers)

    async def one(number: int) -> None:
        key = NodeKey.generate(run.rng.randbytes)
        result = await population.choice(population.alive).dht.announce(TOPIC, b"signer %d" % number, key=key)
        run.sample("announce_s", result.elapsed_s)
        run.sample("announce_holders", result.stored)
        run.progress.advance()

    async with asyncio.TaskGroup() as tasks:
        for number in range(settings.announcers):
            tasks.create_task(one(number))
            await asyncio.sleep(settings.announce_s / settings.announcers)


async def _read(run: Run[Settings], population: Population) -> None:
    """All of it once, then samples: how even they are shows in the counts of how often each was drawn."""
    settings = run.settings
    run.progress.phase("reading", settings.samples + 1)
    everything = await population.choice(population.alive).dht.topic(TOPIC, limit=10_000)
    run.figure("found_share", len(everything.entries) / settings.announcers)
    run.figure("whole_read_s", everything.elapsed_s)
    run.figure("shards", everything.shards)
    run.progress.advance()
    drawn: Counter[bytes] = Counter()
    for _ in range(settings.samples):
        result = await population.choice(population.alive).dht.topic(TOPIC, limit=SAMPLE, sample=True)
        run.sample("sample_read_s", result.elapsed_s)
        run.sample("estimated_population", result.population)
        drawn.update(entry.public_key for entry in result.entries)
        run.progress.advance()
    if drawn:
        run.figure("most_drawn", max(drawn.values()))
        run.figure("mean_drawn", sum(drawn.values()) / settings.announcers)


def _measure_load(
    run: Run[Settings], population: Population, when: str, seconds: float, before: dict[Member, int] | None = None
) -> None:
    """Set what the hottest holder and the mean one do and keep."""
    rates = [(_requests(member) - (before or {}).get(member, 0)) / seconds for member in population.alive]
    held = [member.dht.statistics().topic_entries for member in population.alive]
    run.figure(f"hottest_{when}_requests_per_s", max(rates))
    run.figure(f"mean_{when}_requests_per_s", sum(rates) / len(rates))
    run.figure(f"most_entries_{when}", max(held))
    run.figure(f"mean_entries_{when}", sum(held) / len(held))
    run.figure(f"most_{when}_bytes", max(member.dht.statistics().topic_bytes for member in population.alive))


def _requests(member: Member) -> int:
    return sum(member.dht.statistics().requests.values())


SCENARIO = Scenario(
    name="topic",
    summary="A thousand signers under one topic: is everybody found, and how hot is the hottest holder?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=4,
)
