"""Letters that others left us: found in their chains of slots, stored as messages, removed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2pnode import BadPacket, PeerId
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.carry_wire import LATER, NO, YES
from p2pnode.chat.mail.letters import LetterMessage, Slot, open_untrusted
from p2pnode.chat.mail.postbox import GONE, Postbox

if TYPE_CHECKING:
    from p2pnode.chat.mail.granting import Granting
    from p2pnode.chat.service import Chat

__all__ = ["Fetching"]

log = structlog.get_logger(__name__)

AHEAD = 2  # slots looked at behind the last letter: one that was lost hides none behind it
MAX_AT_ONCE = 256  # letters of one chain in one round
HANDED_AHEAD = 32  # slots in which a carried letter may stand: 50 us each
MAX_HANDED = 64
MAX_AHEAD = 128  # chains whose next slots' keys are remembered, 2 kB each
MISSING_S = 8 * 86_400  # a skipped slot is looked for so long: no letter waits longer


class Fetching:
    """Reads the chains that others write in."""

    def __init__(self, chat: Chat, box: Postbox, granting: Granting) -> None:
        self._chat = chat
        self._box = box
        self._granting = granting
        self._busy: set[bytes] = set()
        self._handed: dict[bytes, bytes] = {}  # by the slot's public key: a letter that somebody carried to us
        self._ahead: dict[bytes, tuple[int, list[bytes]]] = {}  # by grant: base, public keys of the slots from there
        self._removing: set[asyncio.Task[None]] = set()
        self.changed: Callable[[], None] = lambda: None
        """Called when slots were passed, or chains thrown away."""
        self.letters = 0
        """Read since the start."""

    async def fetch_all(self, *, thorough: bool, covered: Callable[[tables.Given], bool] = lambda _: False) -> None:
        """Look into all chains. `thorough`: behind slots that are missing, and also those of devices that are here,
        and those of whose next letter we will be told (`covered`)."""
        database = self._chat.store.database
        before_s = self._chat.now_ms() // 1000 - MISSING_S
        if await database.write(lambda c: tables.retire(c, before_s=before_s)):
            self.changed()
        await database.write(tables.forget_unknown)
        given = await database.read(tables.given)
        await asyncio.gather(
            *(
                self.fetch(each, ahead=AHEAD if thorough else 1)
                for each in given
                if thorough or (self._chat.node.session(each.device) is None and not covered(each))
            )
        )

    async def fetch(self, grant: tables.Given, *, ahead: int = AHEAD) -> None:
        """Look into one chain until nothing more is found, at so many slots at a time."""
        if grant.id in self._busy or not self._granting.is_friend(grant.device):
            return
        self._busy.add(grant.id)
        try:
            await self._fetch_missing(grant)
            await self._fetch_new(grant, ahead)
        finally:
            self._busy.discard(grant.id)

    async def take_handed(self, giver: PeerId, public: bytes, letter: bytes) -> int:
        """Read a letter of `giver` that somebody carried to us, and what stands before it in its chain. `public`: of
        its slot. Return `YES` when its messages are on the disk, `LATER`, or `NO`: it is for no slot that is open."""
        for grant in await self._chat.store.database.read(tables.given):
            if grant.device != giver:
                continue
            if (step := self._step_of(grant, public)) is not None:
                return await self._fetch_handed(grant, Slot(grant.secret).next(step), step + 1, letter)
            for each in await self._chat.store.database.read(lambda c, id_=grant.id: tables.missing(c, id_)):  # type: ignore[misc]
                if Slot(each.secret).public == public:
                    return await self._fetch_handed(grant, Slot(each.secret), AHEAD, letter)
        return NO

    def _step_of(self, grant: tables.Given, public: bytes) -> int | None:
        """Return how far ahead in a chain a slot is. Its 32 keys cost 2 ms, so they are made once for each base."""
        known = self._ahead.get(grant.id)
        if known is None or known[0] != grant.base:
            slot, keys = Slot(grant.secret), list[bytes]()
            for _ in range(HANDED_AHEAD):
                keys.append(slot.public)
                slot = slot.next()
            known = self._ahead[grant.id] = grant.base, keys
            if len(self._ahead) > MAX_AHEAD:
                del self._ahead[next(iter(self._ahead))]
        return known[1].index(public) if public in known[1] else None

    async def _fetch_handed(self, grant: tables.Given, slot: Slot, ahead: int, letter: bytes) -> int:
        if grant.id in self._busy or len(self._handed) >= MAX_HANDED:
            return LATER
        try:
            self._open_untrusted(grant, slot, letter)
        except BadPacket as bad:  # whoever carried it changed it: the slot still waits for the letter
            self._drop(grant.device, bad)
            return NO
        before, public = self.letters, slot.public
        self._handed[public] = letter
        try:
            await self.fetch(grant, ahead=ahead)
        finally:
            unread = self._handed.pop(public, None)
        return YES if unread is None and self.letters > before else LATER if unread is not None else NO

    async def _fetch_new(self, grant: tables.Given, ahead: int) -> None:
        base, secret = grant.base, grant.secret
        while base < grant.base + MAX_AT_ONCE:
            slots = [Slot(secret)]
            slots += [slots[0].next(step) for step in range(1, ahead)]
            found = await asyncio.gather(*(self._read(grant, slot) for slot in slots))
            last = max((number for number, letter in enumerate(found) if letter is not None), default=None)
            if last is None:
                return
            kept: list[tables.Missing] = []
            now = self._chat.now_ms() // 1000
            for number, letter in enumerate(found[: last + 1]):
                if letter != GONE:
                    kept.append(tables.Missing(base + number, slots[number].secret, now))
                if letter is not None and not await self._take(grant, slots[number], letter):
                    return  # not on our disk: it stays where it is
            first, base, secret = base, base + last + 1, slots[last].next().secret
            await self._chat.store.database.write(partial(_advance, grant.id, base, secret, kept))
            self.changed()
            for number, letter in enumerate(found[: last + 1]):
                self._remove(grant, first + number, slots[number], letter)

    async def _fetch_missing(self, grant: tables.Given) -> None:
        for each in await self._chat.store.database.read(lambda c: tables.missing(c, grant.id)):
            slot = Slot(each.secret)
            letter = await self._read(grant, slot)
            if letter is not None and await self._take(grant, slot, letter):
                if letter == GONE:
                    await self._chat.store.database.write(partial(_found, grant.id, each.slot))
                self._remove(grant, each.slot, slot, letter)

    async def _read(self, grant: tables.Given, slot: Slot) -> bytes | None:
        """Return a letter, `GONE`, or None: nothing is there."""
        handed = self._handed.pop(slot.public, None) if self._handed else None
        if handed is not None:
            return handed
        try:
            return await self._box.fetch(slot)
        except BadPacket as bad:  # only its writer can have put that there
            self._drop(grant.device, bad)
            return GONE

    async def _take(self, grant: tables.Given, slot: Slot, letter: bytes) -> bool:
        """Store what is in a letter; return whether it is done with."""
        if letter == GONE:
            return True
        try:
            messages = self._open_untrusted(grant, slot, letter)
        except BadPacket as bad:
            self._drop(grant.device, bad)
            return True
        done = await self._receive(grant.device, messages)
        self.letters += done
        return done

    def _open_untrusted(self, grant: tables.Given, slot: Slot, letter: bytes) -> list[LetterMessage]:
        """Return what is in a letter. Raise BadPacket: as `open_untrusted`, or `wrong_author`."""
        private = X25519PrivateKey.from_private_bytes(grant.private)
        author, messages = open_untrusted(slot, self._chat.node.peer_id, private, letter)
        if author != grant.device:
            raise BadPacket("wrong_author")
        return messages

    async def _receive(self, author: PeerId, messages: list[LetterMessage]) -> bool:
        for message in messages:
            code = await self._chat.reception.receive_letter(author, message)
            if code not in ("", "blocked"):
                log.info("mail_not_taken", peer=str(author), reason=code)
                return False
        return True

    async def settle(self, seconds: float) -> None:
        """Wait until what was read is removed, at most so long."""
        if self._removing:
            await asyncio.wait(self._removing, timeout=seconds)

    def _remove(self, grant: tables.Given, number: int, slot: Slot, letter: bytes | None) -> None:
        if letter:
            task = self._chat.start_task(self._empty(grant, number, slot, letter), "chat-mail-remove")
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    async def _empty(self, grant: tables.Given, number: int, slot: Slot, letter: bytes) -> None:
        """Empty a slot that was read. Until that is stored its secret is kept, and it is read again: nobody else can
        tell its writer."""
        if await self._box.remove(slot.seed, letter):
            await self._chat.store.database.write(partial(_found, grant.id, number))
            self.changed()

    def _drop(self, device: PeerId, bad: BadPacket) -> None:
        self._chat.drops[f"mail_{bad.reason}"] += 1
        log.info("mail_dropped", peer=str(device), reason=bad.reason)


def _advance(
    grant: bytes, base: int, secret: bytes, skipped: list[tables.Missing], connection: sqlite3.Connection
) -> None:
    tables.advance(connection, grant, base, secret, skipped)


def _found(grant: bytes, slot: int, connection: sqlite3.Connection) -> None:
    tables.found_missing(connection, grant, slot)
