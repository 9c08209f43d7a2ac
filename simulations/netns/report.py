"""What the laboratory's scenarios print: text for people, one JSON object for scripts, files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from p2pnode.simulations.netns.kinds import KINDS
from p2pnode.simulations.netns.lab import Lab, LabSettings
from p2pnode.simulations.netns.matrix import FULL, QUICK, Cell, expected, run_matrix
from p2pnode.simulations.netns.probing import Verdict

__all__ = ["MatrixResult", "as_json", "as_text", "kinds", "kinds_json", "kinds_text", "matrix", "write"]

Progress = Callable[[str], AbstractContextManager[None]]


@dataclass
class MatrixResult:
    """A run of the matrix. `dropped`: what the wire dropped, by reason."""

    cells: list[Cell]
    verdicts: dict[str, Verdict]
    settings: LabSettings
    nodes: int
    dropped: dict[str, int]
    real_s: float

    @property
    def as_expected(self) -> bool:
        return all(cell.as_expected for cell in self.cells)


def _silent(_text: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def matrix(settings: LabSettings, *, quick: bool, samples: int, progress: Progress = _silent) -> MatrixResult:
    """Run the matrix in a laboratory of its own. Raise LabError."""
    began = time.monotonic()
    plan = replace(QUICK if quick else FULL, samples=samples)
    with contextlib.ExitStack() as shown:

        def show(text: str) -> None:
            shown.close()
            shown.enter_context(progress(text))

        with Lab(settings) as lab:
            cells, verdicts = run_matrix(lab, plan, progress=show)
            nodes, dropped = len(lab.nodes), lab.wire.dropped()
    return MatrixResult(cells, verdicts, settings, nodes, dropped, time.monotonic() - began)


def as_json(result: MatrixResult) -> str:
    """Return the one object of `lab matrix --json`."""
    data: dict[str, Any] = {
        "scenario": "matrix",
        "cells": [cell.to_json() for cell in result.cells],
        "as_expected": result.as_expected,
        "kinds": {name: _verdict(v) for name, v in result.verdicts.items()},
        "nodes": result.nodes,
        "seed": result.settings.seed,
        "delay_ms": round(result.settings.delay_s * 1000, 3),
        "loss": result.settings.loss,
        "dropped": result.dropped,
        "real_s": round(result.real_s, 1),
    }
    return msgspec.json.encode(data).decode()


def as_text(result: MatrixResult) -> list[str]:
    """Return the table for people, then what is not as expected."""
    rows = [("A", "B", "PATH", "CONNECT", "SEND", "SEEN OUTSIDE", "")]
    for cell in result.cells:
        data = cell.to_json()
        sent = "-" if data["send_seconds"] is None else f"{data['send_seconds']:.2f} s"
        rows.append(
            (
                cell.a,
                cell.b,
                (data["path"] or "") + ("/" if data["path"] and data["code"] else "") + (data["code"] or ""),
                f"{data['seconds']:.2f} s",
                f"{sent}{'' if data['delivered_once'] or sent == '-' else ', not once'}",
                "yes" if data["witnessed"] else "-",
                "ok" if cell.as_expected else "NOT AS EXPECTED",
            )
        )
    lines = _table(rows)
    for cell in result.cells:
        if not cell.as_expected:
            message = cell.to_json()["message"]
            lines.append(
                f"{cell.a} x {cell.b}: expected {' or '.join(expected(cell.a, cell.b))}. {message or ''}".rstrip()
            )
    good = sum(cell.as_expected for cell in result.cells)
    settings = result.settings
    lines.append(
        f"{good} of {len(result.cells)} pairs as expected; {result.nodes} nodes, {settings.delay_s * 1000:g} ms and"
        f" {settings.loss * 100:g} % loss on each link, every router probed; {result.real_s:.0f} s"
    )
    return lines


def write(folder: Path, result: MatrixResult) -> None:
    """Write matrix.json and matrix.txt. Raise OSError."""
    (folder / "matrix.json").write_text(as_json(result) + "\n", encoding="utf-8")
    (folder / "matrix.txt").write_text("\n".join(as_text(result)) + "\n", encoding="utf-8")


def kinds() -> dict[str, Verdict]:
    """Build one router of each kind and probe it; by kind. Raise LabError."""
    with Lab() as lab:
        for kind in KINDS:
            lab.home(kind, kind)
        return lab.prove()


def kinds_json(found: dict[str, Verdict]) -> str:
    """Return one object, by kind."""
    return msgspec.json.encode({name: _verdict(verdict) for name, verdict in found.items()}).decode()


def kinds_text(found: dict[str, Verdict]) -> list[str]:
    """Return one line per kind: what it is, and what was measured."""
    rows = [("KIND", "MAPPING", "FILTERING", "PORT KEPT", "HAIRPIN", "IN WORDS")]
    rows += [
        (name, v.mapping, v.filtering, _yes(v.port_kept), _yes(v.hairpin), KINDS[name].text)
        for name, v in found.items()
    ]
    return _table(rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {**asdict(verdict), "public": str(verdict.public)}


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
