"""What the control API takes and gives about rooms. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2pnode.api.types import PeerText

__all__ = [
    "RoomCreate",
    "RoomInfo",
    "RoomJoin",
    "RoomMember",
    "RoomMembers",
    "RoomName",
    "RoomPerson",
    "RoomSwept",
    "Rooms",
]

RoomText = Annotated[
    str, Meta(min_length=1, max_length=64, description="A room: NAME, NAME~ID where several have that name, or #ID")
]


class RoomCreate(Struct):
    """A room of this name, owned by this node's user. `open`: whoever finds it may join."""

    name: Annotated[str, Meta(min_length=1, max_length=24)]
    open: bool = False


class RoomJoin(Struct):
    """Join a room that we were invited to, or an open one; wait so many seconds for somebody who is in."""

    room: RoomText
    wait: Annotated[float, Meta(ge=0, le=60)] = 20.0


class RoomName(Struct):
    """Which room."""

    room: RoomText


class RoomPerson(Struct):
    """Whom to invite to which room, or to remove from it."""

    room: RoomText
    peer: PeerText


class RoomSwept(Struct):
    """How many were removed."""

    removed: int


class RoomInfo(Struct, kw_only=True):
    """A room. `id` is what `to` of its messages says. `state`: invited, joining, joined, left, removed. `role`: owner,
    member, or empty. `entries`: all that is there of its logs. `neighbours`: connected devices. `by`: inviter."""

    id: str
    name: str
    open: bool
    state: str
    role: str
    members: int
    entries: int
    neighbours: int
    by: str | None


class Rooms(Struct):
    """All rooms that this node knows."""

    rooms: list[RoomInfo]


class RoomMember(Struct, kw_only=True):
    """`role`: owner or member. `state`: invited, member, left, removed. `here`: a device of it is connected to us."""

    user: str
    name: str
    role: str
    state: str
    devices: list[str]
    here: bool


class RoomMembers(Struct):
    """Who is in a room, and who was."""

    members: list[RoomMember]
