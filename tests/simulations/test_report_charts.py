"""Which plots a report has, as data: distributions, curves over time, growth with its fit, bands over seeds."""

import math
import random

import pytest

from p2pnode.simulations.harness.scenario import Cell, Recorder
from p2pnode.simulations.report import Report
from p2pnode.simulations.report.charts import CHARTS_MAX, CURVE_POINTS_MAX, charts_of
from p2pnode.simulations.report.model import Place, SweepRun
from p2pnode.simulations.report.sweeping import add_run, finish, merged_cells, new_sweep, run_figures


def report(**parts: object) -> Report:
    return Report("lookup", "How fast?", "p2pnode simulate lookup", found=Recorder(**parts))  # type: ignore[arg-type]


def test_a_sample_set_becomes_a_distribution() -> None:
    """Every value a step, from 1/n to 1; sets of one value only have nothing to draw."""
    (chart,) = charts_of(report(samples={"lookup_s": [0.3, 0.1, 0.2, 0.2], "hops": [1.0, 1.0], "none_s": []}))
    (curve,) = chart.curves
    assert (curve.x, curve.y) == ([0.1, 0.2, 0.2, 0.3], [0.25, 0.5, 0.75, 1.0])
    assert curve.steps
    assert (chart.x_name, chart.file) == ("lookup_s", "distribution-of-lookup-s")


def test_sets_that_differ_in_a_number_share_a_plot() -> None:
    """Of a ladder of losses; percentiles in a name are no such number."""
    samples = {f"lookup_at_loss_{loss}_s": [0.1, 0.2 + loss] for loss in (0, 10, 20)}
    (chart,) = charts_of(report(samples=samples))
    assert [curve.label for curve in chart.curves] == list(samples)
    curves = {name: [(0.0, 1.0), (1.0, 2.0)] for name in ("a_p50_s_by_loss", "a_p99_s_by_loss")}
    assert len(charts_of(report(series=curves))) == 2


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    """100,000 values draw no finer on a screen than 300."""
    rng = random.Random(1)
    (chart,) = charts_of(report(samples={"lookup_s": [rng.random() for _ in range(100_000)]}))
    (curve,) = chart.curves
    assert len(curve.x) == CURVE_POINTS_MAX
    assert curve.y[-1] == 1.0


def test_what_grows_with_nodes_gets_its_fit() -> None:
    """Drawn to a million nodes, with the prediction in words; shares and short curves get none."""
    cost = [(float(n), 3 + 5 * math.log10(n)) for n in (100, 1000, 10_000)]
    (chart,) = charts_of(report(series={"datagrams_per_lookup_by_nodes": cost}))
    assert chart.log_x
    fitted = chart.curves[1]
    assert fitted.dashed
    assert fitted.x[-1] == pytest.approx(1e6)
    assert fitted.y[-1] == pytest.approx(33)
    assert "3 + 5 log10(n)" in chart.caption
    assert "1,000,000 nodes 33 / lookup" in chart.caption
    for series in ({"lookup_success_by_nodes": cost}, {"put_s_by_nodes": cost[:2]}):
        (chart,) = charts_of(report(series=series))
        assert len(chart.curves) == 1


def sweep_report(seeds: int = 4) -> Report:
    """lookup_s over nodes and loss: its mean is 0.1 log10(nodes), plus the loss, plus chance."""
    axes: dict[str, list[int | float | str]] = {
        "nodes": [100, 1000, 10_000], "seed": list(range(seeds)), "loss": [0.0, 0.2]
    }  # fmt: skip
    sweep = new_sweep(axes)
    places = [
        {"nodes": n, "seed": s, "loss": loss} for s in axes["seed"] for loss in axes["loss"] for n in axes["nodes"]
    ]
    for place in places:
        add(sweep, place)
    finish(sweep)
    return Report("lookup", "How fast?", "p2pnode simulate lookup", sweep=sweep)


def add(sweep: object, place: Place, state: str = "done") -> None:
    rng = random.Random(repr(place))
    middle = 0.1 * math.log10(float(place["nodes"])) + float(place["loss"])
    found = Recorder(
        figures={"lookup_success": 1.0},
        samples={"lookup_s": [middle + rng.gauss(0, 0.01) for _ in range(50)]},
        series={"lookup_success": [(10.0 + rng.random(), 0.5), (20.0 + rng.random(), 1.0)]},
        matrices={"pairs": [Cell("a", "b", "punched", good=place["seed"] != 1, reason=f"seed {place['seed']}")]},
    )
    figures = run_figures(found, {"cpu_s": 1.0}) if state == "done" else {}
    add_run(sweep, SweepRun(place, state, figures, "p2pnode simulate lookup"), found)  # type: ignore[arg-type]


