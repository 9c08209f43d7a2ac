"""Run the command line in this process, with streams and environment of its own."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.cli.invocation import Invocation
from p2pnode.cli.main import run

__all__ = ["Result", "p2pnode"]


@dataclass
class Result:
    """What a run gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


def p2pnode(*args: str, home: Path | None = None, env: dict[str, str] | None = None, stdin: str = "") -> Result:
    """Run `p2pnode [--home HOME] ARGS`."""
    out, err = io.StringIO(), io.StringIO()
    invocation = Invocation(environ=env or {}, stdin=io.StringIO(stdin), stdout=out, stderr=err)
    code = run([*(["--home", str(home)] if home else []), *args], invocation)
    return Result(code, out.getvalue(), err.getvalue())
