"""What changed between two reports: by how much, for better or worse, beyond chance or not."""

import json
import random
from pathlib import Path

import pytest

from p2pnode.simulations.harness.errors import ScenarioFileError
from p2pnode.simulations.harness.scenario import Recorder
from p2pnode.simulations.report import Report, as_json
from p2pnode.simulations.report.comparison import Change, Comparison, File, as_text, compare, read, write
from p2pnode.simulations.report.model import SweepRun
from p2pnode.simulations.report.sweeping import add_run, finish, new_sweep


def single(path: Path, figures: dict[str, float], **parts: object) -> File:
    report = Report("lookup", "How fast?", "p2pnode simulate lookup", Recorder(figures), 100, 1, **parts)  # type: ignore[arg-type]
    path.write_text(as_json(report, raw=True))
    return read(path)


def swept(path: Path, middle: float, *, seeds: int = 8, spread: float = 0.1, salt: str = "") -> File:
    """lookup_p50_s over two losses, at both the same."""
    sweep = new_sweep({"seed": list(range(seeds)), "loss": [0.0, 0.2]})
    for place in [{"seed": seed, "loss": loss} for seed in range(seeds) for loss in (0.0, 0.2)]:
        value = random.Random(f"{place}{salt}").gauss(middle, spread)
        add_run(sweep, SweepRun(place, "done", {"lookup_p50_s": value}, ""), Recorder())  # type: ignore[arg-type]
    finish(sweep)
    path.write_text(as_json(Report("lookup", "How fast?", "", sweep=sweep), raw=True))
    return read(path)


def changes(found: Comparison) -> dict[str, Change]:
    (part,) = found.parts
    return {change.name: change for change in part.changes}


def test_figures_of_two_runs(tmp_path: Path) -> None:
    """Absolute, relative, better or worse by the unit; of chance nothing can be said."""
    first = single(tmp_path / "a.json", {"lookup_p50_s": 0.4, "lookup_success": 0.8, "hops": 0.0, "gone": 1.0})
    second = single(
        tmp_path / "b.json", {"lookup_p50_s": 0.3, "lookup_success": 0.6, "hops": 2.0, "new": 1.0}, settings={"loss": 1}
    )
    found = compare(first, second)
    assert found.differing == [("loss", "-", "1")]
    by_name = changes(found)
    assert by_name["lookup_p50_s"] == Change("lookup_p50_s", 0.4, 0.3, 0.3 - 0.4, pytest.approx(-0.25), True, "")
    assert by_name["lookup_success"].better is False
    assert (by_name["hops"].relative, by_name["hops"].better) == (None, None)
    assert (by_name["gone"].second, by_name["new"].first, by_name["new"].difference) == (None, None, None)
    text = "\n".join(as_text(found))
    assert "-100 ms" in text
    assert "-25.0 %  better" in text
    assert "worse" in text


def test_equal_figures_are_counted_not_listed(tmp_path: Path) -> None:
    """A comparison of two equal runs is short."""
    one = single(tmp_path / "a.json", {"lookup_p50_s": 0.4})
    assert as_text(compare(one, one))[-1] == "1 of 1 figures are equal."


def test_sweeps_tell_change_from_chance(tmp_path: Path) -> None:
    """Twice the same distribution with other seeds: within chance. Five standard errors apart: beyond."""
    first = swept(tmp_path / "a.json", 1.0)
    again, slower = swept(tmp_path / "b.json", 1.0, salt="x"), swept(tmp_path / "c.json", 1.3)
    for part in compare(first, again).parts:
        assert part.changes[0].chance == "within chance"
    parts = compare(first, slower).parts
    assert [part.title for part in parts] == ["loss=0", "loss=0.2"]
    for part in parts:
        assert (part.changes[0].chance, part.changes[0].better) == ("beyond chance", False)


@pytest.mark.slow
def test_chance_is_called_change_as_seldom_as_it_says(tmp_path: Path) -> None:
    """200 pairs of equal sweeps, two points each: about 5 % are wrongly called a change."""
    wrong = 0
    for number in range(200):
        ones = swept(tmp_path / "a.json", 1.0, seeds=5, salt=f"{number}a")
        others = swept(tmp_path / "b.json", 1.0, seeds=5, salt=f"{number}b")
        wrong += sum(part.changes[0].chance == "beyond chance" for part in compare(ones, others).parts)
    print(f"{wrong / 4:.1f} % called a change")
    assert 0.01 < wrong / 400 < 0.10


def test_a_single_run_is_judged_by_what_one_more_run_could_be(tmp_path: Path) -> None:
    """The sweep's prediction interval is wider than that of its mean."""
    sweep = new_sweep({"seed": [1, 2, 3, 4]})
    for seed, value in ((1, 1.0), (2, 1.1), (3, 0.9), (4, 1.0)):
        add_run(sweep, SweepRun({"seed": seed}, "done", {"lookup_p50_s": value}, ""), Recorder())
    finish(sweep)
    (tmp_path / "a.json").write_text(as_json(Report("lookup", "", "", sweep=sweep)))
    many = read(tmp_path / "a.json")
    high = many.sweep.points[0].figures["lookup_p50_s"].high if many.sweep else None
    assert high is not None
    assert high < 1.2
    for value, chance in ((1.2, "within chance"), (1.5, "beyond chance")):
        one = single(tmp_path / "b.json", {"lookup_p50_s": value})
        assert changes(compare(many, one))["lookup_p50_s"].chance == chance


def test_points_and_scenarios_that_only_one_has_are_said(tmp_path: Path) -> None:
    """Nothing is silently left out."""
    first, second = swept(tmp_path / "a.json", 1.0), single(tmp_path / "b.json", {"lookup_p50_s": 1.0})
    second.scenario = "churn"
    notes = compare(first, second).notes
    assert notes == [
        "These are different scenarios: lookup and churn.",
        "Only in one of them: loss=0; loss=0.2; all runs.",
    ]


@pytest.mark.slow
def test_a_comparison_as_page_and_json(tmp_path: Path) -> None:
    """Marked for better and worse, unless it is within chance; nothing of the files' names is markup."""
    first = single(tmp_path / "<b>a.json", {"lookup_p50_s": 0.4, "lookup_success": 0.9})
    second = single(tmp_path / "b.json", {"lookup_p50_s": 0.3, "lookup_success": 0.8})
    paths = write(tmp_path, compare(first, second))
    page = paths[1].read_text()
    assert "<b>" not in page
    assert 'class="better"' in page
    assert 'class="worse"' in page
    data = json.loads(paths[0].read_text())
    assert data["parts"][0]["changes"][0]["relative"] == pytest.approx(-0.25)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"scenario": 3, "figures": {}}', '{"scenario": "x", "figures": {"a": "b"}}', "[" * 100_000]
)
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    """One sentence with the file's name."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ScenarioFileError, match=r"a\.json is no report"):
        read(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, and a folder."""
    for path, said in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ScenarioFileError, match=said):
            read(path)
