"""A scenario without nodes for the tests of the harness: as fast as a run can be, with something of everything.

Run as a user's own file (`p2pnode simulate tests/support/tiny_scenario.py`), so it imports what a user's would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Annotated, Literal

from msgspec import Meta

from p2pnode.core.address import Address
from p2pnode.simulations.harness.scenario import Cell, NetworkSettings, Run, Scenario, Table

__all__ = ["SCENARIO", "Settings"]


class Settings(NetworkSettings, frozen=True, kw_only=True):
    """Of `tiny`. `ends` says how."""

    steps: Annotated[int, Meta(ge=1, le=100_000, description="virtual seconds")] = 20
    spin_s: Annotated[float, Meta(ge=0, description="real seconds that it takes")] = 0.0
    sizes: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(description="some sizes")] = (1, 2)
    careful: Annotated[bool, Meta(description="say what was done")] = True
    most: Annotated[Annotated[float, Meta(ge=0)] | None, Meta(description="greatest value")] = None
    ends: Annotated[
        Literal["well", "require", "error", "exit", "deadlock", "late", "killed", "nan"], Meta(description="how")
    ] = "well"


async def run(run: Run[Settings]) -> None:
    """Step, record, end as asked."""
    settings = run.settings
    here, there = run.world.host("203.0.113.1"), run.world.host("203.0.113.2")
    await there.open_udp(Address("203.0.113.2", 9), lambda _data, _source: None)
    socket = await here.open_udp(Address("203.0.113.1", 9), lambda _data, _source: None)
    run.progress.phase("stepping", settings.steps)
    for step in range(settings.steps):
        await asyncio.sleep(1)
        if settings.spin_s:
            time.sleep(settings.spin_s / settings.steps)  # noqa: ASYNC251 - work that takes real time is what it plays
        socket.send(b"\x04" * 100, Address("203.0.113.2", 9))
        run.sample("lookup_s", run.rng.lognormvariate(-2, 0.5) * run.nodes**0.1)
        run.point("lookup_success", step / settings.steps)
        run.progress.advance()
    run.figure("lookup_success", run.rng.uniform(0.9, 1))
    run.point("cost_by_nodes", 3.0 * run.nodes, run.nodes)
    run.cell("who reaches whom", Cell("a", "b", "direct", good=run.seed % 2 == 1, reason="even seeds fail"))
    run.table(Table("By size", ["nodes", "found_share"], [[run.nodes, 0.5]]))
    if settings.careful:
        run.note("Done.")
    await _end(run)


async def _end(run: Run[Settings]) -> None:
    match run.settings.ends:
        case "require":
            run.require(False, "What must hold does not.")
        case "error":
            raise ValueError("no such thing")
        case "exit":
            raise SystemExit(3)
        case "deadlock":
            await asyncio.get_running_loop().create_future()
        case "late":
            await asyncio.sleep(1e9)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "nan":
            run.figure("broken", float("nan"))
            run.sample("lookup_s", float("inf"))


SCENARIO = Scenario(
    name="tiny", summary="Nothing much.", run=run, settings=Settings, nodes=10, nodes_max=5000, until_s=1e6
)
