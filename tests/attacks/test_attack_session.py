"""Attacks on sessions: M2, V1, V2, A1, T3, and hostile first packets. See docs/security.md."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest
from qh3.quic.packet import encode_quic_retry
from support.nat_peers import BareClient, Peer, make_peer

from p2pnode.core.address import Address
from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket, RefusedError, WrongKeyError
from p2pnode.core.keys import NodeKey
from p2pnode.nat import CloseCode, QuicSettings, kind_of
from p2pnode.nat import certificate as certificates
from p2pnode.nat.certificate import NodeCertificate, make_certificate, peer_of_certificate_untrusted
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
from p2pnode.nat.transport import make_configuration
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

KEYS = [NodeKey(bytes([number]) * 32, bytes(32)) for number in range(1, 5)]


def facts(server: NodeKey = KEYS[0], *, nonce: bytes = bytes(32), tag: bytes = bytes(8)) -> SessionFacts:
    return SessionFacts(nonce=nonce, server=server.peer_id, certificate_der=b"certificate", network_tag=tag)


def test_m2_proof_is_bound_to_server_nonce_certificate_and_network() -> None:
    """M2: a valid proof is refused when any of what it is bound to differs."""
    client = KEYS[1]
    proof = make_proof(client, facts())
    assert check_proof_untrusted(proof, facts()) == client.peer_id
    others = [
        facts(KEYS[2]),
        facts(nonce=b"\x01" * 32),
        facts(tag=b"\x01" * 8),
        SessionFacts(nonce=bytes(32), server=KEYS[0].peer_id, certificate_der=b"other", network_tag=bytes(8)),
    ]
    for other in others:
        with pytest.raises(BadPacket, match="bad_signature"):
            check_proof_untrusted(proof, other)


def test_m2_relayed_proof_is_refused_by_the_third() -> None:
    """M2: Mallory, to whom Alice connects, relays Bob's nonce to her and her proof to Bob: Bob refuses."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        mallory = await make_peer(world, "10.0.0.3")
        towards_bob = await BareClient.open(world, "10.0.0.4", bob)
        towards_bob.connect()
        await asyncio.sleep(0.1)
        # Mallory serves Alice with Bob's nonce, under her own certificate, and copies the proof.
        real = mallory.network.token_bytes
        mallory.network.token_bytes = lambda n: towards_bob.nonce[1:] if n == 32 else real(n)  # type: ignore[method-assign]
        copied: list[bytes] = []
        original = check_proof_untrusted

        def spy(data: bytes, known: SessionFacts) -> Any:
            copied.append(data)
            return original(data, known)

        import p2pnode.nat.handshake as handshake

        handshake.check_proof_untrusted = spy  # type: ignore[attr-defined]
        try:
            await alice.endpoint.connect(mallory.key.peer_id, mallory.address)
        finally:
            handshake.check_proof_untrusted = original  # type: ignore[attr-defined]
        assert len(copied) == 1
        towards_bob.write(copied[0])
        await asyncio.sleep(0.1)
        assert towards_bob.ended is not None
        assert towards_bob.ended.error_code == CloseCode.BAD_PROOF
        assert bob.incoming == []
        assert bob.endpoint.statistics().dropped["bad_signature"] == 1

    run_virtual(main)


def test_v2_proof_signatures_of_other_kinds_are_refused() -> None:
    """V2: other domain, other type, somebody else's key, a small-order key, S + L."""
    client, known = KEYS[1], facts()
    proof = make_proof(client, known)
    payload = known.nonce + KEYS[0].public_raw + client.public_raw + known.certificate_hash + bytes(8)
    for domain, kind in ((b"p2pnode/1/dht", b"client-proof"), (b"p2pnode/1/session", b"other")):
        forged = proof[:33] + client.sign(signing_input(domain, kind, payload))
        with pytest.raises(BadPacket, match="bad_signature"):
            check_proof_untrusted(forged, known)
    with pytest.raises(BadPacket, match="bad_signature"):
        check_proof_untrusted(proof[:1] + KEYS[2].public_raw + proof[33:], known)
    with pytest.raises(BadPacket, match="bad_key"):
        check_proof_untrusted(proof[:1] + b"\x01" + bytes(31) + proof[33:], known)
    group_order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(proof[65:], "little") + group_order
    with pytest.raises(BadPacket, match="bad_signature"):
        check_proof_untrusted(proof[:65] + scalar.to_bytes(32, "little"), known)


def _with_extension(key: NodeKey, value: bytes) -> NodeCertificate:
    original = certificates._signed_key
    certificates._signed_key = lambda _raw, _signature: value
    try:
        return make_certificate(key, os.urandom)
    finally:
        certificates._signed_key = original


