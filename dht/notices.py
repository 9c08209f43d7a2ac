"""Watches: nodes ask us to tell them when a record that we hold changes (`Watch`), and we do (`Changed`). Pure.

A notice is the signed record itself, so the watcher has to believe nobody. It goes straight to a watcher that others
can reach, under the keys of its `Watch`; to one behind a NAT through its rendezvous nodes, as a forwarded blob. It is
repeated like any request, and again after 5 s; three that nobody confirms end the lease. A refresh with the same value
is no change: it would cost every watcher a datagram each five minutes, and renewals bring it anyway.

Who names a way names an address that has not proven itself to us: a `Watch` is padded to the one small ping for each
that it may cost us, nothing more goes there before it answers under its key, and few new ones per block are tried
(security.md A1, C1).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.dht.calls import Asked, Outcome
from p2pnode.dht.contact import pack_address, unpack_address_untrusted
from p2pnode.dht.limits import Budget, PrefixBudgets, prefix_of
from p2pnode.dht.messages import (
    MAX_BLOB,
    NOTICE,
    Answer,
    Changed,
    Error,
    ErrorCode,
    Forward,
    Forwarded,
    Noticed,
    Ping,
    Request,
    Watch,
    Watching,
    decode_notice_untrusted,
    encode,
)
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.watches import Watches, WatchLease, Way

if TYPE_CHECKING:
    from p2pnode.dht.engine import Engine

__all__ = ["Notices"]

NODE_ID_BYTES = 20
MISSES_TO_DROP = 3
AGAIN_S = 5.0  # after a notice that nobody confirmed
PACE_S = 1.0  # between two notices of one lease: what changes faster is told as it is then
BUSY_S = 1.0  # over a budget: looked at again
PROVE_TIMEOUT_S = 3.0
FORWARD_TIMEOUT_S = 3.0
PREFIX_RATE, PREFIX_BURST = 5.0, 300.0  # watches taken per watcher's /24 or /48: a node that starts with 100 contacts
TOTAL_RATE, TOTAL_BURST = 300.0, 1_200.0  # 50 us each
WAY_RATE, WAY_BURST = 0.2, 32.0  # unproven ways pinged per /24 or /48, as dial-backs
FORWARDS_RATE, FORWARDS_BURST = 10.0, 60.0  # notices through the ways of one /24 or /48
NOTICE_RATE, NOTICE_BURST = 300.0, 600.0  # notices sent in all: 100 us each
HEARD_RATE, HEARD_BURST = 10.0, 60.0  # notices of one /24 or /48 whose signature we check


class Notices:
    """Both roles: who holds and tells, who watches and is told."""

    def __init__(self, engine: Engine, storage: RecordStorage) -> None:
        self._engine, self._storage = engine, storage
        settings = engine.settings
        self.watches = Watches(settings.max_watches, settings.max_watches_of_key)
        self._takes = PrefixBudgets(Budget(TOTAL_RATE, TOTAL_BURST), PREFIX_RATE, PREFIX_BURST)
        self._proofs = PrefixBudgets(Budget(10.0, 100.0), WAY_RATE, WAY_BURST)
        self._forwards = PrefixBudgets(Budget(NOTICE_RATE, NOTICE_BURST), FORWARDS_RATE, FORWARDS_BURST)
        self._direct = Budget(NOTICE_RATE, NOTICE_BURST)
        self._heard = PrefixBudgets(Budget(100.0, 400.0), HEARD_RATE, HEARD_BURST)
        self._queue: list[tuple[float, int, WatchLease]] = []  # at most one entry for each lease
        self._serial = 0
        self._proving: set[Way] = set()
        self.wanted: Callable[[Realm, SignedRecord], bool] = lambda _realm, _record: False
        """Whether we watch this record, and lack this version; its signature is not checked yet."""
        self.watched: Callable[[Realm, bytes], bool] = lambda _realm, _key: False
        """Whether we watch what is under this key."""
        self.on_notice: Callable[[Realm, SignedRecord, NodeId | None], None] | None = None
        """Called with a verified record that we watch, and who sent it; None: it was stored here."""
        self.on_due: Callable[[float], None] = lambda _at: None
        """Called with a moment at which `handle_timer` wants to be called."""
        self.sent = self.confirmed = self.heard = 0
        storage.on_stored = self._stored

    # -- who holds ----------------------------------------------------------------------------------------------

    def handle(self, request: Watch | Changed, asked: Asked, now: float, wall: float) -> Answer:
        """Return the answer. Raise BadPacket."""
        if isinstance(request, Changed):
            return self._changed_untrusted(request.record, asked, Noticed(pack_address(asked.source)), now, wall)
        return self._watch_untrusted(request, asked, now, wall)

    def _watch_untrusted(self, request: Watch, asked: Asked, now: float, wall: float) -> Answer:
        observed = pack_address(asked.source)
        if asked.overlay not in self._engine.members.serving:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        ways = self._ways_untrusted(request, asked)
        if not self._takes.take(prefix_of(asked.source.ip), now):
            return Error(observed, ErrorCode.BUSY, 0)
        place = asked.overlay.realm, request.key
        held = self._storage.read(asked.overlay.realm, request.key, now)
        seq = held.seq if held is not None else 0
        node_id = asked.session.peer_id.node_id
        if request.lease == 0:
            lease = self.watches.find(place, node_id)
            if lease is not None:
                self.watches.drop(lease)
            return Watching(observed, 0, seq, None)
        known = max(seq, request.seq)
        if self.watches.grant(place, node_id, asked.source, ways, now + request.lease, known, now) is None:
            return Error(observed, ErrorCode.BUSY, 0)
        for way in ways:
            self._prove(way, now, wall)
        return Watching(observed, request.lease, seq, held if seq > request.seq else None)

    def _ways_untrusted(self, request: Watch, asked: Asked) -> tuple[Way, ...]:
        """Raise BadPacket when a way is impossible or of another realm: nobody makes us send into our own network."""
        ways = []
        for packed in request.ways:
            address = unpack_address_untrusted(packed[NODE_ID_BYTES:])
            overlay = self._engine.members.overlay_of(address.ip)
            if overlay is None or overlay.realm is not asked.overlay.realm:
                raise BadPacket("way_of_another_realm")
            ways.append((NodeId(packed[:NODE_ID_BYTES]), address))
        return tuple(ways)

    def _is_proven(self, way: Way, now: float) -> bool:
        session = self._engine.keyring.for_sending(way[0], now)
        return session is not None and way[1] in session.paths

    def _prove(self, way: Way, now: float, wall: float) -> None:
        """Have a way show its key at its address, with one small datagram; those that have are left alone."""
        if way[0] == self._engine.node_id or way in self._proving or self._is_proven(way, now):
            return
        if not self._proofs.take(prefix_of(way[1].ip), now):
            return
        self._proving.add(way)
        self._engine.call(
            way[1], way[0], Ping(), now=now, wall=wall, timeout=PROVE_TIMEOUT_S, once=True,
            on_done=lambda _outcome: self._proving.discard(way),
        )  # fmt: skip

    def _stored(self, realm: Realm, record: SignedRecord, changed: bool, now: float, wall: float) -> None:
        if self.on_notice is not None and self.wanted(realm, record):
            self.on_notice(realm, record, None)
        if changed:
            for lease in self.watches.of((realm, record.key), now):
                self._put_in(lease, max(now, lease.told_at + PACE_S))
            self.handle_timer(now, wall)

    def _put_in(self, lease: WatchLease, at: float) -> None:
        if not lease.queued:
            lease.queued = True
            self._push(lease, at)

    def _push(self, lease: WatchLease, at: float) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (at, self._serial, lease))
        self.on_due(at)

    def next_timer(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def handle_timer(self, now: float, wall: float) -> None:
        """Send what is due, within the budgets."""
        while self._queue and self._queue[0][0] <= now:
            lease = heapq.heappop(self._queue)[2]
            record = self._storage.read(*lease.place, now)
            if not self.watches.holds(lease, now) or record is None or record.seq <= lease.seq:
                lease.queued = False
            else:
                self._tell(lease, record, now, wall)

    def expire(self, now: float) -> None:
        """Forget what is over; to be called now and then."""
        self.watches.expire(now)

    def _tell(self, lease: WatchLease, record: SignedRecord, now: float, wall: float) -> None:
        """Send one notice; its end is in `_told`."""
        registered = self._engine.rendezvous.registered.find(lease.node_id, now)
        if registered is not None or not lease.ways:
            if not self._direct.take(now):
                self._push(lease, now + BUSY_S)
                return
            address = registered.address if registered is not None else lease.address
            self._send(lease, record, address, NodeId(lease.node_id), Changed(record), (), now, wall)
        else:
            self._through(lease, record, lease.ways, now, wall)

    def _through(self, lease: WatchLease, record: SignedRecord, ways: tuple[Way, ...], now: float, wall: float) -> None:
        """Hand it to the first of these ways that is proven; the rest are for when that fails."""
        for place, way in enumerate(ways):
            if not self._is_proven(way, now):
                self._prove(way, now, wall)
                continue
            if not self._forwards.take(prefix_of(way[1].ip), now):
                self._push(lease, now + BUSY_S)
                return
            blob = NOTICE + encode(record)
            if len(blob) > MAX_BLOB:
                break
            self._send(
                lease, record, way[1], way[0], Forward(lease.node_id, blob, vouch=False), ways[place + 1 :], now, wall,
                timeout=FORWARD_TIMEOUT_S,
            )  # fmt: skip
            return
        self._missed(lease, now)

    def _send(
        self, lease: WatchLease, record: SignedRecord, address: Address, node_id: NodeId, request: Request,
        others: tuple[Way, ...], now: float, wall: float, timeout: float | None = None,
    ) -> None:  # fmt: skip
        lease.told_at = now
        self.sent += 1

        def told(outcome: Outcome) -> None:
            # As long as a call takes: the engine's clocks are those of the datagram or timer that ended it.
            ended, ended_wall = self._engine.now, self._engine.wall
            if isinstance(outcome.answer, Noticed | Forwarded):
                self._confirmed(lease, record, ended)
            elif others:
                self._through(lease, record, others, ended, ended_wall)
            elif isinstance(request, Changed) and isinstance(outcome.answer, Error):
                lease.queued = False
                self.watches.drop(lease)  # it does not watch that any more
            else:
                self._missed(lease, ended)

        self._engine.call(address, node_id, request, now=now, wall=wall, on_done=told, timeout=timeout)

    def _confirmed(self, lease: WatchLease, record: SignedRecord, now: float) -> None:
        self.confirmed += 1
        lease.queued = False
        lease.misses = 0
        lease.seq = max(lease.seq, record.seq)
        held = self._storage.read(*lease.place, now)
        if held is not None and held.seq > lease.seq and held.value != record.value:
            self._put_in(lease, max(now, lease.told_at + PACE_S))

    def _missed(self, lease: WatchLease, now: float) -> None:
        lease.misses += 1
        if lease.misses >= MISSES_TO_DROP:
            lease.queued = False
            self.watches.drop(lease)
        else:
            self._push(lease, now + AGAIN_S)

    # -- who watches --------------------------------------------------------------------------------------------

    def handed_untrusted(self, blob: bytes, asked: Asked, answer: Answer, now: float, wall: float) -> Answer:
        """Take a forwarded blob that begins with NOTICE; return `answer` when it is about something that we watch.

        Whoever forwards it cannot know whether it holds, and is answered anyway: silence would end our registration.
        """
        try:
            record = decode_notice_untrusted(blob)
            return self._changed_untrusted(record, asked, answer, now, wall)
        except BadPacket as bad:
            self._engine.counters.drops[bad.reason] += 1
            return answer

    def _changed_untrusted(self, record: SignedRecord, asked: Asked, answer: Answer, now: float, wall: float) -> Answer:
        """Cheap checks first: watched at all, newer, within the budget; then the signature. Raise BadPacket."""
        if not self.watched(asked.overlay.realm, record.key):
            return Error(answer.observed, ErrorCode.NOT_HERE, 0)
        if self.wanted(asked.overlay.realm, record):
            if not self._heard.take(prefix_of(asked.source.ip), now):
                return Error(answer.observed, ErrorCode.BUSY, 0)
            record.verify(self._engine.tag, wall)
            self.heard += 1
            if self.on_notice is not None:
                self.on_notice(asked.overlay.realm, record, asked.session.peer_id.node_id)
        return answer
