"""Entries, frames and announcements of rooms; and a room's logs, whatever order entries come in."""

from __future__ import annotations

import random

from p2pnode import AccountKey, BadPacket, NodeKey, encode_devices
from p2pnode.chat.devices.wire import list_signature
from p2pnode.chat.protocol import device_proof
from p2pnode.chat.rooms.entries import (
    NO_HASH,
    NO_ROOM,
    Add,
    Body,
    Create,
    Devices,
    Entry,
    Join,
    Link,
    Mark,
    Out,
    Rekey,
    Role,
    Signed,
    Text,
    commitment,
    read_untrusted,
    sign,
)
from p2pnode.chat.rooms.finding import announcement, read_announcement_untrusted, topic_of
from p2pnode.chat.rooms.log import MAX_WAITING, RoomLog
from p2pnode.chat.rooms.wire import FrameBuffer, decode_untrusted, encode
from targets.base import Target
from targets.framed import frame_target, stream_target

__all__ = ["TARGETS"]

TOPIC = topic_of("Garden")


def read_entry(data: bytes) -> Signed:
    return read_untrusted(data)


def hold_entry(data: bytes, signed: Signed) -> None:
    assert signed.raw == data
    assert (signed.entry.depth == 1) == isinstance(signed.entry.body, Create)
    assert len(signed.room.raw) == 32


def read_announcement(data: bytes) -> bytes:
    room, name = read_announcement_untrusted(data, TOPIC)
    return announcement(room, name)


def hold_announcement(data: bytes, again: bytes) -> None:
    assert data == again


class Author:
    """A device that signs what the fuzzer says."""

    def __init__(self, user: str, device: str = "") -> None:
        self.key = NodeKey.generate(random.Random(user + device).randbytes)
        self.account = AccountKey.generate(random.Random(f"account of {user}").randbytes)
        self.made: list[Signed] = []


AUTHORS = [Author("owner"), Author("member"), Author("stranger"), Author("member", "lost")]
USERS = 3
LISTS = [encode_devices([AUTHORS[1].key.peer_id], number) for number in (1, 2)]
SIGNED = [list_signature(AUTHORS[1].account, value) for value in LISTS]


def read_logs(data: bytes) -> list[Signed]:
    """Two bytes an entry: who and what, and what it answers to; an odd number of bytes: the room is open.

    Made in order, then shuffled into two logs.
    """
    entries: list[Signed] = []
    for author in AUTHORS:
        author.made = []
    owner = AUTHORS[0]
    proofs = [device_proof(author.account, author.key.peer_id) for author in AUTHORS]
    create = Create("garden", len(data) % 2 == 1, owner.account.user_id.raw, proofs[0], "", commitment(bytes(32)))
    first = sign(owner.key, Entry(NO_ROOM, owner.key.peer_id.raw, 1, NO_HASH, [], 1, 0, create))
    owner.made.append(first)
    entries.append(first)
    for at in range(0, min(len(data) - 1, 32), 2):
        number = data[at] % 4
        author, whom = AUTHORS[number], AUTHORS[data[at] // 4 % USERS].account.user_id.raw
        which, marks = data[at + 1] & 1, [Mark(AUTHORS[n].key.peer_id.raw, data[at + 1] % 5) for n in (1, 3)]
        bodies: list[Body] = [
            Text(first.id, bytes(40)),
            Join(author.account.user_id.raw, proofs[number], ""),
            Add(whom),
            Out(whom, marks, b""),
            Rekey(commitment(bytes(32))),
            Role(whom, True),
            Role(author.account.user_id.raw, False),
            Devices(AUTHORS[1].account.user_id.raw, LISTS[which], SIGNED[which], marks[1:]),
            Out(whom, marks, commitment(bytes(32))),
        ]
        body = bodies[data[at] // 12 % len(bodies)] if author.made else bodies[1]
        back = data[at + 1] & 3
        before = author.made[-1 - (back == 3 and len(author.made) > 1)] if author.made else None
        seen = entries[-1 - data[at + 1] // 4 % len(entries)]
        links = [Link(seen.entry.device, seen.entry.seq, seen.id)] if seen.device != author.key.peer_id else []
        depth = 1 + max([seen.entry.depth] if links else [0], default=0)
        if before is not None:
            depth = max(depth, before.entry.depth + 1)
        entry = Entry(
            first.room.raw,
            author.key.peer_id.raw,
            before.entry.seq + 1 if before is not None else 1,
            before.id if before is not None else NO_HASH,
            links,
            max(2, depth),
            at,
            body,
        )
        signed = sign(author.key, entry)
        author.made.append(signed)
        entries.append(signed)
    return entries


def hold_logs(data: bytes, entries: list[Signed]) -> None:
    """Whatever comes in whatever order: nothing is raised, what is there is whole, and those who have all agree."""
    views = []
    for seed in (0, 1):
        log, order = RoomLog(entries[0].room), list(entries)
        random.Random(data + bytes((seed,))).shuffle(order)
        for _ in range(len(order)):  # until nothing changes any more; fewer do
            for signed in order:
                try:
                    taken = log.take(signed)
                except BadPacket:
                    continue
                if taken.conflict == (signed.entry.device, signed.entry.seq):
                    log.fork(*taken.conflict)
                    for waiting in log.again():
                        log.take(waiting)
        for device, each in log.logs.items():
            assert len(each.hashes) == 16 * len(each)
            assert all(each.depths[i] < each.depths[i + 1] for i in range(len(each) - 1))
            assert device in log.roll.users
        assert len(log._waiting) <= MAX_WAITING
        shown = {
            (device, each.hash(seq))
            for device, each in log.logs.items()
            for seq in range(1, len(each) + 1)
            if log.roll.shows(device, seq)
        }
        roll = log.roll
        lists = {user: found for user, found in roll.lists.items() if roll.is_member(user)}
        views.append((roll.states, shown, roll.owners, lists, roll.epoch, roll.stale, roll.cover()))
    assert views[0] == views[1]


TARGETS = [
    frame_target("room_frame", decode_untrusted, encode, head=4, max_bytes=4_000),
    stream_target("room_stream", FrameBuffer, max_bytes=4_000),
    Target("room_entry", read_entry, hold_entry, max_bytes=2_000),
    Target("room_announcement", read_announcement, hold_announcement, max_bytes=200),
    Target("room_logs", read_logs, hold_logs, (), 24, 0.5),
]
