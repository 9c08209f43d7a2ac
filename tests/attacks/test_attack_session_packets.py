"""Attacks on sessions: A1, T3, and hostile first packets. See docs/security.md."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from qh3.quic.packet import encode_quic_retry
from support.nat_peers import BareClient, Peer, make_peer

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat import QuicSettings
from p2pnode.nat.retry import RetryTokens
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


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


def test_a1_repeated_first_packets_draw_at_most_three_times_their_bytes() -> None:
    """A1: the same first flight 20 times from a forged address, which asks for the answer again: 3 times at most."""

    async def main(world: VirtualWorld) -> None:
        bob = await make_peer(world, "10.0.0.2")
        client = await BareClient.open(world, "10.0.0.1", bob)
        client.quic.connect(("192.0.2.1", 1), 0.0)
        flight = [data for data, _ in client.quic.datagrams_to_send(0.0)]
        sent = 0
        for _ in range(20):
            for data in flight:
                bob.endpoint.datagram_received(data, Address("10.0.0.77", 7))
                sent += len(data)
                await asyncio.sleep(0)
                assert sum(map(len, bob.sent)) <= 3 * sent
            await asyncio.sleep(0.1)
        drawn = sum(map(len, bob.sent))
        print(f"A1: sent {sent}, drew {drawn}: {drawn / sent:.2f} times")
        assert drawn <= 3 * sent

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
