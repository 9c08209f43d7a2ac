"""What rooms tell applications. Immutable; no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode import PeerId, UserId
from p2pnode.chat.places import RoomId

__all__ = ["RoomChanged", "RoomInfo", "RoomMember"]


@dataclass(frozen=True, slots=True)
class RoomMember:
    """A user in a room. `state`: `invited`, `member`, `left`, `removed`; `here`: a device of it is connected to us."""

    user: UserId
    role: str
    state: str
    devices: tuple[PeerId, ...] = ()
    here: bool = False


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """A room. `state`: ours: `invited`, `joining`, `joined`, `left`, `removed`. `role`: ours: `owner`, `member` or
    empty. `members`: how many are in; `entries`: how many entries we hold. `neighbours`: devices that we exchange them
    with just now. `by`: who invited us, where somebody did."""

    id: RoomId
    name: str
    open: bool
    state: str
    role: str
    members: int
    entries: int
    neighbours: int
    by: PeerId | None = None


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """Something happened in a room. `what`: `invited` (us), `joined`, `left`, `removed`, `added` (`user`, by
    `author`), `owner` (`user` is one now), `stepped_down` (`user` is a member only), `rekeyed`, `history` (`count`
    older messages came at once), `forked` (a device of `user` wrote two entries of one number: it is not heard any
    more). `name`: the room's, as it is shown."""

    room: RoomId
    what: str
    user: UserId | None = None
    author: PeerId | None = None
    count: int = 0
    name: str = ""
