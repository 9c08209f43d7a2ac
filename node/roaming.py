"""Roaming: sessions live on when our own network becomes another one, or the machine has slept.

For each session: a ping by each path that it knows; who is reached by it follows us (RFC 9000, section 9.3). Where
nothing is heard, both sides meet anew beneath the session (`improving`): offer, answer, checks, which open both
routers, and relays. Where the peer has given the session up, as it does while we sleep, a new one takes its place.

What happens to the other side, or to a router in between, shows as silence; `pathways` hears of that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from p2pnode.core.errors import P2PError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.session import Session
from p2pnode.sessions import SessionTable

__all__ = ["Roaming"]

log = structlog.get_logger(__name__)

# Chosen by us; seconds.
CLOCK_S = 1.0  # how often the clocks are compared
SLEPT_S = 3.0  # the wall clock went ahead of ours by so much: the machine slept, or its clock was set (then no harm)
GIVEN_UP_S = 5.0  # who sent to us while we slept has given the session up by then (QuicSettings.lost_after_s)
PATIENCE_S = 0.3  # until a ping is answered; on long lines more
MEETING_S = 2.5  # what offer, answer, checks and a relay get before a new session is tried
ROUTES_S = 5.0  # between two looks because of routes: a machine full of containers changes some every second
CALLED_AGAIN_S = 5.0  # offers later than this after a session's beginning are no crossing calls
POLL_S = 0.05
AT_ONCE = 8  # new sessions under way: a node with a thousand of them must not flood its new line


class Roaming:
    """Of one node."""

    def __init__(
        self, *, network: Network, sessions: SessionTable, improve: Callable[[PeerId], None],
        renew: Callable[[PeerId], Coroutine[Any, Any, Session]], refresh: Callable[[], None],
    ) -> None:  # fmt: skip
        """`improve`: look for paths beneath the session with a peer. `renew`: a new session in the place of the open
        one. `refresh`: learn anew how we are seen, and be found there."""
        self._network = network
        self._sessions = sessions
        self._improve, self._renew, self._refresh = improve, renew, refresh
        self._tasks = TaskSet()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._watched: dict[Session, asyncio.Task[None]] = {}
        self._routes_at = float("-inf")
        self._routes_task: asyncio.Task[None] | None = None
        self._wall_ahead_s = network.wall() - network.monotonic()
        self._clock: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._watch_clocks(self._network.monotonic())

    async def stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        await self._tasks.cancel()

    def network_changed(self, *, slept_s: float = 0.0) -> None:
        """Our addresses or routes are others, or the machine slept."""
        self._refresh()
        for session in self._sessions.all():
            session.connection.doubt()
            if (before := self._watched.get(session)) is not None:
                before.cancel()  # a change comes in parts: the old network went, the new one is there
            task = self._tasks.spawn(self._look_after(session, given_up=slept_s >= GIVEN_UP_S))
            self._watched[session] = task
            task.add_done_callback(partial(self._looked_after, session))

    def called(self, peer: PeerId) -> None:
        """A peer made an offer. With a session that is not just beginning: it does not hear us there."""
        session = self._sessions.get(peer)
        if session is not None and self._network.monotonic() - session.opened_at > CALLED_AGAIN_S:
            session.connection.doubt()

    def routes_changed(self) -> None:
        """Interfaces or default routes are others, our addresses the same: another router, or containers that come and
        go. Every five seconds at most."""
        if self._routes_task is None or self._routes_task.done():
            self._routes_task = self._tasks.spawn(self._take_routes())

    async def _take_routes(self) -> None:
        await asyncio.sleep(max(0.0, self._routes_at + ROUTES_S - self._network.monotonic()))
        self._routes_at = self._network.monotonic()
        self.network_changed()

    def _looked_after(self, session: Session, task: asyncio.Task[None]) -> None:
        if self._watched.get(session) is task:
            del self._watched[session]

    def _watch_clocks(self, began: float) -> None:
        """Linux and macOS stop the monotonic clock while they sleep, and every timer with it; Windows does not, nor
        does any system for a process that is stopped: then our own second lasts too long. A timer, no task: every
        second of every node of a simulation."""
        now = self._network.monotonic()
        before, self._wall_ahead_s = self._wall_ahead_s, self._network.wall() - now
        self._clock = asyncio.get_running_loop().call_later(CLOCK_S, self._watch_clocks, now)
        if (slept_s := max(self._wall_ahead_s - before, now - began - CLOCK_S)) >= SLEPT_S:
            log.info("slept", seconds=round(slept_s))
            self.network_changed(slept_s=slept_s)

    async def _look_after(self, session: Session, *, given_up: bool) -> None:
        rtt_s = session.rtt_s or 0.1
        if await self._is_heard(session, max(PATIENCE_S, 2.5 * rtt_s)):
            return
        log.info("session_silent", peer=str(session.peer), path=session.path)
        self._note(session, "silent since our network has changed")
        if not given_up:
            self._improve(session.peer)
            if await self._is_heard(session, max(MEETING_S, 10 * rtt_s)):
                self._note(session, "heard again")
                return
        async with self._slots:
            with contextlib.suppress(P2PError):  # the peer is gone, or nobody gets through; who needs it tries again
                await self._renew(session.peer)
                log.info("session_renewed", peer=str(session.peer))

    async def _is_heard(self, session: Session, seconds: float) -> bool:
        """Wait so long for a word from the other side; a session that ends says none."""
        until = self._network.monotonic() + seconds
        while session.connection.in_doubt and self._network.monotonic() < until:  # noqa: ASYNC110 - seldom, and short
            await asyncio.sleep(POLL_S)
        return not session.connection.in_doubt and not session.closed

    def _note(self, session: Session, what: str) -> None:
        session.trace.add(self._network.monotonic(), f"path {session.connection.path}", what)
