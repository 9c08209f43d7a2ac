"""Reads and publishes reports. Reports that we made are announced by throw-away nodes of their own, again and again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from p2pnode import AccountKey, BadPacket, P2PError
from p2pnode.chat.strangers.judging import Board
from p2pnode.chat.strangers.ports import MaskNode
from p2pnode.chat.strangers.receipts import (
    Receipt,
    device_key,
    epoch_of,
    read_report_untrusted,
    report_value,
    reports_topic,
)
from p2pnode.chat.strangers.store import MAX_MADE, StrangerStore

__all__ = ["Reports"]

log = structlog.get_logger(__name__)

# Chosen by us.
READ_S = 2.5  # a conversation does not wait longer for what others say; half a second is usual
READ_AGAIN_S = 300.0
MAX_READ = 512  # entries of a topic, four full shards: who floods his own hides among them what others say of him
REPORT_LIFE_S = 3_600.0  # a holder's limit
CARRY_EVERY_S = 2_400.0
RETRY_S = 30.0
FIRST_CARRY_S = 60.0  # after the start of the program, at the earliest


class Reports:
    """Of one device."""

    def __init__(self, make_node: Callable[[], MaskNode]) -> None:
        self.board = Board()
        self._make_node = make_node
        self._store: StrangerStore | None = None
        self._secret = bytes(32)
        self._made: dict[bytes, tuple[int, bytes]] = {}
        self._read_at: dict[bytes, float] = {}
        self._due = asyncio.Event()

    async def load(self, store: StrangerStore, new_secret: bytes, now: float) -> None:
        """Begin with what is on the disk. Raise StorageError."""
        kept = await store.load(new_secret, now)
        self._store, self._secret = store, kept.secret
        for device, reports in kept.seen.items():
            self.board.add(device, reports)
        self._made = {device: (at, value) for device, at, value in kept.made[-MAX_MADE:]}

    def key_at(self, at: float) -> AccountKey:
        """Return our own blinded key of the week of `at`."""
        return device_key(self._secret, epoch_of(at))

    async def wanted(self, node: MaskNode, device: bytes, epoch: int) -> bool:
        """Whether we may talk to a device now, after a look at the reports against it."""
        await self.read(node, device, epoch)
        return self.board.is_drawn(device, node.network.wall())

    async def read(self, node: MaskNode, device: bytes, epoch: int) -> None:
        """Read the reports against a device through `node`, unless that was done a moment ago."""
        now = node.network.monotonic()
        self._read_at = {each: at for each, at in self._read_at.items() if at > now - READ_AGAIN_S}
        if device in self._read_at:
            return
        self._read_at[device] = now
        answered = False
        try:
            async with asyncio.timeout(READ_S):
                listing = await node.topic(reports_topic(device, epoch), limit=MAX_READ)
            answered = listing.answered > 0
        except (TimeoutError, P2PError):
            return
        finally:
            if not answered:  # also when the search was given up meanwhile: who asks again is not taken unseen
                self._read_at.pop(device, None)
        valid: dict[bytes, float] = {}
        for member in listing.members:
            try:
                at = read_report_untrusted(member.value, member.peer.raw, device, epoch, node.network.wall())
            except BadPacket as bad:
                log.info("report_refused", reason=bad.reason)
            else:
                valid[member.peer.raw] = float(at)
        news = self.board.add(device, valid)
        if self._store is not None:
            self._store.saw(device, news)

    async def make(self, receipt: Receipt, device: bytes, signature: bytes) -> None:
        """Report the other side of a conversation: on disk when this returns, announced soon. Raise StorageError."""
        key, value = self.key_at(receipt.at), report_value(receipt, signature)
        if self._store is not None:
            await self._store.report(device, key.public_raw, receipt.at, value)
        self.board.add(device, {key.public_raw: float(receipt.at)})
        self._made[device] = receipt.at, value
        self._due.set()

    async def carry(self) -> None:
        """Announce what we reported, for as long as the chat runs."""
        first = True
        while True:
            if not self._made:
                await self._due.wait()
            elif not self._due.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_CARRY_S if first else CARRY_EVERY_S):
                        await self._due.wait()
            self._due.clear()
            first = False
            node = self._make_node()
            try:
                await node.start()
                if not await self._announce_all(node):
                    asyncio.get_running_loop().call_later(RETRY_S, self._due.set)
            except P2PError as exc:
                log.info("reports_not_announced", code=exc.code)
            finally:
                await node.stop()

    async def _announce_all(self, node: MaskNode) -> bool:
        """Return whether somebody holds each of them."""
        now, held = node.network.wall(), True
        for device, (at, value) in list(self._made.items()):
            epoch = epoch_of(at)
            if epoch < epoch_of(now):
                del self._made[device]  # the id that it was about is not used any more
                continue
            topic, key = reports_topic(device, epoch), self.key_at(at)
            held &= (await node.announce(topic, value, key=key, life=REPORT_LIFE_S)).stored > 0
            node.abandon(topic, key=key)  # it stays when this node stops
        return held
