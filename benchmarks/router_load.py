"""How many entries one computer makes in its router's connection table when it connects to 50 peers. Virtual time.

The peers are behind routers of their own, so each is looked up, called through its rendezvous nodes and punched;
nothing is guessed. One after the other, and all at once. The table is counted ten times a second from the first call
until the last session is there, and once more a minute later. What the node had before (joining, its own rendezvous
nodes) is in it. An entry lives 30 s unused.

    uv run python benchmarks/router_load.py                   # 100 public nodes, 50 peers
    uv run python benchmarks/router_load.py --short           # one cell among 40 public nodes
    uv run python benchmarks/router_load.py --public 150 --json FILE
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog
from punching import DIRECT, ONE_WAY_S, Builder
from table import Table

from p2pnode import Node
from p2pnode.core.errors import P2PError
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import VirtualRouter

P50, PEAK = 64, 300  # the bars of issue 7
EVERY_S, AFTER_S = 0.1, 60.0
PAIRS = (("port-restricted", "port-restricted"), ("symmetric", "fullcone"))


async def connect(host: Node, peer: Node) -> bool:
    """Whether there is a direct path in the end."""
    try:
        session = await host.connect(peer.peer_id, timeout=20.0)
        await session.ping()
    except P2PError:
        return False
    return session.path in DIRECT


async def count(router: VirtualRouter, samples: list[int]) -> None:
    while True:
        samples.append(router.sessions)
        await asyncio.sleep(EVERY_S)


@dataclass(frozen=True)
class Load:
    """`direct`: peers with a direct path. Entries: `before` the first call, `samples` while connecting, `after`."""

    direct: int
    before: int
    samples: list[int]
    after: int


def measure(own: str, theirs: str, public: int, peers: int, *, at_once: bool) -> Load:
    """Connect in a world of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    async def main(world: VirtualWorld) -> Load:
        builder = Builder(world, 1, public=public)
        try:
            await builder.open()
            others = [(await builder.home(theirs))[0] for _ in range(peers)]
            host, home = await builder.home(own)
            router = home.router
            if router is None:
                raise ValueError(f"{own} is no router")
            await asyncio.sleep(60)
            before, samples = router.sessions, list[int]()
            counting = asyncio.ensure_future(count(router, samples))
            if at_once:
                direct = sum(await asyncio.gather(*(connect(host, each) for each in others)))
            else:
                direct = sum([await connect(host, each) for each in others])
            counting.cancel()
            await asyncio.sleep(AFTER_S)
            return Load(direct, before, samples, router.sessions)
        finally:
            await builder.stop()

    return run_virtual(main, delay=ONE_WAY_S, keep_trace=False, seed=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--public", type=int, default=100)
    parser.add_argument("--peers", type=int, default=50)
    parser.add_argument("--short", action="store_true", help="one cell among 40 public nodes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    public = 40 if options.short else options.public
    cells = [(*pair, at_once) for pair in PAIRS for at_once in (False, True)]
    table = Table()
    for own, theirs, at_once in cells[:1] if options.short else cells:
        load = measure(own, theirs, public, options.peers, at_once=at_once)
        name = f"{own} to {options.peers} {theirs}, {'at once' if at_once else 'in turn'}"
        beside = f"{load.before} before, {load.after} a minute after"
        table.add(f"{name}: direct", load.direct, "", options.peers, least=True)
        table.add(f"{name}: entries p50", sorted(load.samples)[len(load.samples) // 2], "", P50, beside)
        table.add(f"{name}: peak", max(load.samples), "", PEAK)
    return table.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
