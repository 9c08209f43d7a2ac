"""One attempt to open a session: dial every address we know while the lookup finds more; the first that works wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import structlog

from p2pnode.addresses import dial_order
from p2pnode.core.address import Address
from p2pnode.core.errors import (
    BothNatsRandomError,
    NoPathError,
    P2PError,
    P2PTimeoutError,
    PeerNotFoundError,
    PeerOfflineError,
    RefusedError,
    WrongKeyError,
    WrongNetworkError,
)
from p2pnode.core.ids import PeerId
from p2pnode.dht import KnownContact
from p2pnode.dial_pace import DialPace
from p2pnode.dialing_back import give_up
from p2pnode.nat import Connection, Path, QuicEndpoint
from p2pnode.presence import FindResult
from p2pnode.session import Session
from p2pnode.sessions import SessionTable
from p2pnode.trace import Trace

__all__ = ["AHEAD", "DialAttempt", "Dialer", "OnFound"]

log = structlog.get_logger(__name__)

AHEAD = "ahead of its answer"
MAX_REDIALS = 6  # of candidates whose checks go on: three rounds of two within an attempt
MAX_ADDRESSES = 10  # security.md C1: what one presence can make us send to
MAX_UNCONFIRMED = 5  # of them while the lookup goes on: an old presence must leave room for the newest one's


DialCandidate = Callable[[Path, str, Callable[[Address], bool] | None], None]
"""`dial(path, why, spend)`: `spend` is asked before each packet until the path's address answers (security.md C1); None
where it answered already."""
Punch = Callable[[FindResult, DialCandidate], Coroutine[None, None, None]]
"""`punch(found, dial)`: meet the peer through rendezvous nodes, calling `dial`; raise why it failed."""


OnFound = Callable[[FindResult], None]
"""Called with what a lookup that goes on has found so far."""
_F = TypeVar("_F", bound="asyncio.Future[Any]")


class DialAttempt:
    """Dials one peer. `run` returns a session or raises the error that helps the user most."""

    def __init__(
        self,
        peer: PeerId,
        *,
        endpoint: QuicEndpoint,
        sessions: SessionTable,
        find: Callable[[PeerId, OnFound], Awaitable[FindResult]],
        punch: Punch | None,
        usable: Callable[[Address], bool],
        allow_documentation: bool,
        pace: DialPace | None = None,
        ways: Callable[[FindResult], tuple[KnownContact, ...]] = lambda found: found.rendezvous,
    ) -> None:
        """`pace`: shared by all attempts of a node. `ways`: through whom the peer can be met."""
        self._ways_to = ways
        self._peer = peer
        self._punch = punch
        self._endpoint = endpoint
        self._sessions = sessions
        self._find = find
        self._usable = usable
        self._allow_documentation = allow_documentation
        self._pace = DialPace() if pace is None else pace
        self._loop = asyncio.get_running_loop()
        self.trace = Trace(self._loop.time())
        self._dials: dict[asyncio.Task[Connection], Path] = {}
        self._tried: set[Path] = set()
        self._candidates: dict[Path, Callable[[Address], bool] | None] = {}
        self._ahead: set[Path] = set()
        self._redials = 0
        self._punching: asyncio.Task[None] | None = None
        self._punches: list[asyncio.Task[None]] = []
        self._failures: list[P2PError] = []
        self._lookup_error: P2PError | None = None
        self._found: FindResult | None = None
        self._peer_was_first = False
        self._looked_up = False
        self._over = False
        self._ended: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()  # at most a dozen: what this attempt started

    async def run(self, hints: Iterable[Address], *, timeout: float) -> Session:
        """Try `hints` and whatever the lookup finds, all within `timeout` seconds."""
        lookup = self._watch(asyncio.ensure_future(self._find(self._peer, self._take_found)))
        arrival = self._watch(self._sessions.arrival(self._peer))
        self._note("lookup", "started")
        self._dial_addresses(hints, "known address")
        try:
            async with asyncio.timeout(timeout):
                while True:
                    session = self._settle(await self._ended.get(), lookup, arrival)
                    if session is not None:
                        return session
                    if self._looked_up and not self._dials and self._punching is None:
                        raise self._failed()
        except TimeoutError:
            self._note("attempt", "timed out")
            raise self._failed(timed_out=True) from None
        finally:
            self._over = True
            arrival.cancel()
            lookup.cancel()
            if not self._peer_was_first:
                await give_up(self._dials)
            for punching in self._punches:
                punching.cancel()
            await asyncio.gather(lookup, *self._punches, return_exceptions=True)

    def _watch(self, future: _F) -> _F:
        """Have `run` told when it is done; dials are added while `run` waits."""
        future.add_done_callback(self._ended.put_nowait)
        return future

    def _settle(
        self, done: asyncio.Future[Any], lookup: asyncio.Future[FindResult], arrival: asyncio.Future[Session]
    ) -> Session | None:
        """Take in one thing that has ended; return the session if that was it."""
        if done is arrival and not arrival.cancelled():
            session = arrival.result()
            session.trace = self.trace
            self._note("peer dialled us", f"session over {session.path}")
            # Both sides dialled. If each gave its own dial up for the other's, nothing would be left; so ours go on,
            # and the table keeps the same one on both sides.
            self._peer_was_first = True
            for task in self._dials:
                task.add_done_callback(self._late_dial_done)
            return session
        if done is lookup:
            self._take_lookup(lookup)
        elif done is self._punching:
            self._punch_ended(self._punching)
        elif isinstance(done, asyncio.Task) and done in self._dials and not done.cancelled():
            return self._dial_ended(done)
        return None

    def _dial_ended(self, task: asyncio.Task[Connection]) -> Session | None:
        path = self._dials.pop(task)
        try:
            connection = task.result()
        except P2PError as exc:
            self._failures.append(exc)
            self._note(f"dial {path}", exc.code)
            again = path in self._candidates and not isinstance(exc, WrongKeyError)
            if self._punching is not None and again and self._redials < MAX_REDIALS:
                # The checks go on, so the path may yet work: its packets were lost, or came before its router let
                # them in. `spend` bounds what it gets (C1).
                self._redials += 1
                self._tried.discard(path)
                self._dial(path, "again", self._candidates[path])
            return None
        session = self._sessions.adopt(connection, self.trace)
        self._note(f"dial {path}", f"connected ({session.path}), both keys proven")
        return session

    def _punch_ended(self, punching: asyncio.Task[None]) -> None:
        self._punching = None
        try:
            punching.result()
        except P2PError as exc:
            self._failures.append(exc)
            self._note("punch", exc.code)
            for task, path in list(self._dials.items()):
                # no check got through, so no handshake will
                if path in self._candidates and not path.relayed and not task.done():
                    del self._dials[task]
                    task.cancel()
        else:
            self._note("punch", "checks passed, but no connection came through")

    def _late_dial_done(self, task: asyncio.Task[Connection]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._sessions.adopt(task.result(), self.trace)

    def _take_lookup(self, lookup: asyncio.Future[FindResult]) -> None:
        self._looked_up = True
        try:
            found = lookup.result()
        except P2PError as exc:
            self._lookup_error = exc
            self._note("lookup", exc.code)
            return
        self._take_found(found)

    def _take_found(self, found: FindResult) -> None:
        """Go where the lookup says the peer is, also while it still goes on: the first word may be old or a lie."""
        if self._over:
            return
        before, self._found = self._found, found
        if before is None or _ways(found) != _ways(before):
            state = "online" if found.online else "offline"
            self._note("lookup", f"{state} {found.age_s:.0f} s ago, addresses: {len(found.addresses)}")
        if self._looked_up:
            self._note("lookup", f"ended, {found.queried} nodes asked")
        at_most = MAX_ADDRESSES if self._looked_up else MAX_UNCONFIRMED
        self._dial_addresses(found.addresses, "published address", at_most=at_most)
        ways = self._ways_to(found)
        if self._punch is None or not ways or (before and self._ways_to(before) == ways):
            return
        if self._punching is not None:  # through rendezvous nodes that the peer has left
            self._punching.cancel()
        self._note("punch", f"offer sent through {len(ways)} rendezvous nodes")
        self._punching = self._watch(asyncio.ensure_future(self._punch(found, self._dial_candidate)))
        self._punches.append(self._punching)

    def _dial_candidate(self, path: Path, why: str, spend: Callable[[Address], bool] | None) -> None:
        if not self._over:
            if why != AHEAD and self._candidates.keys() <= self._ahead:
                self._note("punch", "answered; its addresses are tried")
            if why == AHEAD:
                self._ahead.add(path)
            self._candidates[path] = spend
            self._dial(path, why, spend)

    def _dial_addresses(self, addresses: Iterable[Address], why: str, *, at_most: int = MAX_ADDRESSES) -> None:
        for address in dial_order(addresses, allow_documentation=self._allow_documentation):
            path = self._endpoint.path_to(address)
            if path in self._tried:
                continue
            if at_most < MAX_ADDRESSES and len(self._tried) >= at_most:
                return  # the rest when the lookup has ended
            if self._usable(address) and not self._pace.take(address, self._loop.time()):
                self._note(f"skip {path}", "nobody answered there lately")
                continue
            self._dial(path, why, None)

    def _dial(self, path: Path, why: str, spend: Callable[[Address], bool] | None) -> None:
        if path in self._tried:
            return
        if path.kind == "mux" and (len(self._tried) >= MAX_ADDRESSES or not self._usable(path.remote)):
            self._note(f"skip {path}", "not reachable from here")
            return
        self._tried.add(path)
        self._note(f"dial {path}", f"started ({why})")
        task = asyncio.ensure_future(self._endpoint.connect(self._peer, path, early=True, spend=spend))
        self._dials[self._watch(task)] = path

    def _failed(self, *, timed_out: bool = False) -> P2PError:
        error = self._verdict(timed_out=timed_out)
        error.facts["trace"] = self.trace
        return error

    def _verdict(self, *, timed_out: bool = False) -> P2PError:
        peer = str(self._peer)
        for failure in self._failures:
            if isinstance(failure, RefusedError | BothNatsRandomError | WrongNetworkError):
                return failure
        if self._found is not None and not self._found.online:
            return PeerOfflineError(
                f"{peer} said goodbye {self._found.age_s:.0f} s ago.", peer=peer, age_s=self._found.age_s
            )
        punching = [f for f in self._failures if isinstance(f, NoPathError)]
        if punching:
            return punching[0]  # says why, which "no address answers" does not
        wrong = [f for f in self._failures if isinstance(f, WrongKeyError)]
        if wrong and len(wrong) == len(self._failures):
            return wrong[0]
        if self._found is None and not self._tried:
            if self._lookup_error is not None:
                return self._lookup_error
            if timed_out:
                return P2PTimeoutError(f"Looking for {peer} took too long; try again.", peer=peer)
        if self._found is None and isinstance(self._lookup_error, PeerNotFoundError):
            return self._lookup_error
        if self._found is not None and self._found.addresses and not self._tried:
            text = f"{peer} can only be dialled, at addresses that this node cannot or may not dial (--relay-only)."
            return NoPathError(text, peer=peer, tried=[])
        return NoPathError(
            f"{peer} is known but none of its {len(self._tried)} addresses answers.",
            peer=peer,
            tried=[str(path) for path in self._tried],
        )

    def _note(self, step: str, result: str) -> None:
        self.trace.add(self._loop.time(), step, result)


def _ways(found: FindResult) -> tuple[object, ...]:
    return found.online, found.addresses, found.rendezvous


class Dialer:
    """Opens sessions; callers that want the same peer share one attempt."""

    def __init__(
        self,
        *,
        endpoint: QuicEndpoint,
        sessions: SessionTable,
        find: Callable[[PeerId, float, OnFound], Awaitable[FindResult]],
        local_addresses: Callable[[PeerId], tuple[Address, ...]],
        punch: Punch | None = None,
        usable: Callable[[Address], bool],
        allow_documentation: bool,
        ways: Callable[[FindResult], tuple[KnownContact, ...]] = lambda found: found.rendezvous,
    ) -> None:
        """`find(peer, timeout, on_found)` looks a peer up; `ways` as in `DialAttempt`;
        `local_addresses` is what the LAN told of it."""
        self._endpoint = endpoint
        self._sessions = sessions
        self._find = find
        self._local_addresses = local_addresses
        self._punch = punch
        self._usable = usable
        self._allow_documentation = allow_documentation
        self._ways = ways
        self._pace = DialPace()
        self._attempts: dict[PeerId, asyncio.Task[Session]] = {}

    async def connect(self, peer: PeerId, addresses: Sequence[Address], timeout: float) -> Session:
        """Return the open session, or one that this attempt or the one under way opens. Raise P2PError."""
        session = self._sessions.get(peer)
        if session is not None:
            return session
        return await self.renew(peer, addresses, timeout)

    async def renew(self, peer: PeerId, addresses: Sequence[Address], timeout: float) -> Session:
        """Return a new session, which takes the place of an open one. Raise P2PError."""
        attempt = self._attempts.get(peer)
        if attempt is None:
            attempt = asyncio.ensure_future(self._dial(peer, addresses, timeout))
            self._attempts[peer] = attempt
            attempt.add_done_callback(lambda task: self._attempt_done(peer, task))
        # shield: one caller that gives up must not end the attempt that others wait for
        return await asyncio.shield(attempt)

    async def stop(self) -> None:
        """Cancel all attempts."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    async def _dial(self, peer: PeerId, addresses: Sequence[Address], timeout: float) -> Session:
        attempt = DialAttempt(
            peer,
            endpoint=self._endpoint,
            sessions=self._sessions,
            find=lambda wanted, on_found: self._find(wanted, timeout, on_found),
            punch=self._punch,
            usable=self._usable,
            allow_documentation=self._allow_documentation,
            pace=self._pace,
            ways=self._ways,
        )
        return await attempt.run([*addresses, *self._local_addresses(peer)], timeout=timeout)

    def _attempt_done(self, peer: PeerId, task: asyncio.Task[Session]) -> None:
        self._attempts.pop(peer, None)
        if not task.cancelled():
            task.exception()  # retrieved: every caller may have given up meanwhile
