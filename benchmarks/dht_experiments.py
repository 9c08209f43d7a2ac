"""What `dht_lookups.py` has both DHTs do: the same steps, addresses, ids and moments for the same seed."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from dht_subjects import SUBJECTS, Stored, Subject, prepare

from p2pnode.core.address import Scope, scope_of
from p2pnode.core.keys import NodeKey
from p2pnode.simulations.virtual import VirtualWorld
from p2pnode.simulations.virtual.links import Uniform
from p2pnode.simulations.virtual.loop import VirtualLoop

__all__ = ["EXPERIMENTS", "Found", "Size", "run"]

DELAY, LOSS = Uniform(0.025, 0.075), 0.05
VALUE_BYTES = 500
BOOTSTRAP_NODES = 3
SESSION_S = 15 * 60.0
REFRESH_S = 300.0
PUTS_PER_S, GETS_PER_S = 10.0, 50.0
LINGER_S = 3.0  # what a get still sends after its first valid record counts as its own
Found = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    """How much of it."""

    nodes: int
    gets: int
    records: int
    joins: int


class Town:
    """The nodes of one run, and what was measured. Samples that end in `_ok` are 1 or 0."""

    def __init__(self, world: VirtualWorld, kind: type[Subject], seed: int, size: Size) -> None:
        self.world, self.kind, self.size = world, kind, size
        self.rng = random.Random(f"{seed}/town")
        self.found: Found = {}
        self.nodes: list[Subject] = []
        self._places = random.Random(f"{seed}/places")
        self._taken: set[str] = set()

    @property
    def alive(self) -> list[Subject]:
        return [node for node in self.nodes if node.alive]

    def sample(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)

    async def timed(self, name: str, work: Awaitable[Any]) -> Any:
        """Measure one call: seconds in `NAME`, whether it succeeded in `NAME_ok`. What it raises is a failure."""
        began = self.world.loop.now()
        try:
            result = await work
        except (ValueError, TypeError, KeyError):  # kademlia's, when nobody is left
            result = False
        if result:
            self.sample(name, self.world.loop.now() - began)
        self.sample(f"{name}_ok", float(bool(result)))
        return result

    def newcomer(self) -> Subject:
        while True:
            ip = ".".join(str(byte) for byte in self._places.randbytes(4))
            if ip not in self._taken and scope_of(ip) is Scope.PUBLIC:
                break
        self._taken.add(ip)
        node = self.kind(self.world.host(ip), ip, NodeKey.generate(self._places.randbytes))
        self.nodes.append(node)
        return node

    async def grow(self, seconds: float = 60.0) -> None:
        for number in range(BOOTSTRAP_NODES):
            await self.newcomer().join(self.nodes[:number])
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.size.nodes - BOOTSTRAP_NODES):
                await asyncio.sleep(self.rng.expovariate(self.size.nodes / seconds))
                tasks.create_task(self.newcomer().join(self.nodes[:BOOTSTRAP_NODES]))

    async def paced(self, count: int, rate: float, step: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start `count` steps at random moments, `rate` per second, and wait for all."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(step())
                await asyncio.sleep(self.rng.expovariate(rate))

    async def write(self) -> list[Stored]:
        """Every second one returns early, where that is known."""
        written: list[Stored] = []
        turns = itertools.count()

        async def put() -> None:
            early = self.kind.has_early_puts and next(turns) % 2 == 1
            author, value = self.rng.choice(self.alive), self.rng.randbytes(VALUE_BYTES)
            stored = await self.timed("put early" if early else "put", author.put(value, self.rng, early=early))
            if stored:
                written.append(stored)

        await self.paced(self.size.records, PUTS_PER_S, put)
        return written

    def reader(self, stored: Stored) -> Subject:
        """Draw a node that neither wrote nor holds it."""
        while True:
            node = self.rng.choice(self.alive)
            if node is not stored.author and not node.holds(stored):
                return node

    async def read(self, name: str, written: Sequence[Stored], count: int, rate: float = GETS_PER_S) -> None:
        async def get() -> None:
            stored = self.rng.choice(written)
            await self.timed(name, self.reader(stored).get(stored))

        await self.paced(count, rate, get)

    def held(self, name: str, written: Sequence[Stored]) -> None:
        """Sample which share of the true nearest living nodes hold each: known here, where everything is seen."""
        ids = [(int.from_bytes(node.key.node_id, "big"), node) for node in self.alive]
        for stored in written:
            goal = int.from_bytes(stored.key, "big")
            nearest = [node for _, node in sorted(ids, key=lambda pair: pair[0] ^ goal)[:20]]
            for near in (3, 8, 20):
                self.sample(f"{name} {near}", sum(node.holds(stored) for node in nearest[:near]) / near)

    async def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        await asyncio.gather(*(node.leave() for node in self.nodes))


async def still(town: Town) -> None:
    """Nobody leaves: write, read, miss, join; then half of all die at once."""
    size = town.size
    await town.grow()
    await asyncio.sleep(120)
    written = await town.write()
    await asyncio.sleep(30)
    town.held("held", written)
    await town.read("get", written, size.gets)

    async def miss() -> None:
        reader = town.rng.choice(town.alive)
        began = town.world.loop.now()
        await reader.get(reader.nowhere(town.rng))
        town.sample("missing", town.world.loop.now() - began)

    await town.paced(size.gets // 4, 10.0, miss)
    for _ in range(size.gets // 10):
        stored = town.rng.choice(written)
        reader = town.reader(stored)
        datagrams, size_before = reader.traffic
        await reader.get(stored)
        await asyncio.sleep(LINGER_S)
        town.sample("datagrams", reader.traffic[0] - datagrams)
        town.sample("kB", (reader.traffic[1] - size_before) / 1000)
    for _ in range(size.joins):
        node = town.newcomer()
        await town.timed("join", node.join(town.nodes[:BOOTSTRAP_NODES]))
        stored = town.rng.choice(written)
        if not node.holds(stored):
            await town.timed("first get", node.get(stored))
        await asyncio.sleep(10)
        if town.kind is SUBJECTS["ours"]:
            await town.timed("join warm", node.rejoin())
    for node in town.rng.sample(town.alive[BOOTSTRAP_NODES:], len(town.alive) // 2):
        node.kill()
    await town.read("get after deaths", written, size.gets // 2)
    await asyncio.sleep(180)
    town.held("held after deaths", written)


async def churn(town: Town) -> None:
    """For each node that leaves, politely or not, one comes; authors stay and write again every five minutes."""
    size = town.size
    await town.grow()
    await asyncio.sleep(60)
    authors = town.rng.sample(town.alive, size.records // 2)
    staying = {*authors, *town.nodes[:BOOTSTRAP_NODES]}
    written: list[Stored] = []

    async def keep(author: Subject) -> None:
        await asyncio.sleep(town.rng.uniform(0, 5))
        stored = await author.put(town.rng.randbytes(VALUE_BYTES), town.rng)
        written.append(stored)
        while True:
            await asyncio.sleep(REFRESH_S * town.rng.uniform(0.8, 1.0))
            fresh = await author.put(stored.value, town.rng, again=stored)
            written[written.index(stored)] = stored = fresh

    async def come_and_go() -> None:
        mean_s = SESSION_S / (size.nodes - len(staying))
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(town.rng.expovariate(1 / mean_s))
                leaving = town.rng.choice([node for node in town.alive if node not in staying])
                if town.rng.random() < 0.5:
                    leaving.alive = False
                    tasks.create_task(leaving.leave())
                else:
                    leaving.kill()
                node = town.newcomer()
                tasks.create_task(town.timed("join under churn", node.join(town.nodes[:BOOTSTRAP_NODES])))

    tasks = [asyncio.create_task(keep(author)) for author in authors]
    tasks.append(asyncio.create_task(come_and_go()))
    await asyncio.sleep(300)
    await town.read("get under churn", written, size.gets, size.gets / 300)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def processor(town: Town) -> None:
    """Processor time of the whole network for one put and one get, less what the idle network takes meanwhile.

    The simulation's own part is in it, some 15 us per datagram. A few people read and write again and again, as people
    do: at first with nodes that they never met, later with keys agreed. Medians: now and then upkeep falls into one.
    """
    await town.grow()
    await asyncio.sleep(120)
    began = time.process_time()
    await asyncio.sleep(300)
    idle_share = (time.process_time() - began) / 300
    people = town.rng.sample(town.alive, min(20, len(town.alive) // 2))
    written: dict[Subject, Stored] = {}

    async def put(turn: int) -> None:
        author = people[turn % len(people)]
        value = town.rng.randbytes(VALUE_BYTES)
        written[author] = await author.put(value, town.rng, again=written.get(author))

    async def get(turn: int) -> None:
        reader = people[turn % len(people)]
        await reader.get(town.rng.choice([each for each in written.values() if not reader.holds(each)]))

    gets = max(town.size.gets // 4, 4 * len(people))
    for name, step, count in (
        ("CPU put", put, len(people)), ("CPU put again", put, 2 * len(people)),
        ("CPU get", get, gets), ("CPU get again", get, gets),
    ):  # fmt: skip
        for turn in range(count):
            began, now = time.process_time(), town.world.loop.now()
            await step(turn)
            await asyncio.sleep(0.3)  # a hundred round trips: what a fast read still sends is part of its cost
            idle_s = idle_share * (town.world.loop.now() - now)
            town.sample(name, (time.process_time() - began - idle_s) * 1000)


async def idle(town: Town) -> None:
    """Nobody asks anything for an hour."""
    await town.grow()
    await asyncio.sleep(300)
    before = [node.traffic[0] for node in town.nodes]
    await asyncio.sleep(3500)
    for node, datagrams in zip(town.nodes, before, strict=True):
        town.sample("idle", (node.traffic[0] - datagrams) / 3500)


EXPERIMENTS: dict[str, Callable[[Town], Awaitable[None]]] = {
    "still": still, "churn": churn, "processor": processor, "idle": idle
}  # fmt: skip


def run(experiment: str, subject: str, seed: int, size: Size) -> Found:
    """Run one experiment in virtual time and return the samples by name."""
    prepare(seed)
    quiet = experiment == "processor"
    loop = VirtualLoop(seed, spares_keys=not quiet)
    world = VirtualWorld(
        seed, delay=0.001 if quiet else DELAY, loss=0.0 if quiet else LOSS, keep_trace=False, loop=loop
    )
    world.counts_traffic = True
    town = Town(world, SUBJECTS[subject], seed, size)

    async def main() -> None:
        await EXPERIMENTS[experiment](town)
        await town.stop()

    loop.run(main(), blocked_after=None)
    return town.found
