"""Who is there: one board for all that a node learns of its peers, and watches for those that the user knows.

`Node.watch(peer)` subscribes to the peer's presence at its holders, in each realm that we are in (`dht.Watcher`). All
other evidence comes in here too: lookups, sessions, the local network. Each change of the verdict is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket, P2PError, PeerNotFoundError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, SignedRecord, Told
from p2pnode.events import NodeEvent, PresenceChanged
from p2pnode.evidence import Knowledge, RecordHeard, Verdict
from p2pnode.finding import Finder
from p2pnode.presence import FindResult, Presence, presence_salt
from p2pnode.reachability import NatKind
from p2pnode.reaching import Reaching
from p2pnode.session import Session
from p2pnode.sessions import SessionTable
from p2pnode.state import NodeState

__all__ = ["PresenceBoard"]

log = structlog.get_logger(__name__)

MAX_WATCHED = 256  # peers; about 5 kB each with their three leases
MAX_KNOWN = 1_024  # peers that something was learned of, about 1 kB each; the longest untouched goes first
PROBES = (0.0, 20.0)  # s after a session broke: attempts to reach the peer anew
DOUBT_S = 20.0  # within which a search for a newer record has ended
PROBE_TIMEOUT_S = 10.0
PROBES_AT_ONCE = 8
SUPERSEDED = frozenset({"duplicate", "replaced"})  # another session with the same peer takes over


class PresenceBoard:
    """The verdicts on all peers of one node."""

    def __init__(
        self,
        *,
        dht: Dht,
        network: Network,
        state: NodeState,
        sessions: SessionTable,
        reaching: Reaching,
        allow_documentation: bool,
        local_addresses: Callable[[PeerId], tuple[Address, ...]],
        connect: Callable[[PeerId, float], Awaitable[object]],
        emit: Callable[[NodeEvent], None],
    ) -> None:
        """`connect(peer, timeout)`: to see whether somebody whose session broke is still there."""
        self._dht, self._network, self._state = dht, network, state
        self._sessions, self._reaching = sessions, reaching
        self._allow_documentation = allow_documentation
        self._local_addresses, self._connect, self._emit = local_addresses, connect, emit
        self._known: OrderedDict[PeerId, Knowledge] = OrderedDict()
        self._watched: dict[PeerId, set[Realm]] = {}
        self._told: dict[PeerId, tuple[Verdict, tuple[Address, ...]]] = {}
        self._timers: dict[PeerId, asyncio.TimerHandle] = {}
        self._doubted: set[PeerId] = set()
        self._probing = asyncio.Semaphore(PROBES_AT_ONCE)
        self._tasks = TaskSet()
        self._stopped = False

    # what the node calls

    def watch(self, peer: PeerId) -> bool:
        """Tell of this peer's coming and going from now on. False: too many are watched."""
        if peer in self._watched:
            return True
        if len(self._watched) >= MAX_WATCHED:
            log.warning("too_many_watched", peer=str(peer))
            return False
        self._watched[peer] = set()
        for realm in self._dht.realms():
            self._watch_in(peer, realm)
        self._review(peer)
        return True

    def unwatch(self, peer: PeerId) -> None:
        for realm in self._watched.pop(peer, ()):
            self._dht.watcher.unwatch(peer.raw, presence_salt(realm), realm)
        self._told.pop(peer, None)
        self._doubted.discard(peer)
        if (timer := self._timers.pop(peer, None)) is not None:
            timer.cancel()

    def watched(self) -> tuple[PeerId, ...]:
        return tuple(self._watched)

    def verdict(self, peer: PeerId) -> PresenceChanged | None:
        """Return what is known now, None when that is nothing."""
        verdict = self._judge(peer)
        return None if verdict.state == "unknown" else self._event(peer, verdict)

    def joined(self, realm: Realm) -> None:
        """There is somebody in this realm now."""
        for peer in self._watched:
            self._watch_in(peer, realm)

    def moved(self, *, address: bool) -> None:
        """How we are reached has changed; `address`: our own addresses, so that all leases are at the old ones."""
        symmetric = self._reaching.nat in (NatKind.ADDRESS_DEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT)
        self._dht.watcher.reached_through(self._reaching.rendezvous, long=symmetric)
        if address:
            self._dht.watcher.renew()
            for peer in self._watched:  # perhaps it was we who were away
                known = self._known.get(peer)
                if known is not None and known.lost_at is not None:
                    self._tasks.spawn(self._probe(peer, known))

    async def stop(self) -> None:
        self._stopped = True
        await self._tasks.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # what is learned

    async def find(
        self, finder: Finder, peer: PeerId, timeout: float, on_found: Callable[[FindResult], None] | None
    ) -> FindResult:
        """Look a peer up; return the verdict on all that is known. Raise PeerNotFoundError, P2PTimeoutError."""
        try:
            result, heard = await finder.look(peer, timeout=timeout, on_found=on_found)
        except PeerNotFoundError:
            verdict = self._judge(peer)
            if not verdict.evidence.startswith(("session", "goodbye")):
                raise
            result, heard = FindResult(peer, False, 0.0, (), "", None, 0, 0.0), {}  # we were in contact with it
        known = self._of(peer)
        for realm, (got, presence) in heard.items():
            if presence is not None and got.record is not None:
                known.heard(realm, _record_heard(got.record, presence, "record", len(got.holders)))
        verdict = self._judge(peer)
        self._review(peer, tell=True)
        if verdict.state == "unknown":
            return result
        return replace(
            result,
            online=verdict.online,
            state=verdict.state,
            age_s=result.age_s if verdict.age_s is None else verdict.age_s,
            evidence=verdict.evidence,
            holders=verdict.holders,
            last_seen=verdict.last_seen,
        )

    def session_opened(self, session: Session) -> None:
        self._of(session.peer).session_opened(self._network.monotonic(), self._network.wall())
        self._review(session.peer, tell=True)

    def session_ended(self, session: Session, reason: str) -> None:
        peer, now, wall = session.peer, self._network.monotonic(), self._network.wall()
        why = session.connection.close_reason
        remote = why is not None and why.origin == "remote"
        lost = reason == "lost" or (why is not None and why.origin in ("lost", "transport"))
        if reason in SUPERSEDED or self._stopped:
            return
        known = self._of(peer)
        known.session_ended(now, wall, session.connection.silent_s, lost=lost, left=remote and reason == "stopping")
        if lost and peer in self._watched:
            self._tasks.spawn(self._probe(peer, known))
        self._review(peer)

    def _told_of(self, peer: PeerId, realm: Realm, told: Told) -> None:
        """A watch brought something."""
        record, salt = told.record, presence_salt(realm)
        if told.how == "lookup" and peer in self._doubted:
            asyncio.get_running_loop().call_soon(self._settle_doubt, peer)  # whatever it brought
        if record is None or not self._state.accept_seq(peer.raw + salt, record.seq):
            return
        try:
            presence = Presence.decode_untrusted(record.value, realm, allow_documentation=self._allow_documentation)
        except BadPacket as exc:
            log.warning("presence_unreadable", peer=str(peer), reason=exc.reason)
            return
        how = "record" if told.how == "lookup" else "notice"
        self._of(peer).heard(realm, _record_heard(record, presence, how, told.holders))
        self._review(peer)

    # parts

    def _of(self, peer: PeerId) -> Knowledge:
        known = self._known.setdefault(peer, Knowledge())
        self._known.move_to_end(peer)
        if len(self._known) > MAX_KNOWN:
            stranger = next((p for p in self._known if p not in self._watched), peer)
            del self._known[stranger]
        return known

    def _watch_in(self, peer: PeerId, realm: Realm) -> None:
        if realm not in self._watched[peer]:
            self._watched[peer].add(realm)
            salt = presence_salt(realm)
            self._dht.watcher.watch(peer.raw, salt, realm, lambda told: self._told_of(peer, realm, told))

    def _judge(self, peer: PeerId) -> Verdict:
        known = self._known.get(peer)
        on_lan = bool(self._local_addresses(peer))
        if known is None:
            return Verdict("online", None, "lan") if on_lan else Verdict("unknown")
        session = self._sessions.get(peer)
        silent_s = session.connection.silent_s if session is not None else 0.0
        return known.verdict(self._network.monotonic(), self._network.wall(), silent_s=silent_s, on_lan=on_lan)

    def _event(self, peer: PeerId, verdict: Verdict) -> PresenceChanged:
        known = self._known.get(peer)
        record = known.newest() if known is not None else None
        return PresenceChanged(
            peer,
            verdict.online,
            verdict.age_s or 0.0,
            record.name if record is not None else "",
            record.user if record is not None else None,
            state=verdict.state,
            evidence=verdict.evidence,
            holders=verdict.holders,
            last_seen=verdict.last_seen,
            addresses=known.addresses(self._network.wall()) if known is not None else (),
        )

    def _review(self, peer: PeerId, *, tell: bool = False) -> None:
        """Tell when the verdict is another one, or the addresses are; and look again when time may change it.

        `tell`: in any case, also of somebody who is not watched.
        """
        if self._stopped or (not tell and peer not in self._watched):
            return
        verdict = self._judge(peer)
        event = self._event(peer, verdict)
        before = self._told.get(peer)
        if self._doubts(peer, before, verdict):
            return
        moved = before is not None and bool(event.addresses) and before[1] != event.addresses
        if verdict.state != "unknown" and (tell or before is None or before[0].state != verdict.state or moved):
            if peer in self._watched:
                self._told[peer] = verdict, event.addresses
            self._emit(event)
        if (timer := self._timers.pop(peer, None)) is not None:
            timer.cancel()
        known = self._known.get(peer)
        now = self._network.monotonic()
        at = known.changes_at(now, self._network.wall()) if known is not None and peer in self._watched else None
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timers[peer] = loop.call_later(max(0.0, at - now) + 0.01, self._review, peer)

    def _doubts(self, peer: PeerId, before: tuple[Verdict, object] | None, verdict: Verdict) -> bool:
        """Whether to ask the whole neighbourhood before a record is said to have expired: the three that should have
        told us of a newer one may be liars (security.md E1)."""
        expired = before is not None and before[0].online and verdict.evidence in ("record", "notice")
        if not expired or verdict.online:
            return False
        if peer not in self._doubted:
            realms = [r for r in self._watched.get(peer, ()) if r in self._of(peer).records]
            asked = [self._dht.watcher.doubt(peer.raw, presence_salt(realm), realm) for realm in realms]
            if not any(asked):
                return False
            self._doubted.add(peer)
            asyncio.get_running_loop().call_later(DOUBT_S, self._settle_doubt, peer)
        return True

    def _settle_doubt(self, peer: PeerId) -> None:
        """The search has ended, or took too long: what is known now is said."""
        if peer in self._doubted:
            self._doubted.discard(peer)
            if not self._judge(peer).online:
                self._told.pop(peer, None)
            self._review(peer)

    async def _probe(self, peer: PeerId, known: Knowledge) -> None:
        """Try to reach somebody whose session broke: being reached is the newest evidence that there can be."""
        broke_at = known.lost_at
        for pause in PROBES:
            await asyncio.sleep(pause)
            async with self._probing:
                if known.lost_at != broke_at or peer not in self._watched:
                    return
                with contextlib.suppress(P2PError):
                    await self._connect(peer, PROBE_TIMEOUT_S)
                    return


def _record_heard(record: SignedRecord, presence: Presence, how: str, holders: int) -> RecordHeard:
    return RecordHeard(
        record.seq,
        record.expires,
        presence.online,
        how,
        holders,
        presence.addresses,
        presence.name,
        presence.user,
    )
