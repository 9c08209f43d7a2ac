"""What the virtual world costs: per datagram, per idle node, per lookup, and in which layer the time goes.

Each figure is printed beside its bar and beside a yardstick of this machine, measured in the same run. Times are this
process's CPU seconds, so that other programs disturb little; of repeated measurements the least.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import heapq
import itertools
import pstats
import re
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import psutil
from table import Table

from p2pnode.core.address import Address
from p2pnode.core.logs import set_up
from p2pnode.core.network import DatagramSocket
from p2pnode.simulations.harness.execution import Counter
from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import read_all, write_all
from p2pnode.simulations.harness.scenario import Run
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.presets import LINKS

HOSTS = 100
SEED = 1
HARNESS_BAR_US = 15.0
FULL_NODE_BAR_KB, DHT_NODE_BAR_KB = 1000.0, 300.0

LAYERS = {
    "harness": r"simulations/",
    "crypto": r"cryptography|/hazmat|hashlib|hmac|_hashlib|sha256|blake2|core/(ids|keys|envelope)\.py",
    "quic (qh3)": r"qh3",
    "ice (aioice)": r"aioice",
    "msgspec": r"msgspec|dht/messages\.py",
    "dht": r"/dht/|/kademlia/",
    "nat": r"/nat/",
    "node": r"p2pnode/[^/]*\.py|/node/|/core/",
    "asyncio": r"/asyncio/|_asyncio|contextvars|Context|heapq|collections\.deque",
}
"""Layer to what file and function names of cProfile match; the first that does counts."""


def heap_event_us(count: int) -> float:
    """Microseconds to push an event on a heap of a hundred, pop it and call it: the least that any simulator pays."""
    numbers = itertools.count()
    heap: list[tuple[float, int, Callable[[int], int], tuple[int]]] = []
    began = time.process_time()
    for number in range(count):
        heapq.heappush(heap, (number * 0.731 % 1.0, next(numbers), abs, (number,)))
        if len(heap) > HOSTS:
            _, _, function, args = heapq.heappop(heap)
            function(*args)
    return (time.process_time() - began) / count * 1e6


def datagram_us(count: int, *, trace: bool = False, links: bool = False) -> float:
    """Microseconds of CPU from `send` to the handler at the other host: bare sockets, no node; 200 bytes, 25-75 ms."""

    async def main(world: VirtualWorld) -> float:
        networks = [world.host(f"20.0.{number}.1") for number in range(HOSTS)]
        if links:
            home = LINKS["home-cable"]  # with jitter, rates and queues; loss would end the conversations
            lossless = replace(home, up=replace(home.up, loss=0.0), down=replace(home.down, loss=0.0))
            for network in networks:
                world.set_link(network, lossless)
        addresses = [Address(network.host.addresses()[0], 4747) for network in networks]
        sockets: list[DatagramSocket] = []
        received = 0
        over = asyncio.Event()

        def handler(number: int) -> Callable[[bytes, Address], None]:
            def take(data: bytes, source: Address) -> None:
                nonlocal received
                received += 1
                if received < count:
                    sockets[number].send(data, source)
                else:
                    over.set()

            return take

        for number, network in enumerate(networks):
            sockets.append(await network.open_udp(Address("0.0.0.0", 4747), handler(number)))
        began = time.process_time()
        for number, socket in enumerate(sockets):
            socket.send(b"\x04" + bytes(199), addresses[(number + 1) % HOSTS])
        await over.wait()
        return (time.process_time() - began) / count * 1e6

    return run_virtual(main, seed=SEED, delay=lambda rng: rng.uniform(0.025, 0.075), keep_trace=trace, until=None)


def per_datagram(table: Table, count: int) -> None:
    """Cost of the harness for one datagram."""
    least = min(heap_event_us(count) for _ in range(3))
    beside = f"a bare event on a heap: {least:.2f} us"
    for what, options in (
        ("", {}),
        (", trace kept", {"trace": True}),
        (", access links at both ends", {"links": True}),
    ):
        cost = min(datagram_us(count, **options) for _ in range(3))
        table.add(f"harness per simulated datagram{what}", cost, "us", None if what else HARNESS_BAR_US, beside)


def resident_kb() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e3


def simulate(nodes: int, *, full: bool, work: Callable[[Run[PopulationSettings], Population], object]) -> None:
    """Run `work` on a network of `nodes` that have joined and settled. Nothing is traced."""

    async def main(world: VirtualWorld) -> None:
        run = Run(world, nodes, SEED, PopulationSettings(full=full), Counter())
        population = Population(run)
        await population.grow(nodes, seconds=60)
        await population.settle(120)
        await work(run, population)  # type: ignore[misc]  # async functions are given
        await population.stop()

    delay = PopulationSettings().delay
    run_virtual(main, seed=SEED, delay=delay, keep_trace=False, until=None)


def idle_figures(nodes: int, hours: float, full: bool) -> tuple[float, float, float]:
    """Return (kB, CPU seconds in an hour, datagrams sent in an hour) of a settled node. Needs a fresh process."""
    set_up("critical", "console", sys.stderr)
    simulate(2, full=full, work=_nothing)  # loads what is loaded once
    before = resident_kb()
    figures: list[float] = []

    async def measure(run: Run[PopulationSettings], _population: Population) -> None:
        figures.append((resident_kb() - before) / nodes)
        began, sent = time.process_time(), run.world.counts["sent"]
        await asyncio.sleep(3600 * hours)
        figures.append((time.process_time() - began) / nodes / hours)
        figures.append((run.world.counts["sent"] - sent) / nodes / hours)

    simulate(nodes, full=full, work=measure)
    return figures[0], figures[1], figures[2]


def idle_nodes(table: Table, nodes: int, hours: float) -> None:
    """Memory of a settled node, and CPU of an hour in which nobody asks anything."""
    yardstick = timed(lambda: sum(range(10_000_000)))
    for full, kind, bar in ((True, "full node", FULL_NODE_BAR_KB), (False, "DHT-only node", DHT_NODE_BAR_KB)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            memory, cpu, datagrams = child.submit(idle_figures, nodes, hours, full).result()
        table.add(f"idle {kind}: memory", memory, "kB", bar, f"{nodes} nodes")
        beside = f"sum of 10 million: {yardstick * 1000:.0f} ms; {datagrams:.0f} datagrams sent per hour"
        table.add(f"idle {kind}: CPU per virtual hour", cpu * 1000, "ms", None, beside)
        table.add(f"idle {kind}s: nodes x virtual s per real s", 3600 / cpu, "", None)


async def _nothing(_run: Run[PopulationSettings], _population: Population) -> None:
    """Only join."""


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def busy_network(table: Table, nodes: int, gets: int) -> pstats.Stats:
    """Join, write and look up as the scenario `lookup` does: speed, and where the time goes."""

    async def work(run: Run[PopulationSettings], population: Population) -> None:
        written = await write_all(run, population, count=gets // 10, value_bytes=500)
        await read_all(run, population, written, gets=gets)
        virtual.append(run.world.loop.time())
        datagrams.append(run.world.counts["sent"])

    virtual: list[float] = []
    datagrams: list[int] = []
    spent = timed(lambda: simulate(nodes, full=True, work=work))
    beside = f"{nodes} full nodes, {gets} gets, {virtual[0]:.0f} virtual s in {spent:.1f} s"
    table.add("lookup: nodes x virtual s per CPU s", nodes * virtual[0] / spent, "", None, beside)
    table.add("lookup: CPU per datagram, node included", spent / datagrams[0] * 1e6, "us", None)
    profile = cProfile.Profile()
    profile.runcall(simulate, nodes, full=True, work=work)
    return pstats.Stats(profile)


def layer_of(file: str, name: str) -> str:
    path = f"{file}:{name}"
    return next((layer for layer, pattern in LAYERS.items() if re.search(pattern, path)), "Python and others")


def show_profile(table: Table, stats: pstats.Stats, top: int) -> None:
    """Print the share of each layer, and the functions that take most by themselves."""
    rows = [(own, calls, file, line, name) for (file, line, name), (_, calls, own, _, _) in stats.stats.items()]  # type: ignore[attr-defined]
    total = sum(own for own, *_ in rows)
    by_layer: dict[str, float] = defaultdict(float)
    for own, _, file, _, name in rows:
        by_layer[layer_of(file, name)] += own
    for layer, own in sorted(by_layer.items(), key=lambda item: -item[1]):
        table.add(f"share of {layer}", own / total * 100, "%", None)
    print(f"\n{'own time':>9} {'calls':>9}  layer              function")
    for own, calls, file, line, name in sorted(rows, reverse=True)[:top]:
        place = f"{'/'.join(Path(file).parts[-2:])}:{line} {name}" if line else name
        print(f"{own / total * 100:8.1f}% {calls:9}  {layer_of(file, name):18} {place[:90]}")
    print()


def show_memory(nodes: int, *, full: bool, top: int = 10) -> None:
    """Print what the memory of a settled node consists of, by the line that allocated it."""

    async def measure(_run: Run[PopulationSettings], _population: Population) -> None:
        gc.collect()
        shot = tracemalloc.take_snapshot().compare_to(before, "lineno")
        print(f"\n{'kB a node':>9} {'objects':>9}  allocated at ({'full' if full else 'DHT-only'} nodes, {nodes})")
        for entry in sorted(shot, key=lambda each: -each.size_diff)[:top]:
            frame = entry.traceback[0]
            place = f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"
            print(f"{entry.size_diff / nodes / 1e3:9.1f} {entry.count_diff / nodes:9.1f}  {place}")
        print(f"{sum(entry.size_diff for entry in shot) / nodes / 1e3:9.1f}            all that Python allocated\n")

    simulate(4, full=full, work=_nothing)
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    simulate(nodes, full=full, work=measure)
    tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer datagrams, nodes and hours")
    parser.add_argument("--memory", action="store_true", help="show instead what the memory of a node consists of")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    set_up("critical", "console", sys.stderr)
    if options.memory:
        for full in (True, False):
            show_memory(30 if options.short else 100, full=full)
        return
    table = Table()
    per_datagram(table, 20_000 if options.short else 200_000)
    idle_nodes(table, *((30, 1.0) if options.short else (200, 1.0)))
    stats = busy_network(table, *((30, 100) if options.short else (200, 1000)))
    show_profile(table, stats, 15 if options.short else 30)
    sys.exit(table.finish(options.json))


if __name__ == "__main__":
    main()
