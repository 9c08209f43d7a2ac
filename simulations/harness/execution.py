"""One run of one scenario in this process: a world, the scenario's coroutine, and what was found and what it cost."""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Literal

from p2pnode.core.errors import P2PError
from p2pnode.simulations.harness import usage
from p2pnode.simulations.harness.loading import where_in
from p2pnode.simulations.harness.scenario import NetworkSettings, Recorder, Run, Scenario, Table
from p2pnode.simulations.virtual import (
    VirtualBlockedError,
    VirtualDeadlockError,
    VirtualLivelockError,
    VirtualLoop,
    VirtualTimeLimitError,
    VirtualWorld,
)

__all__ = ["Counter", "Execution", "Outcome", "Standing", "State", "failed"]

State = Literal["done", "failed", "interrupted"]


@dataclass
class Standing:
    """How far a run is. `phase_real_s`: real seconds since the phase began."""

    phase: str = "starting"
    steps: int = 0
    total: int = 0
    virtual_s: float = 0.0
    phase_real_s: float = 0.0


class Counter:
    """The `Progress` that a scenario is given: counts, and is looked at from outside."""

    def __init__(self) -> None:
        self.name, self.steps, self.total = "starting", 0, 0
        self._began = time.monotonic()

    def phase(self, name: str, total: int) -> None:
        self.name, self.steps, self.total = name, 0, total
        self._began = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    def standing(self, virtual_s: float) -> Standing:
        return Standing(self.name, self.steps, self.total, virtual_s, time.monotonic() - self._began)


@dataclass
class Outcome:
    """What a run gave, and what it cost. Plain data: it travels between processes.

    `error`: one sentence when the run ended in an error, which then is the last of `found.failures` as well.
    """

    state: State
    nodes: int
    seed: int
    virtual_s: float = 0.0
    real_s: float = 0.0
    found: Recorder = field(default_factory=Recorder)
    cost: dict[str, float] = field(default_factory=dict)
    """Figures of every run, of the machine rather than of the network; two runs of one seed differ in them."""
    error: str = ""
    traceback: str = ""


def failed(nodes: int, seed: int, sentence: str) -> Outcome:
    """Return what a run gave that came to nothing."""
    return Outcome("failed", nodes, seed, found=Recorder(failures=[sentence]), error=sentence)


class Execution:
    """A scenario about to run, running, or done. `snapshot` may be called from another thread meanwhile."""

    def __init__(self, scenario: Scenario, nodes: int, seed: int, settings: NetworkSettings) -> None:
        self.scenario = scenario
        self.counter = Counter()
        self.loop = VirtualLoop(seed, spares_keys=not settings.real_keys)
        world = VirtualWorld(seed, delay=settings.delay, loss=settings.loss, keep_trace=False, loop=self.loop)
        world.counts_traffic = True
        self.run: Run[Any] = Run(world, nodes, seed, settings, self.counter)
        self._began = usage.Reading.now()

    def standing(self) -> Standing:
        return self.counter.standing(self.loop.now())

    def execute(self, *, source: str = "") -> Outcome:
        """Run to the end; whatever the scenario raises becomes a failure. `source`: path of its file, for the line."""
        usage.forget_peak()
        self._began = usage.Reading.now()
        error, text = "", ""
        try:
            self.loop.run(self._main(), until=self.scenario.until_s)
        except KeyboardInterrupt:
            return self.snapshot("interrupted")
        except BaseException as exc:  # noqa: BLE001 - a scenario may raise anything, SystemExit too
            error = _sentence(exc, source)
            text = "".join(traceback.format_exception(exc))
            self.run.recorder.failures.append(error)
        outcome = self.snapshot("failed" if self.run.recorder.failures else "done")
        outcome.error, outcome.traceback = error, text
        return outcome

    def snapshot(self, state: State) -> Outcome:
        """Return what was found so far."""
        now = usage.Reading.now()
        run, virtual_s = self.run, self.loop.now()
        real_s = now.real_s - self._began.real_s
        found = run.recorder
        copy = Recorder(
            figures=dict(found.figures),
            samples={name: list(values) for name, values in list(found.samples.items())},
            series={name: list(points) for name, points in list(found.series.items())},
            matrices={name: list(cells) for name, cells in list(found.matrices.items())},
            tables=list(found.tables),
            notes=list(found.notes),
            failures=list(found.failures),
        )
        _add_traffic(copy, run.world)
        _drop_nonsense(copy)
        datagrams = run.world.counts["sent"]
        cost = {
            "real_s": real_s,
            "virtual_s": virtual_s,
            "cpu_s": now.cpu_s - self._began.cpu_s,
            "rss_peak_bytes": float(usage.peak_bytes()),
            "datagrams": float(datagrams),
            "datagrams_per_real_s": datagrams / real_s if real_s else 0.0,
            "node_virtual_s_per_real_s": run.nodes * virtual_s / real_s if real_s else 0.0,
        }
        return Outcome(state, run.nodes, run.seed, virtual_s, real_s, copy, cost)

    async def _main(self) -> None:
        await self.scenario.run(self.run)


