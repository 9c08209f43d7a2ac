"""Relays in a call: gives direct ways their start, then opens flows on both sides, and dials through the first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import KnownContact
from p2pnode.explaining import Between
from p2pnode.meetings import OwnSide
from p2pnode.nat import AddressBudget, Path
from p2pnode.offer import Answer, Offer, RelayHint
from p2pnode.reachability import NatKind
from p2pnode.relay_choice import DEPENDENT, FLOWS, UNKNOWN_RTT_S, choose_relays, head_start, key_between
from p2pnode.session import Session

__all__ = ["RelayDialing"]

NEXT_DIAL_S = 1.0  # a relay that is there carries a handshake's first round trip in less
PACKETS_OF_ASKING = 3  # to a relay that does not answer: a request and two repetitions
MAX_MET = 1024  # peers of whom we remember what stood between us, 200 bytes each
# Strangers' calls must not use up the flows that a relay grants us (32): each has two, for 20 s when it does not come.
MAX_STRANGERS = 8
STRANGER_S = 20.0
SHUN_S = 60.0
MAX_LOST = 64  # relays
TRIED_S = 60.0  # who calls again within this time, and has no session, did not come through by the relays of before
LOOKUP_S = 3.0
NEAREST = 4  # of the nodes that a lookup found, from which both sides choose


class RelayDialing:
    """Of one node, for all its calls."""

    def __init__(
        self,
        *,
        open_flow: Callable[[PeerId, KnownContact, bool], Coroutine[Any, Any, Path | None]],
        usable: Callable[[Address], bool],
        own: PeerId,
        session: Callable[[PeerId], Session | None],
        known: Callable[[PeerId], bool],
        contacts: Callable[[], Iterable[KnownContact]],
        lookup: Callable[[NodeId], Awaitable[Sequence[KnownContact]]],
        budget: AddressBudget,
        now: Callable[[], float],
        hidden: bool = False,
    ) -> None:
        """`open_flow(peer, relay, calls)`: `calls`: we call. `usable`: whether packets may go to an address that a
        peer names. `own`: our id. `session`: the open one with a peer. `known`: whether a peer is a contact, or has a
        session. `contacts()`: nodes that we have verified, where the same relay may stand with an address of the other
        family. `lookup(key)`: the public nodes nearest to it, which have answered us, the nearest first. `budget`: that
        of the checks (C1). `now`: monotonic seconds. `hidden`: no peer may learn our address, so no relay is asked that
        only the peer knows: it may be the peer's own."""
        self._open_flow = open_flow
        self._usable = usable
        self._own = own
        self._session = session
        self._known = known
        self._contacts = contacts
        self._lookup = lookup
        self._budget, self._now = budget, now
        self._hidden = hidden
        self._strangers: dict[PeerId, float] = {}
        self._lost: dict[NodeId, float] = {}
        self._tried: dict[PeerId, tuple[float, frozenset[NodeId]]] = {}
        self._tasks = TaskSet()
        self._between: dict[PeerId, Between] = {}

    def choose(
        self, peer: PeerId, own: OwnSide, offer: Offer, *, caller_is_hidden: bool = False
    ) -> tuple[RelayHint, ...]:
        """The callee's choice, for its answer to a peer: of the relays of both; of a hidden caller's only, since it
        asks no others. Where UDP is blocked, a relay needs a link, which those of that side have, and others may never
        get. None for more than a few strangers at once. Who has been given relays a moment ago and calls again, without
        a session, gets others while there are any: those may have granted flows and forward nothing."""
        if not self._known(peer) and not self._admits_stranger(peer):
            return ()
        now = self._now()
        self._lost = {each: at for each, at in self._lost.items() if now - at < SHUN_S}
        ours = [(hint.contact, hint.rtt_s) for hint in own.relays if hint.contact.node_id not in self._lost]
        named = [(self._reach(hint, own), hint.rtt_s) for hint in offer.relays]
        offered = [RelayHint(reached[0], rtt_s) for reached, rtt_s in named if reached is not None]
        offered = [hint for hint in offered if hint.contact.node_id not in self._lost]
        tried = self._tried_by(peer, now)
        if own.nat is NatKind.UDP_BLOCKED and ours:
            linked = {contact.node_id for contact, _rtt_s in ours}
            offered = [hint for hint in offered if hint.contact.node_id in linked]
        if offer.relays and (caller_is_hidden or (offer.nat is NatKind.UDP_BLOCKED and offered)):
            shared = {hint.contact.node_id for hint in offer.relays}
            ours = [each for each in ours if each[0].node_id in shared]
        chosen = choose_relays(
            [each for each in ours if each[0].node_id not in tried],
            [each for each in offered if each.contact.node_id not in tried],
        )
        if not chosen:
            tried = frozenset()
        again = [hint for hint in choose_relays(ours, offered) if hint not in chosen]
        chosen += again[: FLOWS - len(chosen)]
        if self._session(peer) is None:
            self._tried[peer] = now, tried | {each.contact.node_id for each in chosen}
        return tuple(chosen)

    def _tried_by(self, peer: PeerId, now: float) -> frozenset[NodeId]:
        at, tried = self._tried.pop(peer, (0.0, frozenset()))
        if len(self._tried) >= MAX_MET:
            del self._tried[next(iter(self._tried))]
        return tried if now - at < TRIED_S else frozenset()

    def called(
        self, peer: PeerId, own: OwnSide, offer: Offer, *, caller_is_hidden: bool
    ) -> asyncio.Future[tuple[RelayHint, ...]]:
        """Choose for a peer that calls, and begin. Done at once but where one side is hidden and there is no relay that
        each knows by itself: then both look for the nodes nearest to a key that is made of the two ids."""
        alone = caller_is_hidden or self._hidden
        chosen: asyncio.Future[tuple[RelayHint, ...]] = asyncio.get_running_loop().create_future()
        relays = self.choose(peer, own, offer, caller_is_hidden=caller_is_hidden)
        if relays or not alone or not (self._known(peer) or peer in self._strangers):
            self.start(peer, own, offer, relays, None, alone=alone)
            chosen.set_result(relays)
            return chosen

        self._begin(peer, own, offer, alone=alone)
        self._tasks.spawn(self._choose_between_us(peer, chosen))
        return chosen

    async def _choose_between_us(self, peer: PeerId, chosen: asyncio.Future[tuple[RelayHint, ...]]) -> None:
        found: tuple[RelayHint, ...] = ()
        try:
            found = tuple(choose_relays([(each, UNKNOWN_RTT_S) for each in await self._between_us(peer)], ()))
        finally:
            if not chosen.done():
                chosen.set_result(found)
        await self._run(peer, [(hint.contact, True) for hint in found], 0.0, None)

    def came(self, peer: PeerId) -> None:
        """It has a session: the relays that it was given are good."""
        self._tried.pop(peer, None)

    def lost(self, relay: KnownContact) -> None:
        """It answers no more: others are chosen for a while."""
        if len(self._lost) < MAX_LOST:
            self._lost[relay.node_id] = self._now()

    def start(
        self, peer: PeerId, own: OwnSide, said: Offer | Answer, relays: Sequence[RelayHint],
        dial: Callable[[Path], None] | None, *, alone: bool = False,
    ) -> asyncio.Task[None]:  # fmt: skip
        """Begin with the relays of the answer. `said`: by the other side. `dial`: the caller's; see `_run`. `alone`:
        one side has told no address."""
        self._begin(peer, own, said, alone=alone)
        start_s = 0.0 if alone else head_start(own.nat, said.nat, dialable=bool(own.published or said.addresses))
        reached = [each for hint in relays[:FLOWS] if (each := self._reach(hint, own)) is not None]
        if relays and not reached and alone and dial is not None:
            return self._tasks.spawn(self._run_between_us(peer, relays, dial))
        return self._tasks.spawn(self._run(peer, reached, start_s, dial))

    def _begin(self, peer: PeerId, own: OwnSide, said: Offer | Answer, *, alone: bool) -> None:
        self._between.pop(peer, None)
        self._between[peer] = Between(own.nat, said.nat, hidden=alone)
        if len(self._between) > MAX_MET:
            del self._between[next(iter(self._between))]

    async def _run_between_us(self, peer: PeerId, relays: Sequence[RelayHint], dial: Callable[[Path], None]) -> None:
        """As the callee did: those that it names are asked when we have found them by ourselves."""
        named = {hint.contact.node_id for hint in relays}
        found = [each for each in await self._between_us(peer) if each.node_id in named]
        await self._run(peer, [(each, True) for each in found[:FLOWS]], 0.0, dial)

    async def _between_us(self, peer: PeerId) -> list[KnownContact]:
        """Return nodes that neither of us has chosen: those nearest to a key made of both ids (`key_between`)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOKUP_S):
                found = await self._lookup(key_between(self._own, peer))
                ends = {self._own.node_id, peer.node_id}
                return [each for each in found if each.node_id not in ends and self._usable(each.address)][:NEAREST]
        return []

    def _reach(self, hint: RelayHint, own: OwnSide) -> tuple[KnownContact, bool] | None:
        """Return how we reach a relay that the other side names, and whether we have verified it ourselves."""
        for each in own.relays:
            if each.contact.node_id == hint.contact.node_id:
                return each.contact, True
        if self._usable(hint.contact.address) and not self._hidden:
            return hint.contact, False
        for contact in self._contacts():
            if contact.node_id == hint.contact.node_id and self._usable(contact.address):
                return contact, True
        return None

    def _admits_stranger(self, peer: PeerId) -> bool:
        now = self._now()
        # Who came is none any more.
        self._strangers = {
            each: at for each, at in self._strangers.items() if now - at < STRANGER_S and not self._known(each)
        }
        if peer not in self._strangers and len(self._strangers) >= MAX_STRANGERS:
            return False
        self._strangers[peer] = now
        return True

    def between(self, peer: PeerId) -> Between | None:
        """What stood between us and a peer when we last met; None when we never did, or long ago."""
        return self._between.get(peer)

    def is_hopeless(self, peer: PeerId) -> bool:
        """Whether no direct path to a peer is to be expected while both networks stay what they were."""
        between = self._between.get(peer)
        return between is not None and (between.hidden or (between.own in DEPENDENT and between.theirs in DEPENDENT))

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _run(
        self, peer: PeerId, relays: Sequence[tuple[KnownContact, bool]], start_s: float,
        dial: Callable[[Path], None] | None,
    ) -> None:  # fmt: skip
        """Open flows to `peer` through `relays`, unless a new direct session is there after `start_s` seconds.

        `dial` is called for the first flow, and for the next a second later when there is no session yet; else those
        are its spares. None: we wait to be dialled. A session that was there before wants further paths at
        once, or there would have been no offer.
        """
        if not relays:
            return
        before = self._session(peer)
        await asyncio.sleep(start_s if before is None else 0.0)
        if self._is_settled(peer, before):
            return
        # One that we have not verified ourselves may be a victim (C1).
        asked = [relay for relay, verified in relays if verified or self._may_ask(relay.address)]
        opening = [asyncio.ensure_future(self._open(peer, relay, dial is not None)) for relay in asked]
        try:
            later: list[Path] = []
            dialled = False
            for done in asyncio.as_completed(opening):
                path = await done
                if path is None:
                    continue
                if dialled or dial is None or self._session(peer) is not None:
                    later.append(path)
                else:
                    dialled = True
                    dial(path)
            await asyncio.sleep(NEXT_DIAL_S if dialled else 0.0)
            for path in later:
                session = self._session(peer)
                if session is None and dial is not None:
                    dial(path)
                    await asyncio.sleep(NEXT_DIAL_S)
                elif session is not None and not self._is_settled(peer, before):
                    session.connection.add_path(path)
        finally:
            for each in opening:
                each.cancel()
            await asyncio.gather(*opening, return_exceptions=True)

    def _may_ask(self, address: Address) -> bool:
        return all(self._budget.spend(address, self._now()) for _ in range(PACKETS_OF_ASKING))

    async def _open(self, peer: PeerId, relay: KnownContact, calls: bool) -> Path | None:
        path = await self._open_flow(peer, relay, calls)
        if path is not None:
            self._budget.answered(relay.address, self._now())
        return path

    def _is_settled(self, peer: PeerId, before: Session | None) -> bool:
        """Whether a session has come by a direct path since `before`."""
        session = self._session(peer)
        return session is not None and session is not before and not session.connection.path.relayed
