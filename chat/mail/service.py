"""Offline delivery: what a device cannot be given now waits for it in the network, sealed. A part of the chat.

The decisions are those of docs/design.md, "Mail"; the wire is docs/protocol/mail.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import structlog

from p2pnode import Joined, NodeEvent, P2PError, PeerId, SessionClosed, SessionOpened
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.awaiting import Awaiting
from p2pnode.chat.mail.carrying import Carrying
from p2pnode.chat.mail.fetching import Fetching
from p2pnode.chat.mail.granting import Granting
from p2pnode.chat.mail.pool import Pool
from p2pnode.chat.mail.postbox import Postbox
from p2pnode.chat.mail.sending import Sending
from p2pnode.chat.model import ChatEvent, Hall, MessageReceived, MessageStateChanged, Party
from p2pnode.chat.ports import Cancel

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Mail"]

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 20.0  # after joining: the first look may have found hardly anybody to ask
FETCH_S = 1_800.0  # between two looks into the chains of those who are not here and not watched: 60 datagrams for each
THOROUGH_EVERY = 4
ERASE_S = 60.0  # after secrets were thrown away: what else is thrown away until then leaves the files with them
SETTLE_S = 1.0  # what is delivered is noted with a later commit
LEAVE_S = 0.5  # of the two seconds that leaving may take
PATIENCE_S = 5.0  # how long the direct way is tried alone


class Mail:
    """Letters of one chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        box = Postbox(chat.node)
        self._granting = Granting(chat)
        self.fetching = Fetching(chat, box, self._granting)
        self._awaiting = Awaiting(chat, self._granting, self.fetching)
        self._granting.changed = self._chains_changed
        self.fetching.changed = self._chains_changed
        self._erasing: asyncio.TimerHandle | None = None
        self._carrying = Carrying(chat, self._granting, self.fetching)
        self.pool = Pool(chat)
        self._sending = Sending(chat, box, self._carrying.give, self.pool.leave)
        self._cancels: list[Cancel] = []
        self._impatient: dict[PeerId, asyncio.TimerHandle] = {}
        self._reasons: dict[PeerId, str] = {}
        self._wake = asyncio.Event()
        self._fetch_now = False
        self._rounds = 0

    async def start(self) -> None:
        self._granting.start()
        self._carrying.start()
        self._cancels = [self._chat.subscribe(self._chat_event), self._chat.node.subscribe(self._node_event)]
        for session in self._chat.node.sessions():
            self.look(session.peer)
        if self._chat.node.mail_ready():
            self._fetch_soon()
        self.erase_later()  # the last run may have been killed
        self._chat.start_task(self._run(), "chat-mail")
        self._chat.start_task(self.pool.run(), "chat-mail-pool")

    async def stop(self) -> None:
        await self.fetching.settle(LEAVE_S)
        for cancel in self._cancels:
            cancel()
        for timer in self._impatient.values():
            timer.cancel()
        self._awaiting.stop()
        if self._erasing is not None:
            self._erasing.cancel()

    # what the chat tells

    def look(self, peer: PeerId) -> None:
        """A device is here, or was accepted: give it the means to leave us mail."""
        self._granting.look(peer)
        self._carrying.look(peer)

    def attempt_failed(self, peer: PeerId, reason: str) -> bool:
        """A device cannot be reached; return whether letters are tried, whose outcome the message waits for."""
        if not self._may_write(peer):
            return False
        if reason == "peer_offline":
            self._sending.write(peer, reason)  # it said goodbye, or nobody has heard of it for long
        else:
            self._reasons[peer] = reason
            self._be_patient(peer)  # it may be starting again, or changing networks
        return True

    def posted(self, party: Party, devices: tuple[PeerId, ...]) -> None:
        """A message was written: if nobody answers soon, it goes into a letter, while the direct way is tried on."""
        if isinstance(party, Hall):
            return
        for device in devices:
            if self._chat.node.session(device) is None:
                self._be_patient(device)

    def forget(self, peer: PeerId) -> None:
        """Neither leave a device mail nor read what it left."""
        self._chat.store.database.write_later(lambda c: tables.drop_device(c, peer))
        self._awaiting.look()

    async def fetch(self) -> None:
        """Look for letters now."""
        await self.fetching.fetch_all(thorough=True)

    # inside

    def _chains_changed(self) -> None:
        """Letters were read, or a chain was replaced: other slots are the next ones, and secrets were thrown away."""
        self._awaiting.look()
        self.erase_later()

    def erase_later(self) -> None:
        """Secrets were thrown away: make sure that they leave the files as well."""
        if self._erasing is None:
            self._erasing = asyncio.get_running_loop().call_later(ERASE_S, self._erase)

    def _erase(self) -> None:
        self._erasing = None
        self._chat.start_task(self._empty_log(), "chat-mail-erase")

    async def _empty_log(self) -> None:
        try:
            if not await self._chat.store.database.erase():
                self.erase_later()
        except P2PError as exc:
            log.warning("mail_secrets_not_erased", reason=exc.code)

    def _may_write(self, device: PeerId) -> bool:
        """Whether somebody may take letters for a device: the network, or contacts who carry them."""
        ready = self._chat.node.mail_ready() or self._carrying.carriers(device)
        if not ready or self._chat.directory.is_blocked(device):
            return False
        if self._granting.is_friend(device):
            return True
        # A device whose user has not proven it yet: the message to be left says whether it is for a contact. What is
        # for the hall is never left, and whoever waits for its outcome hears of the failure at once.
        return self._chat.directory.user_of(device) is None and self._chat.links.get(device).direct.pending

    def _be_patient(self, device: PeerId) -> None:
        if device not in self._impatient:
            loop = asyncio.get_running_loop()
            self._impatient[device] = loop.call_later(PATIENCE_S, self._lose_patience, device)

    def _lose_patience(self, device: PeerId) -> None:
        del self._impatient[device]
        reason = self._reasons.pop(device, "timeout")
        if self._chat.node.session(device) is not None or not self._chat.links.get(device).pending:
            return
        if self._may_write(device):
            self._sending.write(device, reason)

    def _chat_event(self, event: ChatEvent) -> None:
        if isinstance(event, MessageReceived):
            self.look(event.message.author)
        elif isinstance(event, MessageStateChanged) and not isinstance(event.party, Hall):
            if event.state == "stored":
                self._wake.set()  # one more letter to look after
            elif event.state == "delivered":
                if event.id in self._sending.open:
                    self._wake.set()  # and one that is not needed any more
                for device in self._chat.directory.devices_of(event.party):
                    self.look(device)

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            self.look(event.session.peer)
        elif isinstance(event, SessionClosed):
            self._awaiting.look()
        elif isinstance(event, Joined):
            self._fetch_soon()

    def _fetch_soon(self) -> None:
        self._rounds = 0
        self._fetch_now = True
        self._wake.set()
        self.pool.joined()

    async def _run(self) -> None:
        await self._wake.wait()
        network, next_fetch, look = self._chat.node.network, math.inf, 1.0
        await self._sending.resume()
        while True:
            self._wake.clear()
            try:
                if self._fetch_now or network.monotonic() >= next_fetch:
                    self._fetch_now = False
                    pause = FETCH_S if self._rounds else FIRST_PAUSE_S
                    next_fetch = network.monotonic() + pause * network.rng.uniform(0.8, 1.2)
                    self._rounds += 1
                    thorough = self._rounds <= 2 or self._rounds % THOROUGH_EVERY == 0
                    await self.fetching.fetch_all(thorough=thorough, covered=self._awaiting.covers)
                    self._awaiting.look()
                look = await self._sending.look_after()
            except P2PError as exc:
                log.warning("mail_failed", reason=exc.code, why=exc.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.1, min(look, next_fetch - network.monotonic()))):
                    await self._wake.wait()
            if not self._fetch_now:
                await asyncio.sleep(SETTLE_S)
