"""Lookups, stores, joins and upkeep of our DHT beside plain `kademlia`'s: on one simulated network, with one seed.

One-way delay 25 to 75 ms, 5 % of all datagrams lost, records of 500 bytes. Both run in virtual time, so the seconds are
the network's, not this machine's; processor time is this machine's. Prints the table of the bars that ours must hold,
with the published figures of other DHTs on the same kind of network; writes it as Markdown and JSON, and a plot.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from dht_experiments import Found, Size, run

FULL, SHORT = Size(nodes=200, gets=1000, records=100, joins=30), Size(nodes=60, gets=100, records=20, joins=8)
IDLE_FULL, IDLE_SHORT = Size(50, 0, 0, 0), Size(20, 0, 0, 0)
OTHERS = ("hyperdht 6.34", "libtorrent 2.1", "opendht 4.4")


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds as p50, p90, p99 of a sample, or the means of several.

    `others`: published figures of hyperdht, libtorrent, opendht. `success`: share of the calls that must succeed.
    """

    what: str
    samples: tuple[str, ...]
    bars: tuple[float, ...]
    others: tuple[str, str, str] = ("-", "-", "-")
    success: float = 0.0
    least: bool = False
    median: bool = False

    @property
    def is_time(self) -> bool:
        return len(self.samples) == 1 and len(self.bars) == 3

    def values(self, found: Found) -> list[float]:
        """Return what stands in the table, an empty list when nothing was measured."""
        if any(not found.get(name) for name in self.samples):
            return []
        if self.is_time:
            return [percentile(found[self.samples[0]], share) for share in (0.5, 0.9, 0.99)]
        middle = statistics.median if self.median else statistics.fmean
        return [middle(found[name]) for name in self.samples]

    def succeeded(self, found: Found) -> float:
        return statistics.fmean(found.get(f"{self.samples[0]}_ok") or [1.0])

    def holds(self, found: Found) -> bool:
        values = self.values(found)
        if not values or self.succeeded(found) < self.success:
            return not self.bars
        pairs = zip(values, self.bars, strict=False)
        return all(value >= bar if self.least else value <= bar for value, bar in pairs)


# Sample, what it is, p50/p90/p99 that ours must hold, share that must succeed; hyperdht, libtorrent, opendht.
TIMES = """
get | get, first valid record | 0.09 0.14 0.25 | 0.999 | 0.095/0.20/0.31 | 0.087/0.13/0.19 | 0.20/0.29/0.35
missing | get, no such key | 0.8 1.1 1.5 | 0 | 1.4/1.8/2.3 | 15.0/15.2/15.4 | 1.2/1.4/1.6
get after deaths | get, half the nodes just died | 0.10 0.20 1.0 | 0.995 | 0.10/0.35/2.2 | 0.10/0.16/1.2 | 0.22/1.3/2.5
get under churn | get, steady churn (15 min) | 0.10 0.18 0.4 | 0.99 | 0.10/0.25/1.5 | 0.09/0.16/0.23 | 0.21/0.31/1.4
put | put, all stores answered | 1.2 1.8 2.6 | 0 | 2.55/3.5/5.3 | 15.4/30.3/30.5 | 1.57/3.9/8.2
put early | put, early return | 0.5 0.8 1.2 | 0 | - | - | -
join | join until usable | 0.8 1.5 2.5 | 0 | 3.9/5.6/7.5 | 0.37/15.2/15.4 | -
first get | get right after joining | 0.09 0.14 0.25 | 0 | - | - | -
join warm | join with saved contacts | 0.3 0.5 1.0 | 0 | - | - | -
join under churn | newcomer's join under churn | 1.0 2.0 4.0 | 0 | 11.2/18.1/28.1 | 15.2/15.4/17.2 | -
"""


def time_row(line: str) -> Row:
    sample, what, bars, success, *others = (cell.strip() for cell in line.split("|"))
    hyperdht, libtorrent, opendht = others
    return Row(what, (sample,), tuple(map(float, bars.split())), (hyperdht, libtorrent, opendht), float(success))


