"""Many DHT nodes on the virtual network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from p2pnode.core.address import Address, Realm
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import DatagramSocket
from p2pnode.dht import Dht, DhtSettings, KnownContact
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld

__all__ = ["DhtNode", "make_network", "make_node", "start_node"]

PUBLIC = DhtSettings(serve=frozenset(Realm))


class DhtNode:
    """A node's DHT with its socket."""

    def __init__(self, network: VirtualNetwork, key: NodeKey, settings: DhtSettings) -> None:
        self.network, self.key = network, key
        self.sockets: list[DatagramSocket] = []
        self.dht = Dht(key=key, network=network, settings=settings, send=self._send)

    @property
    def address(self) -> Address:
        return self.sockets[0].local

    @property
    def contact(self) -> KnownContact:
        return KnownContact(self.key.peer_id, self.key.node_id, self.address)

    async def open(self, *ips: str, port: int = 4747) -> None:
        for ip in ips:
            self.sockets.append(await self.network.open_udp(Address(ip, port), self.dht.datagram_received))
        await self.dht.start()

    async def close(self) -> None:
        await self.dht.stop()
        for socket in self.sockets:
            socket.close()

    def _send(self, data: bytes, to: Address) -> None:
        for socket in self.sockets:
            if socket.local.is_ipv6 == to.is_ipv6:
                socket.send(data, to)
                return


def make_node(world: VirtualWorld, *ips: str, settings: DhtSettings = PUBLIC, seed: int | None = None) -> DhtNode:
    """Return a node on a new host, not yet open."""
    network = world.host(*ips)
    rng = random.Random(repr((ips, seed)))
    return DhtNode(network, NodeKey.generate(rng.randbytes), settings)


async def start_node(
    world: VirtualWorld, ip: str, settings: DhtSettings = PUBLIC, bootstrap: Sequence[DhtNode] = ()
) -> DhtNode:
    """Return a node that listens, and has joined through `bootstrap`."""
    node = make_node(world, ip, settings=settings)
    await node.open(ip)
    if bootstrap:
        await node.dht.bootstrap([other.contact for other in bootstrap])
    return node


async def make_network(world: VirtualWorld, count: int, settings: DhtSettings = PUBLIC) -> list[DhtNode]:
    """Return `count` joined nodes at public addresses in different /24 networks; the first is the bootstrap node."""
    nodes = [await start_node(world, "5.0.0.1", settings)]
    ips = [f"5.{1 + i // 200}.{i % 200}.1" for i in range(count - 1)]
    nodes += await asyncio.gather(*(start_node(world, ip, settings, nodes[:1]) for ip in ips))
    return nodes


async def stop_all(nodes: Sequence[DhtNode]) -> None:
    await asyncio.gather(*(node.close() for node in nodes))
