"""Being told of letters: the slots in which the next ones would stand are watched at their holders.

A contact that cannot reach us although we are here leaves a letter; without this it would lie there until the next
look. Who holds the lease learns what each look tells anyway: that our node waits for what a random key names.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from p2pnode import P2PError
from p2pnode.chat.mail import tables
from p2pnode.chat.mail.letters import Slot

if TYPE_CHECKING:
    from p2pnode.chat.mail.fetching import Fetching
    from p2pnode.chat.mail.granting import Granting
    from p2pnode.chat.service import Chat

__all__ = ["Awaiting"]

log = structlog.get_logger(__name__)

MAX_WATCHED = 128  # slots, one of a device; about 50 datagrams an hour each, and beyond it they are looked into
LOOK_S = 1.0  # changes that come together are looked at once
AGAIN_S = (0.0, 2.0, 5.0, 20.0)  # before a look into a chain of which we were told: further parts may be on their way
ENOUGH = 2  # holders that tell us: the next look has time


class Awaiting:
    """Keeps the node's watches in step with the chains that others write in."""

    def __init__(self, chat: Chat, granting: Granting, fetching: Fetching) -> None:
        self._chat, self._granting, self._fetching = chat, granting, fetching
        self._watched: dict[bytes, tuple[int, bytes]] = {}  # by grant: number and seed of its next slot
        self._timer: asyncio.TimerHandle | None = None
        self._reading: set[bytes] = set()

    def look(self) -> None:
        """Chains, contacts or sessions have changed."""
        if self._timer is None and not self._chat.stopping:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def covers(self, grant: tables.Given) -> bool:
        """Whether holders will tell us of the next letter in a chain."""
        base, seed = self._watched.get(grant.id, (-1, b""))
        return base == grant.base and self._chat.node.mail_watchers(seed, 0) >= ENOUGH

    def _start(self) -> None:
        self._timer = None
        self._chat.start_task(self._look(), "chat-mail-watch")

    async def _look(self) -> None:
        node = self._chat.node
        try:
            given = await self._chat.store.database.read(tables.given)
        except P2PError as exc:
            log.warning("mail_not_watched", reason=exc.code)
            return
        wanted = [each for each in given if each.used is None and self._granting.is_friend(each.device)][:MAX_WATCHED]
        slots = {each.id: each for each in wanted}
        for grant, (base, seed) in list(self._watched.items()):
            if grant not in slots or slots[grant].base != base:
                node.unwatch_mail(seed, 0)
                del self._watched[grant]
        for each in wanted:
            # A watch begins while its writer is not here, but outlives the session: they come and go all the time.
            if each.id in self._watched or node.session(each.device) is None:
                _, seed = self._watched.setdefault(each.id, (each.base, Slot(each.secret).seed))
                node.watch_mail(seed, 0, partial(self._heard, each.id))  # once more: we may be in another realm now

    def _heard(self, grant: bytes) -> None:
        if grant in self._watched and grant not in self._reading:
            self._reading.add(grant)
            self._chat.start_task(self._read(grant, self._watched[grant][0]), "chat-mail-told")

    async def _read(self, grant: bytes, base: int) -> None:
        try:
            for pause in AGAIN_S:
                await asyncio.sleep(pause)
                given = await self._chat.store.database.read(tables.given)
                found = next((each for each in given if each.id == grant and each.base == base), None)
                if found is None:
                    return
                await self._fetching.fetch(found)
        except P2PError as exc:
            log.warning("mail_failed", reason=exc.code, why=exc.message)
        finally:
            self._reading.discard(grant)
            self.look()
