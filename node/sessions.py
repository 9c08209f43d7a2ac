"""The open sessions: at most one per peer, closed when idle.

Rules. Two connections that cross (each side dialled the other within a few seconds) end in one: the one dialled by
the smaller public key stays, on both sides alike. Of twins (one side dialled two addresses of the other at once) the
first stays. Any other second connection replaces the first, which is most likely dead (its peer restarted). The loser
lives on for two seconds, so that what was under way on it arrives; should the winner end meanwhile (its dialler had
already given it up for the other one), the loser is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.nat import Connection
from p2pnode.session import Session
from p2pnode.trace import Trace

__all__ = ["SessionTable", "crossing_winner"]

log = structlog.get_logger(__name__)

TWIN_S = 1.0  # no program restarts and dials again so soon
CROSSING_S = 5.0  # two dials are one crossing when the connections opened within this time of each other
LOSER_LINGER_S = 2.0  # above a round trip on any path, so that a crossing is settled before the loser ends


def crossing_winner(ours: PeerId, theirs: PeerId, *, existing_is_ours: bool) -> bool:
    """Whether the existing one of two crossing connections stays: the one that the smaller key dialled."""
    return (ours < theirs) == existing_is_ours


class SessionTable:
    """Open sessions by peer.

    `serve` is called for every proven connection, also one that loses at once: the other side may already be using it.
    `opened` and `ended` are called for each session that applications get to see. When `ended` is called for one that
    another follows, `get` returns that one: what is known of the ways to the peer is still of use.
    """

    def __init__(
        self,
        own: PeerId,
        network: Network,
        idle_timeout: float,
        *,
        serve: Callable[[Session], None],
        opened: Callable[[Session], None],
        ended: Callable[[Session, str], None],
    ) -> None:
        self._own = own
        self._network = network
        self._idle_timeout = idle_timeout
        self._serve = serve
        self._opened = opened
        self._ended = ended
        self._sessions: dict[PeerId, Session] = {}
        self._arrivals: dict[PeerId, set[asyncio.Future[Session]]] = {}
        self._timers: dict[Session, asyncio.TimerHandle] = {}
        self._lingering: dict[Session, asyncio.TimerHandle] = {}

    def get(self, peer: PeerId) -> Session | None:
        session = self._sessions.get(peer)
        return session if session is not None and not session.closed else None

    def all(self) -> list[Session]:
        return [s for s in self._sessions.values() if not s.closed]

    def adopt(self, connection: Connection, trace: Trace) -> Session:
        """Take a proven connection in; return the session that stays (it may be the one that was there)."""
        peer = connection.peer
        existing = self.get(peer)
        if existing is not None:
            apart = abs(connection.opened_at - existing.opened_at)
            twin = existing.initiator == connection.initiator and apart < TWIN_S
            crossing = existing.initiator != connection.initiator and apart < CROSSING_S
            if twin or (crossing and crossing_winner(self._own, peer, existing_is_ours=existing.initiator)):
                self._linger(self._session(connection, trace), "duplicate")
                return existing
            session = self._sessions[peer] = self._session(connection, trace)
            self._forget(existing, "duplicate" if crossing else "replaced")
            if existing.connection.in_doubt and not crossing:
                existing.close("replaced")  # nothing arrives on it, and what waits there is to go by the new one
            else:
                self._linger(existing, "duplicate" if crossing else "replaced")
        else:
            session = self._session(connection, trace)
        self._take(session)
        return session

    def _session(self, connection: Connection, trace: Trace) -> Session:
        session = Session(connection, trace, self._network.monotonic)
        self._serve(session)
        return session

    def _take(self, session: Session) -> None:
        self._sessions[session.peer] = session
        session.connection.on_closed.append(lambda reason: self._connection_closed(session, str(reason)))
        self._arm_idle(session)
        for future in self._arrivals.pop(session.peer, ()):
            if not future.done():
                future.set_result(session)
        self._opened(session)

    def arrival(self, peer: PeerId) -> asyncio.Future[Session]:
        """Return a future for the next session with `peer`; cancel it when no longer wanted."""
        future: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._arrivals.setdefault(peer, set()).add(future)
        future.add_done_callback(lambda f: self._drop_arrival(peer, f))
        return future

    def close_those(self, meant: Callable[[PeerId], bool], reason: str) -> None:
        """Close all sessions with the peers meant; lingering ones too, or they would take the places of the others."""
        for session in [*self._lingering, *self._sessions.values()]:
            if meant(session.peer):
                session.close(reason)

    def close(self, reason: str = "stopping") -> None:
        """Close all, for good."""
        self.close_those(lambda _peer: True, reason)
        for handle in [*self._timers.values(), *self._lingering.values()]:
            handle.cancel()
        self._timers.clear()
        self._lingering.clear()
        for futures in self._arrivals.values():
            for future in list(futures):
                future.cancel()

    def _drop_arrival(self, peer: PeerId, future: asyncio.Future[Session]) -> None:
        waiting = self._arrivals.get(peer)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                self._arrivals.pop(peer, None)

    def _connection_closed(self, session: Session, reason: str) -> None:
        if self._sessions.get(session.peer) is not session:
            return
        loser = next((each for each in self._lingering if each.peer == session.peer and not each.closed), None)
        heir: Session | None = None
        if loser is not None:
            self._lingering.pop(loser).cancel()
            heir = self._sessions[session.peer] = self._session(loser.connection, loser.trace)
        self._forget(session, session.end_reason or reason)
        if heir is not None:
            self._take(heir)

    def _forget(self, session: Session, reason: str) -> None:
        if session.end_reason is None:
            session.end_reason = reason
        timer = self._timers.pop(session, None)
        if timer is not None:
            timer.cancel()
        if self._sessions.get(session.peer) is session:
            del self._sessions[session.peer]
        self._ended(session, reason)

    def _linger(self, session: Session, reason: str) -> None:
        session.end_reason = reason

        def end() -> None:
            self._lingering.pop(session, None)
            session.close(reason)

        self._lingering[session] = asyncio.get_running_loop().call_later(LOSER_LINGER_S, end)

    def _arm_idle(self, session: Session) -> None:
        due = session.connection.last_used_at + self._idle_timeout
        self._timers[session] = asyncio.get_running_loop().call_at(due, self._check_idle, session)

    def _check_idle(self, session: Session) -> None:
        if session.closed:
            return
        if self._network.monotonic() - session.connection.last_used_at >= self._idle_timeout - 0.001:
            log.info("session_idle_closed", peer=str(session.peer))
            session.close("idle")
        else:
            self._arm_idle(session)