def _add_traffic(found: Recorder, world: VirtualWorld) -> None:
    """Add what every run tells of its wires: bytes of each host (UDP payload, in and out), datagrams by kind."""
    kinds: dict[str, list[int]] = {}
    per_node = []
    for host in list(world.hosts):
        rows = list(host.traffic.items())
        if rows:
            per_node.append(float(sum(row[1] + row[3] for _, row in rows)))
        for kind, row in rows:
            total = kinds.setdefault(kind, [0, 0])
            total[0] += row[0]
            total[1] += row[1]
    if not per_node:
        return
    found.samples.setdefault("bytes_per_node", per_node)
    sent = sum(total[0] for total in kinds.values())
    table = Table("Datagrams sent, by kind", ["kind", "datagrams", "share", "sent_bytes"], [])
    for kind, (count, size) in sorted(kinds.items(), key=lambda item: -item[1][1]):
        table.rows.append([kind, count, count / sent if sent else 0.0, size])
    found.tables.append(table)


def _drop_nonsense(found: Recorder) -> None:
    """Take out what is no finite number, and say so: no plot, percentile or JSON can hold it."""
    for name in [name for name, value in found.figures.items() if not math.isfinite(value)]:
        found.notes.append(f"The figure {name} came out as {found.figures.pop(name)} and was left out.")
    for name, values in found.samples.items():
        finite = [value for value in values if math.isfinite(value)]
        if len(finite) < len(values):
            found.notes.append(f"{len(values) - len(finite)} values of {name} are no numbers and were left out.")
            found.samples[name] = finite
    for name, points in found.series.items():
        found.series[name] = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]


def _sentence(error: BaseException, source: str) -> str:
    """Return what went wrong, on one line, with the line of the scenario's file where there is one."""
    inner = error
    while isinstance(inner, BaseExceptionGroup):  # a task group's, or what callbacks raised
        inner = inner.exceptions[0]
    where = where_in(inner, source) if source else ""
    prefix = f"{where}: " if where else ""
    reason = " ".join(str(inner).split())
    match inner:
        case VirtualDeadlockError():
            return f"{prefix}Nothing more can happen, and the scenario still waits: {reason}"
        case VirtualLivelockError():
            return f"{prefix}Something spins without letting time pass: {reason}"
        case VirtualTimeLimitError():
            return f"{prefix}The scenario is stuck: {reason}"
        case VirtualBlockedError():
            return f"{prefix}One step takes too long: {reason}"
        case P2PError():
            return f"{prefix}{inner.message}"
        case MemoryError():
            return f"{prefix}The memory of this machine does not suffice."
        case SystemExit() | asyncio.CancelledError():
            return f"{prefix}The scenario ended itself ({type(inner).__name__})."
    return f"{prefix}{type(inner).__name__}{': ' if reason else ''}{reason}"
