"""What goes wrong in the laboratory itself; what goes wrong inside keeps its own error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from p2pnode.core.errors import P2PError

__all__ = ["LabError", "nearest"]


class LabError(P2PError):
    """The laboratory cannot be built, or is not what it claims to be."""

    code = "lab"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence about a name that does not exist: the nearest that does, or all of them."""
    known = list(names)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}."
