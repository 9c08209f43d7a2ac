"""What the user decides about members of rooms. Part of `service.Rooms`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode import InvalidPeerError, NotFoundError, PeerId, RefusedError, UserId
from p2pnode.chat.model import Party, RoomId, RoomInfo
from p2pnode.chat.rooms.entries import Add
from p2pnode.chat.rooms.room import Room

if TYPE_CHECKING:
    from p2pnode.chat.rooms.finding import Finding
    from p2pnode.chat.rooms.invitations import Invitations
    from p2pnode.chat.rooms.records import RoomRecords
    from p2pnode.chat.service import Chat

__all__ = ["Membership"]


class Membership:
    """`Rooms` sets what is declared here."""

    chat: Chat
    records: RoomRecords
    rooms: dict[RoomId, Room]
    finding: Finding
    invitations: Invitations

    def room(self, target: RoomId) -> Room:
        """Return a room that we are in. Raise NotFoundError."""
        room = self.rooms.get(target)
        if room is None or not room.active:
            raise NotFoundError("You are not in this room; join it first.")
        return room

    async def invite(self, target: RoomId, party: Party) -> RoomInfo:
        """Let somebody in, and tell them. Raise NotFoundError, RefusedError (only owners can), InvalidPeerError."""
        room, user = self.room(target), self._user(party)
        roll = room.log.roll
        owner = roll.is_owner(self.chat.node.user_id.raw)
        if not owner and not roll.open:
            raise RefusedError("Only an owner of the room can invite.", room=str(target))
        if owner and (user.raw not in roll.vouched or roll.state_of(user.raw) not in ("member", "invited")):
            await room.write(Add(user.raw))
        await self.invitations.invite(room.id, user)
        return room.info()

    async def remove(self, target: RoomId, party: Party) -> RoomInfo:
        """Put somebody out, and go on under a key that it does not get. Raise as `invite`."""
        room, user = self._owned(target, "Only an owner of the room can remove somebody."), self._user(party)
        if user == self.chat.node.user_id:
            raise RefusedError("You own this room; \\room leave leaves it.", room=str(target))
        if room.log.roll.state_of(user.raw) not in ("member", "invited"):
            raise NotFoundError("That is no member of this room.")
        if room.log.roll.is_owner(user.raw):
            raise RefusedError("An owner cannot be removed, only leave or step down.", room=str(target))
        await room.ruling.put_out(user)
        await self.invitations.withdraw(room.id, user)
        return room.info()

    async def sweep(self, target: RoomId) -> int:
        """Remove from an open room all who came by themselves, wrote nothing and are not connected to us; return how
        many. Raise as `invite`."""
        return await self._owned(target, "Only an owner of the room can remove somebody.").ruling.sweep()

    async def make_owner(self, target: RoomId, party: Party) -> RoomInfo:
        """Let a member own the room as well: invite, remove, make others owners. Only it can end that. Raise as
        `invite`."""
        room, user = self._owned(target, "Only an owner of the room can make somebody an owner."), self._user(party)
        if not room.log.roll.is_member(user.raw):
            raise NotFoundError("That is no member of this room.")
        if not room.log.roll.is_owner(user.raw):
            await room.ruling.set_role(user, owner=True)
        return room.info()

    async def step_down(self, target: RoomId) -> RoomInfo:
        """Be a member only. Raise NotFoundError, RefusedError (not an owner, or the last one), StorageError."""
        room = self._owned(target, "You do not own this room.")
        if sum(map(room.log.roll.is_owner, room.log.roll.owners)) < 2:
            raise RefusedError("You are its last owner: make somebody else an owner before.", room=str(target))
        await room.ruling.set_role(self.chat.node.user_id, owner=False)
        return room.info()

    async def leave(self, target: RoomId) -> RoomInfo:
        """Leave a room; what was written there stays in the history. The last owner who leaves makes somebody else one
        (`Ruling.heir`). Raise NotFoundError, StorageError."""
        room = self.rooms.get(target)
        if room is None:
            raise NotFoundError("There is no such room here.")
        self.finding.withdraw(room.row)
        if not room.active:
            await self.records.drop_room(room.id)
            del self.rooms[room.id]
        elif room.joined.is_set():
            heir, roll = room.ruling.heir(), room.log.roll
            if [owner for owner in roll.owners if roll.is_owner(owner)] == [self.chat.node.user_id.raw] and heir:
                await room.ruling.set_role(heir, owner=True)
            await room.ruling.put_out(self.chat.node.user_id)
        else:
            room.row.state = "left"
            await self.records.put_room(room.row)
        return room.info()

    # inside

    def _owned(self, target: RoomId, refusal: str) -> Room:
        room = self.room(target)
        if not room.log.roll.is_owner(self.chat.node.user_id.raw):
            raise RefusedError(refusal, room=str(target))
        return room

    def _user(self, party: Party) -> UserId:
        user = self.chat.user_of(party) if isinstance(party, PeerId) else party
        if not isinstance(user, UserId):
            raise InvalidPeerError("Name somebody by a contact's name or a user id (p2p1...).")
        return user
