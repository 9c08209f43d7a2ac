"""docs/simulate.md: its example is run as a user would, and its tables name what is there."""

import re
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.tiny_scenario import SCENARIO, Settings

from p2pnode.simulations.harness.execution import Execution
from p2pnode.simulations.report import Report, as_dict
from p2pnode.simulations.report.units import COST

PAGE = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    """Copied from the page into a file: listed, refused beyond its limits, run with what it promises."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "my.py"
    path.write_text(code)
    assert "share of the nodes that vanish before" in p2pnode("simulate", str(path), "--list").out
    refusal = p2pnode("simulate", str(path), "--set", "gone=1").err
    assert "gone is a number of 0 or more and below 1 (share of the nodes that vanish before)" in refusal
    result = p2pnode("simulate", str(path), "--nodes", "12", "--set", "records=3", "--set", "full=false", "--json")
    assert result.code == 0, result.err
    data = result.json
    assert data["figures"]["alive_share"] == pytest.approx(8 / 12)
    assert data["samples"]["put_s"]["count"] >= 1
    assert "routing tables" in data["notes"][0]


def test_the_page_names_every_field_and_figure() -> None:
    """Of the JSON file, and of what every run has."""
    outcome = Execution(SCENARIO, 10, 1, Settings()).execute()
    data = as_dict(Report("tiny", "", "", outcome.found), raw=True)
    for name in (*data, *COST, "sweep", "error", "bytes_per_node"):
        assert f"`{name}`" in PAGE, name
