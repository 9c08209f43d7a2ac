"""Somebody grinds ids nearest to a key, to hide its record or to keep an old version of it alive: is it still found?"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from msgspec import Meta

from p2pnode.core.keys import NodeKey
from p2pnode.dht.records import record_key
from p2pnode.simulations.harness.hostile import Behaviour, Gang, block_addresses, grind
from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import SALT, Written, holds, true_holders, write_one
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]

READS_PER_S = 10.0
JOIN_AT_ONCE = 20


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `eclipse`."""

    full: Annotated[bool, Meta(description="whole nodes; false: DHT servers alone")] = False
    blocks: Annotated[int, Meta(ge=1, le=1000, description="address blocks (/24) of the attackers")] = 8
    ids_per_block: Annotated[int, Meta(ge=1, le=1000, description="attackers in each, with ids ground")] = 20
    answer: Annotated[
        Literal["silent", "old", "mute"],
        Meta(description="attackers name only each other and know no record; or return an old one; or answer nothing"),
    ] = "silent"
    gets: Annotated[int, Meta(ge=1, le=100_000, description="reads of the record, each by another node")] = 100
    unaware: Annotated[bool, Meta(description="the attackers come after the record was written last")] = False


async def run(run: Run[Settings]) -> None:
    """Write, surround the key, write a new version, read it."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(60.0)
    author = population.choice(population.members)
    first = await write_one(run, author, value_bytes=500)
    gang = Gang(Behaviour(settings.answer), first.record)
    if settings.unaware:
        await asyncio.sleep(1.0)
        first = await write_one(run, author, value_bytes=500, key=first.key)
    await _surround(run, population, gang, first)
    written = first if settings.unaware else await write_one(run, author, value_bytes=500, key=first.key)
    await asyncio.sleep(5.0)  # stores of a writer that went on early
    (region,) = true_holders(population, [written.record], 20)
    run.figure("honest_holders", sum(holds(member, written.record) for member in population.alive))
    run.figure("held_by_closest_20_share", sum(holds(member, written.record) for member in region) / len(region))
    run.figure("swallowed_records", gang.swallowed)
    await _read(run, population, written)
    await gang.stop()
    await population.stop()


async def _surround(run: Run[Settings], population: Population, gang: Gang, written: Written) -> None:
    settings = run.settings
    number = settings.blocks * settings.ids_per_block
    run.progress.phase("grinding ids", number)
    keys: list[NodeKey] = []
    while len(keys) < number:
        keys += grind(run.rng, record_key(written.key.public_raw, SALT), 1, 1 / run.nodes)
        run.progress.advance()
        await asyncio.sleep(0)
    run.progress.phase("attackers joining", number)
    through = [member.contact for member in population.bootstrap_nodes]
    addresses = block_addresses(settings.blocks)
    for at in range(0, number, JOIN_AT_ONCE):
        await gang.join(run.world, keys[at : at + JOIN_AT_ONCE], addresses, through)
        run.progress.advance(JOIN_AT_ONCE)
    await population.settle(30.0)


async def _read(run: Run[Settings], population: Population, written: Written) -> None:
    """Figures: `lookup_success` (the newest version, searched to the end), `stale_share`, `region_share`."""
    record = written.record
    readers = [m for m in population.alive if m is not written.author and not holds(m, record)]
    readers = population.sample(run.settings.gets, readers)
    run.progress.phase("reading", len(readers))
    good = stale = regions = first_good = 0
    for reader in readers:
        before, datagrams = reader.dht.statistics().regions, reader.datagrams
        result = await reader.dht.get(record.public_key, record.salt, realms=None)
        good += result.record == record
        stale += result.record is not None and result.record.seq < record.seq
        regions += reader.dht.statistics().regions > before
        run.sample("lookup_s", result.elapsed_s)
        run.sample("datagrams_per_lookup", reader.datagrams - datagrams)
        quick = await reader.dht.get(record.public_key, record.salt, realms=None, fast=True)
        first_good += quick.record == record
        run.progress.advance()
        await asyncio.sleep(run.rng.expovariate(READS_PER_S))
    run.figure("lookup_success", good / len(readers))
    run.figure("stale_share", stale / len(readers))
    run.figure("first_answer_newest_share", first_good / len(readers))
    run.figure("region_share", regions / len(readers))


SCENARIO = Scenario(
    name="eclipse",
    summary="Attackers grind ids nearest to a key, to hide its record or keep an old one: is the newest still found?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=30,
)
