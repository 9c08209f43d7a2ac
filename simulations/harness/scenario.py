"""What a scenario is, and what it is given: a world in virtual time, settings, and a recorder for what it finds.

A scenario file is small and says what it does. A user's own file works like those in `simulations/scenarios/`:

    class Settings(NetworkSettings, frozen=True, kw_only=True):
        gets: Annotated[int, Meta(ge=1, description="lookups to make")] = 1000

    async def run(run: Run[Settings]) -> None:
        ...
        run.sample("lookup_s", seconds)

    SCENARIO = Scenario(name="lookup", summary="How fast ...", run=run, settings=Settings, nodes=200)
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Protocol, TypeVar

from msgspec import Meta, Struct

from p2pnode.simulations.virtual import VirtualWorld

__all__ = ["Cell", "NetworkSettings", "Progress", "Recorder", "Run", "Scenario", "Table"]

S = TypeVar("S", bound="NetworkSettings")


class NetworkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The wire between all hosts. Base of every scenario's settings; `--set key=value` fills the fields."""

    delay_min_ms: Annotated[float, Meta(ge=0, le=60_000, description="least one-way delay of a datagram")] = 25.0
    delay_max_ms: Annotated[float, Meta(ge=0, le=60_000, description="greatest one-way delay, uniform between")] = 75.0
    loss: Annotated[float, Meta(ge=0, le=1, description="share of datagrams lost")] = 0.05
    real_keys: Annotated[
        bool, Meta(description="compute every signature and secret, also those known here; costs processor time only")
    ] = False

    def __post_init__(self) -> None:
        if self.delay_max_ms < self.delay_min_ms:
            raise ValueError("delay_max_ms is below delay_min_ms")

    def delay(self, rng: random.Random) -> float:
        """Draw the one-way delay of one datagram (seconds)."""
        return rng.uniform(self.delay_min_ms, self.delay_max_ms) / 1000


class Progress(Protocol):
    """Where a running scenario tells how far it is. Called often; must be cheap."""

    def phase(self, name: str, total: int) -> None:
        """A new phase of `total` steps begins."""

    def advance(self, steps: int = 1) -> None:
        """Some steps of the phase are done."""


@dataclass
class Cell:
    """One cell of a matrix. `good`: None when there is nothing to judge. `reason`: shown on hover."""

    row: str
    column: str
    text: str
    good: bool | None = None
    reason: str = ""


@dataclass
class Table:
    """A table of the report: the same number of cells in each row; numbers stay numbers."""

    title: str
    columns: list[str]
    rows: list[list[str | float | int | None]]


@dataclass
class Recorder:
    """What a run found. Kept apart from the run, so that a Ctrl-C still has what was found so far."""

    figures: dict[str, float] = field(default_factory=dict)
    """Final figures by name, with unit suffix (`_s`, `_bytes`, `_per_s`); shares end in `_success` or `_share`."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Raw values; the report makes p50, p90, p99 and a CDF of each: `lookup_s` gives `lookup_p50_s`."""
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Curves by name: (x, y) points, x in virtual seconds unless the name ends in `_by_NAME`."""
    matrices: dict[str, list[Cell]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Sentences; a run with any has failed: exit 1, seed and command are printed."""


class Run(Generic[S]):
    """One run of a scenario. `nodes`: how many the user asked for."""

    def __init__(self, world: VirtualWorld, nodes: int, seed: int, settings: S, progress: Progress) -> None:
        self.world = world
        self.nodes = nodes
        self.seed = seed
        self.settings = settings
        self.rng = random.Random(f"{seed}/scenario")
        self.recorder = Recorder()
        self.progress = progress

    def figure(self, name: str, value: float) -> None:
        """Set a final figure."""
        self.recorder.figures[name] = value

    def sample(self, name: str, value: float) -> None:
        """Add one raw value."""
        self.recorder.samples.setdefault(name, []).append(value)

    def point(self, name: str, y: float, x: float | None = None) -> None:
        """Add a point to a curve; `x` is the virtual time unless given."""
        at = self.world.loop.time() if x is None else x
        self.recorder.series.setdefault(name, []).append((at, y))

    def cell(self, matrix: str, cell: Cell) -> None:
        """Add a cell to a matrix."""
        self.recorder.matrices.setdefault(matrix, []).append(cell)

    def table(self, table: Table) -> None:
        self.recorder.tables.append(table)

    def note(self, text: str) -> None:
        """Add a sentence to the report."""
        self.recorder.notes.append(text)

    def require(self, holds: bool, otherwise: str) -> None:
        """Enter a failure when something that must hold does not; the run goes on."""
        if not holds:
            self.recorder.failures.append(otherwise)


@dataclass(frozen=True)
class Scenario:
    """A named experiment. `nodes`: default. `until_s`: virtual seconds after which it counts as stuck."""

    name: str
    summary: str
    run: Callable[[Run[Any]], Awaitable[None]]
    settings: type[NetworkSettings] = NetworkSettings
    nodes: int = 100
    nodes_min: int = 1
    nodes_max: int = 100_000
    until_s: float | None = None
