"""Which plots a report has, as data: curves with bands. `plots.py` draws them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from p2pnode.simulations.report.bands import Band, band
from p2pnode.simulations.report.fits import FAR, Fit, fit
from p2pnode.simulations.report.model import Place, Report, Sweep, SweepPoint, place_text
from p2pnode.simulations.report.sweeping import SEED
from p2pnode.simulations.report.units import COST, is_share, shown

__all__ = ["CHARTS_MAX", "Chart", "Curve", "charts_of"]

Point = tuple[float, float]

CURVE_POINTS_MAX = 300  # more cannot be told apart on a screen, and each is 15 bytes of the page
CURVES_MAX = 8  # as many colours as people tell apart
CHARTS_MAX = 30  # 20 kB and 0.1 s each
_BY = re.compile(r"^(.*)_by_([a-z0-9]+)$")


@dataclass
class Curve:
    """Points of one colour. `low`, `high`: the confidence band, as long as `y`; empty when there is none."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    steps: bool = False
    dots: bool = False
    dashed: bool = False


@dataclass
class Chart:
    """One plot. `x_name`, `y_name`: names of figures, which give the units; "" for a plain number."""

    title: str
    file: str
    x_label: str
    y_label: str
    curves: list[Curve]
    x_name: str = ""
    y_name: str = ""
    log_x: bool = False
    log_y: bool = False
    caption: str = ""
    """One sentence beneath, which also says in words what is seen."""


def charts_of(report: Report) -> list[Chart]:
    """Return the plots of a report, those that tell most first; at most CHARTS_MAX."""
    if report.sweep is not None:
        sweep = report.sweep
        charts = [*_figures_by_axis(sweep, cost=False), *_sweep_samples(sweep), *_sweep_series(sweep)]
        charts += _figures_by_axis(sweep, cost=True)
    else:
        charts = [*_samples(report), *_series(report)]
    charts = charts[:CHARTS_MAX]
    taken: set[str] = set()
    for chart in charts:
        chart.file = _free_name(chart.title, taken)
    return charts


# one run


def _samples(report: Report) -> list[Chart]:
    """One CDF per kind of sample; those whose names differ in a number only share a plot."""
    samples = {name: sorted(values) for name, values in report.found.samples.items() if len(set(values)) > 1}
    # What has a `_success` is what the scenario is about.
    stems = tuple(name.removesuffix("_success") for name in report.found.figures if name.endswith("_success"))
    samples = dict(sorted(samples.items(), key=lambda item: not item[0].startswith(stems)))
    charts = []
    for names in _alike(samples):
        curves = [_cdf(name, samples[name]) for name in names[:CURVES_MAX]]
        charts.append(_cdf_chart(names, curves, f"{sum(len(samples[name]) for name in names):,} values."))
    return charts


def _cdf(label: str, ordered: Sequence[float]) -> Curve:
    count = len(ordered)
    picked = _picked(count)
    return Curve(label, [ordered[at] for at in picked], [(at + 1) / count for at in picked], steps=True)


def _cdf_chart(names: Sequence[str], curves: list[Curve], caption: str) -> Chart:
    first = names[0]
    values = [x for curve in curves for x in curve.x]
    smallest = min((x for x in values if x > 0), default=0.0)
    # Times spread over decades (a lookup that times out) would be one step at the left edge.
    log_x = min(values) > 0 and max(values) > 50 * smallest
    return Chart(f"Distribution of {_title(names)}", "", _title(names), "share of values at or below", curves,
                 x_name=first, y_name="share", log_x=log_x, caption=caption)  # fmt: skip


def _series(report: Report) -> list[Chart]:
    charts = []
    series = {name: points for name, points in report.found.series.items() if points}
    for names in _alike(series):
        over = _BY.match(names[0])
        curves = []
        for name in names[:CURVES_MAX]:
            points = sorted(series[name], key=lambda point: point[0])
            points = [points[at] for at in _picked(len(points))]
            curves.append(Curve(name, [x for x, _ in points], [y for _, y in points], dots=over is not None))
        charts.append(_series_chart(names, curves, [series[name] for name in names[:CURVES_MAX]]))
    return charts


