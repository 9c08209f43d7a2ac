"""A node that knows no way into any network, and topics that all fake nodes share: parts of `chat_fakes.FakeNode`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from p2pnode import Address, Announced, PeerId, PeerSpec, TopicListing, TopicMember

if TYPE_CHECKING:
    from support.chat_fakes import FakeWorld

__all__ = ["FakeWays"]


class FakeWays:
    """What strangers and rooms ask of the user's node."""

    address: Address
    peer_id: PeerId
    world: FakeWorld

    def ways_in(self, count: int = 8) -> tuple[PeerSpec, ...]:
        return ()

    def addresses(self) -> tuple[Address, ...]:
        return (self.address,)

    async def announce(self, topic: str | bytes, value: bytes) -> Announced:
        await asyncio.sleep(self.world.lookup_s)
        self.world.topics.setdefault(topic, {})[self.peer_id] = value
        return Announced(20, 20, self.world.lookup_s)

    async def unannounce(self, topic: str | bytes) -> bool:
        await asyncio.sleep(self.world.lookup_s)
        return self.world.topics.get(topic, {}).pop(self.peer_id, None) is not None

    async def topic(self, topic: str | bytes, *, limit: int = 1_000) -> TopicListing:
        await asyncio.sleep(self.world.lookup_s)
        found = [TopicMember(peer, value, 1.0) for peer, value in self.world.topics.get(topic, {}).items()]
        return TopicListing(tuple(found[:limit]), True, len(found), 20, self.world.lookup_s)
