"""Commands about files: send, list, accept, refuse, cancel."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, PeerArgument, examples

if TYPE_CHECKING:
    from p2pnode.api import file_types as t
    from p2pnode.api.client import Client

__all__ = ["add"]

_LOOK_S = 0.25
_OPEN = ("preparing", "offered", "active")
IdArgument = Annotated[
    str, typer.Argument(metavar="[ID]", help="The id or its first characters; without it: the only one.")
]
FollowOption = Annotated[bool, typer.Option("--follow", help="Stay until it has ended, however long that takes.")]
WaitOption = Annotated[
    str | None,
    typer.Option("--wait", metavar="S", help="Seconds to stay while nothing moves (default 10).  [env: P2PNODE_WAIT]"),
]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    file = typer.Typer(rich_markup_mode=None, no_args_is_help=True, epilog=examples("p2pnode file list"))
    file.command(
        "send", epilog=examples("p2pnode file send alice photo.jpg", "p2pnode file send '#garden' holiday/ --json")
    )(_send)
    file.command("list", epilog=examples("p2pnode file list", "p2pnode file list --json"))(_list)
    file.command("accept", epilog=examples("p2pnode file accept 3fa9c1", "p2pnode file accept --json"))(_accept)
    file.command("refuse", epilog=examples("p2pnode file refuse 3fa9c1"))(_refuse)
    file.command("cancel", epilog=examples("p2pnode file cancel 3fa9c1"))(_cancel)
    app.add_typer(file, name="file", help="Send files and folders, and take those of others; resumable.")


def _send(
    ctx: typer.Context,
    peer: PeerArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or a folder.", show_default=False)],
    wait: WaitOption = None,
    follow: FollowOption = False,
    json: JsonOption = None,
) -> None:
    """Offer a file or folder to somebody, or to all in a #ROOM.

    Stays while it moves. The node goes on by itself, also after a break.
    """
    from p2pnode import parse_peer
    from p2pnode.api import file_types as t

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, wait=wait)
    parse_peer(peer)
    client = invocation.client()
    with invocation.progress(f"Looking at {path}"):
        info = client.post("/v1/files", t.FileInfo, t.FileSend(peer, os.path.abspath(path)), timeout=60.0)
    _show(invocation, _watch(invocation, client, info, wait=config["wait"], follow=follow))


def _accept(
    ctx: typer.Context,
    id_: IdArgument = "",
    wait: WaitOption = None,
    follow: FollowOption = False,
    json: JsonOption = None,
) -> None:
    """Take what is offered; stay while it moves. The node goes on by itself."""
    from p2pnode.api import file_types as t

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, wait=wait)
    client = invocation.client()
    info = client.post("/v1/files/accept", t.FileInfo, t.FileName(id_))
    _show(invocation, _watch(invocation, client, info, wait=config["wait"], follow=follow))


def _refuse(ctx: typer.Context, id_: IdArgument = "", json: JsonOption = None) -> None:
    """Do not take what is offered."""
    _simple(ctx, "refuse", id_, json)


def _cancel(ctx: typer.Context, id_: IdArgument = "", json: JsonOption = None) -> None:
    """Take an offer back, or give up what is under way."""
    _simple(ctx, "cancel", id_, json)


def _list(ctx: typer.Context, json: JsonOption = None) -> None:
    """List what is offered, under way and done."""
    from p2pnode.api import file_types as t
    from p2pnode.cli.output import size, table

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    answer = invocation.client().get("/v1/files", t.Files, t.FilesQuery())
    rows = [("ID", "NAME", "SIZE", "WITH", "STATE")]
    for each in answer.files:
        way = "to" if each.direction == "out" else "from"
        rows.append((each.id[:6], each.name, size(each.size), f"{way} {each.with_name}", each.text))
        rows += [("", "", "", f"  {one.name}", one.text) for one in each.receivers]
    invocation.emit(answer, *(table(rows) if answer.files else ["No files yet; send one: p2pnode file send PEER PATH"]))


def _simple(ctx: typer.Context, verb: str, id_: str, json: bool | None) -> None:
    from p2pnode.api import file_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    info = invocation.client().post(f"/v1/files/{verb}", t.FileInfo, t.FileName(id_))
    invocation.emit(info, f"{info.name}: {info.text}")


def _watch(invocation: Invocation, client: Client, info: t.FileInfo, *, wait: float, follow: bool) -> t.FileInfo:
    """Look at a transfer until it has ended, waits for the other side's decision, or does not move for `wait` s."""
    from p2pnode.api import file_types as t

    shown = [info]

    def tell() -> tuple[str, float | None]:
        now = shown[0]
        return f"{now.name}: {now.text}", now.done / now.size if now.size and now.state == "active" else None

    moved_at = time.monotonic()
    with invocation.progress(tell):
        while info.state in _OPEN and (follow or time.monotonic() - moved_at < wait):
            if info.direction == "out" and info.state == "offered" and info.reason == "pending" and not follow:
                break
            time.sleep(_LOOK_S)
            before = (info.state, info.done)
            info = shown[0] = client.get("/v1/files/one", t.FileInfo, t.FileQuery(info.id))
            if (info.state, info.done) != before or info.state == "preparing":
                moved_at = time.monotonic()
    return info


def _show(invocation: Invocation, info: t.FileInfo) -> None:
    """Print it; what was refused or failed is an error."""
    if info.state in ("refused", "failed", "cancelled"):
        from p2pnode import P2PError, clean

        error = P2PError(
            f"{clean(info.name, limit=100)} was not {'sent' if info.direction == 'out' else 'taken'}: {info.text}."
        )
        error.code = "refused" if info.state == "refused" else info.reason or info.state
        raise error
    where = f", {info.path}" if info.direction == "in" and info.path else ""
    invocation.emit(info, f"{info.id[:6]}  {info.name}  {info.text}{where}")
