"""First letters: what strangers left us while we were away, and what we leave those whom we never met.

A pool holds eight letters of one length, whoever floods it, and its holders keep pools apart from all other mail; so
contacts' letters are not touched. What is read there is a request like that of a stranger who came himself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2pnode import (
    POOL_PLACES,
    BadPacket,
    DeviceList,
    P2PError,
    PeerId,
    UserId,
    decode_devices_untrusted,
    encode_devices,
)
from p2pnode.chat.mail import epochs
from p2pnode.chat.mail.first_letters import (
    MAX_FIRST_TEXT_BYTES,
    Note,
    open_first_untrusted,
    pool_of,
    seal_first,
)
from p2pnode.chat.mail.letters import LetterMessage
from p2pnode.chat.model import Hall, MessageStateChanged
from p2pnode.chat.store import DeviceRow, OutboxItem

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Pool"]

log = structlog.get_logger(__name__)

NOTE_PART = 0  # of the device's own slot, and of its account's
FIRST_S = 3.0  # after joining: what contacts left comes first
PAUSE_S = 60.0  # at least, also where the network comes and goes
LOOK_S = 4 * 3_600.0  # between two looks at our pool: eight searches of 60 datagrams
AT_ONCE = 4
TRIES = 1_024  # hashes of 3 ms, for one letter
AGAIN_S = 900.0  # before another try to leave somebody a letter
MAX_TRIED = 1_024
DEVICES_ASKED = 5  # of an account of which only the list is found


class Pool:
    """Our pool, and others'."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._wake = asyncio.Event()
        self._working = asyncio.Semaphore(1)  # one processor is enough
        self._tried: dict[PeerId, float] = {}

    def joined(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Publish our key and look into our pool, for ever."""
        network = self._chat.node.network
        await self._wake.wait()
        while True:
            self._wake.clear()
            await asyncio.sleep(FIRST_S)
            try:
                await self.read()
                await self.publish()
            except P2PError as exc:
                log.warning("pool_failed", reason=exc.code, why=exc.message)
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(LOOK_S * network.rng.uniform(0.8, 1.2)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    # as the reader

    async def publish(self) -> None:
        """Let everybody know to which key a first letter is sealed, and for a week which devices are ours."""
        chat, node = self._chat, self._chat.node
        if chat.gossip.invisible or chat.devices.revoked:
            return
        now_s, database = chat.now_ms() // 1000, chat.store.database
        if await database.write(lambda c: epochs.destroy(c, now_s)):
            chat.mail.erase_later()
        epoch = epochs.current(await database.read(epochs.epochs), now_s)
        fresh = (
            replace(epoch, published_at=now_s) if epoch else epochs.Epoch(node.network.token_bytes(32), now_s, now_s)
        )
        await database.write(lambda c: epochs.put_epoch(c, fresh))  # before anybody can seal to it
        public = X25519PrivateKey.from_private_bytes(fresh.private).public_key().public_bytes_raw()
        await node.put_mail(node.key.seed, NOTE_PART, Note(public, node.user_id).encode())
        own = node.device_list(node.user_id) or DeviceList(0, (node.peer_id,))
        await node.put_mail(node.account.seed, NOTE_PART, encode_devices(own.devices, own.number))

    async def read(self) -> None:
        """Take what strangers left us."""
        node = self._chat.node
        kept = await self._chat.store.database.read(epochs.epochs)
        keys = [X25519PrivateKey.from_private_bytes(each.private) for each in kept]
        if not keys:
            return  # nobody can have sealed anything to us
        pool, places = pool_of(node.peer_id), asyncio.Semaphore(AT_ONCE)

        async def look(place: int) -> None:
            async with places:
                found = await node.look_in_pool(pool, place)
            if found is None:
                return
            try:
                first = open_first_untrusted(node.peer_id, keys, found.value)
                code = await self._chat.reception.receive_first(first)
            except BadPacket as bad:
                code = bad.reason
                self._chat.drops[f"mail_first_{code}"] += 1
            log.info("first_letter", place=place, outcome=code or "taken")

        await asyncio.gather(*(look(place) for place in range(POOL_PLACES)))

    # as the writer

    async def leave(self, device: PeerId, item: OutboxItem) -> bool:
        """Leave a device that gave us no grant our first message; return whether it waits there now. One in a week."""
        chat, node = self._chat, self._chat.node
        if isinstance(item.party, Hall) or chat.directory.state_of(item.party) != "accepted":
            return False
        now_s, now = chat.now_ms() // 1000, node.network.monotonic()
        waiting = await chat.store.database.read(lambda c: _left(c, device, now_s))
        if waiting is not None:
            return waiting == item.position
        if (
            len(item.text.encode()) > MAX_FIRST_TEXT_BYTES
            or not node.mail_ready()
            or now < self._tried.get(device, now)
        ):
            return False
        self._tried.pop(device, None)
        self._tried[device] = now + AGAIN_S
        if len(self._tried) > MAX_TRIED:
            del self._tried[next(iter(self._tried))]
        note = await self._note_of(device)
        if note is None or (isinstance(item.party, UserId) and note.user != item.party):
            return False
        message = LetterMessage(item.id, item.sequence, item.sent_at_ms, item.text)
        try:
            letter = seal_first(
                device, note.key, node.key, node.user_id, chat.links.proof, node.settings.name, message,
                node.network.token_bytes(32),
            )  # fmt: skip
        except ValueError:
            chat.drops["mail_bad_note"] += 1
            return False
        async with self._working:
            place, above = await self._choose(pool_of(device))
            mailed = await node.leave_in_pool(pool_of(device), place, letter, tries=TRIES, above=above)
        if not mailed.stored or 2 * mailed.stored < mailed.tried:
            log.info("first_letter_not_left", peer=str(device), stored=mailed.stored)
            return False
        if await chat.store.database.write(lambda c: _put_left(c, device, item.position, mailed.expires)):
            chat.emit(MessageStateChanged(item.id.hex(), item.party, "stored"))
        chat.deliveries.stored(item.id.hex(), device)
        return True

    async def devices_of(self, user: UserId) -> tuple[PeerId, ...]:
        """Return the devices of an account that has been away for so long that its record has ended: those that its
        list of the last week names, and that name it."""
        found = await self._chat.node.read_mail(user.raw, NOTE_PART)
        if found is None:
            return ()
        try:
            listed = decode_devices_untrusted(found.value).devices
        except BadPacket as bad:
            self._chat.drops[f"mail_list_{bad.reason}"] += 1
            return ()
        asked = self._chat.devices.listed(user, listed)[:DEVICES_ASKED]
        notes = await asyncio.gather(*(self._note_of(device) for device in asked))
        proven = [device for device, note in zip(asked, notes, strict=True) if note is not None and note.user == user]
        for device in proven:
            self._chat.directory.learn(DeviceRow(device, user, self._chat.directory.name_of(device)))
        return tuple(proven)

    async def _note_of(self, device: PeerId) -> Note | None:
        found = await self._chat.node.read_mail(device.raw, NOTE_PART)
        try:
            return Note.decode_untrusted(found.value) if found is not None else None
        except BadPacket as bad:
            self._chat.drops[f"mail_note_{bad.reason}"] += 1
            return None

    async def _choose(self, pool: bytes) -> tuple[int, int]:
        """Return a place that is free, else the one with the least work in it, and what work that is."""
        places = list(range(POOL_PLACES))
        self._chat.node.network.rng.shuffle(places)
        least = (2**63, 0)
        for place in places:
            found = await self._chat.node.look_in_pool(pool, place)
            if found is None:
                return place, 0
            least = min(least, (found.seq, place))
        return least[1], least[0]


def _left(connection: sqlite3.Connection, device: PeerId, now_s: int) -> int | None:
    """Return which message waits in a device's pool."""
    row = connection.execute(
        "SELECT message FROM mail_left WHERE device = ? AND expires > ?", (device.raw, now_s)
    ).fetchone()
    return row[0] if row is not None else None


def _put_left(connection: sqlite3.Connection, device: PeerId, message: int, expires: int) -> bool:
    """Note that a message was left; return whether its state is another one now."""
    connection.execute(
        "INSERT OR REPLACE INTO mail_left (device, message, expires) VALUES (?, ?, ?)", (device.raw, message, expires)
    )
    changed = connection.execute(
        "UPDATE messages SET state = 'stored', reason = '' WHERE position = ? AND state = 'queued'", (message,)
    )
    return bool(changed.rowcount)
