"""Finds neighbours for each room among the devices of its members, and replaces those that go. No protocol of its own:
who is told what we have is asked to be a neighbour. All times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2pnode import PeerId
from p2pnode.chat.places import RoomId
from p2pnode.chat.rooms.mesh import FEW, MOST, WANTED
from p2pnode.chat.rooms.room import Room
from p2pnode.chat.rooms.wire import No

if TYPE_CHECKING:
    from p2pnode.chat.rooms.service import Rooms

__all__ = ["Meeting"]

# Chosen by us.
LOOK_S = 5.0  # how often a room with too few neighbours looks for more
SHUFFLE_S = 120.0  # how often one more is tried at random: groups that lost each other meet again
ANSWER_S = 20.0  # how long one that was asked may take
SOON_S = 1.0  # pause after a stream that worked
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
REFUSED_S = {"full": 60.0, "not_member": 60.0, "unknown_room": 60.0}
SETTLED_MS = 60_000  # after joining: another device of the owner's may not know of that yet
MAX_KEPT = 4_096  # devices that are left alone for a while, about 200 bytes each
MAX_HINTS = 64  # devices of a room that we only heard of


class Meeting:
    """For all rooms."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._hints: dict[RoomId, dict[PeerId, None]] = {}
        self._pauses: OrderedDict[PeerId, tuple[float, int]] = OrderedDict()
        self._asked: dict[tuple[RoomId, PeerId], float] = {}
        self._look_at: dict[RoomId, float] = {}
        self._shuffle_at: dict[RoomId, float] = {}

    def hint(self, room: RoomId, devices: Iterable[PeerId]) -> None:
        """These are said to be in a room."""
        known = self._hints.setdefault(room, {})
        for device in devices:
            known.pop(device, None)
            known[device] = None
        while len(known) > MAX_HINTS:
            del known[next(iter(known))]
        self._look_at.pop(room, None)

    def look(self, room: Room, *, now: bool = False) -> None:
        """Something changed; `now`: let nobody be left alone because of what was before."""
        self._look_at.pop(room.id, None)
        if now:
            self._pauses.clear()
        self._rooms.wake()

    def came(self, peer: PeerId | None) -> None:
        """A device (None: perhaps any) can be reached."""
        if peer is None:
            self._pauses.clear()
        elif self._pauses.pop(peer, None) is None:
            return
        self._look_at.clear()
        self._rooms.wake()

    def concerns(self, room: Room, peer: PeerId) -> bool:
        """Whether a device is a neighbour, or was asked to be one: others have nothing to say about whom we meet."""
        return peer in room.exchange.neighbours.all or (room.id, peer) in self._asked

    def refused(self, room: Room, peer: PeerId, code: str) -> None:
        """It does not want to be our neighbour."""
        room.exchange.neighbours.remove(peer)
        self._asked.pop((room.id, peer), None)
        self._pause(peer, REFUSED_S.get(code, 60.0))
        room.refused = room.refused or code == "not_member"
        user = self._rooms.chat.directory.user_of(peer)
        is_owner = user is not None and user.raw in room.log.roll.owners
        settled = self._rooms.chat.now_ms() - room.row.made_at_ms > SETTLED_MS
        if code == "not_member" and is_owner and settled and room.active and room.joined.is_set():
            self._rooms.chat.start_task(self._rooms.expelled(room, peer), "room-expelled")
        self._look_at.pop(room.id, None)

    def lost(self, peer: PeerId, *, failed: bool) -> None:
        """Our stream to it is over, or could not be opened."""
        for key in [key for key in self._asked if key[1] == peer]:
            del self._asked[key]
        before = self._pauses.get(peer, (0.0, 0))[1]
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**before) if failed else SOON_S
        self._pause(peer, pause, before + 1 if failed else 0)

    def _pause(self, peer: PeerId, seconds: float, failures: int = 0) -> None:
        self._pauses.pop(peer, None)
        self._pauses[peer] = (self._rooms.now + seconds, failures)
        if len(self._pauses) > MAX_KEPT:
            self._pauses.popitem(last=False)

    def tick(self, now: float) -> float:
        """Ask whom we need; return when to come again."""
        moments = [now + 30.0]
        self._asked = {key: until for key, until in self._asked.items() if until > now}
        for room in self._rooms.rooms.values():
            if not room.active:
                continue
            if now >= self._look_at.get(room.id, now):
                self._fill(room, now)
                self._look_at[room.id] = now + LOOK_S
            moments.append(self._look_at[room.id])
        return min(moments)

    def _fill(self, room: Room, now: float) -> None:
        neighbours, own = room.exchange.neighbours.all, self._rooms.chat.node.peer_id
        hints = [peer for peer in self._hints.get(room.id, ()) if peer != own]
        members = [PeerId.from_untrusted(device) for device in room.log.roll.member_devices()]
        if room.row.via is not None:
            hints.append(room.row.via)
        everybody = list(dict.fromkeys([*hints, *(peer for peer in members if peer != own)]))
        few = len(everybody) < FEW
        wanted = len(everybody) if few else WANTED
        if not few and now >= self._shuffle_at.setdefault(room.id, now + SHUFFLE_S):
            self._shuffle_at[room.id] = now + SHUFFLE_S
            wanted = min(MOST, len(neighbours) + 1)
            if len(neighbours) >= MOST - 2:
                self._drop_one(room)
        asked = sum(asked == room.id and peer not in neighbours for asked, peer in self._asked)
        open_places = wanted - len(neighbours) - asked
        if open_places <= 0:
            return
        free = [
            peer
            for peer in everybody
            if peer not in neighbours
            and (room.id, peer) not in self._asked
            and self._pauses.get(peer, (0.0, 0))[0] <= now
            and not self._rooms.chat.directory.is_blocked(peer)
        ]
        rng = self._rooms.chat.node.network.rng
        rng.shuffle(free)
        free.sort(key=lambda peer: peer not in self._hints.get(room.id, ()))
        for peer in free[:open_places]:
            self._asked[room.id, peer] = now + ANSWER_S
            self._rooms.send(peer, room.exchange.neighbours.whole())

    def _drop_one(self, room: Room) -> None:
        """Make room for others."""
        neighbours = room.exchange.neighbours
        peer = self._rooms.chat.node.network.rng.choice(sorted(neighbours.all))
        neighbours.remove(peer)
        self._pause(peer, REFUSED_S["full"])
        self._rooms.send(peer, No(room.id.raw, "full"))
