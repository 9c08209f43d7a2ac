"""Who is in a room, and which key its texts are under: what the control entries say, in their order. No I/O.

The entries are judged one after the other in the order that is the same everywhere, so all who hold the same entries
have the same list, in whatever order these came. Owners invite, remove, make others owners and renew keys; none can
remove another one, since two that did so at the same moment would need a third to decide. What an owner ever wrote is
kept, also after it went, so that all judge the same entries.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from dataclasses import dataclass, field

from p2pnode import decode_devices_untrusted
from p2pnode.chat.rooms.entries import COVER_BYTES, Add, Create, Devices, Join, Out, Rekey, Role, Signed

__all__ = ["Epoch", "Roll", "place_of"]


@dataclass(frozen=True, slots=True)
class Epoch:
    """A time under one key. `id`: of the entry that began it; `commitment`: what that says of the key."""

    id: bytes
    commitment: bytes


@dataclass(frozen=True, slots=True)
class _List:
    """The newest list of a user's devices that the room knows."""

    number: int
    devices: frozenset[bytes]


@dataclass(frozen=True, order=True, slots=True)
class _Control:
    order: tuple[int, bytes]
    signed: Signed = field(compare=False)


class Roll:
    """The members of one room. Users and devices by their 32 bytes."""

    def __init__(self) -> None:
        self.users: dict[bytes, bytes] = {}
        """Whose a device is: as its first entry says and its account vouches for."""
        self.names: dict[bytes, str] = {}
        """How a device called its user."""
        self.forks: dict[bytes, int] = {}
        """Number of a device's first entry that does not count, because it signed two of them."""
        self._controls: list[_Control] = []
        self._begin()

    def _begin(self) -> None:
        self.founder: bytes | None = None
        self.owners: list[bytes] = []
        """In the order in which they became it."""
        self.owned: set[bytes] = set()
        """Who is or was an owner."""
        self.vouched: set[bytes] = set()
        """Whom an owner let in."""
        self.name = ""
        self.open = False
        self.states: dict[bytes, str] = {}
        self.epochs: dict[bytes, Epoch] = {}
        self.epoch: Epoch | None = None
        self._covered = b""
        """What the newest key says that it covers."""
        self.lists: dict[bytes, _List] = {}
        self.listers: set[bytes] = set()
        """Devices that told the room of a list."""
        self._marks: dict[bytes, dict[bytes, int]] = {}
        self._lost_marks: dict[bytes, dict[bytes, int]] = {}
        self._gone: dict[bytes, bytes] = {}

    # learning

    def add(self, signed: Signed) -> None:
        """Take a control entry."""
        entry = signed.entry
        if isinstance(entry.body, Create | Join):
            if entry.seq == 1:
                self.users[entry.device] = entry.body.user
            self.names[entry.device] = entry.body.own_name
        control = _Control(signed.order, signed)
        if not self._controls or self._controls[-1] < control:
            self._controls.append(control)
            self._judge(signed)
        else:
            insort(self._controls, control)
            self._again()

    def forget_from(self, device: bytes, seq: int) -> None:
        """Take back what a device said from this number on: it forked."""
        self.forks[device] = seq
        self._controls = [c for c in self._controls if c.signed.entry.device != device or c.signed.entry.seq < seq]
        if seq == 1:
            self.users.pop(device, None)
        self._again()

    def _again(self) -> None:
        self._begin()
        for control in self._controls:
            self._judge(control.signed)

    def _judge(self, signed: Signed) -> None:
        entry, body = signed.entry, signed.entry.body
        if isinstance(body, Create):
            self.founder, self.name, self.open = body.user, body.name, body.open
            self.states[body.user] = "member"
            self._make_owner(body.user)
            self._renew(signed.id, body.key, b"")
            return
        lost = self.is_lost(entry.device)
        if lost and not isinstance(body, Devices):
            return  # a list may be newer than the one that says so
        user = self.users.get(entry.device)
        is_owner = user is not None and self.is_owner(user) and not lost
        if isinstance(body, Join):
            if body.user == user and self.may_join(body.user):
                self.states[body.user] = "member"
        elif isinstance(body, Add):
            if is_owner:
                self.vouched.add(body.user)
                if self.states.get(body.user) != "member":
                    self.states[body.user] = "invited"
        elif isinstance(body, Out):
            self._judge_out(signed, body, leaves=body.user == user, is_owner=is_owner)
        elif isinstance(body, Rekey):
            if is_owner:
                self._renew(signed.id, body.key, body.covers)
        elif isinstance(body, Role):
            self._judge_role(body, user, is_owner=is_owner)
        elif isinstance(body, Devices):
            self._judge_devices(entry.device, body, user, is_owner=is_owner)

    def _judge_out(self, signed: Signed, body: Out, *, leaves: bool, is_owner: bool) -> None:
        if leaves:
            if not self.is_member(body.user):
                return
            self.states[body.user] = "left"
            if body.user in self.owners:
                self.owners.remove(body.user)
        elif is_owner and body.user not in self.owners:
            self.states[body.user] = "removed"
            self.vouched.discard(body.user)
        else:
            return
        self._marks[body.user] = {mark.device: mark.seq for mark in body.marks}
        self._gone[body.user] = place_of(signed.entry.device, signed.entry.seq)
        if is_owner and not leaves and body.key:
            self._renew(signed.id, body.key, body.covers)

    def _judge_role(self, body: Role, author: bytes | None, *, is_owner: bool) -> None:
        if not is_owner:
            return
        if not body.owner:
            if body.user == author:
                self.owners.remove(body.user)
        elif body.user not in self.owners:  # whether it is in does not matter: its entries may be missing yet
            self._make_owner(body.user)

    def _judge_devices(self, device: bytes, body: Devices, author: bytes | None, *, is_owner: bool) -> None:
        """What others tell of somebody's devices only lets owners know: their entries may not be kept everywhere."""
        found, known = _read(body), self.lists.get(body.user)
        own = author == body.user and bool(body.signature) and device in found.devices
        if not (is_owner or own) or (known is not None and found.number < known.number):
            return
        if known is None or found.number > known.number:
            self.lists[body.user] = found
            self.listers.add(device)
        marks = self._lost_marks.setdefault(body.user, {})
        for mark in body.marks:
            marks[mark.device] = max(mark.seq, marks.get(mark.device, 0))

    def _make_owner(self, user: bytes) -> None:
        self.owners.append(user)
        self.owned.add(user)
        self.vouched.add(user)

    def _renew(self, entry_id: bytes, key: bytes, covers: bytes) -> None:
        self.epoch = self.epochs[entry_id] = Epoch(entry_id, key)
        self._covered = covers

    # asking

    @property
    def stale(self) -> bool:
        """Whether somebody is out whom the newest key may have been told to."""
        return self._covered != self.cover()

    def cover(self, out: bytes = b"", place: bytes = b"") -> bytes:
        """Return what says who is out: 8 bytes of SHA-256 over, sorted, the place of the last entry that put each user
        out, and of each member that has a list of devices its key and the list's number; empty where there is none.
        `out`: and this user, by the entry at `place`."""
        gone = {**self._gone, out: place} if out else self._gone
        lists = [
            user + found.number.to_bytes(8, "big")
            for user, found in self.lists.items()
            if self.is_member(user) and user != out
        ]
        all_out = b"".join(sorted([*gone.values(), *lists]))
        return hashlib.sha256(all_out).digest()[:COVER_BYTES] if all_out else b""

    def state_of(self, user: bytes) -> str:
        """Return `member`, `invited`, `left`, `removed`, or "" for somebody who never was."""
        return self.states.get(user, "")

    def is_member(self, user: bytes) -> bool:
        return self.states.get(user) == "member"

    def is_owner(self, user: bytes) -> bool:
        return user in self.owners and self.is_member(user)

    def is_stranger(self, user: bytes) -> bool:
        """Whether somebody came into an open room by itself, or would."""
        return self.open and user not in self.vouched

    def may_join(self, user: bytes) -> bool:
        """Whether an entry of this user that says so makes it a member; whoever is one already may say it again."""
        state = self.states.get(user)
        return state in ("member", "invited") or (self.open and state != "removed")

    def is_lost(self, device: bytes, user: bytes | None = None) -> bool:
        """Whether the newest list of its user does not name a device. `user`: whose it says to be, where nothing of it
        is there."""
        known = self.lists.get(self.users.get(device, user or b""))
        return known is not None and device not in known.devices

    def lets_in(self, device: bytes, user: bytes) -> bool:
        """Whether a device may hear of the room, or may once it joins."""
        return self.may_join(user) and not self.is_lost(device, user)

    def reads(self, device: bytes, user: bytes) -> bool:
        """Whether a device may have the keys."""
        return self.is_member(user) and not self.is_lost(device, user)

    def may_write(self, device: bytes) -> bool:
        return self.is_member(self.users.get(device, b"")) and not self.is_lost(device)

    def keeps(self, device: bytes, user: bytes, seq: int) -> bool:
        """Whether an entry is kept: of who was removed only what it wrote before that; of who left and who was an owner
        all, since others may judge by it."""
        return self._keeps_all(user) or seq <= self.counted(device, user)

    def _keeps_all(self, user: bytes) -> bool:
        return self.may_join(user) or user in self.owned or self.states.get(user) == "left"

    def kept(self, device: bytes, seq: int) -> int:
        """Return up to which number, at most `seq`, the entries of a device are kept that wrote something."""
        return seq if self._keeps_all(self.users[device]) else min(seq, self.counted(device))

    def shows(self, device: bytes, seq: int) -> bool:
        """Whether an entry counts: its author is in, or wrote it before it went."""
        return self.may_write(device) or seq <= self.counted(device)

    def counted(self, device: bytes, user: bytes | None = None) -> int:
        """Return up to which number the entries of a device count that is out; 0 for none. `user`: whose it says to
        be, where nothing else of it is there."""
        whose = self.users.get(device, user or b"")
        if self.is_member(whose) and self.is_lost(device, user):
            return self._lost_marks.get(whose, {}).get(device, 0)
        return self._marks.get(whose, {}).get(device, 0)

    def lost_devices(self, user: bytes) -> list[bytes]:
        """Return the devices of a user that its newest list does not name."""
        return [device for device in self.devices_of(user) if self.is_lost(device)]

    def devices_of(self, user: bytes) -> list[bytes]:
        return [device for device, whose in self.users.items() if whose == user]

    def member_devices(self) -> list[bytes]:
        """Return the devices that may write."""
        return [device for device in self.users if self.may_write(device)]


def place_of(device: bytes, seq: int) -> bytes:
    """Return what names an entry before it is written."""
    return device + seq.to_bytes(4, "big")


def _read(body: Devices) -> _List:
    """What was checked when the entry came."""
    found = decode_devices_untrusted(body.value)
    return _List(found.number, frozenset(peer.raw for peer in found.devices))
