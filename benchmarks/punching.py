"""How often and how fast pairs behind routers connect directly: whole nodes in virtual time, a new world for each seed.

80 ms round trip between any two routers; seconds are the network's, from `connect` by id alone (lookup included) to an
echoed byte. Also what an attempt costs: entries in the connection tables of both routers when it has connected.

    uv run python benchmarks/punching.py                      # 100 seeds per cell
    uv run python benchmarks/punching.py --short              # 3, as CI runs it
    uv run python benchmarks/punching.py --cells hard --seeds 30 --json FILE
    uv run python benchmarks/punching.py --only port-restricted:port-restricted --loss 0.01
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import structlog
from table import Table

from p2pnode import AccountKey, Node, NodeKey, NodeSettings, PeerSpec
from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home

ONE_WAY_S = 0.04
PORT = 4747
BOOTSTRAP, PUBLIC = 3, 7
SETTLE_S = 10.0
DIRECT = ("punched", "direct")


@dataclass(frozen=True)
class Cell:
    """Caller and callee. `share` of the attempts is direct `within_s`; `median_s` of those; the bars of issue 7."""

    caller: str
    callee: str
    share: float
    within_s: float
    median_s: float | None = None


@dataclass(frozen=True)
class Attempt:
    """`seconds`: None unless direct. `entries`: of the connection tables of the caller's and the callee's router."""

    seconds: float | None
    entries: tuple[int, int]


def both_ways(a: str, b: str, share: float, within_s: float, median_s: float | None = None) -> list[Cell]:
    return [Cell(*pair, share, within_s, median_s) for pair in dict.fromkeys(((a, b), (b, a)))]


# The laboratory's first matrix, and carrier-grade NAT; between two of the latter ports have to be guessed
PLAIN = ("public", "fullcone", "address-restricted", "port-restricted", "symmetric", "cgnat")
GUESSED = {("symmetric", "symmetric"), ("symmetric", "port-restricted"), ("symmetric", "cgnat")}
EASY = [Cell(a, b, 1.0, 2.0, 0.4) for a in PLAIN for b in PLAIN if (a, b) not in GUESSED and (b, a) not in GUESSED]
HARD = [
    *both_ways("symmetric", "port-restricted", 0.98, 15.0, 3.5),
    *both_ways("symmetric", "cgnat", 0.98, 15.0, 3.5),
    *both_ways("cgnat-symmetric", "port-restricted", 0.98, 15.0, 3.5),
    *both_ways("symmetric-sequential", "port-restricted", 0.95, 10.0),
    *both_ways("symmetric-sequential", "symmetric-sequential", 0.80, 10.0),
]
TCP = [
    *both_ways("udp-blocked", "udp-blocked", 0.90, 3.0),
    *both_ways("udp-blocked", "port-restricted", 0.90, 3.0),
]
CELLS = {"easy": EASY, "hard": HARD, "tcp": TCP, "all": [*EASY, *HARD, *TCP]}


class Builder:
    """Makes nodes, each in a home of its own; all join through the first public ones."""

    def __init__(self, world: VirtualWorld, seed: int, *, public: int = PUBLIC) -> None:
        """`public`: how many nodes are public; the first three are bootstrap nodes."""
        self.world, self.public = world, public
        self.nodes: list[Node] = []
        self._rng = random.Random(f"punching {seed}")
        self._servers: list[PeerSpec] = []

    async def open(self) -> None:
        for number in range(self.public):
            bootstrap = number < BOOTSTRAP
            node = await self._start(self.world.host(f"9.{number}.0.1"), "bootstrap" if bootstrap else "peer")
            if bootstrap:
                address = node.addresses()[0]
                spec = PeerSpec(f"{node.peer_id}@{address}", peer=node.peer_id, hosts=((address.ip, PORT),))
                self._servers.append(spec)
        await asyncio.sleep(SETTLE_S)

    async def home(self, kind: str) -> tuple[Node, Home]:
        block = 20 + len(self.nodes)
        home = Home.build(self.world, kind, f"11.{block}.0.1", f"11.{block}.0.2")
        return await self._start(home.host(), "peer"), home

    async def _start(self, network: VirtualNetwork, role: str) -> Node:
        settings = NodeSettings(
            listen=(Address("0.0.0.0", PORT),), listen_explicit=True, role=role, lan=False,
            bootstrap=tuple(self._servers),
        )  # fmt: skip
        node = Node(
            key=NodeKey.generate(self._rng.randbytes), account=AccountKey.generate(self._rng.randbytes),
            settings=settings, network=network,
        )  # fmt: skip
        self.nodes.append(node)
        await node.start()
        return node

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))


def attempt(cell: Cell, seed: int, loss: float = 0.0) -> Attempt:
    """Connect one pair in a world of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    async def main(world: VirtualWorld) -> Attempt:
        builder = Builder(world, seed)
        try:
            await builder.open()
            (caller, here), (callee, there) = await builder.home(cell.caller), await builder.home(cell.callee)
            await asyncio.sleep(5 + world.rng.random())
            seconds: float | None = None
            began = world.loop.time()
            try:
                session = await caller.connect(callee.peer_id, timeout=20.0)
                while session.path not in DIRECT:  # meanwhile a relay carries the data
                    await asyncio.sleep(0.05)
                    if world.loop.time() - began > cell.within_s:
                        raise P2PError("no direct path in time")
                await session.ping()
                seconds = world.loop.time() - began
            except P2PError:
                pass
            entries = [home.router.sessions if home.router is not None else 0 for home in (here, there)]
            return Attempt(seconds, (entries[0], entries[1]))
        finally:
            await builder.stop()

    return run_virtual(main, delay=ONE_WAY_S, loss=loss, keep_trace=False, seed=seed)


def show(table: Table, cell: Cell, attempts: list[Attempt]) -> None:
    name = f"{cell.caller} -> {cell.callee}"
    times = sorted(each.seconds for each in attempts if each.seconds is not None)
    in_time = sum(seconds <= cell.within_s for seconds in times) / len(attempts)
    tables = " and ".join(str(max(each.entries[side] for each in attempts)) for side in (0, 1))
    spread = f"p90 {times[int(0.9 * (len(times) - 1))]:.2f} s, max {times[-1]:.2f} s" if times else ""
    table.add(
        f"{name}: direct within {cell.within_s:g} s", 100 * in_time, "%", 100 * cell.share,
        f"router entries at most {tables}", least=True,
    )  # fmt: skip
    if times:
        table.add(f"{name}: median", times[len(times) // 2], "s", cell.median_s, spread)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--short", action="store_true", help="three seeds")
    parser.add_argument("--cells", choices=tuple(CELLS), default="all")
    parser.add_argument("--only", metavar="CALLER:CALLEE", help="one cell of these")
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams that each wire loses")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    seeds = range(3 if options.short else options.seeds)
    cells = [each for each in CELLS[options.cells] if options.only in (None, f"{each.caller}:{each.callee}")]
    if not cells:
        parser.error(f"there is no cell {options.only}")
    table = Table()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        running = {cell: [pool.submit(attempt, cell, seed, options.loss) for seed in seeds] for cell in cells}
        for cell, futures in running.items():
            show(table, cell, [future.result() for future in futures])
    return table.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
