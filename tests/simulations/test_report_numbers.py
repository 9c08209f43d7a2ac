"""The numbers of a report: percentiles, confidence bands, fits, units; against values from textbooks and by hand."""

import math
import random

import pytest

from p2pnode.simulations.report.bands import band, t_quantile
from p2pnode.simulations.report.fits import FAR, fit
from p2pnode.simulations.report.percentiles import figure_name, figures_of, percentile
from p2pnode.simulations.report.units import direction, is_share, shown, unit


def test_percentiles_are_values_that_were_measured() -> None:
    """Nearest rank: the smallest value that p % do not exceed; by hand for small sets."""
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0
    assert [percentile([1.0, 2.0, 3.0, 4.0], p) for p in (25, 50, 51, 75, 99, 100)] == [1, 2, 3, 3, 4, 4]
    hundred = [float(n) for n in range(1, 101)]
    assert [percentile(hundred, p) for p in (50, 90, 99)] == [50, 90, 99]
    thousand = [float(n) for n in range(1, 1001)]
    assert [percentile(thousand, p) for p in (50, 90, 99)] == [500, 900, 990]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("sample", "figure"),
    [
        ("lookup_s", "lookup_p50_s"),
        ("hops", "hops_p50"),
        ("bytes_per_lookup", "bytes_p50_per_lookup"),
        ("lookup_at_loss_10_s", "lookup_at_loss_10_p50_s"),
        ("used_share", "used_p50_share"),
        ("record_bytes", "record_p50_bytes"),
    ],
)
def test_figures_of_samples_keep_the_unit_last(sample: str, figure: str) -> None:
    """As docs/cli.md names them: `lookup_p50_s`."""
    assert figure_name(sample, "p50") == figure
    assert unit(figure) == unit(sample)


def test_each_sample_set_gives_its_percentiles_and_maximum() -> None:
    """And what is counted per something its mean; an empty set gives nothing."""
    figures = figures_of({"lookup_s": [3.0, 1.0, 2.0], "datagrams_per_lookup": [1.0, 2.0], "none_s": []})
    assert figures == {
        "lookup_p50_s": 2.0, "lookup_p90_s": 3.0, "lookup_p99_s": 3.0, "lookup_max_s": 3.0,
        "datagrams_per_lookup": 1.5, "datagrams_p50_per_lookup": 1.0, "datagrams_p90_per_lookup": 2.0,
        "datagrams_p99_per_lookup": 2.0, "datagrams_max_per_lookup": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (4, 2.776), (30, 2.042), (40, 2.021), (60, 2.000),
                                            (120, 1.980), (1e9, 1.960)])  # fmt: skip
def test_t_quantiles(freedom: float, t: float) -> None:
    """Two-sided 95 % points of any statistics textbook."""
    assert t_quantile(freedom) == pytest.approx(t, abs=6e-4)


def test_t_quantiles_fall_without_a_jump() -> None:
    """Also where the table ends and the series begins, and between whole degrees of freedom."""
    values = [t_quantile(1 + step / 10) for step in range(600)]
    assert values == sorted(values, reverse=True)
    assert t_quantile(30.0) - t_quantile(30.1) < 0.001


