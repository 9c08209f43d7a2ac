"""Records of an author in a network of DHT nodes, and who holds them."""

from __future__ import annotations

from support.dht_network import DhtNode

from p2pnode.core.address import Realm
from p2pnode.dht import SignedRecord

__all__ = ["records_of", "share_held"]


def records_of(author: DhtNode, count: int) -> list[SignedRecord]:
    expires = int(author.network.wall()) + 3600
    return [
        SignedRecord.sign(author.key, author.dht.network_tag, b"mail/%d" % i, 1, expires, b"x" * 300)
        for i in range(count)
    ]


def share_held(nodes: list[DhtNode], records: list[SignedRecord], near: int, now: float) -> float:
    """Return which share of the `near` nodes truly nearest to each key hold its record."""
    held = 0
    for record in records:
        goal = int.from_bytes(record.key, "big")
        nearest = sorted(nodes, key=lambda node: int.from_bytes(node.key.node_id, "big") ^ goal)[:near]
        held += sum(1 for node in nearest if node.dht.storage.read(Realm.PUBLIC, record.key, now) == record)
    return held / (near * len(records))
