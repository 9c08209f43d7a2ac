"""Finds the devices of users that something is queued for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from p2pnode import Address, P2PError, PeerId, UserId
from p2pnode.chat.outbox import retry_delay

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Resolver"]

log = structlog.get_logger(__name__)

# Chosen by us.
FRESH_S = 600.0  # how long a list of devices is believed to be whole
RETRY_S = 60.0  # when the look-up failed but some device is known: not at every message
LOOKUP_TIMEOUT_S = 10.0
GREETING_TIMEOUT_S = 5.0
NEW_DEVICE_DAYS_MS = 7 * 86_400_000  # a newly found device still gets undelivered messages of the last week
MAX_DEVICES = 23  # what a device record holds


class Resolver:
    """Looks users up in the background: at the first message to them, and again when the answer is old."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._fresh_until: dict[UserId, float] = {}
        self._running: set[UserId] = set()
        self._again: set[UserId] = set()
        self._hints: dict[UserId, tuple[Address, ...]] = {}

    def hint(self, party: UserId | PeerId, addresses: Sequence[Address]) -> None:
        """Remember where a device of the user was said to be."""
        if isinstance(party, UserId) and addresses:
            self._hints[party] = tuple(addresses)
            self._fresh_until.pop(party, None)

    def begin(self, user: UserId, *, unaddressed: bool = False) -> None:
        """Look the user's devices up unless that was done lately. `unaddressed`: a message waits for any device."""
        if user in self._running:
            self._again |= {user} if unaddressed else set()
            return
        if not unaddressed and self.is_fresh(user):
            return
        self._running.add(user)
        self._chat.start_task(self._run(user), f"chat-resolve {user}")

    def is_fresh(self, user: UserId) -> bool:
        """Whether the list of the user's devices was looked up lately."""
        return self._chat.node.network.monotonic() < self._fresh_until.get(user, -1.0)

    def begin_anew(self, user: UserId) -> None:
        """The user has other devices than we knew."""
        self._fresh_until.pop(user, None)
        self.begin(user)

    async def devices(self, user: UserId) -> tuple[tuple[PeerId, ...], str]:
        """Look the user's devices up now; return (all that are known, why there are none)."""
        devices, _, reason = await self._look_up(user)
        return devices, reason

    async def _run(self, user: UserId) -> None:
        chat, failures = self._chat, 0
        try:
            while True:
                self._again.discard(user)
                devices, whole, reason = await self._look_up(user)
                if devices:
                    await self._address(user, devices)
                    self._fresh_until[user] = chat.node.network.monotonic() + (FRESH_S if whole else RETRY_S)
                    if user in self._again:
                        continue  # written between our look-up and its addressing
                    return
                chat.deliveries.looked_up(user, (), reason)
                failures += 1
                await asyncio.sleep(retry_delay(failures, chat.node.network.rng))
        finally:
            self._running.discard(user)

    async def _look_up(self, user: UserId) -> tuple[tuple[PeerId, ...], bool, str]:
        """Return (devices that proved to be the user's, whether these are all, why there are none)."""
        found = dict.fromkeys(await self._greet(user))
        whole, reason = False, ""
        if not found:
            try:
                confirmed = await self._chat.node.find_user(user, timeout=LOOKUP_TIMEOUT_S)
                found |= dict.fromkeys(confirmed)
                await self._chat.devices.found(user, confirmed)
                whole = True
            except P2PError as exc:
                reason = exc.code
                log.debug("user_not_found", user=str(user), reason=reason)
                if not self._chat.directory.devices_of(user):
                    found |= dict.fromkeys(await self._chat.mail.pool.devices_of(user))
        # learned since, by their own proof, or known from earlier: better than none
        found |= dict.fromkeys(self._chat.directory.devices_of(user))
        return self._chat.devices.listed(user, tuple(found))[:MAX_DEVICES], whole, reason

    async def _greet(self, user: UserId) -> list[PeerId]:
        """Ask those who listen where the user was said to be whose device they are."""
        found = []
        for address in self._hints.pop(user, ())[:4]:
            try:
                async with asyncio.timeout(GREETING_TIMEOUT_S):
                    peer = (await self._chat.node.hello(address.ip, address.port)).peer_id
                    self._chat.links.hint(peer, (address,))
                    await self._chat.links.get(peer).introduce()
            except (P2PError, TimeoutError) as exc:
                log.debug("greeting_failed", address=str(address), reason=type(exc).__name__)
                continue
            if self._chat.directory.user_of(peer) == user:
                found.append(peer)
        return found

    async def _address(self, user: UserId, devices: Sequence[PeerId]) -> None:
        chat = self._chat
        await chat.store.outbox_add_devices(
            chat.node.peer_id, user, devices, since_ms=chat.now_ms() - NEW_DEVICE_DAYS_MS
        )
        chat.deliveries.looked_up(user, devices)
        for device in devices:
            link = chat.links.get(device)
            link.direct.reload()
            link.poke()
