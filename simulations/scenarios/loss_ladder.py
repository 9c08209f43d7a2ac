"""The same reads while the wire loses more and more."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import read_all, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario, Table

__all__ = ["SCENARIO", "Settings"]

RUNGS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `loss-ladder`. `loss` is that of joining and writing."""

    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up on each rung")] = 200
    records: Annotated[int, Meta(ge=1, le=100_000, description="records written before")] = 50
    most: Annotated[float, Meta(ge=0, le=0.9, description="the last rung: rungs above are left out")] = 0.4
    settle_s: Annotated[float, Meta(ge=0, description="seconds before the first record is written")] = 120.0


async def run(run: Run[Settings]) -> None:
    """Write once, read on every rung."""
    settings = run.settings
    population = Population(run)
    await population.grow(run.nodes, seconds=60.0)
    await population.settle(settings.settle_s)
    written = await write_all(run, population, count=settings.records, value_bytes=500)
    table = Table("Reading by loss", ["loss per datagram", "found", "p50 s", "p99 s", "datagrams p50"], [])
    for loss in (rung for rung in RUNGS if rung <= settings.most):
        run.world.loss = loss
        name = f"lookup_at_loss_{round(loss * 100)}"
        await read_all(run, population, written, gets=settings.gets, name=name, phase=f"reading at {loss:.0%} loss")
        found = run.recorder.figures[f"{name}_success"]
        seconds = sorted(run.recorder.samples.get(f"{name}_s", [0.0]))
        datagrams = sorted(run.recorder.samples[f"datagrams_per_{name}"])
        middle, high = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
        table.rows.append([f"{loss:.0%}", found, middle, high, datagrams[len(datagrams) // 2]])
        run.point("lookup_success_by_loss", found, loss)
        run.point("lookup_p50_s_by_loss", middle, loss)
    run.table(table)
    await population.stop()


SCENARIO = Scenario(
    name="loss-ladder",
    summary="The same reads at 0 to 40 % loss per datagram: what still works, and how slowly?",
    run=run,
    settings=Settings,
    nodes=100,
    nodes_min=4,
)
