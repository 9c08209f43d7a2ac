"""Operations on rooms and their members. Messages go as to people: `POST /v1/messages`."""

from __future__ import annotations

from p2pnode.api import room_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.chat import RoomInfo

__all__ = ["ROUTES"]


async def create_room(service: Service, request: t.RoomCreate) -> t.RoomInfo:
    """Make a room. An open one can be found by its name when this answers."""
    return _info(await service.chat.rooms.create(request.name, open=request.open))


async def list_rooms(service: Service, _request: None) -> t.Rooms:
    """Return the rooms that we are in, are invited to, or left."""
    return t.Rooms([_info(info) for info in service.chat.rooms.all()])


async def join_room(service: Service, request: t.RoomJoin) -> t.RoomInfo:
    """Join a room: by invitation, or an open one that the network knows."""
    return _info(await service.chat.rooms.join(request.room, wait=request.wait))


async def leave_room(service: Service, request: t.RoomName) -> t.RoomInfo:
    """Leave a room; its messages stay. One that was left already is forgotten."""
    return _info(await service.chat.rooms.leave(service.chat.directory.resolve_room(request.room)))


async def show_members(service: Service, request: t.RoomName) -> t.RoomMembers:
    """Return who is in a room, and who was."""
    room = service.chat.directory.resolve_room(request.room)
    return t.RoomMembers(
        [
            t.RoomMember(
                user=str(member.user),
                name=service.chat.display_name(member.user),
                role=member.role,
                state=member.state,
                devices=[str(device) for device in member.devices],
                here=member.here,
            )
            for member in service.chat.rooms.members(room)
        ]
    )


async def invite(service: Service, request: t.RoomPerson) -> t.RoomInfo:
    """Let somebody into a room, and tell them when they can be reached."""
    room = service.chat.directory.resolve_room(request.room)
    return _info(await service.chat.rooms.invite(room, (await service.conversation(request.peer))[0]))


async def remove(service: Service, request: t.RoomPerson) -> t.RoomInfo:
    """Put somebody out of a room, which goes on under a new key."""
    room = service.chat.directory.resolve_room(request.room)
    return _info(await service.chat.rooms.remove(room, (await service.conversation(request.peer))[0]))


async def sweep(service: Service, request: t.RoomName) -> t.RoomSwept:
    """Remove from an open room all who came by themselves, wrote nothing and are not connected."""
    return t.RoomSwept(await service.chat.rooms.sweep(service.chat.directory.resolve_room(request.room)))


async def make_owner(service: Service, request: t.RoomPerson) -> t.RoomInfo:
    """Make a member an owner as well; only it can end that."""
    room = service.chat.directory.resolve_room(request.room)
    return _info(await service.chat.rooms.make_owner(room, (await service.conversation(request.peer))[0]))


async def step_down(service: Service, request: t.RoomName) -> t.RoomInfo:
    """Be a member only; the last owner cannot."""
    return _info(await service.chat.rooms.step_down(service.chat.directory.resolve_room(request.room)))


def _info(info: RoomInfo) -> t.RoomInfo:
    return t.RoomInfo(
        id=str(info.id),
        name=info.name,
        open=info.open,
        state=info.state,
        role=info.role,
        members=info.members,
        entries=info.entries,
        neighbours=info.neighbours,
        by=None if info.by is None else str(info.by),
    )


ROUTES = [
    Route("POST", "/v1/rooms", "Make a room", create_room, t.RoomCreate, t.RoomInfo),
    Route("GET", "/v1/rooms", "Rooms", list_rooms, None, t.Rooms),
    Route("POST", "/v1/rooms/join", "Join a room", join_room, t.RoomJoin, t.RoomInfo),
    Route("POST", "/v1/rooms/leave", "Leave a room", leave_room, t.RoomName, t.RoomInfo),
    Route("GET", "/v1/rooms/members", "Members of a room", show_members, t.RoomName, t.RoomMembers),
    Route("POST", "/v1/rooms/invite", "Invite somebody", invite, t.RoomPerson, t.RoomInfo),
    Route("POST", "/v1/rooms/remove", "Remove somebody", remove, t.RoomPerson, t.RoomInfo),
    Route("POST", "/v1/rooms/sweep", "Remove silent strangers", sweep, t.RoomName, t.RoomSwept),
    Route("POST", "/v1/rooms/owner", "Make a member an owner", make_owner, t.RoomPerson, t.RoomInfo),
    Route("POST", "/v1/rooms/disown", "Own a room no longer", step_down, t.RoomName, t.RoomInfo),
]
