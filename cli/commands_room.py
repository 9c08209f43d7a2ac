"""Commands about rooms: create, join, leave, invite, remove, sweep, owner, step-down, list, members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import JsonOption, PeerArgument, examples

if TYPE_CHECKING:
    from p2pnode.api import room_types as t

__all__ = ["add"]

RoomArgument = Annotated[
    str,
    typer.Argument(metavar="ROOM", help="Its name; NAME~ID where several have that name.", show_default=False),
]
WaitOption = Annotated[
    str | None,
    typer.Option("--wait", metavar="S", help="Seconds to wait for a member (default 10).  [env: P2PNODE_WAIT]"),
]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    rooms = typer.Typer(rich_markup_mode=None, no_args_is_help=True, epilog=examples("p2pnode rooms list"))
    rooms.command("create", epilog=examples("p2pnode rooms create garden", "p2pnode rooms create chess --open --json"))(
        _create
    )
    rooms.command("join", epilog=examples("p2pnode rooms join garden", "p2pnode rooms join chess~k3x7qa"))(_join)
    rooms.command("leave", epilog=examples("p2pnode rooms leave garden"))(_leave)
    rooms.command("invite", epilog=examples("p2pnode rooms invite garden alice"))(_invite)
    rooms.command("remove", epilog=examples("p2pnode rooms remove garden alice"))(_remove)
    rooms.command("sweep", epilog=examples("p2pnode rooms sweep chess"))(_sweep)
    rooms.command("owner", epilog=examples("p2pnode rooms owner garden alice"))(_owner)
    rooms.command("step-down", epilog=examples("p2pnode rooms step-down garden"))(_step_down)
    rooms.command("list", epilog=examples("p2pnode rooms list", "p2pnode rooms list --json"))(_list)
    rooms.command("members", epilog=examples("p2pnode rooms members garden --json"))(_members)
    app.add_typer(rooms, name="rooms", help="Group chat: p2pnode send '#ROOM' TEXT writes, p2pnode history reads.")


def _create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="One word of at most 24 characters.", show_default=False)],
    open_: Annotated[bool, typer.Option("--open", help="Whoever finds it by its name may join.")] = False,
    json: JsonOption = None,
) -> None:
    """Make a room that you own."""
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    with invocation.progress(f"Making #{name}"):
        info = invocation.client().post("/v1/rooms", t.RoomInfo, t.RoomCreate(name, open_))
    way = f"others join with: p2pnode rooms join {info.name}" if info.open else f"p2pnode rooms invite {info.name} NAME"
    invocation.emit(info, f"You own #{info.name}; {way}")


def _join(ctx: typer.Context, room: RoomArgument, wait: WaitOption = None, json: JsonOption = None) -> None:
    """Join a room that you were invited to, or an open one by its name."""
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, wait=wait)
    seconds = min(60.0, config["wait"])
    with invocation.progress(f"Joining {room}"):
        info = invocation.client().post("/v1/rooms/join", t.RoomInfo, t.RoomJoin(room, seconds), timeout=seconds + 30.0)
    invocation.emit(info, _line(info))


def _leave(ctx: typer.Context, room: RoomArgument, json: JsonOption = None) -> None:
    """Leave a room; what was written there stays in the history.

    Left already: forget it. The last owner who leaves makes somebody else one.
    """
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    info = invocation.client().post("/v1/rooms/leave", t.RoomInfo, t.RoomName(room))
    invocation.emit(info, f"You are not in #{info.name} any more.")


def _invite(ctx: typer.Context, room: RoomArgument, peer: PeerArgument, json: JsonOption = None) -> None:
    """Let somebody into a room of yours, and tell them when they can be reached."""
    _person(ctx, "invite", room, peer, json, "is invited to")


def _remove(ctx: typer.Context, room: RoomArgument, peer: PeerArgument, json: JsonOption = None) -> None:
    """Put somebody out of a room of yours: it goes on under a key that they do not get."""
    _person(ctx, "remove", room, peer, json, "is not any more in")


def _sweep(ctx: typer.Context, room: RoomArgument, json: JsonOption = None) -> None:
    """Remove from an open room of yours all who came by themselves, wrote nothing and are not connected."""
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    swept = invocation.client().post("/v1/rooms/sweep", t.RoomSwept, t.RoomName(room), timeout=120.0)
    invocation.emit(swept, f"{swept.removed} removed.")


def _owner(ctx: typer.Context, room: RoomArgument, peer: PeerArgument, json: JsonOption = None) -> None:
    """Make a member of a room of yours an owner as well: only they can end that."""
    _person(ctx, "owner", room, peer, json, "owns")


def _step_down(ctx: typer.Context, room: RoomArgument, json: JsonOption = None) -> None:
    """Own a room no longer, and stay in it; it needs another owner."""
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    info = invocation.client().post("/v1/rooms/disown", t.RoomInfo, t.RoomName(room))
    invocation.emit(info, f"You do not own #{info.name} any more.")


def _list(ctx: typer.Context, json: JsonOption = None) -> None:
    """List the rooms that you are in, are invited to, and left."""
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    answer = invocation.client().get("/v1/rooms", t.Rooms)
    lines = [_line(info) for info in answer.rooms]
    invocation.emit(answer, *(lines or ["No rooms yet; make one: p2pnode rooms create NAME"]))


def _members(ctx: typer.Context, room: RoomArgument, json: JsonOption = None) -> None:
    """List who is in a room, and who was."""
    from p2pnode.api import room_types as t
    from p2pnode.cli.output import table

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    answer = invocation.client().get("/v1/rooms/members", t.RoomMembers, t.RoomName(room))
    rows = [("NAME", "ROLE", "STATE", "CONNECTED")]
    rows += [(m.name, m.role, m.state, "yes" if m.here else "") for m in answer.members]
    invocation.emit(answer, *table(rows))


def _person(ctx: typer.Context, verb: str, room: str, peer: str, json: bool | None, says: str) -> None:
    from p2pnode import parse_peer
    from p2pnode.api import room_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    parse_peer(peer)
    info = invocation.client().post(f"/v1/rooms/{verb}", t.RoomInfo, t.RoomPerson(room, peer))
    invocation.emit(info, f"{peer} {says} #{info.name}.")


def _line(info: t.RoomInfo) -> str:
    kind = "open" if info.open else "by invitation"
    members = f"{info.members} member{'' if info.members == 1 else 's'}"
    role = f", {info.role}" if info.role else ""
    return f"#{info.name}~{info.id[1:7]}  {info.state}{role}, {kind}, {members}, {info.neighbours} connected"
