"""Topics on the virtual network: announcers with keys of their own, and what came of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from support.dht_network import DhtNode

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.dht import TopicResult, topic_id

__all__ = ["CHESS", "announce_all", "announcers", "held_by", "values"]

CHESS = topic_id("chess")


def announcers(count: int, seed: int = 0) -> list[NodeKey]:
    rng = random.Random(f"announcers {seed}")
    return [NodeKey.generate(rng.randbytes) for _ in range(count)]


async def announce_all(
    nodes: Sequence[DhtNode], keys: Sequence[NodeKey], topic: bytes = CHESS, *, every: float = 0.05, life: float = 1800
) -> list[int]:
    """Have the keys announce themselves, each through one of the nodes in turn; return how many holders each has."""

    async def one(number: int, key: NodeKey) -> int:
        await asyncio.sleep(number * every)
        node = nodes[number % len(nodes)]
        return (await node.dht.announce(topic, b"player %d" % number, key=key, life=life)).stored

    return await asyncio.gather(*(one(number, key) for number, key in enumerate(keys)))


def values(result: TopicResult) -> set[bytes]:
    return {entry.value for entry in result.entries}


def held_by(node: DhtNode, topic: bytes = CHESS, realm: Realm = Realm.PUBLIC) -> int:
    """Return how many entries of a topic a node holds, all shards together."""
    groups = node.dht._topics._groups.items()
    return sum(len(group.kept) for (held_in, shard), group in groups if (held_in, shard.topic) == (realm, topic))
