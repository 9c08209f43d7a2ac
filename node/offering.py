"""Our offers on their way: each through several rendezvous nodes at once, and another until one is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from p2pnode.core.address import Address
from p2pnode.core.errors import NoPathError, RefusedError
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.dht import Dht, KnownContact
from p2pnode.meetings import Meeting, OwnSide
from p2pnode.offer import Answer, Offer, Refusal, seal
from p2pnode.offer_guard import OfferGuard
from p2pnode.presence import FindResult
from p2pnode.vouches import Vouches

__all__ = ["Offering"]

# Pauses before each offer, and after the last: neither a lost one nor a callee that is just registering a new mapping
# must cost the attempt.
OFFER_AGAIN_S = (0.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0)
MAX_VOUCHING = 64  # offers of ours whose answers' copies may still come, 1 kB each


class Offering:
    """All offers of a node that wait for an answer."""

    def __init__(
        self, *, key: NodeKey, network: Network, network_tag: bytes, dht: Dht, guard: OfferGuard, hidden: bool
    ) -> None:
        """`hidden`: rendezvous nodes are not to tell where they see us."""
        self._key = key
        self._network = network
        self._tag = network_tag
        self._dht = dht
        self._guard = guard
        self._hidden = hidden
        self._answers: dict[bytes, asyncio.Future[Answer]] = {}
        self._vouching: dict[bytes, Vouches] = {}

    async def exchange(self, found: FindResult, ways: Sequence[KnownContact], own: OwnSide, meeting: Meeting) -> Answer:
        """Send offers until one is answered. Each has an attempt id of its own; the ICE session is the same.

        Raise NoPathError, RefusedError.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        sent = []
        sending: set[asyncio.Task[bool]] = set()
        try:
            for pause in OFFER_AGAIN_S:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        return await asyncio.shield(answered)
                attempt = self._network.token_bytes(16)
                offer = Offer(
                    attempt,
                    int(self._network.wall() * 1000),
                    self._key.x25519_public,
                    meeting.ice.local.encode(),
                    own.published,
                    own.nat,
                    own.relays,
                )
                sealed = seal(offer, key=self._key, to=found.peer, to_x25519=found.x25519, network_tag=self._tag)
                sent.append(self._guard.expect(found.peer, attempt, sealed))
                self._answers[attempt] = answered
                self._vouching[attempt] = meeting.vouches
                while len(self._vouching) > MAX_VOUCHING:
                    del self._vouching[next(iter(self._vouching))]
                for way in ways:
                    task = asyncio.ensure_future(
                        self._dht.forward(way, found.peer.node_id, sealed, vouch=not self._hidden)
                    )
                    sending.add(task)
                    task.add_done_callback(sending.discard)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OFFER_AGAIN_S[-1]):
                    return await asyncio.shield(answered)
            raise NoPathError(
                f"{found.peer} was asked through {len(ways)} rendezvous nodes and did not answer.", peer=str(found.peer)
            )
        finally:
            for each in sent:
                self._guard.forget(each)
                self._answers.pop(each.attempt, None)
            for task in list(sending):
                task.cancel()

    def answered(self, answer: Answer, via: KnownContact, seen: Address | None) -> None:
        """Take an answer that the guard has let in, or a copy of one; `seen`: where `via` saw the peer."""
        if (vouches := self._vouching.get(answer.attempt)) is not None:
            vouches.add(via.address, seen)
        future = self._answers.get(answer.attempt)
        if future is None or future.done():
            return
        if answer.refusal is not Refusal.NONE:
            future.set_exception(RefusedError("The other side does not take calls from you, or not now."))
        else:
            future.set_result(answer)