def _series_chart(names: Sequence[str], curves: list[Curve], points: Sequence[Sequence[Point]]) -> Chart:
    """`points`: what was measured, for the fit of what grows with nodes."""
    match = _BY.match(names[0])
    what, over = (match.group(1), match.group(2)) if match else (names[0], "")
    if not over:
        return Chart(f"{_title(names)} over time", "", "virtual time", what, curves, x_name="virtual_s", y_name=what)
    chart = Chart(f"{_title(names)}", "", over, what, curves, y_name=what, log_x=_spans(curves))
    if over == "nodes" and not is_share(what):
        _add_fits(chart, what, points)
    return chart


# sweeps


def _figures_by_axis(sweep: Sweep, *, cost: bool) -> Iterable[Chart]:
    """Plot each figure over the first axis that is a number and has several values; a curve per other combination.

    `cost`: those that every run has, else the scenario's own.
    """
    axes = {axis: values for axis, values in sweep.axes.items() if axis != SEED and len(values) > 1}
    along = next((a for a, values in axes.items() if all(isinstance(value, (int, float)) for value in values)), None)
    if along is None:
        return
    others = [axis for axis in sweep.axes if axis not in (along, SEED)]
    names = dict.fromkeys(name for point in sweep.points for name in point.figures)
    for name in _worth_plotting([name for name in names if (name in COST) is cost]):
        curves, measured = [], []
        for combination in list(product(*(sweep.axes[axis] for axis in others)))[:CURVES_MAX]:
            place = dict(zip(others, combination, strict=True))
            points = [p for p in sweep.points if place.items() <= p.place.items() and name in p.figures]
            points.sort(key=lambda point: float(point.place[along]))
            if points:
                x = [float(point.place[along]) for point in points]
                label = place_text(place) if place else name
                curves.append(_banded(label, x, [point.figures[name] for point in points]))
                measured.append(_of_runs(sweep, name, along, place))
        if any(len(curve.x) > 1 for curve in curves):
            chart = Chart(f"{name} by {along}", "", along, name, curves, y_name=name, log_x=_spans(curves))
            chart.caption = _band_caption(sweep)
            if along == "nodes" and not is_share(name) and not cost:  # those grow as the nodes do, not as their log
                _add_fits(chart, name, measured)
            yield chart


def _of_runs(sweep: Sweep, name: str, along: str, place: Place) -> list[Point]:
    runs = [run for run in sweep.runs if run.state == "done" and place.items() <= run.place.items()]
    return [(float(run.place[along]), run.figures[name]) for run in runs if name in run.figures]


def _worth_plotting(names: Sequence[str]) -> list[str]:
    """Leave out the percentiles but p50 (the distributions show them), and what is the plan rather than a result."""
    kept = [name for name in names if not re.search(r"_(p90|p99|max)(_|$)", name)]
    return [name for name in kept if name not in ("virtual_s", "real_s", "datagrams_per_real_s")]


def _sweep_samples(sweep: Sweep) -> Iterable[Chart]:
    for name in dict.fromkeys(name for point in sweep.points for name in point.samples):
        points = [point for point in sweep.points if any(point.samples.get(name, ()))][:CURVES_MAX]
        curves = [curve for point in points if (curve := _banded_cdf(point, name)) is not None]
        if curves:
            yield _cdf_chart([name], curves, _band_caption(sweep))


def _banded_cdf(point: SweepPoint, name: str) -> Curve | None:
    """Return the mean of the runs' CDFs with the interval of that mean at each value."""
    runs = [sorted(values) for values in point.samples[name] if values]
    pooled = sorted(value for values in runs for value in values)
    if pooled[0] == pooled[-1]:
        return None
    grid = [pooled[at] for at in _picked(len(pooled))]
    bands = [band([_share_at(values, x) for values in runs], share=True) for x in grid]
    curve = _banded(place_text(point.place), grid, bands)
    curve.steps, curve.dots = True, False
    return curve


def _share_at(ordered: Sequence[float], x: float) -> float:
    from bisect import bisect_right

    return bisect_right(ordered, x) / len(ordered)


def _sweep_series(sweep: Sweep) -> Iterable[Chart]:
    for name in dict.fromkeys(name for point in sweep.points for name in point.series):
        curves, measured = [], []
        for point in [point for point in sweep.points if any(point.series.get(name, ()))][:CURVES_MAX]:
            runs = [sorted(points) for points in point.series[name] if points]
            curves.append(_banded_series(point, name, runs))
            measured.append([each for points in runs for each in points])
        if curves:
            chart = _series_chart([name], curves, measured)
            chart.caption = f"{_band_caption(sweep)} {chart.caption}".strip()
            yield chart


