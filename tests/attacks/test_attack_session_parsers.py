"""Attacks on sessions: V1, changed packets, and every parser of the session protocol. See docs/security.md."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.nat_peers import make_peer

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.keys import NodeKey
from p2pnode.nat import CloseCode, kind_of
from p2pnode.nat.certificate import make_certificate, peer_of_certificate_untrusted
from p2pnode.nat.control import ControlReader, Credit, Ping, Pong, encode_control
from p2pnode.nat.proof import (
    SessionFacts,
    check_proof_untrusted,
    encode_stream_header,
    make_proof,
    read_nonce_untrusted,
    read_stream_header_untrusted,
)
from p2pnode.nat.retry import RetryTokens
from p2pnode.nat.stun import binding_request, binding_response, parse_stun_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

KEYS = [NodeKey(bytes([number]) * 32, bytes(32)) for number in range(1, 5)]


def facts(server: NodeKey = KEYS[0], *, nonce: bytes = bytes(32), tag: bytes = bytes(8)) -> SessionFacts:
    return SessionFacts(nonce=nonce, server=server.peer_id, certificate_der=b"certificate", network_tag=tag)


def test_v1_changed_packets_of_a_live_connection_change_nothing() -> None:
    """V1: replayed, cut, bit-flipped packets of a live connection, and from another address: it goes on."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        stream = await connection.open_stream("echo")
        rng = random.Random(5)
        for number in range(100):
            await stream.write(b"%03d" % number)
            await asyncio.sleep(0.01)
            for packet in (rng.choice(alice.sent), alice.sent[-1]):
                data = bytearray(packet)
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                bob.endpoint.datagram_received(bytes(data), alice.address)
                bob.endpoint.datagram_received(packet, alice.address)
                bob.endpoint.datagram_received(packet[: rng.randrange(len(packet))], alice.address)
                bob.endpoint.datagram_received(packet, Address("10.0.0.66", 6))
        assert await stream.readexactly(300) == b"".join(b"%03d" % number for number in range(100))
        assert len(bob.incoming) == 1
        assert bob.endpoint.statistics().dropped["other_address"] >= 50

    run_virtual(main)


@pytest.mark.parametrize("garbage", [b"\x09", b"\xff" * 40, b"\x01" * 16 + b"\x07" * 9])
def test_v1_unknown_control_frames_end_the_connection_only(garbage: bytes) -> None:
    """V1: nonsense on stream 0 of a proven connection closes it with PROTOCOL; the endpoint lives on."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        connection.stream_write(0, garbage, False)
        assert (await connection.wait_closed()).code == CloseCode.PROTOCOL
        again = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        assert await again.ping() < 1

    run_virtual(main)


def test_v1_bad_stream_headers_cost_their_stream_only() -> None:
    """V1: 500 streams with malformed or unfinished headers: reset, nothing kept, the connection works."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        other = await bob.first_incoming()
        headers = [b"\x00", b"\x41" + b"a" * 65, b"\x02 a", b"\x03a\xff", b"\x05ab"]
        for number in range(500):
            while (stream_id := connection.transport.next_stream_id()) is None:
                await connection._wait_changed()
            connection.stream_write(stream_id, headers[number % 5], True)
            await asyncio.sleep(0.002)
        await asyncio.sleep(1)
        assert not other._streams
        assert not other._headers
        assert other._refused == set()
        assert bob.endpoint.statistics().dropped["bad_stream_header"] == 500
        assert await connection.ping() < 1

    run_virtual(main)


def _parsers() -> dict[str, tuple[bytes, Any]]:
    known = facts()
    proof = make_proof(KEYS[1], known)
    der = make_certificate(KEYS[0], lambda n: random.Random(n).randbytes(n)).der
    token_maker = RetryTokens(bytes)
    source = Address("192.0.2.7", 99)
    control = encode_control(Credit(4, 70_000)) + encode_control(Ping(1)) + encode_control(Pong(2))
    response = binding_response(bytes(12), source)
    return {
        "stun request": (binding_request(bytes(12)), parse_stun_untrusted),
        "stun response": (response, lambda data: parse_stun_untrusted(data).mapped_address_untrusted()),
        "proof": (proof, lambda data: check_proof_untrusted(data, known)),
        "nonce": (b"\x01" + bytes(32), read_nonce_untrusted),
        "stream header": (encode_stream_header("p2pnode/echo/1"), read_stream_header_untrusted),
        "control": (control, lambda data: ControlReader().feed_untrusted(data)),
        "certificate": (der, peer_of_certificate_untrusted),
        "token": (
            token_maker.make(source, b"o" * 8, b"r" * 8, 1.0),
            lambda d: token_maker.read_untrusted(d, source, 1.0),
        ),
        "first byte": (binding_request(bytes(12)), kind_of),
    }


@pytest.mark.parametrize("name", list(_parsers()))
def test_v1_every_parser_gives_a_message_or_bad_packet(name: str) -> None:
    """V1: each prefix, each byte replaced, grown, and seeded random bytes: a message or BadPacket, nothing else."""
    valid, parse = _parsers()[name]
    parse(valid)
    rng = random.Random(7)
    inputs = [valid[:length] for length in range(len(valid))]
    inputs += [valid + rng.randbytes(n) for n in (1, 4, 8)]
    for position in range(len(valid)):
        for value in (0, 0xFF, valid[position] ^ 1, valid[position] ^ 0x80):
            inputs.append(valid[:position] + bytes([value]) + valid[position + 1 :])
    inputs += [rng.randbytes(rng.randrange(120)) for _ in range(300)]
    refused = 0
    for data in inputs:
        try:
            parse(data)
        except BadPacket:
            refused += 1
    print(f"{name}: {len(inputs)} inputs, {refused} refused")


def test_v1_control_reader_keeps_at_most_a_frame() -> None:
    """V1: bytes one at a time give the same frames; what waits between calls is bounded."""
    data = encode_control(Credit(8, 1 << 40)) + encode_control(Ping(9)) + encode_control(Pong(10))
    reader = ControlReader()
    frames = []
    for byte in data:
        frames += reader.feed_untrusted(bytes([byte]))
        assert len(reader._rest) <= 16
    assert frames == [Credit(8, 1 << 40), Ping(9), Pong(10)]
    assert frames == ControlReader().feed_untrusted(data)
