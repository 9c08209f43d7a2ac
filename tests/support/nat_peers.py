"""Endpoints on the virtual network, with wires that lose, repeat and delay; and hostile clients made of bare qh3."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.nat import (
    Connection,
    ConnectionClosedError,
    QuicEndpoint,
    QuicSettings,
    Stream,
    StreamResetError,
    UdpMux,
)
from p2pnode.simulations.virtual import VirtualWorld

TAG = b"\x01\x02\x03\x04\x05\x06\x07\x08"
Impairment = Callable[[bytes], list[float]]
"""Given a datagram that leaves: after how many seconds each copy goes on the wire; empty when it is lost."""


@dataclass
class Peer:
    """An endpoint with its socket. `incoming`: connections that proved themselves."""

    network: Network
    mux: UdpMux
    endpoint: QuicEndpoint
    address: Address
    incoming: list[Connection] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    impair: Impairment | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> NodeKey:
        return self.endpoint.key

    def send(self, data: bytes, to: Address) -> None:
        self.sent.append(data)
        if self.impair is None:
            self.mux.send(data, to)
            return
        for delay in self.impair(data):
            asyncio.get_running_loop().call_later(delay, self.mux.send, data, to)

    def close(self) -> None:
        self.endpoint.close()
        self.mux.close()

    async def first_incoming(self) -> Connection:
        await self.arrived.wait()
        return self.incoming[0]


async def make_peer(
    world: VirtualWorld,
    ip: str,
    *,
    settings: QuicSettings | None = None,
    tag: bytes = TAG,
    key: NodeKey | None = None,
    port: int = 4747,
    echo: bool = True,
) -> Peer:
    """Open an endpoint on a new host of the world; incoming streams are echoed unless `echo` is off."""
    network = world.host(ip)
    mux = UdpMux(network)
    peer: Peer

    def send(data: bytes, to: Address) -> None:
        peer.send(data, to)

    endpoint = QuicEndpoint(
        key=key or NodeKey.generate(network.token_bytes),
        network=network,
        send=send,
        network_tag=tag,
        settings=settings,
    )
    peer = Peer(network, mux, endpoint, Address(ip, port))
    tasks: set[asyncio.Task[None]] = set()

    def on_stream(_connection: Connection, _protocol: str, stream: Stream) -> None:
        task = asyncio.ensure_future(echo_stream(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_connection(connection: Connection) -> None:
        peer.incoming.append(connection)
        peer.arrived.set()
        if echo:
            connection.on_stream = on_stream

    endpoint.on_connection = on_connection
    mux.on("quic", endpoint.datagram_received)
    await mux.open([peer.address])
    return peer


async def echo_stream(stream: Stream) -> None:
    with contextlib.suppress(ConnectionClosedError, StreamResetError):
        while data := await stream.read(1 << 16):
            await stream.write(data)
        stream.finish()


def bad_wire(seed: int, *, loss: float = 0.1, repeat: float = 0.1, late: float = 0.1) -> Impairment:
    """Lose, repeat and delay (by up to 50 ms, so that they overtake each other) a share of the datagrams."""
    rng = random.Random(seed)

    def impair(_data: bytes) -> list[float]:
        if rng.random() < loss:
            return []
        copies = 2 if rng.random() < repeat else 1
        return [rng.random() * 0.05 if rng.random() < late else 0.0 for _ in range(copies)]

    return impair


class BareClient:
    """qh3's client with no proof of ours: the test decides what it sends. Lives on its own virtual host."""

    def __init__(self, network: Network, mux: UdpMux, server: Address, alpn: str) -> None:
        self.network = network
        self.mux = mux
        self.server = server
        self.quic = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True,
                alpn_protocols=[alpn],
                verify_mode=0,
                max_datagram_size=1200,
                probe_datagram_size=False,
                max_datagram_frame_size=1200,
            )
        )
        self.nonce = b""
        self.control = b""
        self.handshake_done = False
        self.ended: events.ConnectionTerminated | None = None
        self.received_bytes = 0
        mux.on("quic", self.datagram_received)

    @classmethod
    async def open(cls, world: VirtualWorld, ip: str, server: Peer, *, alpn: str | None = None) -> BareClient:
        network = world.host(ip)
        mux = UdpMux(network)
        await mux.open([Address(ip, 4747)])
        return cls(network, mux, server.address, alpn or server.endpoint.alpn)

    def connect(self) -> None:
        self.quic.connect(("192.0.2.1", 1), self.network.monotonic())
        self.flush()

    def datagram_received(self, data: bytes, _source: Address) -> None:
        self.received_bytes += len(data)
        self.quic.receive_datagram(data, ("192.0.2.1", 1), self.network.monotonic())
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted):
                self.handshake_done = True
            elif isinstance(event, events.StreamDataReceived) and event.stream_id == 3:
                self.nonce += event.data
            elif isinstance(event, events.StreamDataReceived) and event.stream_id == 0:
                self.control += event.data
        self.ended = self.quic._close_event
        self.flush()

    def write(self, data: bytes, *, stream_id: int = 0, fin: bool = False) -> None:
        self.quic.send_stream_data(stream_id, data, fin)
        self.flush()

    def flush(self) -> None:
        for data, _ in self.quic.datagrams_to_send(self.network.monotonic()):
            self.mux.send(data, self.server)
