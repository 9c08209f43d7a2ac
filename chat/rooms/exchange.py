"""What goes between us and the neighbours of one room: entries, what each has, keys, proofs of forks."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from p2pnode import BadPacket, PeerId, UserId
from p2pnode.chat.limits import Buckets
from p2pnode.chat.model import RoomChanged
from p2pnode.chat.rooms.entries import Join, Signed, read_untrusted
from p2pnode.chat.rooms.log import Taken
from p2pnode.chat.rooms.mesh import MOST, Neighbour, Neighbours
from p2pnode.chat.rooms.records import Stored
from p2pnode.chat.rooms.wire import (
    BATCH_BYTES,
    MAX_BATCH,
    MAX_NEAR,
    Ask,
    Entries,
    EpochKey,
    Fork,
    Forks,
    Frame,
    Have,
    Keys,
    Mesh,
    Near,
    No,
    Range,
    Want,
)

if TYPE_CHECKING:
    from p2pnode.chat.rooms.room import Room

__all__ = ["Exchange"]

log = structlog.get_logger(__name__)

# Chosen by us.
OUTSIDERS = 4  # neighbours that are not in the room: they read an open one before they join
KEYS_AT_ONCE = 256
MAX_UNKNOWN_FORKS = 16  # proofs of 36 kB, of devices that never were in the room as far as we know
ASK_KEYS_S = 2.0
INTRODUCED_RATE, INTRODUCED_BURST = 1.0, 128.0  # strangers that a neighbour may bring into an open room


class Exchange:
    """Of one room. `heard` is called with the frames of each device in their order."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.neighbours = Neighbours(room.log)
        self.came = 0
        """Entries that came, also those that were there already."""
        self._keys_asked_at = float("-inf")
        self._introduced = Buckets(rate=INTRODUCED_RATE, burst=INTRODUCED_BURST, capacity=64)

    def admits(self, peer: PeerId) -> str:
        """Return why a device may not be a neighbour, "" when it may."""
        room = self._room
        user = room.rooms.chat.directory.user_of(peer)
        roll = room.log.roll
        if not room.active or user is None:
            return "unknown_room"
        if room.log.count and not roll.lets_in(peer.raw, user.raw):
            return "not_member"
        if len(self.neighbours.all) >= MOST:
            return "full"
        outsiders = sum(map(self._is_outside, self.neighbours.all))
        return "full" if self._is_outside(peer) and outsiders >= OUTSIDERS else ""

    def _is_outside(self, peer: PeerId) -> bool:
        """Whether a device has not joined, as far as we know."""
        log, user = self._room.log, self._room.rooms.chat.directory.user_of(peer)
        return bool(log.count) and (user is None or log.roll.state_of(user.raw) not in ("member", "invited"))

    def near(self, peer: PeerId) -> Near:
        """Return whom `peer` may find the room at."""
        return Near(self._room.id.raw, [other.raw for other in self.neighbours.all if other != peer][:MAX_NEAR])

    # what comes

    async def heard(self, peer: PeerId, frame: Frame) -> None:
        """Do what a frame says. Raise BadPacket, StorageError."""
        neighbour = self.neighbours.all.get(peer)
        if isinstance(frame, Have):
            await self._heard_have(peer, frame)
        elif neighbour is None:
            return  # it was told why
        elif isinstance(frame, Entries):
            await self._heard_entries(neighbour, frame)
        elif isinstance(frame, Want):
            neighbour.wants_push = neighbour.wants_push or frame.push
            await self._send_wanted(neighbour, frame)
        elif isinstance(frame, Mesh):
            neighbour.wants_push = frame.push
        elif isinstance(frame, Ask):
            self._send_keys(peer, frame)
        elif isinstance(frame, Keys):
            await self._room.put_keys((each.epoch, each.key) for each in frame.keys)
        elif isinstance(frame, Forks):
            for each in frame.forks:
                await self._heard_fork(each)
        self._room.rooms.wake()

    async def _heard_have(self, peer: PeerId, frame: Have) -> None:
        room, rooms = self._room, self._room.rooms
        neighbour = self.neighbours.all.get(peer)
        if neighbour is None:
            code = self.admits(peer)
            if code == "full":
                rooms.send(peer, self.near(peer))
            if code:
                rooms.send(peer, No(room.id.raw, code))
                return
            neighbour = self.neighbours.add(peer)
            neighbour.whole_at = rooms.now
            rooms.send(peer, self.neighbours.whole())  # it makes us a neighbour there; then it hears the rest
            rooms.send(peer, self.near(peer))
            for one, other in await rooms.records.forks(room.id) if room.log.roll.forks else ():
                rooms.send(peer, Forks(room.id.raw, [Fork(one, other)]))
        self.neighbours.heard_have(neighbour, frame, rooms.now)
        for each in frame.positions:
            there = each.seq <= room.log.length(each.device)
            if there and room.log.position(each.device, each.seq).hash != each.hash:
                self._ask_for(peer, each.device, each.seq)
        room.confirmed(peer, neighbour.told.get(rooms.chat.node.peer_id.raw, 0))
        await room.join()

    def _ask_for(self, peer: PeerId, device: bytes, seq: int) -> None:
        """There are two entries of this number: have the other one, to prove it."""
        if seq < self._room.log.roll.forks.get(device, seq + 1):
            self._room.rooms.send(peer, Want(self._room.id.raw, True, [Range(device, seq, seq)]))

    async def _heard_entries(self, neighbour: Neighbour, frame: Entries) -> None:
        room, applied = self._room, list[Signed]()
        async with room.busy:
            try:
                for raw in frame.entries:
                    await self._take(neighbour, raw, applied, asked=frame.asked)
            finally:
                if applied:
                    await room.applied(applied, neighbour.peer)
        if frame.asked:
            self.neighbours.answered(neighbour, room.rooms.now, more=frame.more)
        await room.join()
        await room.unlock_if_due()

    async def _take(self, neighbour: Neighbour, raw: bytes, applied: list[Signed], *, asked: bool) -> None:
        room = self._room
        signed = read_untrusted(raw)
        self.came += 1
        device, seq = signed.entry.device, signed.entry.seq
        self.neighbours.heard_entry(neighbour, device, seq)
        if room.log.knows(signed):
            prune = None if asked else self.neighbours.duplicate(neighbour, device)
            if prune is not None:
                room.rooms.send(neighbour.peer, prune)
            return
        if self._is_too_fast(neighbour.peer, signed):
            room.rooms.drops["introduced_too_fast"] += 1
            return  # it says again that it has it
        signed.check_untrusted()
        taken = room.log.take(signed)
        applied += taken.applied
        if taken.conflict is not None:
            await self._conflict(neighbour, signed, taken, applied)
        elif taken.refused:
            room.rooms.drops[taken.refused] += 1
            if not room.rooms.junk.take(neighbour.peer, room.rooms.now):
                raise BadPacket("flood")  # each costs us a signature

    def _is_too_fast(self, peer: PeerId, signed: Signed) -> bool:
        """Whether a neighbour brings more strangers than may come in so short a time, once we have the history."""
        entry, room = signed.entry, self._room
        if entry.seq > 1 or not isinstance(entry.body, Join) or not room.joined.is_set():
            return False
        return room.log.roll.is_stranger(entry.body.user) and not self._introduced.take(peer, room.rooms.now)

    async def _conflict(self, neighbour: Neighbour, signed: Signed, taken: Taken, applied: list[Signed]) -> None:
        room = self._room
        assert taken.conflict is not None  # noqa: S101 - asked before
        device, seq = taken.conflict
        if (signed.entry.device, signed.entry.seq) != (device, seq):
            self._ask_for(neighbour.peer, device, seq)
            return
        if taken.other is not None:
            other = taken.other.raw
        else:
            if applied:  # ours may be among what is not on the disk yet
                await room.applied(list(applied), neighbour.peer)
                applied.clear()
            found = await room.rooms.records.raws(room.id, [(device, seq)])
            if not found:
                return
            other = found[0]
        await self._cut(signed, other)

    async def _heard_fork(self, fork: Fork) -> None:
        room = self._room
        one, other = read_untrusted(fork.one), read_untrusted(fork.other)
        same = (one.entry.device, one.entry.seq, one.room) == (other.entry.device, other.entry.seq, other.room)
        if not same or one.room != room.id or one.id == other.id:
            raise BadPacket("no_fork")
        known, forks = room.log.roll.users, room.log.roll.forks
        if one.entry.device not in known and len(forks.keys() - known.keys()) >= MAX_UNKNOWN_FORKS:
            room.rooms.drops["too_many_forks"] += 1
            return  # anybody can make devices up that fork; we would keep each proof, and pass it on
        if one.entry.seq < room.log.roll.forks.get(one.entry.device, one.entry.seq + 1):
            one.check_untrusted()
            other.check_untrusted()
            async with room.busy:
                await self._cut(one, other.raw)
            await room.unlock_if_due()

    async def _cut(self, one: Signed, other: bytes) -> None:
        """A device forked: take back what it wrote from there on, and tell everybody."""
        room, device, seq = self._room, one.entry.device, one.entry.seq
        user = room.log.roll.users.get(device)
        if room.log.fork(device, seq) is None:
            return
        log.warning("room_forked", room=str(room.id), device=str(one.device), seq=seq)
        self.neighbours.stored[device] = min(self.neighbours.stored.get(device, 0), seq - 1)
        await room.rooms.records.store(Stored(room.id, cut=(device, seq, one.raw, other)))
        for peer in self.neighbours.all:
            room.rooms.send(peer, Forks(room.id.raw, [Fork(one.raw, other)]))
        whose = UserId(user) if user is not None else None
        room.rooms.tell(RoomChanged(room.id, "forked", whose, one.device))
        applied: list[Signed] = []
        for waiting in room.log.again():
            applied += room.log.take(waiting).applied
        if applied:
            await room.applied(applied, None)

    # what goes

    def hand_on(self, entries: Sequence[Signed], source: PeerId | None) -> None:
        """Entries are on our disk: push them to those who want that, and tell all others soon."""
        rooms, batches = self._room.rooms, dict[PeerId, list[bytes]]()
        for signed in entries:
            device, seq = signed.entry.device, signed.entry.seq
            self.neighbours.stored[device] = max(seq, self.neighbours.stored.get(device, 0))
            for neighbour in self.neighbours.push_to(device, seq, source):
                batches.setdefault(neighbour.peer, []).append(signed.raw)
            self.neighbours.grew(device, rooms.now)
        for peer, raws in batches.items():
            for batch in _cut_up(raws):
                rooms.send(peer, Entries(self._room.id.raw, False, False, batch))

    async def _send_wanted(self, neighbour: Neighbour, frame: Want) -> None:
        room, stored = self._room, self.neighbours.stored
        if room.rooms.lines.is_behind(neighbour.peer):
            return
        logs = room.log.logs

        def wanted(each: Range) -> Iterator[tuple[int, bytes, int]]:
            last = min(each.last, stored.get(each.device, 0), room.log.length(each.device))
            return ((logs[each.device].depths[seq - 1], each.device, seq) for seq in range(each.first, last + 1))

        # each log is in order: no more of them is looked at than is sent
        first = list(itertools.islice(heapq.merge(*map(wanted, frame.ranges)), MAX_BATCH + 1))
        raws = await room.rooms.records.raws(room.id, [(device, seq) for _, device, seq in first[:MAX_BATCH]])
        batch = next(iter(_cut_up(raws)), [])
        more = len(first) > MAX_BATCH or len(batch) < len(raws)
        room.rooms.send(neighbour.peer, Entries(room.id.raw, True, more, batch))

    def _send_keys(self, peer: PeerId, frame: Ask) -> None:
        """Whoever is in may read everything; nobody else gets a key."""
        room = self._room
        if not self._reads(peer):
            return
        keys = [EpochKey(epoch, room.keys[epoch]) for epoch in frame.epochs if epoch in room.keys]
        if keys:
            room.rooms.send(peer, Keys(room.id.raw, keys))

    def _reads(self, peer: PeerId) -> bool:
        """Whether a device may have the keys: of a member, and not lost, as far as the room or we know."""
        room, user = self._room, self._room.rooms.chat.directory.user_of(peer)
        return user is not None and room.log.roll.reads(peer.raw, user.raw) and room.rooms.counts(peer.raw, user.raw)

    def share_keys(self, keys: Sequence[tuple[bytes, bytes]]) -> None:
        """Hand new keys to the neighbours that are in, so that nobody has to ask: each hands them on."""
        room = self._room
        for peer in self.neighbours.all:
            if self._reads(peer):
                room.rooms.send(peer, Keys(room.id.raw, [EpochKey(*pair) for pair in keys[:KEYS_AT_ONCE]]))

    def tick(self, now: float) -> float:
        """Send what is due; return when to come again (monotonic seconds)."""
        room = self._room
        for peer, frame in self.neighbours.tick(now):
            room.rooms.send(peer, frame)
        roll = room.log.roll
        lacking = [epoch for epoch in roll.epochs if epoch not in room.keys] if room.joined.is_set() else []
        if not lacking or not self.neighbours.all:
            return self.neighbours.next_at(now)
        if now >= self._keys_asked_at + ASK_KEYS_S:
            self._keys_asked_at = now
            for peer in self.neighbours.all:
                room.rooms.send(peer, Ask(room.id.raw, lacking[:KEYS_AT_ONCE]))
        return min(self.neighbours.next_at(now), self._keys_asked_at + ASK_KEYS_S)


def _cut_up(raws: Sequence[bytes]) -> list[list[bytes]]:
    """Return the entries in frames of at most BATCH_BYTES and MAX_BATCH."""
    batches: list[list[bytes]] = []
    size = BATCH_BYTES
    for raw in raws:
        if size + len(raw) > BATCH_BYTES or len(batches[-1]) >= MAX_BATCH:
            batches.append([])
            size = 0
        batches[-1].append(raw)
        size += len(raw)
    return batches
