"""The same pairs of networks in both worlds: modelled routers in virtual time, the kernel's in namespaces.

Real nodes connect by id in both; a cell that differs in whether, how or why not is a lie of the model.
With P2PNODE_LAB=full all 108 cells, otherwise one of each sort.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from support.lab import PLAN, measured_matrix

from p2pnode.simulations.harness.execution import Execution
from p2pnode.simulations.harness.settings import read_settings
from p2pnode.simulations.netns.expectations import expected
from p2pnode.simulations.scenarios import nat_matrix

pytestmark = [pytest.mark.namespace, pytest.mark.slow]


class PlainCell(NamedTuple):
    """What a cell comes to. `path`: None unless connected; `code`: of the refusal."""

    a: str
    b: str
    connected: bool
    path: str | None
    code: str | None


def real_cells() -> list[PlainCell]:
    """What was measured in namespaces. Of several samples, all paths: they must not differ either."""
    names = PlainCell._fields
    return [PlainCell(*(cell[name] for name in names)) for cell in measured_matrix().extra["cells"]]


def virtual_cells() -> list[PlainCell]:
    """Run the scenario of virtual time with the same kinds; its table of pairs as plain cells."""
    kinds = dict.fromkeys(name for cell in PLAN.cells for name in cell)
    settings = read_settings(nat_matrix.SCENARIO, {"kinds": ",".join(kinds)})
    outcome = Execution(nat_matrix.SCENARIO, nat_matrix.SCENARIO.nodes, 1, settings).execute()
    assert outcome.state == "done", outcome.traceback
    table = next(table for table in outcome.found.tables if table.title == "Pairs")
    return [
        PlainCell(str(a), str(b), connected == "yes", path and str(path), code and str(code))
        for a, b, connected, path, code, *_ in table.rows
    ]


def _guessed(one: PlainCell, other: PlainCell) -> bool:
    """Whether both are right, sample by sample, where more than one path is: two of a hundred guesses stay relayed."""
    right = set(expected(one.a, one.b).results)
    paths = {path for cell in (one, other) for path in (cell.path or "none").split("/")}
    return len(right) > 1 and paths <= right


def test_every_cell_is_the_same_in_both_worlds() -> None:
    """Connected or not, by which path, with which code."""
    real = {frozenset((cell.a, cell.b)): cell for cell in real_cells()}
    virtual = {frozenset((cell.a, cell.b)): cell for cell in virtual_cells()}
    assert real.keys() == {frozenset(cell) for cell in PLAN.cells}
    different = [
        f"{cell.a} x {cell.b}: real {cell[2:]}, virtual {virtual[pair][2:]}"
        for pair, cell in real.items()
        if virtual[pair][2:] != cell[2:] and not _guessed(cell, virtual[pair])
    ]
    print(f"\n{len(real)} cells in both worlds; {sum(cell.connected for cell in real.values())} connect")
    assert not different, "\n".join(different)
