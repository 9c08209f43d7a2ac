"""A node of the local network reduced to its `LanDiscovery`, on the virtual network; and datagrams of others."""

from __future__ import annotations

import random

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import MulticastSocket
from p2pnode.lan import LanDiscovery, LanPeer
from p2pnode.lan_wire import GROUP, Announcement, encode_announcement
from p2pnode.simulations.virtual import VirtualNetwork

__all__ = ["TAG", "Member", "Stranger", "announcement", "key"]

TAG = bytes.fromhex("0011223344556677")


def key(number: int) -> NodeKey:
    """Return the node key of a number, the same every time."""
    return NodeKey.generate(random.Random(f"lan key {number}").randbytes)


class Member:
    """A host with discovery on; `found` keeps what it was told of, `found_at` when."""

    def __init__(
        self, network: VirtualNetwork, number: int, *, tag: bytes = TAG, addresses: tuple[Address, ...] = ()
    ) -> None:
        self.network = network
        self.id = key(number).peer_id
        self.addresses = addresses or tuple(Address(ip, 4747) for ip in network.host.addresses())
        self.found: list[LanPeer] = []
        self.found_at: list[float] = []
        self.discovery = LanDiscovery(
            network=network,
            peer_id=self.id,
            name=f"node {number}",
            addresses=lambda: self.addresses,
            network_tag=tag,
            on_found=self._take,
        )

    def _take(self, peer: LanPeer) -> None:
        self.found.append(peer)
        self.found_at.append(self.network.monotonic())


class Stranger:
    """Somebody on the LAN who sends what he likes to the group."""

    def __init__(self, network: VirtualNetwork) -> None:
        self._network = network
        self._socket: MulticastSocket | None = None
        self.heard: list[tuple[bytes, Address]] = []

    async def start(self) -> Stranger:
        self._socket = await self._network.open_multicast(GROUP, lambda data, source: self.heard.append((data, source)))
        return self

    def send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.send(data)


def announcement(number: int, *ips: str, ttl: int = 150, tag: bytes = TAG, port: int = 4747) -> bytes:
    """Return a well-formed announcement of node `number`."""
    addresses = tuple(Address(ip, port) for ip in ips)
    return encode_announcement(Announcement(key(number).peer_id, tag, ttl, f"node {number}", addresses))
