"""Meets a peer anew under a live session: after a change of networks, or when its only path has gone silent.

The same offer, answer, checks and relays as in a call; what works is added to the session's paths, and the connection
moves when that is better (`nat.path_choice`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from p2pnode.core.errors import P2PError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dialing import DialCandidate
from p2pnode.presence import FindResult
from p2pnode.session import Session

__all__ = ["Improver"]

log = structlog.get_logger(__name__)

PAUSE_S = 10.0  # between two attempts for one peer
LASTS_S = 15.0
MAX_PEERS = 256  # remembered for the pause
AT_ONCE = 8  # attempts under way: a node with many sessions spreads what a change of networks costs


class Improver:
    """All such attempts of a node."""

    def __init__(
        self,
        *,
        network: Network,
        find: Callable[[PeerId], Awaitable[FindResult]],
        punch: Callable[[FindResult, DialCandidate], Coroutine[None, None, None]],
        session: Callable[[PeerId], Session | None],
    ) -> None:
        """`find(peer)`: its presence; `punch`: as in `DialAttempt`; `session`: the open one with a peer."""
        self._network = network
        self._find = find
        self._punch = punch
        self._session = session
        self._tasks = TaskSet()
        self._tried: dict[PeerId, float] = {}
        self._asked: set[PeerId] = set()
        self._hurry = asyncio.Event()
        self._turn = asyncio.Semaphore(AT_ONCE)

    def ask(self, peer: PeerId) -> None:
        """Look for a better path to a peer that has a session: now, or ten seconds after the last time."""
        if peer in self._asked or len(self._asked) >= MAX_PEERS:
            return
        now = self._network.monotonic()
        self._asked.add(peer)
        self._tasks.spawn(self._improve(peer, self._tried.get(peer, now - PAUSE_S) + PAUSE_S))

    def network_changed(self) -> None:
        """What was tried from another network says nothing about this one."""
        self._tried.clear()
        self._hurry.set()
        self._hurry = asyncio.Event()

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _improve(self, peer: PeerId, at: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at - self._network.monotonic()):
                await self._hurry.wait()
        async with self._turn:
            self._asked.discard(peer)
            self._tried.pop(peer, None)
            self._tried[peer] = self._network.monotonic()
            if len(self._tried) > MAX_PEERS:
                del self._tried[next(iter(self._tried))]
            try:
                async with asyncio.timeout(LASTS_S):
                    found = await self._find(peer)
                    session = self._session(peer)
                    if session is None or not found.rendezvous:
                        return
                    log.info("session_improving", peer=str(peer), path=session.path)
                    # Nothing is dialled: what answers a check is added to the session, and so are relays.
                    await self._punch(found, lambda _path, _why, _spend: None)
            except (P2PError, TimeoutError) as error:
                log.info("session_not_improved", peer=str(peer), error=type(error).__name__)
