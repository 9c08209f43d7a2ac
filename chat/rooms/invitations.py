"""Invitations to rooms: ours until they are noted, others' until the user decides."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from p2pnode import BadPacket, P2PError, PeerId, UserId
from p2pnode.chat.limits import Buckets
from p2pnode.chat.model import RoomChanged, RoomId
from p2pnode.chat.rooms.entries import Create, Signed, label
from p2pnode.chat.rooms.records import RoomRow
from p2pnode.chat.rooms.wire import Invitation, No, Noted

if TYPE_CHECKING:
    from p2pnode.chat.rooms.service import Rooms

__all__ = ["Invitations"]

# Chosen by us.
MAX_INVITATIONS = 64  # that wait for the user
MAX_DEVICES = 23  # of a user that are told


class Invitations:
    """Of one chat."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._untold: dict[UserId, set[RoomId]] = {}
        self._taken = Buckets(rate=1 / 60, burst=16, capacity=1024)  # per user: each is a commit and a notice

    async def start(self) -> None:
        for room, invited in await self._rooms.records.untold():
            self._untold.setdefault(invited, set()).add(room)
        self.came(None)

    async def invite(self, room: RoomId, user: UserId) -> None:
        """Tell somebody that they may join, now or whenever they can be reached."""
        await self._rooms.records.invite(room, user, told=False)
        self._untold.setdefault(user, set()).add(room)
        self._rooms.chat.start_task(self._tell(user), "room-invite")

    async def withdraw(self, room: RoomId, user: UserId) -> None:
        if room in self._untold.get(user, ()):
            await self._told(room, user)

    def came(self, peer: PeerId | None) -> None:
        """A device (None: perhaps any) can be reached."""
        if peer is None:
            for invited in self._untold:
                self._rooms.chat.start_task(self._tell(invited), "room-invite")
            return
        user = self._rooms.chat.user_of(peer)
        if user == self._rooms.chat.node.user_id or self._rooms.chat.devices.is_own(peer):
            self._share(peer)
        elif user is not None and user in self._untold:
            self._send(peer, user)

    def entered(self) -> None:
        """We are in one more room: our other devices that are connected follow."""
        for session in self._rooms.chat.node.sessions():
            if self._rooms.chat.devices.is_own(session.peer):
                self._share(session.peer)

    def _share(self, peer: PeerId) -> None:
        """Our own other device takes part in what we take part in."""
        for room in self._rooms.rooms.values():
            if room.active and room.joined.is_set() and room.create is not None:
                self._rooms.send(peer, Invitation(room.create))

    async def _tell(self, user: UserId) -> None:
        chat = self._rooms.chat
        devices = chat.directory.devices_of(user)
        if not any(chat.node.session(device) is not None for device in devices):
            with contextlib.suppress(P2PError):  # the devices that we know of may come
                devices = await chat.node.find_user(user)
        for device in devices[:MAX_DEVICES]:
            self._send(device, user)

    def _send(self, peer: PeerId, user: UserId) -> None:
        for target in self._untold.get(user, ()):
            room = self._rooms.rooms.get(target)
            if room is not None and room.active and room.create is not None:
                self._rooms.send(peer, Invitation(room.create))

    async def _told(self, room: RoomId, user: UserId) -> None:
        left = self._untold.get(user, set())
        left.discard(room)
        if not left:
            self._untold.pop(user, None)
        await self._rooms.records.invite(room, user, told=True)

    async def noted(self, peer: PeerId, room: RoomId) -> None:
        """A device has our invitation on its disk."""
        user = self._rooms.chat.user_of(peer)
        if user is not None and room in self._untold.get(user, ()):
            await self._told(room, user)

    async def heard(self, peer: PeerId, signed: Signed) -> None:
        """Somebody invites us. Raise BadPacket, StorageError."""
        body = signed.entry.body
        if not isinstance(body, Create):
            raise BadPacket("no_invitation")
        rooms, chat = self._rooms, self._rooms.chat
        user, target = chat.user_of(peer), signed.room
        own = user == chat.node.user_id
        known = rooms.rooms.get(target)
        if known is not None and known.row.state in ("invited", "joined"):
            rooms.send(peer, Noted(target.raw))
            return
        waiting = sum(room.row.state == "invited" for room in rooms.rooms.values())
        if user is None or not (own or chat.directory.is_known(peer)):
            rooms.send(peer, No(target.raw, "request_pending"))
            return
        if not own and (waiting >= MAX_INVITATIONS or not self._taken.take(user, rooms.now)):
            rooms.drops["too_many_invitations"] += 1
            return  # it says so again
        signed.check_untrusted()
        row = RoomRow(target, label(body.name), body.open, "invited", peer, chat.now_ms())
        await rooms.put_invited(row)
        rooms.send(peer, Noted(target.raw))
        if own:
            chat.start_task(rooms.follow(target), "room-follow")
        else:
            rooms.tell(RoomChanged(target, "invited", chat.node.user_id, peer))
