"""Two QUIC endpoints whose datagrams go by several carriers, seen by the test."""

from __future__ import annotations

from collections.abc import Sequence

from support.nat_peers import TAG

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import DatagramSocket
from p2pnode.nat import PROBE, Connection, Path, PathKind, QuicEndpoint
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld


class Side:
    """An endpoint on a socket, and further sockets that it takes for flows of relays; the other side has to do so too.

    `sent`: all that left, with the port.
    """

    def __init__(self, network: VirtualNetwork, seed: int) -> None:
        self.network = network
        key = NodeKey(bytes([seed]) * 32, bytes([seed]) * 32)
        self.endpoint = QuicEndpoint(key=key, network=network, send=self._send, network_tag=TAG)
        self.peer_id = key.peer_id
        self.sent: list[tuple[int, bytes, Address]] = []
        self.sockets: dict[int, DatagramSocket] = {}
        self.main = 0

    async def open(self, port: int) -> None:
        """Open the mux's socket."""
        self.main = port
        self.sockets[port] = await self.network.open_udp(Address("0.0.0.0", port), self.received)

    async def carrier(self, port: int) -> Other:
        """Open a socket that stands for a relay's flow."""
        made = Other(self, port)
        self.sockets[port] = await self.network.open_udp(Address("0.0.0.0", port), made.received)
        return made

    def connection(self) -> Connection:
        (only,) = self.endpoint.connections()
        return only

    def received(self, data: bytes, source: Address) -> None:
        """As a node does with what its mux gets."""
        if data[0] == PROBE:
            self.endpoint.probe_received(data, source)
        else:
            self.endpoint.datagram_received(data, source)

    def write(self, port: int, data: bytes, to: Address) -> None:
        self.sent.append((port, data, to))
        if (socket := self.sockets.get(port)) is not None:
            socket.send(data, to)

    def drawn(self, to: Address) -> int:
        """Datagrams that went to an address."""
        return sum(1 for _, _, where in self.sent if where == to)

    def _send(self, data: bytes, to: Address) -> None:
        self.write(self.main, data, to)


class Other:
    """A carrier beside the mux."""

    kind: PathKind = "relay"
    peer = None

    def __init__(self, side: Side, port: int) -> None:
        self._side, self._port = side, port

    def path(self, to: Address) -> Path:
        return Path(to, self)

    def send(self, data: bytes, to: Address) -> None:
        self._side.write(self._port, data, to)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        for data in datagrams:
            self.send(data, to)

    def received(self, data: bytes, source: Address) -> None:
        if data[0] == PROBE:
            self._side.endpoint.probe_received(data, source, self)
        else:
            self._side.endpoint.datagram_received(data, source, self)


async def joined(world: VirtualWorld) -> tuple[Side, Side]:
    """Return two sides with a connection, the first one's."""
    one, other = Side(world.host("10.0.0.1"), 1), Side(world.host("10.0.0.2"), 2)
    await one.open(1000)
    await other.open(2000)
    await one.endpoint.connect(other.peer_id, Address("10.0.0.2", 2000))
    return one, other
