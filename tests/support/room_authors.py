"""Devices that write into rooms whatever they are told to, without a node."""

from __future__ import annotations

import random
from collections.abc import Sequence

from p2pnode import AccountKey, NodeKey
from p2pnode.chat.model import RoomId
from p2pnode.chat.protocol import device_proof
from p2pnode.chat.rooms.entries import (
    NO_HASH,
    NO_ROOM,
    Body,
    Create,
    Entry,
    Join,
    Link,
    Signed,
    commitment,
    sign,
)

__all__ = ["Author"]


class Author:
    """A device that signs whatever it is told to."""

    def __init__(self, name: str) -> None:
        rng = random.Random(name)
        self.key, self.account = NodeKey.generate(rng.randbytes), AccountKey.generate(rng.randbytes)
        self.proof = device_proof(self.account, self.key.peer_id)
        self.made: list[Signed] = []

    @property
    def user(self) -> bytes:
        return self.account.user_id.raw

    def create(self, *, open: bool = True) -> Signed:  # noqa: A002
        body = Create("garden", open, self.user, self.proof, "", commitment(bytes(32)))
        return self._made(Entry(NO_ROOM, self.key.peer_id.raw, 1, NO_HASH, [], 1, 0, body))

    def write(self, room: RoomId, body: Body, seen: Sequence[Signed] = (), *, deeper: int = 0) -> Signed:
        last = self.made[-1] if self.made else None
        links = [Link(each.entry.device, each.entry.seq, each.id) for each in seen]
        depths = [each.entry.depth for each in (*seen, *self.made[-1:])]
        return self._made(
            Entry(
                room.raw,
                self.key.peer_id.raw,
                last.entry.seq + 1 if last else 1,
                last.id if last else NO_HASH,
                links,
                max(depths, default=1) + 1 + deeper,
                0,
                body,
            )
        )

    def again(self, *made: Signed) -> Author:
        """The same author, who has written these."""
        self.made = list(made)
        return self

    def join(self, room: RoomId, seen: Signed) -> Signed:
        return self.write(room, Join(self.user, self.proof, ""), [seen])

    def _made(self, entry: Entry) -> Signed:
        self.made.append(sign(self.key, entry))
        return self.made[-1]
