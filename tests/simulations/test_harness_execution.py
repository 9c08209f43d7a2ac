"""A run in this process: what it finds, what every run tells of its cost, and each way to end as one sentence."""

from pathlib import Path

import pytest
from support import tiny_scenario
from support.tiny_scenario import SCENARIO, Settings

from p2pnode.simulations.harness.execution import Execution, Outcome
from p2pnode.simulations.report.units import COST, MACHINE

SOURCE = tiny_scenario.__file__


def line_of(text: str) -> str:
    lines = Path(SOURCE).read_text().splitlines()
    return f"{SOURCE}, line {next(number for number, line in enumerate(lines, 1) if text in line)}"


def execute(nodes: int = 10, seed: int = 1, **settings: object) -> Outcome:
    return Execution(SCENARIO, nodes, seed, Settings(**settings)).execute(source=SOURCE)  # type: ignore[arg-type]


def test_a_run_gives_what_it_recorded_and_what_it_cost() -> None:
    """Figures, samples and series as recorded; both times, memory, processor time, datagrams and speed beside them."""
    outcome = execute()
    assert (outcome.state, outcome.error) == ("done", "")
    assert set(outcome.found.figures) == {"lookup_success"}
    assert len(outcome.found.samples["lookup_s"]) == 20
    assert outcome.virtual_s == pytest.approx(20.0)
    cost = outcome.cost
    assert set(cost) == set(COST)
    assert cost["datagrams"] == 20
    assert cost["rss_peak_bytes"] > 1e6
    assert cost["node_virtual_s_per_real_s"] == pytest.approx(10 * 20 / cost["real_s"])
    assert cost["datagrams_per_real_s"] == pytest.approx(20 / cost["real_s"])


def test_traffic_of_each_node_and_kind_is_part_of_every_run() -> None:
    """100 bytes, 20 times, lost or not: what left and what arrived, by host; and a table by kind."""
    found = execute(loss=0.0).found
    assert found.samples["bytes_per_node"] == [2000.0, 1900.0]  # the last is still on its way
    (table,) = [table for table in found.tables if table.title.startswith("Datagrams")]
    assert table.rows == [["dht-04", 20, 1.0, 2000]]


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    """All but the machine's figures."""

    def network(outcome: Outcome) -> object:
        cost = {name: value for name, value in outcome.cost.items() if name not in MACHINE}
        return outcome.found, cost

    assert network(execute(seed=5)) == network(execute(seed=5))
    assert network(execute(seed=5)) != network(execute(seed=6))


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("require", "What must hold does not."),
        ("error", f"{line_of('raise ValueError')}: ValueError: no such thing"),
        ("exit", f"{line_of('raise SystemExit')}: The scenario ended itself (SystemExit)."),
        ("deadlock", "Nothing more can happen"),
        ("late", "The scenario is stuck: not finished after 1e+06 virtual seconds"),
    ],
    ids=["require", "error", "exit", "deadlock", "late"],
)
def test_each_way_to_fail_is_one_sentence(ends: str, said: str) -> None:
    """With the line of the scenario where there is one; what was found until then is kept."""
    outcome = execute(ends=ends)
    assert outcome.state == "failed"
    (failure,) = outcome.found.failures
    assert said in failure
    assert "\n" not in failure
    assert len(outcome.found.samples["lookup_s"]) == 20
    assert ("Traceback" in outcome.traceback) == (ends != "require")


def test_what_is_no_number_is_left_out_and_said() -> None:
    """No plot, percentile or JSON can hold it."""
    found = execute(ends="nan").found
    assert "broken" not in found.figures
    assert len(found.samples["lookup_s"]) == 20
    assert [note for note in found.notes if "broken came out as nan" in note]
    assert [note for note in found.notes if "1 values of lookup_s are no numbers" in note]


def test_a_snapshot_is_apart_from_the_run() -> None:
    """What the parent is given on Ctrl-C does not change any more."""
    execution = Execution(SCENARIO, 10, 1, Settings())
    before = execution.snapshot("interrupted")
    execution.execute()
    assert before.found.samples == {}
    assert before.state == "interrupted"
    assert execution.standing().phase == "stepping"
    assert (execution.standing().steps, execution.standing().total) == (20, 20)
