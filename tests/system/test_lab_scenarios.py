"""The laboratory's scenarios, as the command runs them: what holds today, and what their reports contain.

With P2PNODE_LAB=full all of them; otherwise the shortest one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.lab import WHOLE, lab_command, require_lab

from p2pnode.simulations.netns import LabSettings
from p2pnode.simulations.netns.report import scenario_text
from p2pnode.simulations.netns.scenarios import run_scenario
from p2pnode.simulations.report import Report

pytestmark = [pytest.mark.namespace, pytest.mark.slow]


def roam(report: Report) -> None:
    """Another router, address or line, forgotten mappings, sleep: nothing is lost or doubled, in 5 s it is over."""
    figures = report.found.figures
    assert figures["messages_sent"] > 50
    assert (figures["messages_lost"], figures["messages_doubled"], figures["messages_refused"]) == (0, 0, 0)
    for move in ("router", "address", "line", "rebinding", "sleep"):
        assert figures[f"roam_{move}_s"] <= 5.0


def bootstrap_gone(report: Report) -> None:
    """An open session, a new connect, a warm start, and a connect to who started so.

    The bar for the warm start on a machine of its own (3 s) is in test_lab_faults.py.
    """
    figures = report.found.figures
    assert {"send_s", "connect_s", "rejoin_s", "reached_again_s"} <= figures.keys()
    assert figures["rejoin_s"] <= 10.0


def udp_blocked(report: Report) -> None:
    """Joined by TLS, calls are relayed at once, and direct by TCP where routers keep ports; UDP is noticed again."""
    states, calls = (table.rows for table in report.found.tables[:2])
    assert [row[1:] for row in states] == [["no", "udp-blocked"]] * 3
    assert [row[2] for row in calls] == ["relay"] * 5
    assert [row[5] for row in calls[1:3]] == ["relay"] * 2
    assert [row[5] for row in calls].count("punched") >= 2  # of three; the bar is nine in ten
    assert report.found.figures["noticed_after_unblock_s"] <= 30


CHECKS: dict[str, Callable[[Report], None]] = {
    "roam": roam,
    "bootstrap-gone": bootstrap_gone,
    "udp-blocked": udp_blocked,
}


if WHOLE:  # an empty set of parameters would count as a skipped test

    @pytest.mark.parametrize("name", CHECKS)
    def test_scenario_holds(name: str) -> None:
        """No failure in its report, and the figures that `CHECKS` asks for."""
        require_lab()
        report = run_scenario(name, LabSettings())
        print("\n" + "\n".join(scenario_text(report)))
        assert report.found.failures == []
        CHECKS[name](report)


def test_lan_without_internet_is_enough(tmp_path: Path) -> None:
    """All twelve directed pairs by multicast alone, as a command: JSON, report.html and report.json."""
    require_lab()
    with lab_command(tmp_path, "lan-offline", "--json", "--output", str(tmp_path / "out")) as command:
        out, err = command.process.communicate(timeout=90)
        assert command.process.returncode == 0, err.decode()
        data = json.loads(out)
        assert data["scenario"] == "lan-offline"
        assert data["failures"] == []
        assert data["figures"]["connect_p50_s"] <= 1.0
        assert data["command"] == "p2pnode lab lan-offline"
        written = json.loads((tmp_path / "out" / "report.json").read_text())
        assert written["figures"] == data["figures"]
        assert "lan-offline" in (tmp_path / "out" / "report.html").read_text()
        assert command.gone()