def test_v2_certificate_with_a_wrong_extension_is_refused() -> None:
    """V2: signature by another key or over another certificate, wrong layout, small-order key, no self-signature."""
    key, other = KEYS[0], KEYS[1]
    good = make_certificate(key, os.urandom)
    second = make_certificate(key, os.urandom)
    assert peer_of_certificate_untrusted(good.der) == key.peer_id
    at = good.der.index(bytes((0x30, 104, 0x04, 36)))
    extension = second.der[second.der.index(bytes((0x30, 104, 0x04, 36))) :][:106]
    cases = {
        "bad_signature": [extension, extension[:8] + other.public_raw + extension[40:]],
        "bad_extension": [b"", extension[:-1], extension + b"\0", b"\x31" + extension[1:], bytes(106)],
        "bad_key": [extension[:8] + bytes(32) + extension[40:]],
    }
    for reason, values in cases.items():
        for value in values:
            with pytest.raises(BadPacket, match=reason):
                peer_of_certificate_untrusted(_with_extension(key, value).der)
    # a valid extension moved into a certificate without signing that anew
    with pytest.raises(BadPacket, match="bad_certificate"):
        peer_of_certificate_untrusted(good.der[:at] + extension + good.der[at + 106 :])
    with pytest.raises(BadPacket, match="bad_certificate"):
        peer_of_certificate_untrusted(good.der + bytes(3000))


def test_v2_server_with_a_forged_certificate_is_refused_by_name() -> None:
    """V2: a server that copies the victim's signed key into its own certificate gets no connection."""

    async def main(world: VirtualWorld) -> None:
        alice, mallory = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        victim = KEYS[3]
        stolen = make_certificate(victim, os.urandom)
        extension = stolen.der[stolen.der.index(bytes((0x30, 104, 0x04, 36))) :][:106]
        forged = _with_extension(mallory.key, extension)
        mallory.endpoint._server_configuration = make_configuration(
            client=False, alpn=mallory.endpoint.alpn, idle_timeout_s=60, initial_rtt_s=0.3, certificate=forged
        )
        with pytest.raises(WrongKeyError) as caught:
            await alice.endpoint.connect(victim.peer_id, mallory.address)
        assert caught.value.facts["answered"] is None
        assert alice.endpoint.statistics().tracked == 0

    run_virtual(main)


def test_v2_other_alpn_is_refused_on_both_sides() -> None:
    """V2: neither another network's tag nor an unknown protocol gets past TLS."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        for number, alpn in enumerate(("h3", "p2pnode/1/ffffffffffffffff", "p2pnode/2/0102030405060708")):
            client = await BareClient.open(world, f"10.0.1.{number + 1}", bob, alpn=alpn)
            client.connect()
            await asyncio.sleep(0.2)
            assert not client.handshake_done
        alice = await make_peer(world, "10.0.0.1", tag=b"12345678")
        with pytest.raises(RefusedError):
            await alice.endpoint.connect(bob.key.peer_id, bob.address)
        await asyncio.sleep(6)
        assert bob.endpoint.statistics().tracked == 0

    run_virtual(main)


def test_a1_unvalidated_address_gets_at_most_three_times_its_bytes() -> None:
    """A1: a client whose address is forged (it never answers) draws at most 3 times what it sent, timeouts included."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.quic.connect(("192.0.2.1", 1), 0.0)
        sent = 0
        for data, _ in client.quic.datagrams_to_send(0.0):
            bob.endpoint.datagram_received(data, Address("10.0.0.77", 7))
            sent += len(data)
        await asyncio.sleep(30)
        drawn = sum(map(len, bob.sent))
        print(f"A1: sent {sent}, drew {drawn}: {drawn / sent:.2f} times")
        assert drawn <= 3 * sent
        assert bob.endpoint.statistics().tracked == 0

    run_virtual(main)


