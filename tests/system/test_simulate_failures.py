"""A small sweep with real processes of which some fail. Lost workers, a cluster, Ctrl-C: `test_simulate_sweeps.py`."""

from pathlib import Path

import pytest
from support.cli import p2pnode
from support.simulate import TINY

pytestmark = pytest.mark.slow


def test_errors_of_one_run_do_not_lose_the_others(tmp_path: Path) -> None:
    """Three ways to end, two of them bad: exit 1, each failure with its command, the good ones have figures."""
    sweep = ("--sweep", "ends=well,error,killed", "--sweep", "seed=1,2")
    result = p2pnode("simulate", TINY, *sweep, "--output", str(tmp_path), "--json")
    assert result.code == 1
    data = result.json
    assert [run["state"] for run in data["sweep"]["runs"]] == ["done", "done", "failed", "failed", "failed", "failed"]
    assert [point["runs"] for point in data["sweep"]["points"]] == [2, 0, 0]
    assert len(data["failures"]) == 4
    assert "ends=error, seed=1: " in data["failures"][0]
    assert data["failures"][0].endswith(f"To repeat: p2pnode simulate {TINY} --nodes 10 --seed 1 --set ends=error")
    assert "ended by SIGKILL" in data["failures"][2]
    assert result.err.splitlines()[-1].startswith("p2pnode: 4 of 6 runs failed: ends=error, seed=1: ")
    assert "ValueError: no such thing" in (tmp_path / "report.html").read_text()
