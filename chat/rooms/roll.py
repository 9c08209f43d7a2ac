"""Who is in a room, and which key its texts are under: what the control entries say, in their order. No I/O.

The entries are judged one after the other in the order that is the same everywhere, so all who hold the same entries
have the same list, in whatever order these came. One user owns a room, and alone invites, removes and renews keys:
two owners who remove each other at the same moment would need a third to decide.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from p2pnode.chat.rooms.entries import Add, Create, Join, Out, Rekey, Signed

__all__ = ["Epoch", "Roll"]


@dataclass(frozen=True, slots=True)
class Epoch:
    """A time under one key. `id`: of the entry that began it; `commitment`: what that says of the key."""

    id: bytes
    commitment: bytes


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
        self.owner: bytes | None = None
        self.name = ""
        self.open = False
        self.states: dict[bytes, str] = {}
        self.epochs: dict[bytes, Epoch] = {}
        self.epoch: Epoch | None = None
        self.stale = False
        """Whether somebody left and no key was made since."""
        self._marks: dict[bytes, dict[bytes, int]] = {}

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
        body = signed.entry.body
        user = self.users.get(signed.entry.device)
        is_owner = user is not None and user == self.owner and self.states[user] == "member"
        if isinstance(body, Create):
            self.owner, self.name, self.open = body.user, body.name, body.open
            self.states[body.user] = "member"
            self._renew(signed.id, body.key)
        elif isinstance(body, Join):
            if body.user == user and self.may_join(body.user):
                self.states[body.user] = "member"
        elif isinstance(body, Add):
            if is_owner and self.states.get(body.user) != "member":
                self.states[body.user] = "invited"
        elif isinstance(body, Out):
            leaves = body.user == user and self.states.get(body.user) == "member"
            if (is_owner and body.user != self.owner) or leaves:
                self.states[body.user] = "left" if leaves else "removed"
                self._marks[body.user] = {mark.device: mark.seq for mark in body.marks}
                self.stale = True
                if is_owner and body.key:
                    self._renew(signed.id, body.key)
        elif isinstance(body, Rekey) and is_owner:
            self._renew(signed.id, body.key)

    def _renew(self, entry_id: bytes, key: bytes) -> None:
        self.epoch = self.epochs[entry_id] = Epoch(entry_id, key)
        self.stale = False

    # asking

    def state_of(self, user: bytes) -> str:
        """Return `member`, `invited`, `left`, `removed`, or "" for somebody who never was."""
        return self.states.get(user, "")

    def is_member(self, user: bytes) -> bool:
        return self.states.get(user) == "member"

    def may_join(self, user: bytes) -> bool:
        """Whether an entry of this user that says so makes it a member; whoever is one already may say it again."""
        state = self.states.get(user)
        return state in ("member", "invited") or (self.open and state != "removed")

    def may_write(self, device: bytes) -> bool:
        return self.is_member(self.users.get(device, b""))

    def shows(self, device: bytes, seq: int) -> bool:
        """Whether an entry counts: its author is in, or wrote it before it went."""
        return self.may_write(device) or seq <= self.counted(device)

    def counted(self, device: bytes, user: bytes | None = None) -> int:
        """Return up to which number the entries of a device count that is out; 0 for none. `user`: whose it says to
        be, where nothing else of it is there."""
        return self._marks.get(self.users.get(device, user or b""), {}).get(device, 0)

    def devices_of(self, user: bytes) -> list[bytes]:
        return [device for device, whose in self.users.items() if whose == user]

    def member_devices(self) -> list[bytes]:
        """Return the devices that may write."""
        return [device for device, user in self.users.items() if self.states.get(user) == "member"]
