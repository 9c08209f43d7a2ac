"""100, 1,000, 10,000 nodes: what a lookup and a node cost, fitted, and what a million would cost by that fit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from p2pnode.simulations.harness.population import Population, PopulationSettings
from p2pnode.simulations.harness.records import miss_all, read_all, write_all
from p2pnode.simulations.harness.scenario import Run, Scenario, Table

__all__ = ["SCENARIO", "Settings", "fit"]

FAR = 1_000_000
COSTS = (
    "lookup_s", "lookup_hops", "datagrams_per_first_record", "bytes_per_first_record", "datagrams_per_lookup",
    "bytes_per_lookup", "missing_s", "datagrams_per_full_lookup", "bytes_per_full_lookup", "put_s",
)  # fmt: skip


class Settings(PopulationSettings, frozen=True, kw_only=True):
    """Of `growth`. `--nodes` is the last size; the others are a tenth, a hundredth, ... of it, down to 100."""

    full: Annotated[bool, Meta(description="whole nodes; false: DHT servers alone")] = False
    gets: Annotated[int, Meta(ge=1, le=1_000_000, description="records to look up at each size")] = 500
    records: Annotated[int, Meta(ge=1, le=100_000, description="records written at each size")] = 50
    joins_per_s: Annotated[float, Meta(gt=0, description="arrivals per second")] = 10.0
    idle_s: Annotated[float, Meta(ge=0, description="seconds of rest at each size, for the cost of idling")] = 120.0


def fit(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float, float]:
    """Fit value = a + b log10(size) by least squares; return (a, b, root mean square of the residuals)."""
    points = [math.log10(size) for size in sizes]
    slope, intercept = statistics.linear_regression(points, values)
    errors = [value - (intercept + slope * x) for x, value in zip(points, values, strict=True)]
    return intercept, slope, math.sqrt(statistics.fmean(error * error for error in errors))


async def run(run: Run[Settings]) -> None:
    """Grow in place; at each size write, read and rest."""
    settings = run.settings
    sizes = [run.nodes]
    while sizes[0] >= 1000:
        sizes.insert(0, sizes[0] // 10)
    population = Population(run)
    medians: dict[str, list[float]] = {name: [] for name in (*COSTS, "idle_datagrams_per_node_per_s")}
    table = Table("By size", ["nodes", "found", *medians], [])
    for size in sizes:
        more = size - len(population.members)
        await population.grow(more, seconds=more / settings.joins_per_s, phase=f"joining, to {size}")
        await population.settle(60.0)
        sent = run.world.counts["sent"]
        await population.settle(settings.idle_s, f"idling at {size}")
        idle = (run.world.counts["sent"] - sent) / size / max(settings.idle_s, 1e-9)
        start = {name: len(run.recorder.samples.get(name, ())) for name in COSTS}
        written = await write_all(run, population, count=settings.records, value_bytes=500)
        await read_all(run, population, written, gets=settings.gets, phase=f"reading at {size}")
        await miss_all(run, population, count=max(1, settings.gets // 5))
        for name in COSTS:
            medians[name].append(statistics.median(run.recorder.samples[name][start[name] :]))
            run.point(f"{name}_by_nodes", medians[name][-1], size)
        medians["idle_datagrams_per_node_per_s"].append(idle)
        table.rows.append([size, run.recorder.figures["lookup_success"], *(values[-1] for values in medians.values())])
        run.figure(f"lookup_success_at_{size}", run.recorder.figures["lookup_success"])
    if len(sizes) > 1:
        extrapolated: list[str | float | int | None] = [FAR, None]
        for name, values in medians.items():
            a, b, error = fit(sizes, values)
            run.figure(f"{name}_at_{FAR}", a + b * math.log10(FAR))
            run.figure(f"{name}_fit_error", error)
            extrapolated.append(a + b * math.log10(FAR))
        table.rows.append(extrapolated)
        run.note(f"The row of {FAR:,} nodes is extrapolated: a + b log10(nodes), fitted to the rows above it.")
    run.table(table)
    await population.stop()


SCENARIO = Scenario(
    name="growth",
    summary="100, 1,000, 10,000 nodes: what a lookup and an idle node cost, fitted and extrapolated to a million.",
    run=run,
    settings=Settings,
    nodes=1000,
    nodes_min=4,
)