def test_a1_retry_is_smaller_than_the_packet_it_answers() -> None:
    """A1: a Retry has about 100 bytes, an Initial at least 1,200; shorter Initials draw nothing."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2", settings=QuicSettings(retry_above=0, max_unproven=0))
        source = Address("10.0.0.77", 7)
        initial = _initial(bob, bytes(8), b"c" * 8, size=1200)
        bob.endpoint.datagram_received(initial, source)
        assert [len(data) <= 200 for data in bob.sent] == [True]
        bob.endpoint.datagram_received(initial[:1199], source)
        bob.endpoint.datagram_received(_initial(bob, bytes(7), b"c" * 8, size=1200), source)
        assert len(bob.sent) == 1

    run_virtual(main)


def _initial(_server: Peer, cid: bytes, client_cid: bytes, *, size: int, token: bytes = b"") -> bytes:
    """Return a well-framed Initial whose payload is noise."""
    head = b"\xc3\x00\x00\x00\x01" + bytes([len(cid)]) + cid + bytes([len(client_cid)]) + client_cid
    head += (0x4000 | len(token)).to_bytes(2, "big") + token
    rest = size - len(head) - 2
    return head + (0x4000 | rest).to_bytes(2, "big") + random.Random(1).randbytes(rest)


def test_t3_half_open_handshakes_are_bounded_and_real_clients_get_in() -> None:
    """T3: 1,000 valid first flights from forged addresses in a second: bounded state; a real client still connects."""

    async def main(world: VirtualWorld) -> None:
        settings = QuicSettings(retry_above=16, max_unproven=32, max_unproven_per_prefix=8)
        bob, alice = await make_peer(world, "10.0.0.2", settings=settings), await make_peer(world, "10.0.0.1")
        flood = await BareClient.open(world, "10.0.9.9", bob)
        flood.quic.connect(("192.0.2.1", 1), 0.0)
        flight = [data for data, _ in flood.quic.datagrams_to_send(0.0)]
        most = 0
        for number in range(1000):
            source = Address(f"10.{number % 200}.7.{number // 200 + 1}", 1000 + number)
            for data in flight:
                bob.endpoint.datagram_received(data, source)
            most = max(most, bob.endpoint.statistics().tracked)
            await asyncio.sleep(0.001)
        statistics = bob.endpoint.statistics()
        print(f"T3: at most {most} tracked, {statistics.retries_sent} retries")
        assert most <= 32
        assert statistics.retries_sent >= 1900
        began = world.loop.time()
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        assert connection.peer == bob.key.peer_id
        assert world.loop.time() - began < 0.1  # one round trip more, for the Retry
        assert bob.endpoint.statistics().accepted == 1
        await asyncio.sleep(20)
        assert bob.endpoint.statistics().unproven == 0
        assert len(bob.endpoint._first_cids) == 0

    run_virtual(main, delay=0.01)


def test_t3_retry_tokens_are_bound_to_address_and_time() -> None:
    """T3: another address or port, an old, cut or changed token, and another node's token are refused."""
    tokens = RetryTokens(os.urandom)
    source = Address("192.0.2.7", 99)
    token = tokens.make(source, b"o" * 8, b"r" * 8, 100.0)
    assert tokens.read_untrusted(token, source, 105.0) == (b"o" * 8, b"r" * 8)
    for bad, where, now in (
        (token, Address("192.0.2.8", 99), 100.0),
        (token, Address("192.0.2.7", 98), 100.0),
        (token, source, 111.0),
        (RetryTokens(os.urandom).make(source, b"o" * 8, b"r" * 8, 100.0), source, 100.0),
        (token + b"\0", source, 100.0),
        (bytes(300), source, 100.0),
    ):
        with pytest.raises(BadPacket):
            tokens.read_untrusted(bad, where, now)
    for cut in range(len(token)):
        with pytest.raises(BadPacket):
            tokens.read_untrusted(token[:cut], source, 100.0)


def test_t3_hostile_first_packets_never_raise_and_leave_nothing() -> None:
    """T3/V1: noise of every first byte, well-framed garbage, truncated, coalesced and repeated first packets."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.quic.connect(("192.0.2.1", 1), 0.0)
        flight = [data for data, _ in client.quic.datagrams_to_send(0.0)]
        rng = random.Random(3)
        source = Address("10.0.0.77", 7)
        packets = [bytes([byte]) + rng.randbytes(rng.choice((0, 5, 30, 1199, 1400))) for byte in range(256)]
        packets += [_initial(bob, rng.randbytes(rng.randrange(21)), rng.randbytes(8), size=1200) for _ in range(50)]
        packets += [_initial(bob, bytes(8), bytes(8), size=1200, token=rng.randbytes(90)) for _ in range(10)]
        packets += [flight[0][:n] for n in range(0, 1200, 37)]
        for _ in range(300):
            data = bytearray(rng.choice(flight))
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            packets.append(bytes(data))
        packets += [flight[1] + flight[0], flight[0] * 3, flight[0] + bytes(1200)]
        packets.append(
            encode_quic_retry(
                version=1,
                source_cid=bytes(8),
                destination_cid=bytes(8),
                original_destination_cid=bytes(8),
                retry_token=b"x" * 20,
            )
        )
        for packet in packets:
            bob.endpoint.datagram_received(packet, source)
        statistics = bob.endpoint.statistics()
        assert statistics.tracked <= 256
        assert statistics.dropped["bad_initial"] >= 50
        await asyncio.sleep(12)
        assert bob.endpoint.statistics().tracked == 0
        assert bob.endpoint.statistics().unproven == 0

    run_virtual(main)


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
