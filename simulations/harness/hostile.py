"""Attackers in a simulated network: DHT nodes with real keys, real frames and real tables, whose answers are lies.

They grind their ids as an attacker would: keys are made until their ids are where they should be.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import DatagramSocket
from p2pnode.core.network_id import network_tag
from p2pnode.dht import DhtSettings, KnownContact, SignedRecord
from p2pnode.dht.contact import Contact, pack_address
from p2pnode.dht.engine import Engine
from p2pnode.dht.members import Members
from p2pnode.dht.messages import FindNode, Get, Nodes, Ping, Put, Request, Stored, Value, encode
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.protocol import DhtProtocol
from p2pnode.dht.service import Service
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.tokens import PutTokens
from p2pnode.dht.topics import TopicStorage
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld

__all__ = ["Behaviour", "Gang", "HostileNode", "block_addresses", "grind"]

PORT = 4747
ID_SPACE = 2**160
OVERLAY = Overlay.of(Realm.PUBLIC, is_ipv6=False)


class Behaviour(enum.StrEnum):
    """What attackers answer. All of them answer pings, and agree keys."""

    SILENT = "silent"
    """Only their own kind as contacts; records are said to be stored and never returned."""
    OLD = "old"
    """The same, but an old version of the record is returned."""
    MUTE = "mute"
    """Nothing."""
    NONSENSE = "nonsense"
    """Wrong kinds of answer, contacts that do not exist, records of others."""


class Gang:
    """Attackers that know each other. `old`: the record that `Behaviour.OLD` returns."""

    def __init__(self, behaviour: Behaviour, old: SignedRecord | None = None) -> None:
        self.behaviour, self.old = behaviour, old
        self.members: list[HostileNode] = []
        self._hosts: dict[str, VirtualNetwork] = {}
        self.swallowed = 0
        """Records that they said they keep."""

    def nearest(self, target: bytes, exclude: bytes) -> bytes:
        """Return up to 20 packed contacts of the gang, nearest to `target` first."""
        goal = int.from_bytes(target, "big")
        others = [node for node in self.members if node.key.node_id != exclude]
        others.sort(key=lambda node: int.from_bytes(node.key.node_id, "big") ^ goal)
        return b"".join(node.key.node_id + pack_address(node.address) for node in others[:20])

    async def join(
        self, world: VirtualWorld, keys: Sequence[NodeKey], addresses: Iterable[Address],
        through: Sequence[KnownContact],
        settings: DhtSettings | None = None,
    ) -> None:  # fmt: skip
        """Let nodes with these keys join, at these addresses, all at once."""
        nodes: list[HostileNode] = []
        for key, address in zip(keys, addresses, strict=False):
            if address.ip not in self._hosts:
                self._hosts[address.ip] = world.host(address.ip)
            nodes.append(HostileNode(self, self._hosts[address.ip], address, key, settings))
        self.members += nodes
        await asyncio.gather(*(node.start(through) for node in nodes))

    async def stop(self) -> None:
        for node in self.members:
            node.stop()


class HostileNode:
    """One attacker."""

    def __init__(
        self, gang: Gang, network: VirtualNetwork, address: Address, key: NodeKey, settings: DhtSettings | None = None
    ) -> None:
        self.gang, self.network, self.address, self.key = gang, network, address, key
        settings = settings or DhtSettings(serve=frozenset(Realm))
        tag = network_tag(settings.network_id, settings.network_key)
        members, storage = Members(key.node_id, settings), RecordStorage(tag, settings)
        service = _Lies(gang, key, members, storage, network, settings)
        self.engine = Engine(
            key=key, tag=tag, settings=settings, members=members, service=service, send=self._send,
            token_bytes=network.token_bytes,
        )  # fmt: skip
        self.protocol = DhtProtocol(self.engine, network, storage)
        self._socket: DatagramSocket | None = None

    @property
    def contact(self) -> KnownContact:
        return KnownContact(self.key.peer_id, self.key.node_id, self.address)

    async def start(self, through: Sequence[KnownContact]) -> None:
        """Listen, and enter the tables of those nearest to the own id, as any newcomer does."""
        self._socket = await self.network.open_udp(self.address, self.protocol.datagram_received)
        contacts = [Contact(known.node_id, known.address, OVERLAY, known.peer_id) for known in through]
        if contacts:
            await self.protocol.crawl(self.key.node_id, OVERLAY, contacts=contacts)

    def stop(self) -> None:
        self.protocol.close()
        if self._socket is not None:
            self._socket.close()

    def _send(self, data: bytes, to: Address) -> None:
        if self._socket is not None:
            self._socket.send(data, to)


class _Lies(Service):
    """Answers as the gang wants."""

    def __init__(
        self, gang: Gang, key: NodeKey, members: Members, storage: RecordStorage, network: VirtualNetwork,
        settings: DhtSettings,
    ) -> None:  # fmt: skip
        tag = network_tag(settings.network_id, settings.network_key)
        super().__init__(members, storage, TopicStorage(tag, settings), PutTokens(network.token_bytes), settings)
        self._gang, self._id = gang, key.node_id
        self._rng = random.Random(key.node_id)

    def respond(
        self, request: Request, *, requester: NodeId, source: Address, overlay: Overlay, flags: int, room: int,
        now: float, wall: float,
    ) -> bytes:  # fmt: skip
        behaviour = self._gang.behaviour
        if isinstance(request, Ping):
            return super().respond(
                request, requester=requester, source=source, overlay=overlay, flags=flags, room=room, now=now, wall=wall
            )
        if behaviour is Behaviour.MUTE:
            raise BadPacket("mute")
        observed = pack_address(source)
        if behaviour is Behaviour.NONSENSE:
            payload = self._nonsense(observed)
        elif isinstance(request, Put):
            self._gang.swallowed += 1
            payload = encode(Stored(observed))
        elif isinstance(request, FindNode):
            payload = encode(Nodes(observed, bytes(8), self._kind(request.target, room - 60), b""))
        elif isinstance(request, Get):
            old = self._gang.old if behaviour is Behaviour.OLD else None
            record = old if old is not None and old.key == request.key else None
            bare = len(encode(Value(observed, bytes(8), record, b"", b"")))
            payload = encode(Value(observed, bytes(8), record, self._kind(request.key, room - bare - 3), b""))
        else:
            raise BadPacket("mute")
        return payload

    def _kind(self, target: bytes, room: int) -> bytes:
        return self._gang.nearest(target, self._id)[: max(0, room) // 26 * 26]

    def _nonsense(self, observed: bytes) -> bytes:
        rng = self._rng
        nowhere = b"".join(
            rng.randbytes(20) + pack_address(Address(f"{rng.randrange(11, 100)}.{rng.randrange(256)}.7.7", 9))
            for _ in range(20)
        )
        return rng.choice([
            encode(Stored(observed)),
            encode(Nodes(observed, bytes(8), nowhere, b"")),
            encode(Nodes(observed, bytes(8), nowhere[:26] * 20, b"")),
            encode(Value(observed, bytes(8), None, nowhere, b"")),
            encode(Nodes(observed, bytes(8), nowhere[:25], b"")),
            rng.randbytes(40),
        ])  # fmt: skip


def grind(rng: random.Random, target: bytes, number: int, within: float) -> list[NodeKey]:
    """Return `number` keys whose ids are among the nearest `within` (a share of all ids) to `target`.

    Takes 1 / `within` tries of 50 us each.
    """
    goal = int.from_bytes(target, "big")
    limit = int(ID_SPACE * within)
    keys: list[NodeKey] = []
    while len(keys) < number:
        seed = rng.randbytes(32)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        if int.from_bytes(hashlib.sha256(public).digest()[:20], "big") ^ goal < limit:
            keys.append(NodeKey(seed, rng.randbytes(32)))
    return keys


def block_addresses(blocks: int, hosts: int = 250) -> Iterator[Address]:
    """Yield addresses for ever, in turn in each of `blocks` /24 networks; further ports after `hosts` in each."""
    for number in count():
        block, host = number % blocks, number // blocks
        yield Address(f"45.{block // 250}.{block % 250}.{host % hosts + 1}", PORT + host // hosts)