HELD, HELD_LATER = (".93/.94/.94", ".75/.77/-", ".98/.98/-"), (".92/.50", ".48/-", ".55/-")
WARM = ("CPU get again", "CPU put again")
AFTER = ("held after deaths 8", "held after deaths 20")
ROWS = (
    *map(time_row, TIMES.strip().splitlines()),
    Row("datagrams, kB per get", ("datagrams", "kB"), (20, 16), ("25, 6.5", "13, 4.8", "22, 6.0"), median=True),
    Row("held by the closest 3/8/20", ("held 3", "held 8", "held 20"), (0.99, 0.99, 0.97), HELD, least=True),
    Row("8/20, 3 min after half died", AFTER, (0.97, 0.90), HELD_LATER, least=True),
    Row("CPU, get and put (ms)", WARM, (4, 16), ("4.2, 16", "1.1, 2.6", "2.4, 2.4"), median=True),
    Row("the same, nodes that never met", ("CPU get", "CPU put"), (), median=True),
    Row("idle datagrams/s per node", ("idle",), (0.5,), ("0.28", "0.39", "0.26")),
)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def shown(row: Row, found: Found) -> str:
    values = row.values(found)
    if not values:
        return "-"
    share = row.succeeded(found)
    failed = f" ({share:.1%})" if share < 1 else ""
    return "/".join(f"{value:.3g}" for value in values) + failed


def measure(size: Size, idle: Size, seeds: int, jobs: int) -> dict[str, Found]:
    """Run all experiments, each in a process of its own, and put the samples together."""
    plan = [
        (experiment, subject, seed, size)
        for seed in range(1, seeds + 1)
        for experiment in ("still", "churn", "processor")
        for subject in ("kademlia", "ours")
    ]
    plan += [("idle", "kademlia", 1, idle), ("idle", "ours, whole nodes", 1, idle)]
    found: dict[str, Found] = {"kademlia": {}, "ours": {}}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = [(step, pool.submit(run, *step)) for step in plan]
        for (experiment, subject, seed, _), result in running:
            samples = result.result()
            print(f"{experiment}, {subject}, seed {seed}: done", file=sys.stderr, flush=True)
            for name, values in samples.items():
                found[subject.partition(",")[0]].setdefault(name, []).extend(values)
    return found


def table(found: dict[str, Found], size: Size) -> str:
    """Return the table in Markdown."""
    lines = [
        f"{size.nodes} nodes; seconds as p50/p90/p99; columns 5 to 7 as published, with 200 nodes.",
        "",
        "| | kademlia 2.2.3 | ours | ours must | " + " | ".join(OTHERS) + " | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        bars = "/".join(f"{bar:g}" for bar in row.bars) + (f", {row.success:.1%}" if row.success else "")
        verdict = ("holds" if row.holds(found["ours"]) else "DOES NOT HOLD") if row.bars else ""
        cells = (row.what, shown(row, found["kademlia"]), shown(row, found["ours"]), bars, *row.others, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: dict[str, Found], path: Path) -> None:
    """Draw which share of the calls had ended after so many seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in ROWS if row.is_time]
    figure, axes = plt.subplots(2, (len(rows) + 1) // 2, figsize=(18, 7), sharey=True)
    for axis, row in zip(axes.flat, rows, strict=False):
        for subject, colour in (("kademlia", "tab:orange"), ("ours", "tab:blue")):
            values = sorted(found[subject].get(row.samples[0], []))
            if values:
                share = row.succeeded(found[subject])
                axis.step(values, [share * (i + 1) / len(values) for i in range(len(values))], colour, label=subject)
        axis.plot(row.bars, (0.5, 0.9, 0.99), "k+", label="ours must")
        axis.set(xscale="log", title=row.what, xlabel="seconds", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="60 nodes, fewer gets")
    parser.add_argument("--nodes", type=int, help="instead of 200")
    parser.add_argument("--seeds", type=int, default=1, help="runs with different seeds, put together")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--output", type=Path, help="folder for lookups.md, lookups.json and lookups.png")
    options = parser.parse_args()
    size = SHORT if options.short else FULL
    if options.nodes:
        size = Size(options.nodes, size.gets, size.records, size.joins)
    found = measure(size, IDLE_SHORT if options.short else IDLE_FULL, options.seeds, options.jobs)
    text = table(found, size)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "lookups.md").write_text(text + "\n")
        (options.output / "lookups.json").write_text(json.dumps(found))
        plot(found, options.output / "lookups.png")
    bad = [row.what for row in ROWS if not row.holds(found["ours"])]
    print(f"{len(ROWS) - len(bad)} passed, {len(bad)} failed")
    sys.exit(int(bool(bad)))


if __name__ == "__main__":
    main()
