"""Relays in a call: gives direct ways their start, then opens flows on both sides, and dials through the first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import KnownContact
from p2pnode.explaining import Between
from p2pnode.meetings import OwnSide
from p2pnode.nat import AddressBudget, Path
from p2pnode.offer import Answer, Offer, RelayHint
from p2pnode.relay_choice import FLOWS, choose_relays, head_start
from p2pnode.session import Session

__all__ = ["RelayDialing"]

NEXT_DIAL_S = 1.0  # a relay that is there carries a handshake's first round trip in less
PACKETS_OF_ASKING = 3  # to a relay that does not answer: a request and two repetitions
MAX_MET = 1024  # peers of whom we remember what stood between us, 200 bytes each


class RelayDialing:
    """Of one node, for all its calls."""

    def __init__(
        self,
        *,
        open_flow: Callable[[PeerId, KnownContact], Coroutine[Any, Any, Path | None]],
        usable: Callable[[Address], bool],
        session: Callable[[PeerId], Session | None],
        budget: AddressBudget,
        now: Callable[[], float],
    ) -> None:
        """`usable`: whether packets may go to an address that a peer names. `session`: the open one with a peer.
        `budget`: that of the checks (C1): a peer's relay may be a victim. `now`: monotonic seconds."""
        self._open_flow = open_flow
        self._usable = usable
        self._session = session
        self._budget, self._now = budget, now
        self._tasks = TaskSet()
        self._between: dict[PeerId, Between] = {}

    def choose(self, own: OwnSide, offer: Offer) -> tuple[RelayHint, ...]:
        """The callee's choice, for its answer."""
        usable = {hint.contact.node_id for hint in offer.relays if self._usable(hint.contact.address)}
        return tuple(choose_relays([(hint.contact, hint.rtt_s) for hint in own.relays], offer.relays, usable))

    def start(
        self, peer: PeerId, own: OwnSide, said: Offer | Answer, relays: Sequence[RelayHint],
        dial: Callable[[Path], None] | None,
    ) -> asyncio.Task[None]:  # fmt: skip
        """Begin with the relays of the answer. `said`: by the other side. `dial`: the caller's; see `_run`."""
        self._between.pop(peer, None)
        self._between[peer] = Between(own.nat, said.nat)
        if len(self._between) > MAX_MET:
            del self._between[next(iter(self._between))]
        start_s = head_start(own.nat, said.nat, dialable=bool(own.published or said.addresses))
        usable = [hint for hint in relays[:FLOWS] if self._usable(hint.contact.address)]
        known = {(hint.contact.node_id, hint.contact.address) for hint in own.relays}
        return self._tasks.spawn(self._run(peer, usable, known, start_s, dial))

    def between(self, peer: PeerId) -> Between | None:
        """What stood between us and a peer when we last met; None when we never did, or long ago."""
        return self._between.get(peer)

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def _run(
        self, peer: PeerId, relays: Sequence[RelayHint], known: Collection[tuple[NodeId, Address]], start_s: float,
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
        contacts = [hint.contact for hint in relays]
        contacts = [c for c in contacts if (c.node_id, c.address) in known or self._may_ask(c.address)]
        opening = [asyncio.ensure_future(self._open(peer, contact)) for contact in contacts]
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

    async def _open(self, peer: PeerId, relay: KnownContact) -> Path | None:
        path = await self._open_flow(peer, relay)
        if path is not None:
            self._budget.answered(relay.address, self._now())
        return path

    def _is_settled(self, peer: PeerId, before: Session | None) -> bool:
        """Whether a session has come by a direct path since `before`."""
        session = self._session(peer)
        return session is not None and session is not before and not session.connection.path.relayed
