"""The QUIC layer of a session against aioquic, an independent implementation, both ways, in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import itertools
from typing import Any

import aioquic.quic.configuration as aio_configuration
import aioquic.quic.connection as aio_connection
import aioquic.quic.events as aio_events
import pytest
from aioquic.tls import Epoch
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.nat_peers import TAG, make_peer

from p2pnode.core.address import Address
from p2pnode.core.envelope import signing_input
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.nat import QuicSettings, UdpMux
from p2pnode.nat.certificate import make_certificate, peer_of_certificate_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ALPN = f"p2pnode/1/{TAG.hex()}"


class AioquicHost:
    """aioquic's connection on a virtual host: a session written from docs/protocol/session.md alone."""

    def __init__(self, network: Network, mux: UdpMux, key: NodeKey) -> None:
        self.network, self.mux, self.key = network, mux, key
        self.quic: aio_connection.QuicConnection | None = None
        self.remote = Address("0.0.0.0", 0)
        self.certificate = make_certificate(key, network.token_bytes)
        self.streams: dict[int, bytes] = {}
        self.nonce = hashlib.sha256(b"a nonce").digest()
        mux.on("quic", self.received)

    def configuration(self, *, client: bool) -> aio_configuration.QuicConfiguration:
        configuration = aio_configuration.QuicConfiguration(
            is_client=client, alpn_protocols=[ALPN], max_datagram_frame_size=1200, verify_mode=0
        )
        if not client:
            configuration.certificate = x509.load_pem_x509_certificate(self.certificate.pem)
            from cryptography.hazmat.primitives.serialization import load_pem_private_key

            configuration.private_key = load_pem_private_key(self.certificate.key_pem, None)
        return configuration

    def connect(self, remote: Address) -> None:
        self.remote = remote
        self.quic = aio_connection.QuicConnection(configuration=self.configuration(client=True))
        self.quic.connect(("192.0.2.1", 1), now=self.network.monotonic())
        self.flush()

    def received(self, data: bytes, source: Address) -> None:
        if self.quic is None:
            self.remote = source
            self.quic = aio_connection.QuicConnection(
                configuration=self.configuration(client=False),
                original_destination_connection_id=data[6 : 6 + data[5]],
            )
            self.nonce_sent = False
        self.quic.receive_datagram(data, ("192.0.2.1", 1), now=self.network.monotonic())
        while (event := self.quic.next_event()) is not None:
            self.event(event)
        self.flush()

    def event(self, event: Any) -> None:
        assert self.quic is not None
        if isinstance(event, aio_events.HandshakeCompleted):
            assert event.alpn_protocol == ALPN
            if not self.quic.configuration.is_client:
                self.quic.send_stream_data(3, b"\x01" + self.nonce, end_stream=True)
        elif isinstance(event, aio_events.StreamDataReceived):
            self.streams[event.stream_id] = self.streams.get(event.stream_id, b"") + event.data
            self.react(event.stream_id)

    def react(self, stream_id: int) -> None:
        assert self.quic is not None
        data = self.streams[stream_id]
        if stream_id == 3 and len(data) == 33:
            peer_certificate = self.quic.tls._peer_certificate
            assert peer_certificate is not None
            der = peer_certificate.public_bytes(Encoding.DER)
            self.server = peer_of_certificate_untrusted(der)
            self.quic.send_stream_data(0, self.proof(data[1:], self.server.raw, der))
        elif stream_id == 0 and not self.quic.configuration.is_client and len(data) == 97:
            self.client = data[1:33]
            self.quic.send_stream_data(0, b"\x01")
        elif stream_id == 4 and data.endswith(b"ping"):
            self.quic.send_stream_data(4, b"pong", end_stream=True)

    def proof(self, nonce: bytes, server: bytes, der: bytes) -> bytes:
        payload = nonce + server + self.key.public_raw + hashlib.sha256(der).digest() + TAG
        signature = self.key.sign(signing_input(b"p2pnode/1/session", b"client-proof", payload))
        return b"\x01" + self.key.public_raw + signature

    def flush(self) -> None:
        assert self.quic is not None
        for data, _ in self.quic.datagrams_to_send(now=self.network.monotonic()):
            self.mux.send(data, self.remote)


async def aioquic_host(world: VirtualWorld) -> AioquicHost:
    network = world.host("10.0.0.9")
    mux = UdpMux(network)
    await mux.open([Address("10.0.0.9", 4747)])
    return AioquicHost(network, mux, NodeKey.generate(network.token_bytes))


def test_aioquic_as_client_proves_itself_and_is_echoed() -> None:
    """A client made of aioquic and the protocol's document gets a proven connection and uses a stream."""

    async def main(world: VirtualWorld) -> None:
        bob, other = await make_peer(world, "10.0.0.2"), await aioquic_host(world)
        other.connect(bob.address)
        connection = await bob.first_incoming()
        assert connection.peer == other.key.peer_id
        assert other.server == bob.key.peer_id
        await asyncio.sleep(0.1)
        assert other.streams[0][:2] == b"\x01\x04"  # accepted, then a path key (32 bytes)
        assert len(other.streams[0]) == 34
        assert other.quic is not None
        other.quic.send_stream_data(4, b"\x04echohello")
        other.flush()
        await asyncio.sleep(0.1)
        assert other.streams[4] == b"hello"

    run_virtual(main)


def test_aioquic_as_server_is_connected_to() -> None:
    """Our client proves itself to a server made of aioquic, and exchanges data on a stream."""

    async def main(world: VirtualWorld) -> None:
        alice, other = await make_peer(world, "10.0.0.1"), await aioquic_host(world)
        connection = await alice.endpoint.connect(other.key.peer_id, Address("10.0.0.9", 4747))
        assert other.client == alice.key.public_raw
        stream = await connection.open_stream("test/1")
        await stream.write(b"ping")
        assert await stream.readexactly(4) == b"pong"
        assert other.streams[4] == b"\x06test/1ping"

    run_virtual(main)


def test_aioquic_follows_our_key_updates() -> None:
    """Keys that change every ten packets: aioquic reads each generation, and we what it sends under them."""

    async def main(world: VirtualWorld) -> None:
        alice = await make_peer(world, "10.0.0.1", settings=QuicSettings(key_update_packets=10))
        other = await aioquic_host(world)
        connection = await alice.endpoint.connect(other.key.peer_id, Address("10.0.0.9", 4747))
        stream = await connection.open_stream("test/1")
        assert other.quic is not None
        phases = []
        for number in range(60):
            await stream.write(bytes([number]))
            await asyncio.sleep(0.2)
            phases.append(other.quic._cryptos[Epoch.ONE_RTT].key_phase)
        await stream.write(b"ping")
        assert await stream.readexactly(4) == b"pong"
        assert other.streams[4] == b"\x06test/1" + bytes(range(60)) + b"ping"
        changes = sum(before != after for before, after in itertools.pairwise(phases))
        print(f"{changes} changes of keys in {len(alice.sent)} datagrams")
        assert changes >= 4

    run_virtual(main)


def test_certificate_is_the_same_to_openssl() -> None:
    """cryptography (OpenSSL) reads our certificate: P-256, self-signed, constant dates, libp2p's extension."""
    key = NodeKey(bytes(range(32)), bytes(32))
    made = make_certificate(key, lambda count: bytes(range(count)))
    certificate = x509.load_der_x509_certificate(made.der)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_after_utc == dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1"))
    assert not extension.critical
    assert peer_of_certificate_untrusted(made.der) == key.peer_id
    assert "PRIVATE" not in repr(made)
    with pytest.raises(AttributeError):
        made.der = b""  # type: ignore[misc]
