"""`p2pnode presence`: what contacts see of this user."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import JsonOption, examples

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        "presence",
        epilog=examples(
            "p2pnode presence                          what contacts see",
            "p2pnode presence --status 'back at 5'     a text beside your name, at most 140 characters",
            "p2pnode presence --status ''              none",
            "p2pnode presence --invisible              look offline; messages still come and go",
            "p2pnode presence --visible",
        ),
    )(_presence)


def _presence(
    ctx: typer.Context,
    status: Annotated[
        str | None, typer.Option("--status", metavar="TEXT", help="Show contacts this text; an empty one: none.")
    ] = None,
    invisible: Annotated[
        bool | None,
        typer.Option("--invisible/--visible", help="Look offline to everybody, also after a restart; or be seen."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show or change what contacts see of you: a status text, and whether you are here.

    Invisible, you look offline, while messages still come and go. Whom you write to sees that you are here.
    """
    from p2pnode.api.presence_types import OwnPresence, PresenceChange

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    client = invocation.client()
    if status is None and invisible is None:
        answer = client.get("/v1/presence", OwnPresence)
    else:
        answer = client.patch("/v1/presence", OwnPresence, PresenceChange(status=status, invisible=invisible))
    seen = "You are invisible." if answer.invisible else "Contacts see that you are here."
    invocation.emit(answer, seen, f"Status: {answer.status}" if answer.status else "No status is shown.")