def test_runs_of_one_setting_become_a_point_with_a_band() -> None:
    """Whatever order they ended in; the points stand in the order of the axes."""
    sweep = sweep_report().sweep
    assert sweep is not None
    assert sweep.missing == 0
    assert [point.place for point in sweep.points][:3] == [
        {"nodes": 100, "loss": 0.0}, {"nodes": 100, "loss": 0.2}, {"nodes": 1000, "loss": 0.0}
    ]  # fmt: skip
    assert [run.place["nodes"] for run in sweep.runs] == [100] * 8 + [1000] * 8 + [10_000] * 8
    for point in sweep.points:
        found = point.figures["lookup_p50_s"]
        assert found.n == point.runs == 4
        assert found.low is not None
        assert found.high is not None
        truth = 0.1 * math.log10(float(point.place["nodes"])) + float(point.place["loss"])
        assert found.low - 0.01 < truth < found.high + 0.01


def test_failed_and_missing_runs_are_no_part_of_the_bands() -> None:
    """They are listed and counted."""
    sweep = new_sweep({"nodes": [100], "seed": [0, 1, 2], "loss": [0.0]})
    add(sweep, {"nodes": 100, "seed": 0, "loss": 0.0})
    add(sweep, {"nodes": 100, "seed": 1, "loss": 0.0}, state="failed")
    finish(sweep)
    assert (sweep.missing, len(sweep.runs), sweep.points[0].runs) == (1, 2, 1)
    assert sweep.points[0].figures["lookup_p50_s"].low is None


def test_a_sweep_is_plotted_over_its_axis_with_bands() -> None:
    """Figures over nodes, a curve per loss with its fit; distributions and curves over time with bands; cost last."""
    charts = charts_of(sweep_report())
    titles = [chart.title for chart in charts]
    assert titles == [
        "lookup_success by nodes", "lookup_p50_s by nodes", "Distribution of lookup_s", "lookup_success over time",
        "cpu_s by nodes",
    ]  # fmt: skip
    medians = charts[1]
    assert [curve.label for curve in medians.curves] == ["loss=0", "loss=0.2", "fit: loss=0", "fit: loss=0.2"]
    assert len(medians.curves[0].low) == len(medians.curves[0].high) == 3
    assert medians.curves[2].y[-1] == pytest.approx(0.6, abs=0.05)  # 0.1 log10 of a million
    assert not [curve for curve in charts[4].curves if curve.dashed]  # processor time grows with the nodes themselves
    distribution = charts[2].curves[0]
    assert all(0 <= low <= y <= high <= 1 for low, y, high in zip(distribution.low, distribution.y, distribution.high,
                                                                  strict=True))  # fmt: skip
    over_time = charts[3].curves[0]
    assert over_time.x[0] >= 10  # from where every run has a value
    assert over_time.y[-1] == 1.0


def test_the_matrices_of_several_seeds_are_merged() -> None:
    """A cell is good when it was in every run; otherwise the count, and the reason of the first that was not."""
    cells = merged_cells([[Cell("a", "b", "punched", True, "fine")], [Cell("a", "b", "-", False, "blocked")]])
    assert cells == [Cell("a", "b", "punched / - (1 of 2 good)", False, "blocked")]
    assert merged_cells([[Cell("a", "b", "x", None)], [Cell("a", "b", "x", None)]]) == [Cell("a", "b", "x", None, "")]


def test_plots_are_limited_and_their_files_differ() -> None:
    """A scenario with a hundred sets of samples does not make a page of a hundred plots."""
    samples = {f"{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10]}_s": [1.0, 2.0] for n in range(100)}
    samples["a/b_s"], samples["a-b_s"] = [1.0, 2.0], [1.0, 2.0]
    charts = charts_of(report(samples=dict(reversed(list(samples.items())))))
    assert len(charts) == CHARTS_MAX
    assert len({chart.file for chart in charts}) == CHARTS_MAX
    assert not [chart.file for chart in charts if not chart.file.replace("-", "").isalnum()]
