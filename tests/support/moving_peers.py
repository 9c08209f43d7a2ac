"""QUIC endpoints on sockets that can be exchanged, as a restarted router does to a mapping."""

from __future__ import annotations

from support.nat_peers import TAG

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.nat import PROBE, QuicEndpoint
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld

__all__ = ["Peer", "connected"]


class Peer:
    """An endpoint, and all that it sent."""

    def __init__(self, network: VirtualNetwork, seed: int) -> None:
        self.network = network
        key = NodeKey(bytes([seed]) * 32, bytes([seed]) * 32)
        self.endpoint = QuicEndpoint(key=key, network=network, send=self.send, network_tag=TAG)
        self.peer_id = key.peer_id
        self.sent: list[tuple[bytes, Address]] = []

    async def open(self, port: int) -> None:
        self.socket = await self.network.open_udp(Address("0.0.0.0", port), self.received)

    def received(self, data: bytes, source: Address) -> None:
        if data[0] == PROBE:
            self.endpoint.probe_received(data, source)
        else:
            self.endpoint.datagram_received(data, source)

    def send(self, data: bytes, to: Address) -> None:
        self.sent.append((data, to))
        self.socket.send(data, to)


async def connected(world: VirtualWorld) -> tuple[Peer, Peer]:
    """Return who called, at 10.0.0.1:1000, and who was called, at 10.0.0.2:2000."""
    one, other = Peer(world.host("10.0.0.1"), 1), Peer(world.host("10.0.0.2"), 2)
    await one.open(1000)
    await other.open(2000)
    await one.endpoint.connect(other.peer_id, Address("10.0.0.2", 2000))
    return one, other