def _banded_series(point: SweepPoint, name: str, runs: Sequence[Sequence[Point]]) -> Curve:
    """Return the mean of the runs' curves. Over time a curve holds its value until its next point."""
    label = place_text(point.place)
    if _BY.match(name):
        grid = sorted({x for points in runs for x, _ in points})
        bands = [band([y for points in runs for at, y in points if at == x], share=is_share(name)) for x in grid]
        return _banded(label, grid, bands)
    start = max(points[0][0] for points in runs)  # from where every run has a value
    every = sorted({x for points in runs for x, _ in points if x >= start})
    grid = [every[at] for at in _picked(len(every))]
    held = [_held(points, grid) for points in runs]
    bands = [band([values[at] for values in held], share=is_share(name)) for at in range(len(grid))]
    curve = _banded(label, grid, bands)
    curve.dots = False
    return curve


def _held(points: Sequence[Point], grid: Sequence[float]) -> list[float]:
    """Return a curve's values at the places of `grid` (rising, none before its first point)."""
    values, at = [], 0
    for x in grid:
        while at + 1 < len(points) and points[at + 1][0] <= x:
            at += 1
        values.append(points[at][1])
    return values


def _banded(label: str, x: list[float], bands: Sequence[Band]) -> Curve:
    curve = Curve(label, x, [each.mean for each in bands], dots=True)
    if any(each.low is not None for each in bands):
        curve.low = [each.mean if each.low is None else each.low for each in bands]
        curve.high = [each.mean if each.high is None else each.high for each in bands]
    return curve


def _band_caption(sweep: Sweep) -> str:
    if len(sweep.axes.get(SEED, ())) < 2:
        return "One seed: no confidence band."
    return "Band: 95 % interval of the mean over the seeds, by Student's t."


# parts


def _add_fits(chart: Chart, name: str, measured: Sequence[Sequence[Point]]) -> None:
    """Add a + b log10(n) to each curve with enough points, drawn to a million nodes when it was fitted up to 1,000."""
    sentences = []
    for curve, points in zip(list(chart.curves), measured, strict=True):
        found = fit(points)
        if found is None:
            continue
        low, high = min(curve.x), max(curve.x)
        far = FAR if high >= 1000 else high
        xs = [low * (far / low) ** (step / 40) for step in range(41)] if far > low else [low]
        chart.curves.append(
            Curve(
                f"fit: {curve.label}", xs, [found.at(x) for x in xs],
                [found.at(x) - found.half_width(x) for x in xs], [found.at(x) + found.half_width(x) for x in xs],
                dashed=True,
            )
        )  # fmt: skip
        sentences.append(_fit_sentence(name, curve.label, found, far))
    if sentences:
        chart.log_x = True
        chart.caption = " ".join([*sentences, chart.caption]).strip()


def _fit_sentence(name: str, label: str, found: Fit, far: float) -> str:
    text = f"Fit of {label}: {found.a:.3g} {'+' if found.b >= 0 else '-'} {abs(found.b):.3g} log10(n)"
    text += f", standard error {shown(name, found.error)}"
    if far == FAR:
        text += (
            f"; at {far:,} nodes {shown(name, found.at(far))} ± {shown(name, found.half_width(far))} (95 % prediction)"
        )
    return text + "."


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Group names that differ in numbers only: `lookup_at_loss_10_s` and `lookup_at_loss_20_s`; not p50 and p99."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<![a-z])\d+", "#", name), []).append(name)
    return list(groups.values())


def _title(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else re.sub(r"(?<![a-z])\d+", "N", names[0])


def _picked(count: int) -> list[int]:
    """Return at most CURVE_POINTS_MAX places of 0..count-1, evenly, the first and the last among them."""
    if count <= CURVE_POINTS_MAX:
        return list(range(count))
    return [at * (count - 1) // (CURVE_POINTS_MAX - 1) for at in range(CURVE_POINTS_MAX)]


def _spans(curves: Sequence[Curve]) -> bool:
    """Whether the x values span decades, so that a logarithmic axis shows more."""
    values = [x for curve in curves for x in curve.x]
    return bool(values) and min(values) > 0 and max(values) >= 30 * min(values)


def _free_name(title: str, taken: set[str]) -> str:
    """Return a file name (without suffix) that no other chart has: letters, digits and dashes only."""
    base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "plot"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name
