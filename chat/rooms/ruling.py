"""What becomes of a room's members by us: somebody is put out, becomes an owner, lost a device; the key is renewed.

Whoever learns that a member's device was revoked tells the room; an owner then begins a new epoch. Its entry answers to
the one that named the lost device, so nobody can have the new key without knowing whom it is not for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2pnode import BadPacket, PeerId, RefusedError, UserId
from p2pnode.chat.limits import prefix_of
from p2pnode.chat.rooms.entries import MAX_MARKS, Add, Devices, Mark, Out, Rekey, Role, Signed, commitment
from p2pnode.chat.rooms.roll import place_of

if TYPE_CHECKING:
    from p2pnode.chat.rooms.room import Room

__all__ = ["Ruling"]

# Chosen by us.
STEP_S = 2.0  # between the owners' devices that could do the same: the first does, unless it is not there
CROWDED = 128  # strangers in an open room, from which on owners let in those who really answer
AROUND_S = 30.0
VOUCH_S = 5.0
MAX_VOUCHED_BLOCK = 8  # of one block of addresses, as long as we run
HINT_S = 3.0  # after which a member tells of a lost device that nobody else told of


class Ruling:
    """Of one room. All times are monotonic seconds."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._stale_since: float | None = None
        self._renewed: bytes | None = None
        self._due: dict[UserId, float] = {}
        self._told: dict[UserId, int] = {}
        self._look = True
        self._around: dict[PeerId, float] = {}
        self._vouched: Counter[str] = Counter()
        self._vouch_at = float("-inf")

    # what the user does

    def marks_of(self, user: UserId) -> list[Mark]:
        """Return what counts of a user's devices when it goes now."""
        log = self._room.log
        return [Mark(device, log.length(device)) for device in log.roll.devices_of(user.raw)[:MAX_MARKS]]

    async def put_out(self, user: UserId) -> None:
        """Remove somebody, with a new key for all others, or (ourselves) leave."""
        room, own = self._room, self._room.rooms.chat.node
        marks = self.marks_of(user)
        if user == own.user_id:
            marks = [Mark(m.device, m.seq + (m.device == own.peer_id.raw)) for m in marks]
            await room.write(Out(user.raw, marks, b""))
            return
        key, device = room.rooms.random(32), own.peer_id.raw
        covers = room.log.roll.cover(user.raw, place_of(device, room.log.length(device) + 1))
        await room.write(Out(user.raw, marks, commitment(key), covers), key=(b"", key))

    async def set_role(self, user: UserId, *, owner: bool) -> None:
        """Make a member an owner, or (ourselves) be none any more."""
        await self._room.write(Role(user.raw, owner))

    def heir(self) -> UserId | None:
        """Return who is to own the room when its last owner leaves: a contact of ours before others, somebody whom an
        owner let in before those who came by themselves, who has been in for longest; None where nobody else is in."""
        room, chat = self._room, self._room.rooms.chat
        roll = room.log.roll
        others = [UserId(user) for user in roll.states if roll.is_member(user) and user != chat.node.user_id.raw]
        order = sorted(others, key=lambda u: (chat.directory.state_of(u) != "accepted", roll.is_stranger(u.raw)))
        return order[0] if order else None

    # what has to be done

    def look(self) -> None:
        """Members or their devices have changed."""
        self._look = True
        self._room.rooms.wake()

    async def heard(self, entries: Sequence[Signed]) -> None:
        """Learn the lists of devices that were told; tell those whom another owner removed for nothing (somebody made
        them owners at the same moment) that they are in."""
        chat = self._room.rooms.chat
        for signed in entries:
            body = signed.entry.body
            if isinstance(body, Out) and self._is_in_vain(signed.entry.device, body.user):
                await self._room.rooms.invitations.invite(self._room.id, UserId(body.user))
            if not isinstance(body, Devices):
                continue
            user = UserId(body.user)
            try:
                number = await chat.devices.learn(body.user, body.value, body.signature)
            except BadPacket as bad:
                self._room.rooms.drops[bad.reason] += 1
                continue
            self._told[user] = max(number, self._told.get(user, 0))

    def tick(self, now: float) -> float:
        """Begin what is due; return when to come again."""
        room = self._room
        if not room.active or not room.joined.is_set():
            return float("inf")
        if self._look:
            self._look = False
            self._find_lost(now)
            roll = room.log.roll
            stale = self._is_owner() and roll.stale and self._renewed != roll.cover()
            self._stale_since = None if not stale else now if self._stale_since is None else self._stale_since
        if now >= self._vouch_at:
            self._vouch_at = now + VOUCH_S
            self._vouch(now)
        due = [user for user, at in self._due.items() if at <= now]
        for user in due:
            del self._due[user]
        renew_at = float("inf") if self._stale_since is None else self._stale_since + STEP_S * self._rank()
        if due or renew_at <= now:
            self._stale_since, renew_at = None, float("inf")
            room.rooms.chat.start_task(self._act(due), "room-rule")
        vouch_at = self._vouch_at if room.log.roll.open and self._is_owner() else float("inf")
        return min([renew_at, vouch_at, *self._due.values()])

    # inside

    def _is_in_vain(self, device: bytes, user: bytes) -> bool:
        """Whether it is for us, an owner, to say that somebody was removed by a device for nothing."""
        roll, own = self._room.log.roll, self._room.rooms.chat.node.user_id.raw
        return self._is_owner() and roll.is_member(user) and user not in (own, roll.users.get(device))

    def _is_owner(self) -> bool:
        return self._room.log.roll.is_owner(self._room.rooms.chat.node.user_id.raw)

    def _rank(self) -> int:
        """Which of the owners' devices we are."""
        roll = self._room.log.roll
        devices = sorted(d for d in roll.member_devices() if roll.is_owner(roll.users[d]))
        own = self._room.rooms.chat.node.peer_id.raw
        return devices.index(own) if own in devices else len(devices)

    def _find_lost(self, now: float) -> None:
        """Look for devices in the room that the newest list of their user does not name, as far as we know."""
        room, chat = self._room, self._room.rooms.chat
        roll, own = room.log.roll, chat.node.user_id
        for user in {UserId(each) for each in roll.users.values() if roll.is_member(each)}:
            found, known = chat.devices.newest(user), roll.lists.get(user.raw)
            if found is None or found.devices.number <= (known.number if known is not None else 0):
                continue
            listed = {peer.raw for peer in found.devices.devices}
            if known is None and set(roll.devices_of(user.raw)) <= listed:
                continue
            if self._is_owner() or user == own:
                self._due[user] = now + (0.0 if user == own else STEP_S * self._rank())
            elif found.signature and self._told.get(user, 0) < found.devices.number:
                self._due[user] = now + HINT_S

    def _vouch(self, now: float) -> None:
        """As an owner of a crowded open room: let in whoever has been our neighbour for a while, so that invented
        members take no places from real ones."""
        room, chat = self._room, self._room.rooms.chat
        log = room.log
        if not log.roll.open or not self._is_owner() or log.strangers() < CROWDED:
            return
        around = {peer: self._around.get(peer, now) for peer in room.exchange.neighbours.all}
        self._around = around
        for peer, since in around.items():
            user, session = chat.directory.user_of(peer), chat.node.session(peer)
            if user is None or session is None or now < since + AROUND_S:
                continue
            if not log.roll.is_stranger(user.raw) or not log.roll.may_join(user.raw):
                continue
            block = prefix_of(session.remote.ip)
            if self._vouched[block] >= MAX_VOUCHED_BLOCK:
                continue
            self._vouched[block] += 1
            chat.start_task(self._let_in(user), "room-vouch")
            return

    async def _let_in(self, user: UserId) -> None:
        try:
            await self._room.write(Add(user.raw))
        except RefusedError:
            self._room.rooms.drops["not_ruled"] += 1

    async def sweep(self) -> int:
        """Remove all who came by themselves, wrote nothing and are not connected; return how many. One new key for
        all."""
        room = self._room
        roll, near = room.log.roll, room.exchange.neighbours.all
        swept = 0
        for user in [user for user in roll.states if roll.is_member(user) and roll.is_stranger(user)]:
            devices = roll.devices_of(user)
            wrote = any(room.log.length(device) > room.log.controls(device) for device in devices)
            if not wrote and not any(device in near for device in devices):
                await room.write(Out(user, self.marks_of(UserId(user)), b""))
                swept += 1
        self.look()
        return swept

    async def _act(self, lost: Sequence[UserId]) -> None:
        room = self._room
        roll, chat = room.log.roll, room.rooms.chat
        try:
            for user in lost:
                found, known = chat.devices.newest(user), roll.lists.get(user.raw)
                if found is None or (known is not None and known.number >= found.devices.number):
                    continue  # somebody was faster
                listed = {peer.raw for peer in found.devices.devices}
                marks = [mark for mark in self.marks_of(user) if mark.device not in listed]
                self._told[user] = found.devices.number
                await room.write(Devices(user.raw, found.value, found.signature, marks))
            if roll.stale and self._is_owner() and not self._due:
                key, covers = room.rooms.random(32), roll.cover()
                await room.write(Rekey(commitment(key), covers), key=(b"", key))
                self._renewed = covers
        except RefusedError:
            room.rooms.drops["not_ruled"] += 1  # we were put out meanwhile, or our log is full
        else:
            self.look()
