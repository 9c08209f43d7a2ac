"""Two or more DHT engines in memory: no sockets, no loop; the test delivers each datagram by hand."""

from __future__ import annotations

import random
from collections import deque

from p2pnode.core.address import Address, Realm
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht.calls import Outcome
from p2pnode.dht.engine import Engine
from p2pnode.dht.members import Members
from p2pnode.dht.messages import Ping, Request
from p2pnode.dht.service import Service
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.tokens import PutTokens
from p2pnode.dht.topics import TopicStorage

__all__ = ["Peer", "World", "answered"]

WALL = 1_700_000_000.0
SERVING = DhtSettings(serve=frozenset(Realm))


class Peer:
    """One engine with its tables and storage, at one address."""

    def __init__(self, world: World, ip: str, settings: DhtSettings = SERVING, port: int = 4747) -> None:
        self.world, self.address, self.settings = world, Address(ip, port), settings
        self.rng = random.Random(ip)
        self.key = NodeKey.generate(self.rng.randbytes)
        self.tag = network_tag(settings.network_id)
        self.members = Members(self.key.node_id, settings)
        self.storage = RecordStorage(self.tag, settings)
        self.topics = TopicStorage(self.tag, settings)
        self.service = Service(self.members, self.storage, self.topics, PutTokens(self.rng.randbytes), settings)
        self.engine = self.fresh_engine()

    def fresh_engine(self) -> Engine:
        """Return an engine without memory: what a restart makes."""
        return Engine(
            key=self.key, tag=self.tag, settings=self.settings, members=self.members, service=self.service,
            send=lambda data, to: self.world.wire.append((data, self.address, to)), token_bytes=self.rng.randbytes,
        )  # fmt: skip

    def ask(self, other: Peer, request: Request, *, hello: bool = False, timeout: float | None = None) -> list[Outcome]:
        """Start a call; the outcome appears in the list that is returned."""
        outcomes: list[Outcome] = []
        self.engine.call(
            other.address, None if hello else other.key.node_id, request, now=self.world.now, wall=self.world.wall,
            on_done=outcomes.append, timeout=timeout,
        )  # fmt: skip
        return outcomes

    def receive(self, data: bytes, source: Address) -> None:
        self.engine.receive(data, source, self.world.now, self.world.wall)

    def state(self) -> tuple[object, ...]:
        """Everything that a hostile datagram must not change."""
        return (
            len(self.engine.keyring), self.engine.keyring.peers, self.engine.calls.pending,
            [len(table) for table in self.members.tables.values()], len(self.storage), self.storage.bytes,
            len(self.topics), self.topics.held_bytes,
        )  # fmt: skip

    @property
    def drops(self) -> dict[str, int]:
        return dict(self.engine.counters.drops)


class World:
    """Peers, the wire between them, and the clocks."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, WALL
        self.wire: deque[tuple[bytes, Address, Address]] = deque()
        self.peers: dict[Address, Peer] = {}

    def peer(self, ip: str, settings: DhtSettings = SERVING, port: int = 4747) -> Peer:
        peer = Peer(self, ip, settings, port)
        self.peers[peer.address] = peer
        return peer

    def deliver(self) -> tuple[bytes, Address, Address]:
        """Deliver the oldest datagram and return it."""
        data, source, to = self.wire.popleft()
        if to in self.peers:
            self.peers[to].receive(data, source)
        return data, source, to

    def run(self, max_steps: int = 1000) -> None:
        """Deliver until nothing is on the wire."""
        for _ in range(max_steps):
            if not self.wire:
                return
            self.deliver()
        raise AssertionError("the peers never fall silent")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        for peer in self.peers.values():
            peer.engine.handle_timer(self.now, self.wall)

    def introduce(self, one: Peer, other: Peer) -> None:
        """Agree keys, with `one` as the requester."""
        outcomes = one.ask(other, Ping())
        self.run()
        assert answered(outcomes)


def answered(outcomes: list[Outcome]) -> bool:
    return len(outcomes) == 1 and outcomes[0].answer is not None
