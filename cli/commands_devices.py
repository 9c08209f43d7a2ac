"""`p2pnode id link`, `id devices`, `id revoke`: the user's own devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples

if TYPE_CHECKING:
    from p2pnode.api.device_types import Devices

__all__ = ["add"]

WAIT_S = 600.0


def add(identity: typer.Typer) -> None:
    """Register the commands under `id`."""
    identity.command(
        "link",
        epilog=examples(
            "p2pnode id link                     on a device that you have: shows a code, once good for ten minutes",
            "p2pnode id link 12D3KooW...#k3v7..  on the new one, before its first `join`",
        ),
    )(_link)
    identity.command("devices", epilog=examples("p2pnode id devices", "p2pnode id devices --json"))(_devices)
    identity.command("revoke", epilog=examples("p2pnode id revoke 12D3KooW...", "p2pnode id revoke phone"))(_revoke)


def _link(
    ctx: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(metavar="[CODE]", help="What `id link` shows on the other device.", show_default=False),
    ] = None,
    bootstrap: Annotated[
        list[str] | None,
        typer.Option("--bootstrap", metavar="ID@HOST:PORT", help="A node to join through, besides those in the code."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="ID", help="Both devices must be in one.  [env: P2PNODE_NETWORK]")
    ] = None,
    listen: Annotated[
        list[str] | None, typer.Option("--listen", metavar="IP:PORT", help="Where to receive (UDP) meanwhile.")
    ] = None,
    no_lan: Annotated[bool, typer.Option("--no-lan", help="Do not look for peers by multicast.")] = False,
    no_portmap: Annotated[bool, typer.Option("--no-portmap", help="Do not ask the router for a port.")] = False,
    json: JsonOption = None,
    doc_addresses: Annotated[bool, typer.Option("--allow-doc-addresses", hidden=True)] = False,
) -> None:
    """Add a device to your account: without CODE show one here, with CODE make this home a device of the other's.

    The account's key comes to the new device, sealed with the code. Messages then go to both, and both show what was
    sent and read on either. A device that is lost: `id revoke` on another one.
    """
    invocation = invocation_of(ctx)
    config = invocation.config(
        json=json,
        bootstrap=bootstrap,
        network=network,
        listen=listen,
        lan=False if no_lan else None,
        portmap=False if no_portmap else None,
        allow_doc_addresses=doc_addresses or None,
    )
    if code is None:
        _show_code(invocation)
        return
    from p2pnode.chat import LinkCode

    parsed = LinkCode.parse(code)
    from p2pnode.cli.device_linking import link_this_home

    link_this_home(invocation, config, parsed)


def _show_code(invocation: Invocation) -> None:
    from p2pnode.api import device_types as t

    client = invocation.client()
    link = client.post("/v1/devices/link", t.LinkOpen, t.LinkBegin(WAIT_S))
    lines = ["On the new device, once, within ten minutes:", "", f"    p2pnode id link {link.code}", ""]
    lines += ["Whoever has this line becomes you: show it to nobody. Waiting; Ctrl-C leaves, the code stays good."]
    invocation.emit(link, *lines)
    if not invocation.json and invocation.stdout.isatty():
        import segno

        segno.make(link.code, micro=False, error="l").terminal(out=invocation.stdout, compact=True)
    linked = client.get("/v1/devices/link", t.DeviceLinked, timeout=link.seconds + 5)
    invocation.emit(linked, f"Linked: {linked.peer} {linked.name}".rstrip())


def _devices(ctx: typer.Context, json: JsonOption = None) -> None:
    """List the devices of your account; the node of this home must be running."""
    from p2pnode.api import device_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _print(invocation, invocation.client().get("/v1/devices", t.Devices))


def _revoke(
    ctx: typer.Context,
    device: Annotated[
        str, typer.Argument(metavar="PEER", help="Its peer id, the end of it, or its name.", show_default=False)
    ],
    json: JsonOption = None,
) -> None:
    """Take a lost device out of your account: nobody sends it anything or takes anything from it any more.

    Whoever has the unlocked device has your account's key all the same; what that means is in docs/security.md.
    """
    from p2pnode.api import device_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    with invocation.progress("Telling the network"):
        found = invocation.client().post("/v1/devices/revoke", t.Devices, t.DeviceRevoke(device), timeout=40.0)
    _print(invocation, found)


def _print(invocation: Invocation, found: Devices) -> None:
    from p2pnode.cli.output import table

    rows = [("device", "name", "state")]
    for each in found.devices:
        state = "this one" if each.this else "online" if each.online else "offline or unknown"
        rows.append((each.peer, each.name, state))
    note = ["This device was removed from the account; link it again: p2pnode id link CODE"] if found.revoked else []
    invocation.emit(found, *table(rows), *note)
