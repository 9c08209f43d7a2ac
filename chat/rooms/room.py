"""One room: our own entries, what becomes of those that come, and which texts are shown.

Nothing is handed on, and nobody is told that it is here, before it is on the disk: so our own log never forks, whatever
dies when, and what others believe us to have we have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from p2pnode import BadPacket, P2PError, PeerId, RefusedError, UserId, clean, clean_name
from p2pnode.chat.model import (
    Message,
    MessageReceived,
    MessagesSynced,
    MessageStateChanged,
    RoomChanged,
    RoomInfo,
    RoomMember,
)
from p2pnode.chat.protocol import MAX_TEXT_BYTES
from p2pnode.chat.rooms.entries import (
    NO_HASH,
    Body,
    Create,
    Devices,
    Entry,
    Join,
    Signed,
    Text,
    commitment,
    open_text,
    read_untrusted,
    seal_text,
    sign,
)
from p2pnode.chat.rooms.exchange import Exchange
from p2pnode.chat.rooms.log import RoomLog
from p2pnode.chat.rooms.records import Opened, RoomRow, Stored
from p2pnode.chat.rooms.ruling import Ruling

if TYPE_CHECKING:
    from p2pnode.chat.rooms.service import Rooms

__all__ = ["Room"]

KEY_WAIT_S = 10.0  # how long a text waits for a key that others have


class Room:
    """A room that we take part in, or are about to join. All methods belong to the event loop's thread."""

    def __init__(self, rooms: Rooms, row: RoomRow) -> None:
        self.rooms = rooms
        self.row = row
        self.id = row.id
        self.log = RoomLog(row.id)
        self.keys: dict[bytes, bytes] = {}
        self.exchange = Exchange(self)
        self.ruling = Ruling(self)
        self.joined = asyncio.Event()
        self.create: bytes | None = None
        """The entry that made it, as it travels: the invitation to it."""
        self.refused = False
        """Somebody who is in said that we are not."""
        self.full = False
        """There is no place for us, unless an owner lets us in."""
        self.busy = asyncio.Lock()
        """Held while entries are taken, until they are on the disk."""
        self._own = rooms.chat.node.peer_id
        self._unconfirmed: dict[int, tuple[str, int]] = {}
        self._join_depth: int | None = None
        self._locked = False
        self._due = False
        self._key_came = asyncio.Event()
        self._states: dict[bytes, str] = {}
        self._owners: tuple[bytes, ...] = ()
        self._epoch: bytes | None = None

    # life

    async def load(self) -> None:
        """Read what is on the disk. Raise StorageError."""
        records = self.rooms.records
        self.keys = await records.load(self.log)
        self.exchange.neighbours.stored = {device: len(each) for device, each in self.log.logs.items()}
        self._note_members()
        self._unconfirmed = {seq: (mid, at) for seq, mid, at in await records.undelivered(self.id, self._own)}
        own, owner = self.log.logs.get(self._own.raw), self.log.roll.founder
        if own is not None and len(own):
            self._join_depth = own.depths[0]
            if self.log.roll.is_member(self.rooms.chat.node.user_id.raw):
                self.joined.set()
        if owner is not None:
            first = next(d for d in self.log.roll.devices_of(owner) if self.log.logs[d].depths[0] == 1)
            self.create = (await records.raws(self.id, [(first, 1)]))[0]
        for device, user in self.log.roll.users.items():
            self.rooms.met(device, user, self.log.roll.names.get(device, ""))
        self._locked = True

    @property
    def active(self) -> bool:
        return self.row.state == "joined"

    # writing

    async def say(self, text: str) -> Message:
        """Write a text. It is on the disk when this returns. Raise RefusedError, StorageError."""
        own_user = self.rooms.chat.node.user_id
        if not self.joined.is_set() or not self.log.roll.is_member(own_user.raw):
            raise RefusedError("You are not in this room.", room=str(self.id))
        epoch = self.log.roll.epoch
        if epoch is None or epoch.id not in self.keys:
            self.rooms.wake()
            try:
                async with asyncio.timeout(KEY_WAIT_S):
                    while (epoch := self.log.roll.epoch) is None or epoch.id not in self.keys:
                        self._key_came.clear()
                        await self._key_came.wait()
            except TimeoutError as exc:
                raise RefusedError("The room's new key has not come yet: no other member is here.") from exc
        sealed = seal_text(self.keys[epoch.id], self.rooms.random(12), self.id, self._own, text)
        messages = await self.write(Text(epoch.id, sealed))
        if not messages:
            raise RefusedError("You are not in this room.", room=str(self.id))
        return messages[0]

    async def write(self, body: Body, *, key: tuple[bytes, bytes] | None = None) -> list[Message]:
        """Sign an entry, put it on the disk and hand it on; return what it shows. `key`: (b"", the key it begins)."""
        async with self.busy:
            signed = self._sign(body)
            taken = self.log.take(signed)
            if signed not in taken.applied:
                raise RefusedError("The room does not take this any more.", reason=taken.refused or "log_full")
            keys = [(signed.id, key[1])] if key is not None else []
            self.keys |= dict(keys)
            messages = await self.applied(taken.applied, None, keys=keys)
            if keys:
                self.exchange.share_keys(keys)
            return messages

    def _sign(self, body: Body) -> Signed:
        node, own, there = self.rooms.chat.node, self._own.raw, self.log.logs.get(self._own.raw)
        count = len(there) if there is not None else 0
        links = self.log.links(own)
        depths = [self.log.logs[link.device].depths[link.seq - 1] for link in links]
        if there is not None and count:
            depths.append(there.depths[-1])
        entry = Entry(
            self.id.raw,
            own,
            count + 1,
            there.hash(count) if there is not None and count else NO_HASH,
            links,
            max(depths, default=0) + 1,
            self.rooms.chat.now_ms(),
            body,
        )
        return sign(node.key, entry)

    async def begin(self, signed: Signed, key: bytes) -> None:
        """Take the entry that made the room, ours."""
        async with self.busy:
            taken = self.log.take(signed)
            self.keys[signed.id] = key
            await self.applied(taken.applied, None, keys=[(signed.id, key)])

    async def join(self) -> None:
        """Write that we are in, once it is our turn: when a neighbour's entries are here and let us."""
        roll, own = self.log.roll, self.rooms.chat.node.user_id.raw
        if (
            self.joined.is_set()
            or not self.active
            or not roll.may_join(own)
            or not self.exchange.neighbours.caught_up()
        ):
            return
        self.full = self._own.raw not in self.log.logs and bool(self.log.place_for(own))
        if self.full:
            return  # until an owner lets us in
        node = self.rooms.chat.node
        hello = self.rooms.chat.links.own_hello(node.peer_id)
        await self.write(Join(own, hello.proof, hello.name))

    # what became of entries

    async def applied(
        self, entries: Sequence[Signed], source: PeerId | None, *, keys: Sequence[tuple[bytes, bytes]] = ()
    ) -> list[Message]:
        """Put entries that fit on the disk, then show them and hand them on. Raise StorageError: the room is read
        anew then."""
        own = self._own.raw
        what = Stored(self.id, entries=list(entries), keys=keys)
        for signed in entries:
            if isinstance(signed.entry.body, Create | Join) and signed.entry.device != own:
                body = signed.entry.body
                self.rooms.met(signed.entry.device, body.user, body.own_name)
                if self.rooms.counts(signed.entry.device, body.user):
                    what.names = [*what.names, (signed.device, UserId(body.user), clean_name(body.own_name))]
            if isinstance(signed.entry.body, Create):
                self.create = signed.raw
            if isinstance(signed.entry.body, Create | Join) and signed.entry.device == own:
                self._join_depth = signed.entry.depth
        what.texts = list(self._open(entries))
        news = self._changes(entries)
        what.hide = [
            (device, self.log.roll.counted(device))
            for change in news
            if change.user is not None and not self.log.roll.is_member(change.user.raw)
            for device in self.log.roll.devices_of(change.user.raw)
        ]
        what.hide += [
            (device, self.log.roll.counted(device))
            for signed in entries
            if isinstance(signed.entry.body, Devices) and self.log.roll.is_member(signed.entry.body.user)
            for device in self.log.roll.lost_devices(signed.entry.body.user)
        ]
        what.state = self._own_state()
        try:
            messages = await self.rooms.records.store(what)
        except P2PError:
            await self.rooms.reload(self)
            raise
        if what.state:
            self.row.state = what.state
        self.exchange.hand_on(entries, source)
        self._tell(messages, news)
        if self.log.length(own) and self.log.roll.is_member(self.rooms.chat.node.user_id.raw):
            self.joined.set()
        if any(not isinstance(signed.entry.body, Text) for signed in entries):
            await self.ruling.heard(entries)
            self._due = True
            self.rooms.members_changed(self)
        if not self.active:
            self.rooms.ended(self)
        self.rooms.wake()
        return messages

    def _own_state(self) -> str:
        state = self.log.roll.state_of(self.rooms.chat.node.user_id.raw)
        return state if self.joined.is_set() and state in ("left", "removed") and self.row.state == "joined" else ""

    def _open(self, entries: Iterable[Signed]) -> Iterable[Opened]:
        """Yield the texts among these that can be read and count."""
        chat, roll = self.rooms.chat, self.log.roll
        for signed in entries:
            entry = signed.entry
            user = roll.users.get(entry.device)
            if not isinstance(entry.body, Text) or user is None:
                continue
            if not roll.shows(entry.device, entry.seq) or chat.directory.is_blocked(signed.device):
                continue
            if not self.rooms.counts(entry.device, user) and entry.seq > roll.counted(entry.device):
                continue  # a lost device goes on writing
            key = self.keys.get(entry.body.epoch)
            if key is None:
                self._locked = True
                continue
            try:
                text = open_text(key, self.id, signed.device, entry.body.sealed)
            except BadPacket:
                self.rooms.drops["bad_seal"] += 1
                continue
            text = clean(text, limit=MAX_TEXT_BYTES, newline=True)
            ours = user == chat.node.user_id.raw
            state = "received" if not ours else "queued" if signed.entry.device == self._own.raw else "delivered"
            yield Opened(signed, UserId(user), text, ours, state, chat.now_ms())

    async def unlock_if_due(self) -> None:
        """Look again at what did not count when it came, if the members changed since."""
        if self._due:
            self._locked = True
            await self.unlock()

    async def unlock(self) -> None:
        """Show what could not be read before, or did not count."""
        self._due = False
        if not self._locked:
            return
        self._locked = False
        async with self.busy:
            texts = list(self._open(read_untrusted(raw) for raw in await self.rooms.records.locked(self.id)))
            if texts:
                self._tell(await self.rooms.records.store(Stored(self.id, texts=texts)), [])

    async def put_keys(self, keys: Iterable[tuple[bytes, bytes]]) -> None:
        """Take keys that somebody handed us: those whose commitment the owner signed."""
        epochs = self.log.roll.epochs
        new = [
            (epoch, key)
            for epoch, key in keys
            if epoch in epochs and epoch not in self.keys and commitment(key) == epochs[epoch].commitment
        ]
        if new:
            await self.rooms.records.store(Stored(self.id, keys=new))
            self.keys |= dict(new)
            self._key_came.set()
            self.exchange.share_keys(new)
            await self.unlock()

    def waits(self, seq: int) -> bool:
        """Whether nobody else is known to have this text of ours."""
        return seq in self._unconfirmed

    def confirmed(self, peer: PeerId, seq: int) -> None:
        """A device has our entries up to this one. Another one of ours is not whom we write to."""
        chat = self.rooms.chat
        if chat.user_of(peer) == chat.node.user_id:
            return
        done = [each for each in self._unconfirmed if each <= seq]
        for each in done:
            message_id, _ = self._unconfirmed[each]
            if chat.deliveries.delivered(message_id, peer):
                chat.emit(MessageStateChanged(message_id, self.id, "delivered"))
        if done:
            self.rooms.records.mark_delivered([self._unconfirmed.pop(each)[1] for each in done])

    def _epoch_id(self) -> bytes | None:
        epoch = self.log.roll.epoch
        return epoch.id if epoch is not None else None

    def _changes(self, entries: Sequence[Signed]) -> list[RoomChanged]:
        """Return what the control entries among these changed."""
        if all(isinstance(signed.entry.body, Text) for signed in entries):
            return []
        roll, words = self.log.roll, {"member": "joined", "invited": "added"}
        authors = {getattr(s.entry.body, "user", b""): s.device for s in entries if not isinstance(s.entry.body, Text)}
        changed = {user: state for user, state in roll.states.items() if self._states.get(user) != state}
        news = [
            RoomChanged(self.id, words.get(state, state), UserId(user), authors.get(user))
            for user, state in changed.items()
        ]
        if self._owners:  # who made it is no news
            news += [RoomChanged(self.id, "owner", UserId(user)) for user in roll.owners if user not in self._owners]
        news += [
            RoomChanged(self.id, "stepped_down", UserId(user))
            for user in self._owners
            if user not in roll.owners and roll.is_member(user)
        ]
        if self._epoch is not None and roll.epoch is not None and roll.epoch.id != self._epoch:
            news.append(RoomChanged(self.id, "rekeyed"))
        self._note_members()
        return news

    def _note_members(self) -> None:
        roll = self.log.roll
        self._states, self._owners, self._epoch = dict(roll.states), tuple(roll.owners), self._epoch_id()

    def _tell(self, messages: Sequence[Message], news: Sequence[RoomChanged]) -> None:
        """Tell of messages that are in the history now. What was written before we joined is told of as one."""
        chat, old = self.rooms.chat, 0
        for message in messages:
            if message.author == self._own:
                if message.state == "queued":
                    self._unconfirmed[message.sequence] = (message.id, message.position)
                    chat.emit(MessageStateChanged(message.id, self.id, "queued"))
            elif self._join_depth is None or message.ordinal >> 32 < self._join_depth:
                old += 1
            elif message.outgoing:
                chat.emit(MessagesSynced((message,)))
            else:
                chat.emit(MessageReceived(message))
        if old:
            self.rooms.records.mark_seen(self.id, messages[-1].position)
            self.rooms.tell(RoomChanged(self.id, "history", count=old))
        for change in news:
            self.rooms.tell(change)

    # what applications ask

    def info(self) -> RoomInfo:
        roll, own = self.log.roll, self.rooms.chat.node.user_id.raw
        state = "joining" if self.active and not self.joined.is_set() else self.row.state
        return RoomInfo(
            self.id,
            self.row.name,
            self.row.open,
            state,
            "owner" if roll.is_owner(own) else "member" if roll.is_member(own) else "",
            sum(each == "member" for each in roll.states.values()),
            self.log.count,
            len(self.exchange.neighbours.all),
            self.row.via,
        )

    def members(self) -> list[RoomMember]:
        """Return everybody who is or was in it, owners first, then by id."""
        roll, near = self.log.roll, self.exchange.neighbours.all
        found = []
        for user, state in roll.states.items():
            devices = tuple(PeerId.from_untrusted(device) for device in roll.devices_of(user))
            here = any(device in near for device in devices) or user == self.rooms.chat.node.user_id.raw
            role = "owner" if roll.is_owner(user) else "member"
            found.append(RoomMember(UserId(user), role, state, devices, here))
        return sorted(found, key=lambda member: (member.role != "owner", member.state != "member", member.user.raw))
