"""Options that several commands share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "PeerArgument", "TimeoutOption", "examples"]

JsonOption = Annotated[
    bool | None, typer.Option("--json", help="One JSON object instead of text.  [env: P2PNODE_JSON]")
]
TimeoutOption = Annotated[
    str | None,
    typer.Option("--timeout", metavar="S", help="Seconds it may take (default 15).  [env: P2PNODE_TIMEOUT]"),
]
PeerArgument = Annotated[
    str,
    typer.Argument(
        metavar="PEER",
        help="User id p2p1..., peer id 12D3KooW..., a prefix (12 characters), a contact's name, or ID@HOST:PORT.",
        show_default=False,
    ),
]


def examples(*lines: str) -> str:
    """Return the epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
