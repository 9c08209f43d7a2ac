"""Writing records into a population and reading them back: what several scenarios measure."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht import GetResult, SignedRecord
from p2pnode.simulations.harness.population import Member, Population
from p2pnode.simulations.harness.scenario import Run

__all__ = [
    "SALT",
    "Read",
    "Written",
    "holds",
    "measure_holders",
    "miss_all",
    "read_all",
    "read_one",
    "true_holders",
    "write_all",
    "write_one",
]

LIFE_S = 6 * 3600.0
PUTS_PER_S = 10.0
SEARCH_ENDS_S = 10.0
GETS_PER_S = 50.0
SALT = b"simulation"
ENOUGH = 8


@dataclass(frozen=True)
class Written:
    """A record and who wrote it."""

    record: SignedRecord
    author: Member
    key: NodeKey


@dataclass(frozen=True)
class Read:
    """What a read brought. `good`: in the end, the version that was wanted or a later one; its author may have written
    meanwhile. `first_older`: the first record was an earlier version."""

    good: bool
    first_older: bool


async def write_one(run: Run[Any], author: Member, *, value_bytes: int, key: NodeKey | None = None) -> Written:
    """Sign a random value, with a new key or as the next version under `key`, and store it from `author`'s node.

    Half of the writers go on when eight holders have confirmed (`put_early_s`), the others wait for all (`put_s`).
    """
    key = NodeKey.generate(run.rng.randbytes) if key is None else key
    wall = author.network.wall()
    record = SignedRecord.sign(
        key, network_tag("public"), salt=SALT, seq=int(wall * 1000), expires=int(wall + LIFE_S),
        value=run.rng.randbytes(value_bytes),
    )  # fmt: skip
    early = run.rng.random() < 0.5
    result = await author.dht.put(record, realms=[Realm.PUBLIC], enough=ENOUGH if early else None)
    if early:
        run.sample("put_early_s", result.elapsed_s)
    else:
        run.sample("put_s", result.elapsed_s)
        run.sample("put_holders", result.stored)
    return Written(record, author, key)


async def write_all(
    run: Run[Any],
    population: Population,
    *,
    count: int,
    value_bytes: int,
    authors: Sequence[Member] | None = None,
    phase: str = "writing",
) -> list[Written]:
    """Write `count` records of different keys from random nodes (of `authors`), ten per second."""
    run.progress.phase(phase, count)
    written: list[Written] = []

    async def put(author: Member) -> None:
        written.append(await write_one(run, author, value_bytes=value_bytes))
        run.progress.advance()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(put(population.choice(population.alive if authors is None else authors)))
            await asyncio.sleep(run.rng.expovariate(PUTS_PER_S))
    measure_holders(run, population, written)
    return written


def measure_holders(run: Run[Any], population: Population, written: Sequence[Written], when: str = "") -> None:
    """Set the figures `held_by_closest_{3,8,20}_share[_WHEN]`."""
    suffix = f"_{when}" if when else ""
    found = [
        [holds(member, each.record) for member in holders]
        for each, holders in zip(written, true_holders(population, [each.record for each in written], 20), strict=True)
    ]
    for near in (3, 8, 20):
        nearest = [held for row in found for held in row[:near]]
        run.figure(f"held_by_closest_{near}{suffix}_share", sum(nearest) / len(nearest) if nearest else 0.0)


def true_holders(population: Population, records: Sequence[SignedRecord], count: int) -> list[list[Member]]:
    """Return for each record the `count` living servers nearest to its key: known here, where everything is seen."""
    servers = {
        int.from_bytes(member.key.node_id, "big"): member
        for member in population.alive
        if Realm.PUBLIC in member.dht.serving
    }
    goals = [int.from_bytes(record.key, "big") for record in records]
    return [[servers[near] for near in heapq.nsmallest(count, servers, key=goal.__xor__)] for goal in goals]


def holds(member: Member, record: SignedRecord) -> bool:
    """Whether a node has the record in its storage."""
    return member.dht.storage.read(Realm.PUBLIC, record.key, member.network.monotonic()) is not None


async def read_all(
    run: Run[Any],
    population: Population,
    written: Sequence[Written],
    *,
    gets: int,
    readers: Sequence[Member] | None = None,
    rate: float = GETS_PER_S,
    name: str = "lookup",
    phase: str = "reading",
) -> None:
    """Read records at random, `rate` per second, each by a node that neither wrote nor holds it.

    Figures: `NAME_s` (to the first valid record), `NAME_success` (of the reads whose reader stayed), `NAME_older_share`
    (of those, the first record was an older version), `datagrams_per_NAME`, `bytes_per_NAME` (medians, the reader's,
    both directions; until the search has ended), the same `_per_first_record` until that is there.
    """
    run.progress.phase(phase, gets)
    found: list[bool] = []
    older = 0

    async def get(each: Written, reader: Member) -> None:
        nonlocal older
        read = await read_one(run, each, reader, name)
        if read.good or reader.alive:
            found.append(read.good)
            older += read.first_older
            run.point(f"{name}_success", sum(found) / len(found))
        run.progress.advance()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(gets):
            each = run.rng.choice(written)
            pool = population.alive if readers is None else readers
            reader = _reader(population, pool, each)
            if reader is None:
                run.require(False, "Every node wrote or holds a record that was to be read: more nodes are needed.")
                return
            tasks.create_task(get(each, reader))
            await asyncio.sleep(run.rng.expovariate(rate))
    run.figure(f"{name}_success", sum(found) / len(found) if found else 0.0)
    run.figure(f"{name}_older_share", older / len(found) if found else 0.0)


def _reader(population: Population, pool: Sequence[Member], each: Written) -> Member | None:
    """Draw a node that neither wrote nor holds the record, None when there is none."""
    for _ in range(20):  # nearly always the first is one
        reader = population.choice(pool)
        if reader.alive and reader is not each.author and not holds(reader, each.record):
            return reader
    fit = [m for m in pool if m.alive and m is not each.author and not holds(m, each.record)]
    return population.choice(fit) if fit else None


async def read_one(run: Run[Any], each: Written, reader: Member, name: str) -> Read:
    """Look one record up, to the end of the search: what it sends behind the first record counts too."""
    datagrams, size = reader.datagrams, reader.traffic_bytes
    record, ended = each.record, asyncio.Event()
    newest: SignedRecord | None = None

    def newer(result: GetResult) -> None:
        nonlocal newest
        newest = result.record
        if result.settled:
            ended.set()

    result = await reader.dht.get(record.public_key, record.salt, realms=[Realm.PUBLIC], fast=True, on_newer=newer)
    first = newest = result.record
    if first is not None:
        run.sample(f"{name}_s", result.elapsed_s)
        run.sample(f"{name}_hops", result.hops)
        run.sample("datagrams_per_first_record", reader.datagrams - datagrams)
        run.sample("bytes_per_first_record", reader.traffic_bytes - size)
    if not result.settled:
        with contextlib.suppress(TimeoutError):  # of a reader that was killed meanwhile
            async with asyncio.timeout(SEARCH_ENDS_S):
                await ended.wait()
    run.sample(f"datagrams_per_{name}", reader.datagrams - datagrams)
    run.sample(f"bytes_per_{name}", reader.traffic_bytes - size)
    return Read(
        good=newest is not None and newest.seq >= record.seq,
        first_older=first is not None and first.seq < record.seq,
    )


async def miss_all(run: Run[Any], population: Population, *, count: int, rate: float = GETS_PER_S) -> None:
    """Look up keys that nobody wrote: each is a lookup to the end, as of whoever writes.

    Figures: `missing_s`, `datagrams_per_full_lookup`, `bytes_per_full_lookup` (the reader's, both directions).
    """
    run.progress.phase("missing", count)

    async def miss(reader: Member) -> None:
        datagrams, size = reader.datagrams, reader.traffic_bytes
        key = NodeKey.generate(run.rng.randbytes).public_raw
        result = await reader.dht.get(key, SALT, realms=[Realm.PUBLIC])
        run.sample("missing_s", result.elapsed_s)
        run.sample("datagrams_per_full_lookup", reader.datagrams - datagrams)
        run.sample("bytes_per_full_lookup", reader.traffic_bytes - size)
        run.progress.advance()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(miss(population.choice(population.alive)))
            await asyncio.sleep(run.rng.expovariate(rate))
