"""`\\room` of the input language: what is typed becomes a call of `chat.rooms` and lines to show."""

from __future__ import annotations

from p2pnode import NotFoundError, P2PError
from p2pnode.chat.model import Party, RoomChanged, RoomId, RoomInfo, RoomMember
from p2pnode.chat.service import Chat

__all__ = ["describe", "member_lines", "members_text", "remark", "room_macro"]

_USAGE = (
    "! \\room list | create NAME [open] | join NAME | invite [ROOM] WHO | remove [ROOM] WHO | sweep [ROOM] |"
    " owner [ROOM] WHO | stepdown [ROOM] | members [ROOM] | leave [ROOM]"
)
JOIN_S = 10.0
STATES = {"joining": "waits for somebody who is in", "left": "you left", "removed": "you were removed"}


async def room_macro(chat: Chat, party: Party, argument: str) -> tuple[list[str], RoomId | None]:
    """Do what stands after `\\room`; `party`: the current conversation. Return lines, and the room that plain text goes
    to from now on, where that changes. Raise P2PError."""
    word, _, rest = argument.partition(" ")
    rest = rest.strip()
    rooms = chat.rooms
    if word in ("", "list"):
        lines = [f"  {describe(chat, info)}" for info in rooms.all()]
        return lines or ["* No rooms yet; \\room create NAME makes one, \\room join NAME finds an open one."], None
    if word == "create" and rest:
        name, _, kind = rest.partition(" ")
        if kind not in ("", "open"):
            return [_USAGE], None
        info = await rooms.create(name, open=kind == "open")
        how = "whoever finds it may join" if info.open else "\\room invite NAME lets somebody in"
        return [f"* You are in {chat.display_name(info.id)}; {how}. \\chat leads back to the hall."], info.id
    if word == "join" and rest:
        info = await rooms.join(rest, wait=JOIN_S)
        return [f"* You are in {chat.display_name(info.id)}, {members_text(info.members)}."], info.id
    if word in ("invite", "remove", "owner") and rest:
        room, who = _room_and_person(chat, party, rest)
        name = chat.display_name(who)
        if word == "invite":
            await rooms.invite(room, who)
            return [f"* {name} is invited to {chat.display_name(room)}."], None
        if word == "owner":
            await rooms.make_owner(room, who)
            return [f"* {name} owns {chat.display_name(room)} as well; only {name} can end that."], None
        await rooms.remove(room, who)
        return [f"* {name} is not in {chat.display_name(room)} any more, and reads nothing of it from now on."], None
    if word == "members":
        return member_lines(chat, _room(chat, party, rest)), None
    if word == "sweep":
        room = _room(chat, party, rest)
        count = await rooms.sweep(room)
        return [f"* {count} who came by themselves, wrote nothing and are not here were removed."], None
    if word == "stepdown":
        room = _room(chat, party, rest)
        await rooms.step_down(room)
        return [f"* You do not own {chat.display_name(room)} any more."], None
    if word == "leave":
        room = _room(chat, party, rest)
        await rooms.leave(room)
        return [f"* You are not in {chat.display_name(room)} any more."], None
    return [_USAGE], None


def _room(chat: Chat, party: Party, name: str) -> RoomId:
    if name:
        return chat.directory.resolve_room(name)
    if isinstance(party, RoomId):
        return party
    raise NotFoundError("Which room? Name it, or \\chat ROOM before.")


def _room_and_person(chat: Chat, party: Party, text: str) -> tuple[RoomId, Party]:
    """Return what `[ROOM] WHO` means; names of people may hold spaces."""
    first, _, rest = text.partition(" ")
    if rest:
        try:
            return chat.directory.resolve_room(first), chat.resolve(rest.strip())
        except P2PError:
            if first[:1] == "#":
                raise
    return _room(chat, party, ""), chat.resolve(text)


def describe(chat: Chat, info: RoomInfo) -> str:
    """Return a room in one line."""
    about = [members_text(info.members), "open" if info.open else "by invitation"]
    if info.state == "invited":
        by = f" by {chat.display_name(info.by)}" if info.by is not None else ""
        about = [f"you are invited{by}: \\room join {info.name}"]
    elif info.state != "joined":
        about = [STATES.get(info.state, info.state)]
    elif info.role == "owner":
        about.append("yours")
    if info.state == "joined":
        about.append(f"{info.neighbours} connected" if info.neighbours else "nobody else is here")
    return f"{chat.display_name(info.id):<24} {', '.join(about)}"


def member_lines(chat: Chat, room: RoomId) -> list[str]:
    """Return who is in a room, and who was."""
    return [_member_line(chat, member) for member in chat.rooms.members(room)]


def _member_line(chat: Chat, member: RoomMember) -> str:
    own = member.user == chat.node.user_id
    notes = [member.role if member.state == "member" else member.state]
    if own:
        notes.append("you")
    elif member.here:
        notes.append("connected")
    name = chat.node.settings.name if own else chat.display_name(member.user)
    return f"  {name:<24} {', '.join(notes)}"


def remark(chat: Chat, event: RoomChanged) -> str | None:
    """Return what an event means to the user, None for nothing."""
    room = chat.display_name(event.room)
    own = event.user == chat.node.user_id
    who = "You" if own else chat.display_name(event.user) if event.user is not None else "Somebody"
    by = chat.display_name(event.author) if event.author is not None else "Somebody"
    match event.what:
        case "invited":
            return f"* {by} invites you to {room}: \\room join {room.removeprefix('#')}"
        case "joined":
            return None if own else f"* {who} is in {room} now."
        case "left":
            return f"* {who} left {room}."
        case "removed":
            return f"* {who} {'were' if own else 'was'} removed from {room}."
        case "owner":
            return f"* {who} {'own' if own else 'owns'} {room} as well."
        case "stepped_down":
            return f"* {who} {'do' if own else 'does'} not own {room} any more."
        case "history":
            return f"* {event.count} earlier messages of {room} are here."
        case "forked":
            return f"! {who} signed two different histories in {room}; what came after that is not shown."
    return None


def members_text(members: int) -> str:
    return f"{members} member{'' if members == 1 else 's'}"
