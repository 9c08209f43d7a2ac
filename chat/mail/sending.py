"""Letters that we leave: written when a device cannot be reached, looked after until they were read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from p2pnode import AccountKey, MailRecord, P2PError, PeerId
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.letters import MAX_MESSAGES, LetterMessage, Slot, fits, is_final, read_mark, seal, split
from p2pnode.chat.mail.postbox import Postbox
from p2pnode.chat.model import MessageStateChanged
from p2pnode.chat.store import OutboxItem

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Sending"]

Give = Callable[[PeerId, bytes, bytes], Awaitable[bool]]
Leave = Callable[[PeerId, OutboxItem], Awaitable[bool]]

log = structlog.get_logger(__name__)

MAX_LETTERS = 64  # to one device that nobody has read yet (1 MB); what is beyond stays queued here
RENEW_S = 86_400  # a letter of ours that waits for so long is stored anew, for another week
FIRST_CHECK_S, LAST_CHECK_S = 60, 3_600  # between two looks whether it was read, doubling
RETRY_S = 60  # after a store that failed
DUE_AT_ONCE = 32
CARRIED_S = 7 * 86_400  # how long carriers keep a letter
MAX_SPENT = 8  # slots passed over in one go because they were used before: a reader who fills all of them costs no more


class Sending:
    """Writes letters and keeps them alive."""

    def __init__(self, chat: Chat, box: Postbox, give: Give, leave: Leave) -> None:
        """`give(reader, slot, letter)`: leave a letter with contacts that carry it; whether anybody has it.
        `leave(device, message)`: leave somebody who gave us no grant a first letter; whether it waits there."""
        self._chat = chat
        self._box = box
        self._give, self._leave = give, leave
        self._busy: dict[PeerId, asyncio.Task[None]] = {}
        self._again: dict[PeerId, str] = {}
        self._spent: dict[PeerId, int] = {}
        self.open: set[str] = set()
        """Messages (ids) that were stored since the start and wait to be read."""

    def write(self, device: PeerId, reason: str) -> None:
        """Put what a device has not got into letters, and store them. `reason`: why it cannot be reached."""
        self._again[device] = reason
        task = self._busy.get(device)
        if task is None or task.done():
            task = self._busy[device] = self._chat.start_task(self._write(device), f"chat-mail-write {device}")
            task.add_done_callback(partial(self._written, device))

    def _written(self, device: PeerId, task: asyncio.Task[None]) -> None:
        if self._busy.get(device) is task:
            del self._busy[device]
            self._spent.pop(device, None)

    async def _write(self, device: PeerId) -> None:
        database = self._chat.store.database
        while (reason := self._again.pop(device, None)) is not None:
            left = 0
            while True:
                grant = await database.read(lambda c: tables.taken(c, device))
                room = MAX_LETTERS - await database.read(lambda c: tables.open_letters(c, device))
                items = await database.read(lambda c: tables.unwritten(c, device, MAX_MESSAGES))
                if grant is None and items:
                    left = int(await self._leave(device, items[0]))
                if grant is None or room <= 0 or not items:
                    break
                if not await self._write_one(grant, items, reason):
                    break
            if len(await database.read(lambda c: tables.unwritten(c, device, 2))) > left:
                self._chat.deliveries.attempt_failed(device, reason)

    async def _write_one(self, grant: tables.Taken, items: list[OutboxItem], reason: str) -> bool:
        """One letter with as many of these as it holds."""
        messages: list[LetterMessage] = []
        for item in items:
            message = LetterMessage(item.id, item.sequence, item.sent_at_ms, item.text)
            if not fits([*messages, message]):
                break
            messages.append(message)
        chat, device = self._chat, grant.device
        slot, ephemeral = Slot(grant.secret), chat.node.network.token_bytes(32)
        try:
            letter = seal(slot, device, grant.key, chat.node.key, messages, ephemeral)
        except ValueError:
            chat.drops["mail_bad_grant"] += 1
            return False
        after = tables.Taken(device, grant.id, slot.next().secret, grant.key, grant.used + 1)
        positions = [item.position for item in items[: len(messages)]]
        number = await chat.store.database.write(lambda c: tables.put_letter(c, after, slot.seed, letter, positions))
        if number is None:
            return True  # a new grant came meanwhile
        await self._store(tables.StoredLetter(number, device, slot.seed, letter, 0, 0, True), reason)
        return True

    async def _store(self, letter: tables.StoredLetter, reason: str = "offline") -> None:
        chat, now = self._chat, self._chat.now_ms() // 1000
        expires = await self._box.store(letter.seed, letter.letter) if chat.node.mail_ready() else 0
        slot = AccountKey(letter.seed).public_raw
        if not expires and await self._give(letter.device, slot, letter.letter):
            expires = now + CARRIED_S
        if not expires:
            if await self._is_over(letter, await self._box.look(letter.seed), reason):
                return
            log.info("mail_not_stored", peer=str(letter.device))
            checks = letter.checks + 1
            await chat.store.database.write(
                lambda c: tables.wait_for(c, letter.id, checks, now + _pause(RETRY_S, checks))
            )
            chat.deliveries.attempt_failed(letter.device, reason)
            return
        stored = await chat.store.database.write(
            lambda c: tables.mark_stored(c, letter.id, expires, now + FIRST_CHECK_S)
        )
        for item in stored:
            self.open.add(item.id.hex())
            chat.emit(MessageStateChanged(item.id.hex(), item.party, "stored"))
        for item in await chat.store.database.read(lambda c: tables.contents(c, letter.id)):
            chat.deliveries.stored(item.id.hex(), letter.device)

    async def look_after(self) -> float:
        """Store again what nobody has or what grows old; see what was read; remove what is not needed any more.

        Return in how many seconds to look again.
        """
        database, now = self._chat.store.database, self._chat.now_ms() // 1000
        due = await database.read(lambda c: tables.due_letters(c, now, DUE_AT_ONCE))
        await asyncio.gather(*(self._look_after(letter, now) for letter in due))
        at = await database.read(tables.next_look)
        if at is None:
            self.open.clear()
            return LAST_CHECK_S
        return max(1.0, at - self._chat.now_ms() / 1000)

    async def _look_after(self, letter: tables.StoredLetter, now: int) -> None:
        database = self._chat.store.database
        if not letter.awaited:
            # everything in it went another way; its reader sees that the slot was used
            await self._box.skip(letter.seed)
            await database.write(lambda c: tables.drop_letter(c, letter.id))
            return
        if not letter.expires:
            await self._store(letter)
            return
        found = await self._box.look(letter.seed)
        if await self._is_over(letter, found, "offline"):
            return
        if found is None or found.expires - now < 6 * RENEW_S:
            await self._store(letter)
        else:
            checks = letter.checks + 1
            await database.write(lambda c: tables.wait_for(c, letter.id, checks, now + _pause(FIRST_CHECK_S, checks)))

    async def _is_over(self, letter: tables.StoredLetter, found: MailRecord | None, reason: str) -> bool:
        """Whether a letter was read, or its slot serves, or served, another one: then its messages go into the next.

        That is so when our database is an older one that was restored, or another program runs on a copy of it.
        """
        device = letter.device
        if found is None or found.value == split(letter.letter)[0]:
            return False
        if found.value == read_mark(letter.letter):
            await self._was_read(letter)
            return True
        spent = self._spent[device] = self._spent.get(device, 0) + 1
        if spent > MAX_SPENT:
            return False
        log.info("mail_slot_used_before", peer=str(device), read=is_final(found.value))
        await self._chat.store.database.write(lambda c: tables.drop_letter(c, letter.id))
        self.write(device, reason)
        return True

    async def _was_read(self, letter: tables.StoredLetter) -> None:
        """Its reader says so, which has the messages on its disk then. Nobody else but we can write there."""
        chat = self._chat
        items = await chat.store.database.read(lambda c: tables.contents(c, letter.id))
        chat.links.delivered_otherwise(letter.device, items)
        await chat.store.database.write(lambda c: tables.drop_letter(c, letter.id))

    async def resume(self) -> None:
        """Write to everybody whom messages wait for since the last run, and see what was read meanwhile."""
        try:
            await self._chat.store.database.write(tables.look_at_all)
            for device in await self._chat.store.database.read(tables.awaited):
                if not self._chat.directory.is_blocked(device):
                    self.write(device, "offline")
        except P2PError as exc:
            log.warning("mail_not_resumed", reason=exc.code)


def _pause(first: int, times: int) -> int:
    return int(min(LAST_CHECK_S, first * 2 ** min(times, 16)))
