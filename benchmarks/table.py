"""The table of figures that every benchmark prints, and writes as JSON."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["Table"]


class Table:
    """Collects figures and prints them with their bars."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(
        self, what: str, value: float, unit: str, bar: float | None, beside: str = "", *, least: bool = False
    ) -> None:
        """`bar`: what the value must not exceed, or with `least` not fall below."""
        holds = bar is None or (value >= bar if least else value <= bar)
        verdict = "" if bar is None else ("holds" if holds else "DOES NOT HOLD")
        self.rows.append({"what": what, "value": round(value, 4), "unit": unit, "bar": bar, "verdict": verdict})
        limit = "" if bar is None else f"({'at least' if least else 'at most'} {bar:g} {unit}: {verdict})"
        print(f"{what:52} {value:10.3f} {unit:4} {limit:34} {beside}", flush=True)

    def finish(self, path: Path | None) -> int:
        """Write the figures to `path`, say how many bars hold, and return the exit code."""
        if path is not None:
            path.write_text(json.dumps(self.rows, indent=1))
        bad = [row for row in self.rows if row["verdict"] == "DOES NOT HOLD"]
        print(f"{len(self.rows) - len(bad)} passed, {len(bad)} failed")
        return int(bool(bad))