def test_a_band_by_hand() -> None:
    """Five values: mean 3, standard deviation 1.5811, half width 2.776 x 0.7071."""
    found = band([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.n) == (3.0, 5)
    assert found.sd == pytest.approx(1.58114, abs=1e-5)
    assert found.low == pytest.approx(3 - 1.96293, abs=1e-4)
    assert found.high == pytest.approx(3 + 1.96293, abs=1e-4)


def test_bands_stay_where_values_can_be() -> None:
    """One run has none; shares stay within 0 and 1; what is never negative has no negative bound."""
    assert (band([2.0]).low, band([2.0]).high, band([2.0]).sd) == (None, None, None)
    share = band([0.9, 1.0, 1.0], share=True)
    assert share.high == 1.0
    assert band([0.0, 0.0, 1.0]).low == 0.0
    low = band([-1.0, 0.0, 1.0]).low
    assert low is not None
    assert low < 0
    assert band([5.0, 5.0]).low == band([5.0, 5.0]).high == 5.0


@pytest.mark.slow
def test_the_band_holds_the_truth_as_often_as_it_says() -> None:
    """2,000 times four draws of a normal distribution: 95 % of the bands hold its mean."""
    rng = random.Random(5)
    held = 0
    for _ in range(2000):
        found = band([rng.gauss(10, 3) for _ in range(4)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 10 <= found.high
    print(f"{held / 20:.1f} % of the bands hold the mean")
    assert 0.935 < held / 2000 < 0.965


def test_a_fit_finds_what_the_points_were_made_of() -> None:
    """a + b log10(n) exactly; what it says of a million nodes, with no doubt left."""
    found = fit([(n, 3 + 5 * math.log10(n)) for n in (100, 1000, 10_000)])
    assert found is not None
    assert (found.a, found.b) == (pytest.approx(3), pytest.approx(5))
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.at(FAR) == pytest.approx(33)
    assert found.half_width(FAR) == pytest.approx(0, abs=1e-6)


def test_doubt_grows_with_the_distance() -> None:
    """Three points leave one degree of freedom: the interval at a million is wide, at the middle narrow."""
    found = fit([(100, 13.2), (1000, 17.7), (10_000, 23.1)])
    assert found is not None
    assert found.half_width(1000) < found.half_width(10_000) < found.half_width(FAR)
    assert found.half_width(FAR) > 12.7 * found.error


@pytest.mark.parametrize(
    "points", [[], [(100, 1.0), (1000, 2.0)], [(100, 1.0), (100, 2.0), (100, 3.0)], [(0, 1.0), (10, 2.0), (100, 3.0)]]
)
def test_what_cannot_be_fitted(points: list[tuple[float, float]]) -> None:
    """Two points fit any line; one size says nothing of growth; no network has no nodes."""
    assert fit(points) is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("lookup_p50_s", 0.0723, "72.3 ms"),
        ("lookup_p50_s", 1.234, "1.23 s"),
        ("virtual_s", 600.0, "10 min"),
        ("virtual_s", 86_400.0, "24 h"),
        ("lookup_s", 0.0, "0 s"),
        ("rtt_ms", 41.8, "41.8 ms"),
        ("lookup_success", 0.9995, "99.95 %"),
        ("held_by_closest_3_share", 0.5, "50 %"),
        ("rss_peak_bytes", 80_070_000, "80.1 MB"),
        ("bytes_p50_per_lookup", 2061.6, "2.06 kB / lookup"),
        ("datagrams_per_lookup", 24.123, "24.1 / lookup"),
        ("node_virtual_s_per_real_s", 12_187.5, "12,188"),
        ("lookup_success_at_1000", 0.99, "99 %"),
        ("lookup_s_at_1000000", 0.8, "800 ms"),
        ("lookup_s_fit_error", 0.01, "10 ms"),
        ("lookup_p50_s_by_loss", 2.0, "2 s"),
        ("nodes", 12_345, "12,345"),
        ("nodes", None, "-"),
    ],
)
def test_values_are_shown_with_the_unit_of_their_name(name: str, value: float | None, text: str) -> None:
    """Scenarios choose names, so names carry the units."""
    assert shown(name, value) == text


def test_names_tell_what_is_better() -> None:
    """Less time, fewer bytes, more success; what a name does not tell is not judged."""
    better = {
        "lookup_p99_s": -1, "rss_peak_bytes": -1, "bytes_per_lookup": -1, "datagrams_per_lookup": -1,
        "lookup_success": 1, "held_by_closest_3_share": 1, "node_virtual_s_per_real_s": 1, "virtual_s": 0,
        "lookup_hops_p50": 0, "nodes_alive": 0, "datagrams": 0, "relayed_share": 0,
    }  # fmt: skip
    assert {name: direction(name) for name in better} == better
    assert is_share("lookup_success")
    assert not is_share("shares_per_node")
