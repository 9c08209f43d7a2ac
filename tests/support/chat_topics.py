"""Topics without a network, for the fake nodes of `chat_fakes`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from p2pnode import Announced, PeerId, TopicListing, TopicMember

if TYPE_CHECKING:
    from support.chat_fakes import FakeWorld

__all__ = ["FakeTopics", "Topics"]


@dataclass
class Topics:
    """What all holders have: (value, Unix seconds of signing) by topic and signer."""

    entries: dict[str | bytes, dict[PeerId, tuple[bytes, float]]] = field(default_factory=dict)


class FakeTopics:
    """What `chat.ports.NodePort` asks for about topics."""

    world: FakeWorld
    network: Any
    peer_id: PeerId

    async def announce(self, topic: str | bytes, value: bytes, *, life: float = 1_800.0) -> Announced:
        await asyncio.sleep(self.world.lookup_s)
        self.world.topics.entries.setdefault(topic, {})[self.peer_id] = (value, self.network.wall())
        return Announced(20, 20, self.world.lookup_s)

    async def unannounce(self, topic: str | bytes) -> bool:
        await asyncio.sleep(self.world.lookup_s)
        return self.world.topics.entries.get(topic, {}).pop(self.peer_id, None) is not None

    async def topic(self, topic: str | bytes, *, limit: int = 1_000, sample: bool = False) -> TopicListing:
        await asyncio.sleep(self.world.lookup_s)
        entries = self.world.topics.entries.get(topic, {})
        wall = self.network.wall()
        members = [TopicMember(peer, value, wall - at) for peer, (value, at) in entries.items()][:limit]
        return TopicListing(tuple(members), len(members) == len(entries), len(entries), 20, self.world.lookup_s)
