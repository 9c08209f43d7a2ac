"""`p2pnode random`: talk to strangers, through the node that runs, else through nodes made for that."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import JsonOption, examples

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        "random",
        epilog=examples(
            "p2pnode random                 you are connected to a stranger: say hi",
            "p2pnode random --relay-only    strangers do not learn your address",
            "p2pnode random --json          events as JSON lines; what you type is said, \\next goes on",
        ),
    )(_random)


def _random(
    ctx: typer.Context,
    relay_only: Annotated[
        bool, typer.Option("--relay-only", help="Never show this computer's address to a stranger.")
    ] = False,
    bootstrap: Annotated[
        list[str] | None,
        typer.Option(
            "--bootstrap",
            metavar="ID@HOST:PORT",
            help="A node to join through where no node runs on this home; repeatable.  [env: P2PNODE_BOOTSTRAP]",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="ID", help="Nodes of different networks never talk.  [env: P2PNODE_NETWORK]"),
    ] = None,
    network_secret_file: Annotated[
        str | None,
        typer.Option(
            "--network-secret-file",
            metavar="FILE",
            help="Private network: first line of FILE is what its members share.  [env: P2PNODE_NETWORK_SECRET]",
        ),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option("--listen", metavar="IP:PORT", help="Where to receive (UDP).  [env: P2PNODE_LISTEN]"),
    ] = None,
    no_lan: Annotated[bool, typer.Option("--no-lan", help="Do not look for peers by multicast.")] = False,
    no_portmap: Annotated[bool, typer.Option("--no-portmap", help="Do not ask the router for a port.")] = False,
    json: JsonOption = None,
    doc_addresses: Annotated[bool, typer.Option("--allow-doc-addresses", hidden=True)] = False,
) -> None:
    """Talk to a stranger: each conversation under a key made for it, which is thrown away afterwards.

    While you talk: \\next finds another stranger, \\report tells those who may meet this one next, \\quit leaves. The
    node that runs on this home is used; where none runs, nodes are made for this alone and yours stays away.
    """
    from p2pnode import NotRunningError

    invocation = invocation_of(ctx)
    config = invocation.config(
        json=json,
        relay_only=relay_only or None,
        bootstrap=bootstrap,
        network=network,
        network_secret_file=network_secret_file,
        listen=listen,
        lan=False if no_lan else None,
        portmap=False if no_portmap else None,
        allow_doc_addresses=doc_addresses or None,
    )
    try:
        client = invocation.client()
    except NotRunningError:
        if invocation.home.holder() is not None:
            raise
        from p2pnode.cli.random_run import run_random

        raise typer.Exit(run_random(invocation, config, relay_only=config["relay-only"])) from None
    from p2pnode.cli.random_client import talk_through

    raise typer.Exit(talk_through(invocation, client, relay_only=config["relay-only"]))
