"""The rooms of one chat (docs/protocol/rooms.md): make, find, join, write, invite, remove, leave.

room = await chat.rooms.create("garden", open=True)
await chat.rooms.invite(room.id, bob)
await chat.send(room.id, "hello all")
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from p2pnode import (
    Address,
    InvalidPeerError,
    Joined,
    NetworkChanged,
    NodeEvent,
    NotFoundError,
    P2PError,
    PeerId,
    PeerNotFoundError,
    PresenceChanged,
    RefusedError,
    SessionOpened,
    UserId,
    clean_name,
)
from p2pnode.chat.delivery import Delivery
from p2pnode.chat.limits import Buckets
from p2pnode.chat.model import RoomChanged, RoomId, RoomInfo, RoomMember
from p2pnode.chat.ports import Cancel
from p2pnode.chat.protocol import Hello
from p2pnode.chat.rooms.entries import (
    MAX_ROOM_NAME,
    NO_HASH,
    NO_ROOM,
    Create,
    Entry,
    commitment,
    read_untrusted,
    sign,
)
from p2pnode.chat.rooms.finding import Finding
from p2pnode.chat.rooms.invitations import Invitations
from p2pnode.chat.rooms.lines import Lines
from p2pnode.chat.rooms.meeting import Meeting
from p2pnode.chat.rooms.membership import Membership
from p2pnode.chat.rooms.records import RoomRecords, RoomRow
from p2pnode.chat.rooms.room import Room
from p2pnode.chat.rooms.wire import ROOM_PROTOCOL, Frame, Invitation, Near, No, Noted
from p2pnode.chat.store import DeviceRow

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Rooms"]

log = structlog.get_logger(__name__)

# Chosen by us.
MAX_ROOMS = 128  # that we are in: each keeps a few sessions
JOIN_S = 20.0
ANNOUNCED_S = 5.0  # how long making an open room waits until others can find it


class Rooms(Membership):
    """All methods belong to the event loop's thread."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.records = RoomRecords(chat.store.database)
        self.rooms: dict[RoomId, Room] = {}
        self.drops: Counter[str] = Counter()
        """What was not taken, by reason."""
        self.junk = Buckets(rate=50.0, burst=4_096.0, capacity=1_024)
        """Per device: entries that were signed, and not taken all the same."""
        self.lines = Lines(self)
        self.meeting = Meeting(self)
        self.finding = Finding(self)
        self.invitations = Invitations(self)
        self._wake = asyncio.Event()
        self._unsubscribe: Cancel | None = None
        self._stopped = False

    # life

    async def start(self) -> None:
        """Read the rooms, and look for their members. Raise StorageError."""
        for row in await self.records.rooms():
            self.chat.directory.put_room(row.id, row.name)
            room = self.rooms[row.id] = Room(self, row)
            if row.state == "joined":
                await room.load()
            self.chat.files.sharing.members_changed(row.id)
        await self.invitations.start()
        self._unsubscribe = self.chat.node.subscribe(self._node_event)
        self.chat.node.handle(ROOM_PROTOCOL, self.lines.serve)
        self.chat.start_task(self._tick(), "rooms")
        for room in self.rooms.values():
            if room.active:
                self.finding.announce(room.row)

    async def stop(self) -> None:
        """Calling it twice is harmless."""
        self._stopped = True
        if self._unsubscribe is not None:
            self._unsubscribe()

    # what applications call

    async def create(self, name: str, *, open: bool = False) -> RoomInfo:  # noqa: A002 - the word that users read
        """Make a room that we own. `open`: whoever finds it may join. Raise InvalidPeerError, StorageError."""
        name = clean_name(name)
        if not 1 <= len(name) <= MAX_ROOM_NAME or any(char in name for char in '#~/\\:"<>@ ') or name.isdigit():
            raise InvalidPeerError(f"A room's name is one word of at most {MAX_ROOM_NAME} characters.")
        self._check_count()
        node, key = self.chat.node, self.random(32)
        hello = self.chat.links.own_hello(node.peer_id)
        body = Create(name, open, node.user_id.raw, hello.proof, hello.name, commitment(key))
        signed = sign(node.key, Entry(NO_ROOM, node.peer_id.raw, 1, NO_HASH, [], 1, self.chat.now_ms(), body))
        row = RoomRow(signed.room, name, open, "joined", None, self.chat.now_ms())
        await self.records.put_room(row)
        room = self.rooms[row.id] = Room(self, row)
        self.chat.directory.put_room(row.id, name)
        await room.begin(signed, key)
        self.invitations.entered()
        announced = self.finding.announce(row)
        if announced is not None:
            await asyncio.wait({announced}, timeout=ANNOUNCED_S)
        return room.info()

    async def join(self, name: str, *, wait: float = JOIN_S) -> RoomInfo:
        """Join a room that we were invited to, or an open one: by its name, `NAME~abcdef` where several have it, or id.

        Raise NotFoundError, InvalidPeerError (several have that name), PeerNotFoundError (nobody of it is here),
        RefusedError, StorageError.
        """
        room = self._named(name)
        if room is None:
            found = await self.finding.search(name)
            room = self.rooms.get(found.id) or Room(self, RoomRow(found.id, found.name, True, "invited", None, 0))
            self.meeting.hint(found.id, found.devices)
        if room.joined.is_set() and room.active:
            return room.info()
        self._check_count()
        row = room.row
        row.state, row.made_at_ms = "joined", self.chat.now_ms()
        await self.records.put_room(row)
        room = self.rooms[row.id] = Room(self, row)
        await room.load()  # what is there from an earlier time
        self.chat.directory.put_room(room.id, room.row.name)
        self.meeting.look(room, now=True)
        try:
            async with asyncio.timeout(wait):
                await room.joined.wait()
        except TimeoutError as exc:
            if room.refused:
                room.row.state = "removed" if room.log.count else "invited"
                await self.records.put_room(room.row)
                raise RefusedError("The room's members do not let you in.", room=str(room.id)) from exc
            if room.full:
                raise RefusedError(
                    "The room takes nobody more who comes without being invited: ask one of its owners; you are in as"
                    " soon as one lets you in.",
                    room=str(room.id),
                ) from exc
            raise PeerNotFoundError(
                "Nobody of this room could be reached yet; you are in as soon as somebody is there."
            ) from exc
        self.finding.announce(room.row)
        self.invitations.entered()
        return room.info()

    def all(self) -> list[RoomInfo]:
        """Return all rooms: those that we are in, were invited to, and left."""
        return [room.info() for room in self.rooms.values()]

    def members(self, target: RoomId) -> list[RoomMember]:
        """Return who is and who was in a room. Raise NotFoundError."""
        return self.room(target).members()

    async def post(self, target: RoomId, text: str) -> Delivery:
        """Write into a room (`Chat.post`). Raise NotFoundError, RefusedError, StorageError."""
        room = self.room(target)
        message = await room.say(text)
        neighbours = tuple(room.exchange.neighbours.all)
        delivery = self.chat.deliveries.begin(message.id, target, neighbours)
        if message.state == "delivered" or not room.waits(message.sequence):
            for peer in neighbours[:1]:  # it was told to have come while it was written
                self.chat.deliveries.delivered(message.id, peer)
        if not neighbours:
            self.chat.deliveries.looked_up(target, (), "peer_offline")
        return delivery

    # what the parts share

    @property
    def now(self) -> float:
        return self.chat.node.network.monotonic()

    def random(self, count: int) -> bytes:
        return self.chat.node.network.token_bytes(count)

    def send(self, peer: PeerId, frame: Frame, addresses: Sequence[Address] = ()) -> None:
        if not self._stopped:
            self.lines.send(peer, frame, addresses)

    def tell(self, change: RoomChanged) -> None:
        """Tell the subscribers what happened in a room."""
        self.chat.emit(replace(change, name=self.chat.display_name(change.room)))

    def met(self, device: bytes, user: bytes, name: str) -> None:
        """A device of a room proved whose it is."""
        if device != self.chat.node.peer_id.raw and self.counts(device, user):
            row = DeviceRow(PeerId.from_untrusted(device), UserId.from_untrusted(user), clean_name(name))
            if self.chat.directory.user_of(row.peer) is None:
                self.chat.directory.learn(row)

    def counts(self, device: bytes, user: bytes) -> bool:
        """Whether a device was not revoked, as far as we know: its proof stays in the log for ever."""
        return bool(self.chat.devices.listed(UserId.from_untrusted(user), (PeerId.from_untrusted(device),)))

    def wake(self) -> None:
        """Look soon at what is due."""
        self._wake.set()

    def needs(self, peer: PeerId) -> bool:
        """Whether some room has this neighbour."""
        return any(peer in room.exchange.neighbours.all for room in self.rooms.values())

    def members_changed(self, room: Room) -> None:
        """Whoever is out is no neighbour any more; the newcomers may be some."""
        for peer in list(room.exchange.neighbours.all):
            user = self.chat.directory.user_of(peer)
            if user is not None and not room.log.roll.lets_in(peer.raw, user.raw):
                room.exchange.neighbours.remove(peer)
                self.send(peer, No(room.id.raw, "not_member"))
        self.meeting.look(room)
        room.ruling.look()
        self.chat.files.sharing.members_changed(room.id)

    def devices_changed(self, user: UserId) -> None:
        """The newest list of somebody's devices that we know is another one."""
        for room in self.rooms.values():
            if room.log.roll.is_member(user.raw):
                room.ruling.look()

    def ended(self, room: Room) -> None:
        """We left, or were removed."""
        self.chat.files.sharing.members_changed(room.id)
        self.finding.withdraw(room.row)
        room.exchange.neighbours.all.clear()

    async def expelled(self, room: Room, peer: PeerId) -> None:
        """A device of the owner says that we are not in: we were away when that happened."""
        room.row.state = "removed"
        await self.records.put_room(room.row)
        self.ended(room)
        self.tell(RoomChanged(room.id, "removed", self.chat.node.user_id, peer))

    async def put_invited(self, row: RoomRow) -> None:
        """Note an invitation. Raise StorageError."""
        await self.records.put_room(row)
        self.chat.directory.put_room(row.id, row.name)
        self.rooms[row.id] = Room(self, row)

    async def follow(self, room: RoomId) -> None:
        """Our own other device is in a room: so are we."""
        try:
            await self.join(str(room))
        except P2PError as error:
            log.info("room_not_followed", room=str(room), reason=error.code)

    async def reload(self, room: Room) -> None:
        """What is on the disk counts, where it could not be written."""
        if self.rooms.get(room.id) is room:
            self.rooms[room.id] = again = Room(self, room.row)
            await again.load()

    # what comes

    async def heard(self, peer: PeerId, frame: Frame) -> None:
        """Do what a frame says. Raise BadPacket, StorageError."""
        if isinstance(frame, Invitation):
            await self.invitations.heard(peer, read_untrusted(frame.create))
            return
        if isinstance(frame, Hello):
            return  # the stream took it
        target = RoomId(frame.room)
        room = self.rooms.get(target)
        if room is None or not room.active:
            if not isinstance(frame, No | Near):
                self.send(peer, No(target.raw, "unknown_room"))
        elif isinstance(frame, Noted):
            await self.invitations.noted(peer, target)
        elif isinstance(frame, No | Near) and not self.meeting.concerns(room, peer):
            self.drops["unasked"] += 1
        elif isinstance(frame, No):
            self.meeting.refused(room, peer, frame.code)
        elif isinstance(frame, Near):
            self.meeting.hint(room.id, [PeerId.from_untrusted(device) for device in frame.devices])
        else:
            await room.exchange.heard(peer, frame)

    def line_lost(self, peer: PeerId, *, opened: bool) -> None:
        """Our stream to a device is over, or (`opened` False) there never was one."""
        self.gone(peer)
        self.meeting.lost(peer, failed=not opened)

    def gone(self, peer: PeerId) -> None:
        """It is nobody's neighbour for now."""
        for room in self.rooms.values():
            if room.exchange.neighbours.remove(peer):
                self.meeting.look(room)

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            self.meeting.came(event.session.peer)
            self.invitations.came(event.session.peer)
        elif isinstance(event, PresenceChanged) and event.online:
            self.meeting.came(event.peer)
            self.invitations.came(event.peer)
        elif isinstance(event, Joined | NetworkChanged):
            if isinstance(event, Joined):
                self.finding.show()
            self.meeting.came(None)
            self.invitations.came(None)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            moments = [room.exchange.tick(self.now) for room in self.rooms.values() if room.exchange.neighbours.all]
            moments += [room.ruling.tick(self.now) for room in self.rooms.values()]
            moments.append(self.meeting.tick(self.now))
            until = loop.time() + max(0.02, min(moments) - self.now)
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
                await asyncio.sleep(0.02)  # what comes together is told of together
            except TimeoutError:
                continue

    def _named(self, name: str) -> Room | None:
        try:
            target = self.chat.directory.resolve_room(name)
        except NotFoundError:
            return None
        return self.rooms.get(target)

    def _check_count(self) -> None:
        if sum(room.active for room in self.rooms.values()) >= MAX_ROOMS:
            raise RefusedError(f"You are in {MAX_ROOMS} rooms; leave one first.")
