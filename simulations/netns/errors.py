"""What goes wrong in the laboratory itself; what goes wrong inside keeps its own error."""

from __future__ import annotations

from p2pnode.core.errors import P2PError

__all__ = ["LabError"]


class LabError(P2PError):
    """The laboratory cannot be built, or is not what it claims to be."""

    code = "lab"
