"""The logs of a room's devices: what is there, what fits, what waits for something else, what is missing. No I/O.

An entry is taken once all that it answers to is there, so what is shown never answers to something that is not. Two
entries of one device and number are a proof that it forks: from that number on nothing of it counts, for all who see
the proof, whichever of the two they had.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pnode import BadPacket
from p2pnode.chat.places import RoomId
from p2pnode.chat.rooms.entries import HASH_BYTES, MAX_DEPTH, MAX_LINKS, Create, Entry, Join, Link, Signed, Text
from p2pnode.chat.rooms.roll import Roll
from p2pnode.chat.rooms.wire import MAX_LOGS, Position, Range

__all__ = ["DeviceLog", "RoomLog", "Taken"]

# Chosen by us. Memory: 20 bytes for an entry that is there, what waits as it came.
MAX_LOG_BYTES = 8 << 20  # of one device: 20,000 lines
MAX_ROOM_BYTES = 64 << 20  # of all; beyond it those who have less than their share may still write
MAX_CONTROLS = 64  # entries of one device that are no texts, unless it is the owner's: each makes the list be judged
MAX_WAITING = 1_024
MAX_WAITING_BYTES = 8 << 20
MAX_STRANGERS = 512  # devices, at a time, of those who came into an open room by themselves
MAX_STRANGERS_EVER = 768  # with those that were removed: the other places are for whom an owner lets in
MAX_DEVICES = 23  # of one user, as many as a list names
MAX_STRANGER_DEVICES = 4  # of one that came by itself and whose list the room does not know
MAX_JUMP = 65_536  # depth over what is known, where something that does not count was answered to


@dataclass(slots=True)
class DeviceLog:
    """The log of one device, as far as it is there: hashes and depths."""

    hashes: bytearray = field(default_factory=bytearray)
    depths: array[int] = field(default_factory=lambda: array("I"))
    size: int = 0
    controls: int = 0

    def __len__(self) -> int:
        return len(self.depths)

    def hash(self, seq: int) -> bytes:
        return bytes(self.hashes[(seq - 1) * HASH_BYTES : seq * HASH_BYTES])

    def add(self, entry_id: bytes, depth: int, size: int) -> None:
        self.hashes += entry_id
        self.depths.append(depth)
        self.size += size

    def cut(self, length: int) -> None:
        del self.hashes[length * HASH_BYTES :]
        del self.depths[length:]


@dataclass(slots=True)
class Taken:
    """What became of an entry. `applied`: it, and what waited for it, in order. `duplicate`: it was there already.

    `conflict`: (device, number) of which somebody has another entry than we; `other`: that other one, where it waits.
    `refused`: why it was not taken, a stable word: it may be later.
    """

    applied: list[Signed] = field(default_factory=list)
    duplicate: bool = False
    conflict: tuple[bytes, int] | None = None
    other: Signed | None = None
    refused: str = ""


class RoomLog:
    """All logs of one room. Devices by their 32 bytes."""

    def __init__(self, room: RoomId) -> None:
        self.room = room
        self.roll = Roll()
        self.logs: dict[bytes, DeviceLog] = {}
        self.heads: set[bytes] = set()
        """Devices whose last entry nobody has answered to."""
        self.size = 0
        self._waiting: dict[tuple[bytes, int], Signed] = {}
        self._waiting_size = 0
        self._for: dict[tuple[bytes, int], set[tuple[bytes, int]]] = {}
        self._needed: dict[bytes, int] = {}
        self._needs_changed = False
        self._turned_away: set[bytes] = set()
        """Devices that find no place now."""
        self._unheeded: set[tuple[bytes, int]] = set()
        """What waits, answers to something, and does not count yet."""

    # asking

    def length(self, device: bytes) -> int:
        log = self.logs.get(device)
        return len(log) if log is not None else 0

    def controls(self, device: bytes) -> int:
        """Return how many of its entries are no texts."""
        log = self.logs.get(device)
        return log.controls if log is not None else 0

    @property
    def count(self) -> int:
        return sum(len(log) for log in self.logs.values())

    def knows(self, signed: Signed) -> bool:
        """Whether it is there, or waits: its signature need not be checked again."""
        key = (signed.entry.device, signed.entry.seq)
        if key[1] <= self.length(key[0]):
            return self.logs[key[0]].hash(key[1]) == signed.id
        waiting = self._waiting.get(key)
        return waiting is not None and waiting.raw == signed.raw

    def position(self, device: bytes, seq: int) -> Position:
        return Position(device, seq, self.logs[device].hash(seq)[:8])

    def links(self, own: bytes) -> list[Link]:
        """Return what an entry of ours answers to: the newest, deepest first, without our own.

        Those who told of lost devices come first of all, so that nobody has a key that came after without knowing whom
        it is not for. Strangers who only came are left out: who has no place for them must not need them.
        """
        first = self.roll.listers
        heads = [device for device in self.heads if device != own and not self._is_silent(device)]
        heads.sort(key=lambda device: (device not in first, -self.logs[device].depths[-1], device))
        return [Link(d, len(self.logs[d]), self.logs[d].hash(len(self.logs[d]))) for d in heads[:MAX_LINKS]]

    def lacking(self, positions: Iterable[Position]) -> list[Range]:
        """Return what somebody has who said this, and we want."""
        found = []
        for position in positions:
            if position.device in self._turned_away:
                continue
            device, last = position.device, self._limit(position.device, position.seq)
            there = self.length(device)
            if last > there and (there or device in self.logs or len(self.logs) < MAX_LOGS):
                first = there + 1
                while (device, first) in self._waiting and first < last:
                    first += 1
                if (device, first) not in self._waiting:
                    found.append(Range(device, first, last))
        return found

    def missing(self) -> list[Range]:
        """Return what that waits for which has come."""
        wanted: dict[bytes, int] = {}
        for device, seq in self._for:
            if seq > self.length(device):
                wanted[device] = max(seq, wanted.get(device, 0))
        ranges = []
        for device, last in wanted.items():
            first = self.length(device) + 1
            while (device, first) in self._waiting and first < last:
                first += 1
            if (device, first) not in self._waiting:
                ranges.append(Range(device, first, last))
        return ranges

    def _limit(self, device: bytes, seq: int) -> int:
        """Return up to which number we want a log: not what forks, and not what does not count."""
        if device in self.roll.forks:
            return min(seq, self.roll.forks[device] - 1)
        if device not in self.roll.users:
            return seq
        return max(self.roll.kept(device, seq), min(seq, self._needed.get(device, 0)))

    # taking

    def load(self, device: bytes, entry_id: bytes, depth: int, size: int) -> None:
        """Take an entry that was on the disk; in order of depth. Its body follows through `load_control`."""
        self.logs.setdefault(device, DeviceLog()).add(entry_id, depth, size)
        self.size += size

    def load_control(self, signed: Signed) -> None:
        self.logs[signed.entry.device].controls += 1
        self.roll.add(signed)

    def load_heads(self) -> None:
        """After loading: what others have answered to is not known any more, so all last entries count as heads; the
        next entry answers to the deepest of them."""
        self.heads = {device for device, log in self.logs.items() if len(log)}

    def take(self, signed: Signed) -> Taken:
        """Take an entry whose signature holds. Raise BadPacket when it can never be right."""
        entry = signed.entry
        key = (entry.device, entry.seq)
        if signed.room != self.room:
            raise BadPacket("other_room")
        if entry.seq >= self.roll.forks.get(entry.device, entry.seq + 1):
            return Taken(refused="forked")
        there = self.length(entry.device)
        if entry.seq <= there:
            same = self.logs[entry.device].hash(entry.seq) == signed.id
            return Taken(duplicate=True) if same else Taken(conflict=key)
        waiting = self._waiting.get(key)
        if waiting is not None:
            return Taken(duplicate=True) if waiting.id == signed.id else Taken(conflict=key, other=waiting)
        taken = Taken()
        self._try(signed, taken)
        done = 0
        while done < len(taken.applied):
            applied = taken.applied[done].entry
            done += 1
            for key in sorted(self._for.pop((applied.device, applied.seq), ())):
                again = self._waiting.pop(key, None)
                if again is not None:
                    self._waiting_size -= len(again.raw)
                    self._unheeded.discard(key)
                    later = Taken(applied=taken.applied)
                    try:
                        self._try(again, later)
                    except BadPacket:
                        continue  # its author's mistake; whoever brought what it waited for is innocent
        self._needs_changed |= any(not isinstance(each.entry.body, Text) for each in taken.applied)
        if any(not isinstance(each.entry.body, Text | Join) for each in taken.applied):
            self._turned_away.clear()  # there may be a place now
        while self._needs_changed:  # somebody else is in, or something else needed: what that answers to is needed now
            self._needs_changed = False
            for key in list(self._unheeded):
                self._need(self._waiting[key])
        return taken

    def _try(self, signed: Signed, taken: Taken) -> None:
        """Apply it, or let it wait. Raise BadPacket."""
        entry = signed.entry
        lacks, conflict, depth, free = self._look(signed)
        taken.conflict = conflict or taken.conflict
        if lacks is not None or conflict is not None:
            self._wait(signed, lacks or conflict, taken)
            return
        low, high = depth + 1, min(MAX_DEPTH, depth + (MAX_JUMP if free else 1))
        if not low <= entry.depth <= high:
            raise BadPacket("bad_depth")
        log = self.logs.get(entry.device)
        owned = self.roll.users.get(entry.device) in self.roll.owned
        if log is not None and not owned and not isinstance(entry.body, Text) and log.controls >= MAX_CONTROLS:
            raise BadPacket("too_many_controls")
        refusal = self._refusal(signed)
        if refusal:
            taken.refused = taken.refused or refusal
            return
        self._apply(signed)
        taken.applied.append(signed)

    def _look(self, signed: Signed) -> tuple[tuple[bytes, int] | None, tuple[bytes, int] | None, int, bool]:
        """Return (first that is missing, first that differs, greatest depth, whether it answers to what does not
        count)."""
        entry = signed.entry
        there, depth, free = self.length(entry.device), 0, False
        if entry.seq - 1 > there:
            return (entry.device, entry.seq - 1), None, 0, False
        if entry.seq > 1:
            log = self.logs[entry.device]
            if log.hash(there) != entry.previous:
                return None, (entry.device, there), 0, False
            depth = log.depths[-1]
        for link in entry.links:
            if link.seq >= self.roll.forks.get(link.device, link.seq + 1):
                free = True
                continue
            if link.seq > self.length(link.device):
                self._need(signed)
                return (link.device, link.seq), None, 0, False
            log = self.logs[link.device]
            if log.hash(link.seq) != link.hash:
                return None, (link.device, link.seq), 0, False
            depth = max(depth, log.depths[link.seq - 1])
        return None, None, depth, free

    def _need(self, signed: Signed) -> None:
        """What an entry that counts answers to is needed, whoever wrote it."""
        entry = signed.entry
        if self._is_wanted(entry) and not self._drags(entry):
            self._unheeded.discard((entry.device, entry.seq))
            for link in entry.links:
                known = link.device in self._needed or len(self._needed) < MAX_LOGS
                if known and link.seq > max(self.length(link.device), self._needed.get(link.device, 0)):
                    self._needed[link.device] = link.seq
                    self._needs_changed = True

    def _drags(self, entry: Entry) -> bool:
        """Whether it would only bring in others for whom there is no place: strangers need nobody."""
        user = self.roll.users.get(entry.device)
        return user is not None and self.roll.is_stranger(user) and self.strangers() >= MAX_STRANGERS

    def _wait(self, signed: Signed, what: tuple[bytes, int] | None, taken: Taken) -> None:
        if len(self._waiting) >= MAX_WAITING or self._waiting_size + len(signed.raw) > MAX_WAITING_BYTES:
            taken.refused = "too_many_waiting"
            return
        key = (signed.entry.device, signed.entry.seq)
        self._waiting[key] = signed
        self._waiting_size += len(signed.raw)
        if signed.entry.links and not self._is_wanted(signed.entry):
            self._unheeded.add(key)
        if what is not None:
            self._for.setdefault(what, set()).add(key)

    def _refusal(self, signed: Signed) -> str:
        """Return why an entry that fits is not taken, or not now."""
        entry = signed.entry
        log = self.logs.get(entry.device)
        if isinstance(entry.body, Create):
            return "" if not self.logs else "second_beginning"
        size = (log.size if log is not None else 0) + len(signed.raw)
        if size > MAX_LOG_BYTES or (self.size > MAX_ROOM_BYTES and size * len(self.logs) > MAX_ROOM_BYTES):
            return "log_full"
        if log is None and (hindrance := self._no_place(entry)):
            if len(self._turned_away) < 4 * MAX_LOGS:
                self._turned_away.add(entry.device)
            return hindrance
        return "" if self._is_wanted(entry) else "not_member"

    def place_for(self, user: bytes) -> str:
        """Return why one more device of a user finds no place, "" when it does. In an open room strangers have a
        part of all places, so that invented ones keep nobody out whom an owner lets in."""
        roll = self.roll
        devices = sum(d in self.logs for d in roll.devices_of(user))
        if devices >= MAX_DEVICES:
            return "too_many_devices"
        if roll.is_stranger(user):
            strangers = [d for d in self.logs if d in roll.users and roll.is_stranger(roll.users[d])]
            if len(strangers) >= MAX_STRANGERS and (
                len(strangers) >= MAX_STRANGERS_EVER or sum(map(roll.may_write, strangers)) >= MAX_STRANGERS
            ):
                return "too_many_strangers"
            if user not in roll.lists and devices >= MAX_STRANGER_DEVICES:
                return "too_many_devices"
        return "room_full" if len(self.logs) >= MAX_LOGS else ""

    def strangers(self) -> int:
        """Return how many places those have taken who came by themselves."""
        return sum(self.roll.is_stranger(whose) for d, whose in self.roll.users.items() if self.roll.may_write(d))

    def _no_place(self, entry: Entry) -> str:
        if entry.seq <= self._needed.get(entry.device, 0) or not isinstance(entry.body, Join):
            return "room_full" if len(self.logs) >= MAX_LOGS else ""
        return self.place_for(entry.body.user)

    def _is_silent(self, device: bytes) -> bool:
        """Whether a stranger wrote nothing but that it is in."""
        return len(self.logs[device]) == 1 and self.roll.is_stranger(self.roll.users.get(device, b""))

    def _is_wanted(self, entry: Entry) -> bool:
        """Whether an entry is kept: its author is in or may come in (what it wrote before that is hidden), or wrote it
        before it went, or somebody who counts answered to it before knowing better."""
        user = self.roll.users.get(entry.device)
        if isinstance(entry.body, Join):
            if user not in (None, entry.body.user):
                return False
            user = entry.body.user
        wanted = user is not None and self.roll.keeps(entry.device, user, entry.seq)
        return wanted or entry.seq <= self._needed.get(entry.device, 0)

    def _apply(self, signed: Signed) -> None:
        entry = signed.entry
        log = self.logs.setdefault(entry.device, DeviceLog())
        log.add(signed.id, entry.depth, len(signed.raw))
        self.size += len(signed.raw)
        if not isinstance(entry.body, Text):
            log.controls += 1
            self.roll.add(signed)
        for link in () if self._is_silent(entry.device) else entry.links:
            if link.seq == self.length(link.device):
                self.heads.discard(link.device)
        self.heads.add(entry.device)

    # forks

    def fork(self, device: bytes, seq: int) -> int | None:
        """Two entries of this number are proven: cut the log there. Return how many entries of it were there, None
        when that is no news."""
        if seq >= self.roll.forks.get(device, seq + 1):
            return None
        log, there = self.logs.get(device), self.length(device)
        if log is not None and there >= seq:
            log.cut(seq - 1)
            self.heads.discard(device)
            if len(log):
                self.heads.add(device)  # what is left of it may have had no other answer than its own
        for key in [key for key in self._waiting if key[0] == device and key[1] >= seq]:
            self._waiting_size -= len(self._waiting.pop(key).raw)
            self._unheeded.discard(key)
        self.roll.forget_from(device, seq)
        if log is not None and not len(log):
            del self.logs[device]
        return there

    def again(self) -> list[Signed]:
        """Return what waits, and let it wait no more: after a fork it is to be taken once more."""
        waiting, self._waiting, self._waiting_size, self._for = list(self._waiting.values()), {}, 0, {}
        self._unheeded.clear()
        return sorted(waiting, key=lambda signed: signed.order)
