"""One machine, one address block or many send new ids in a flood into a running network: does it notice at all?"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Annotated, Literal

from msgspec import Meta

from p2pnode.core.keys import NodeKey
from p2pnode.simulations.harness.hostile import Behaviour, Gang, block_addresses
from p2pnode.simulations.harness.population import Member, Population, PopulationSettings
from p2pnode.simulations.harness.records import Written, read_all, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario

__all__ = ["SCENARIO", "Settings"]


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `sybil-flood`."""

    full: Annotated[bool, Meta(description="whole nodes; false: DHT servers alone")] = False
    source: Annotated[
        Literal["address", "block", "blocks"],
        Meta(description="where the ids come from: one IP address, one /24, or `blocks` of them"),
    ] = "block"
    blocks: Annotated[int, Meta(ge=1, le=10_000, description="address blocks (/24), for source=blocks")] = 50
    ids: Annotated[int, Meta(ge=1, le=100_000, description="new ids, which name only each other")] = 500
    flood_s: Annotated[float, Meta(gt=0, description="seconds within which they come")] = 60.0
    gets: Annotated[int, Meta(ge=1, le=100_000, description="records to look up before, during and after")] = 200
    records: Annotated[int, Meta(ge=1, le=10_000, description="records written before")] = 50


async def run(run: Run[Settings]) -> None:
    """Write; read before, during and after the flood; look into the tables."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(60.0)
    written = await write_all(run, population, count=settings.records, value_bytes=500)
    await read_all(run, population, written, gets=settings.gets, name="before_lookup", phase="reading before")
    known = {member: _contacts(member) for member in population.members}
    gang = Gang(Behaviour.SILENT)
    flood = asyncio.create_task(_flood(run, population, gang))
    rate = settings.gets / settings.flood_s
    await read_all(run, population, written, gets=settings.gets, rate=rate, name="lookup", phase="flood")
    await flood
    _measure(run, gang, known)
    await population.settle(60.0)
    await _read_after(run, population, written)
    await gang.stop()
    await population.stop()


async def _flood(run: Run[Settings], population: Population, gang: Gang) -> None:
    settings = run.settings
    blocks = settings.blocks if settings.source == "blocks" else 1
    addresses = block_addresses(blocks, hosts=1 if settings.source == "address" else 250)
    async with asyncio.TaskGroup() as tasks:
        for address in islice(addresses, settings.ids):
            through = [population.choice(population.members).contact for _ in range(3)]
            tasks.create_task(gang.join(run.world, [NodeKey.generate(run.rng.randbytes)], [address], through))
            await asyncio.sleep(run.rng.expovariate(settings.ids / settings.flood_s))


async def _read_after(run: Run[Settings], population: Population, written: list[Written]) -> None:
    again = await write_all(run, population, count=run.settings.records, value_bytes=500, phase="writing after")
    gets = run.settings.gets
    await read_all(run, population, written, gets=gets, name="after_lookup", phase="reading after")
    await read_all(run, population, again, gets=gets, name="after_new_lookup", phase="reading what was written after")


def _contacts(member: Member) -> set[bytes]:
    return {contact.node_id for contact in member.dht.known_contacts()}


def _measure(run: Run[Settings], gang: Gang, known: dict[Member, set[bytes]]) -> None:
    """Figures: how much of the tables is the flood's, and how many of the contacts before it are still there."""
    hostile = {node.key.node_id for node in gang.members}
    shares: list[float] = []
    kept: list[float] = []
    for member, before in known.items():
        now = _contacts(member)
        shares.append(len(now & hostile) / max(1, len(now)))
        kept.append(len(now & before) / max(1, len(before)))
        run.sample("hostile_contacts", len(now & hostile))
    run.figure("hostile_table_share", sum(shares) / len(shares))
    run.figure("worst_hostile_table_share", max(shares))
    run.figure("honest_contacts_kept_share", sum(kept) / len(kept))
    run.figure("worst_honest_contacts_kept_share", min(kept))


SCENARIO = Scenario(
    name="sybil-flood",
    summary="A flood of new ids from one address, one /24 or many: what happens to lookups and to routing tables?",
    run=run,
    settings=Settings,
    nodes=200,
    nodes_min=20,
)
