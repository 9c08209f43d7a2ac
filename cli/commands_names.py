"""`p2pnode names`: who in the network calls itself so."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import JsonOption, examples
from p2pnode.cli.output import age, table

__all__ = ["add"]

_LOOKUP_S = 30.0


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command("names", epilog=examples("p2pnode names alice", "p2pnode names alice --json"))(_names)


def _names(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that somebody may have chosen for itself.")],
    json: JsonOption = None,
) -> None:
    """List who in the network calls itself NAME: anybody can, so look who knows whom, and compare safety numbers.

    Then add one: p2pnode contacts add USER --name NAME.
    """
    from p2pnode.api.name_types import NameClaims, NameQuery

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    client = invocation.client()
    with invocation.progress(f"Looking for {name}"):
        found = client.get("/v1/names", NameClaims, NameQuery(name), timeout=_LOOKUP_S)
    rows = [
        (
            each.user,
            each.presence or "-",
            f"since {each.since[:10]}, renewed {age(each.age_s)} ago",
            f"known to {', '.join(each.common)}" if each.common else each.state or "-",
        )
        for each in found.claimants
    ]
    invocation.emit(found, *table(rows))
    if not found.answered:
        invocation.note("No other node could be asked.")
    elif not found.claimants:
        invocation.note(f"Nobody in the network calls itself {found.name}.")
