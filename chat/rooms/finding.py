"""Open rooms are found by their name: members announce themselves under a topic of the DHT."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, InvalidPeerError, NotFoundError, P2PError, PeerId, clean_name
from p2pnode.chat.places import RoomId
from p2pnode.chat.rooms.records import RoomRow

if TYPE_CHECKING:
    from p2pnode.chat.rooms.service import Rooms

__all__ = ["Finding", "Found", "announcement", "read_announcement_untrusted", "topic_of"]

log = structlog.get_logger(__name__)

# Chosen by us.
LISTED = 200  # members of a topic that are looked at
DEVICES = 16  # of the room that is chosen


@dataclass(frozen=True, slots=True)
class Found:
    """A room that announces itself. `devices`: some that do."""

    id: RoomId
    name: str
    devices: tuple[PeerId, ...]


def topic_of(name: str) -> str:
    """Return the topic that open rooms of this name are announced under."""
    return f"room/{name.casefold()}"


def announcement(room: RoomId, name: str) -> bytes:
    """Return what a member announces: the room's id, 32 bytes, and its name."""
    return room.raw + name.encode()


def read_announcement_untrusted(value: bytes, topic: str) -> tuple[RoomId, str]:
    """Return the room that somebody announced under a topic, and its name. Raise BadPacket: `bad_announcement`."""
    try:
        name = value[32:].decode()
    except UnicodeDecodeError as exc:
        raise BadPacket("bad_announcement") from exc
    if len(value) < 33 or clean_name(name) != name or topic_of(name) != topic:
        raise BadPacket("bad_announcement")
    return RoomId(value[:32]), name


class Finding:
    """Announces the open rooms that we are in, and finds others."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def announce(self, row: RoomRow) -> asyncio.Task[None] | None:
        """Let others find an open room through us, for as long as this node runs."""
        if not row.open or row.state != "joined" or self._rooms.chat.gossip.invisible:
            return None
        return self._rooms.chat.start_task(self._announce(row), "room-announce")

    def show(self) -> None:
        """Announce all; after `hide`."""
        for room in self._rooms.rooms.values():
            self.announce(room.row)

    async def hide(self) -> None:
        """Announce none: we look offline. The members whom we are connected with see that we are not."""
        rows = [room.row for room in self._rooms.rooms.values() if room.active and room.row.open]
        await asyncio.gather(*(self._withdraw(row) for row in rows))

    def withdraw(self, row: RoomRow) -> None:
        if row.open:
            self._rooms.chat.start_task(self._withdraw(row), "room-withdraw")

    async def _announce(self, row: RoomRow) -> None:
        try:
            await self._rooms.chat.node.announce(topic_of(row.name), announcement(row.id, row.name))
        except P2PError as error:  # the network is not there yet; `Joined` begins anew
            log.info("room_not_announced", reason=error.code)

    async def _withdraw(self, row: RoomRow) -> None:
        try:
            await self._rooms.chat.node.unannounce(topic_of(row.name))
        except P2PError as error:
            log.info("room_not_withdrawn", reason=error.code)

    async def search(self, text: str) -> Found:
        """Find an open room by NAME or NAME~ID, ID: the beginning of its id.

        Raise NotFoundError, InvalidPeerError (several have the name: all are listed, with how many announce them).
        """
        name, _, start = text.strip().lstrip("#").partition("~")
        topic = topic_of(clean_name(name))
        if not name or len(topic) > 64:
            raise InvalidPeerError(f"{text[:40]!r} is no room: NAME, or NAME~ID where several have that name.")
        listing = await self._rooms.chat.node.topic(topic, limit=LISTED)
        devices: dict[RoomId, list[PeerId]] = {}
        names: dict[RoomId, str] = {}
        for member in listing.members:
            try:
                room, names_itself = read_announcement_untrusted(member.value, topic)
            except BadPacket as bad:
                self._rooms.drops[bad.reason] += 1
                continue
            if str(room)[1:].startswith(start.casefold()):
                devices.setdefault(room, []).append(member.peer)
                names[room] = names_itself
        if not devices:
            raise NotFoundError(f"No open room called {name[:40]!r} is announced; rooms by invitation cannot be found.")
        if len(devices) > 1:
            counts = Counter({room: len(found) for room, found in devices.items()})
            listed = ", ".join(f"{names[r]}~{r.short} ({n} here)" for r, n in counts.most_common(5))
            raise InvalidPeerError(f"Several rooms have that name: {listed}.")
        room, found = next(iter(devices.items()))
        return Found(room, names[room], tuple(found[:DEVICES]))
