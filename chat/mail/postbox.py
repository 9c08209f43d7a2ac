"""Letters at their holders: stored part by part, read, removed. Stateless; what it works on comes from the node."""

from __future__ import annotations

import asyncio
from typing import Protocol

from p2pnode import Mailed, MailRecord
from p2pnode.chat.mail.letters import Slot, is_final, join_parts_untrusted, parts_of_untrusted, read_mark, split

__all__ = ["GONE", "MailPort", "Postbox"]

AT_ONCE = 12  # searches of ours: some 60 datagrams each within a second
GONE = b""
"""What is fetched from a slot whose letter was read, or withdrawn."""


class MailPort(Protocol):
    """The part of `p2pnode.Node` that mail works on."""

    async def put_mail(self, seed: bytes, part: int, value: bytes, *, final: bool = ...) -> Mailed: ...
    async def get_mail(self, seed: bytes, part: int) -> MailRecord | None: ...


class Postbox:
    """Stores and fetches letters, a bounded number of searches at a time."""

    def __init__(self, node: MailPort) -> None:
        self._node = node
        self._places = asyncio.Semaphore(AT_ONCE)

    async def store(self, seed: bytes, letter: bytes) -> int:
        """Store a letter; return until when it waits (Unix seconds), 0 when too few nodes took some part of it."""
        stored = await asyncio.gather(*(self._put(seed, part, value) for part, value in enumerate(split(letter))))
        if all(each.stored and 2 * each.stored >= each.tried for each in stored):
            return min(each.expires for each in stored)
        return 0

    async def fetch(self, slot: Slot) -> bytes | None:
        """Return the letter in a slot, `GONE` when it was removed, None when there is none, or not all of it.

        Raise BadPacket when what stands there is no letter.
        """
        seed = slot.seed
        first = await self.look(seed)
        if first is None or is_final(first.value):
            return None if first is None else GONE
        count = parts_of_untrusted(first.value)
        others = await asyncio.gather(*(self._get(seed, part) for part in range(1, count)))
        parts = [first.value] + [part.value for part in others if part is not None and part.value]
        return join_parts_untrusted(parts) if len(parts) == count else None

    async def look(self, seed: bytes) -> MailRecord | None:
        """Return the first part of what is in a slot; see `is_final`."""
        return await self._get(seed, 0)

    async def remove(self, seed: bytes, letter: bytes) -> bool:
        """Empty a slot: its writer sees by the first part which letter was read. Return whether that is stored."""
        removed = await asyncio.gather(
            self._put(seed, 0, read_mark(letter), final=True),
            *(self._put(seed, part, b"") for part in range(1, len(split(letter)))),
        )
        return removed[0].stored > 0

    async def skip(self, seed: bytes) -> None:
        """Empty the first part of a slot that needs no reading any more; what is behind it ends with the week."""
        await self._put(seed, 0, b"")

    async def _put(self, seed: bytes, part: int, value: bytes, *, final: bool = False) -> Mailed:
        async with self._places:
            return await self._node.put_mail(seed, part, value, final=final)

    async def _get(self, seed: bytes, part: int) -> MailRecord | None:
        async with self._places:
            return await self._node.get_mail(seed, part)
