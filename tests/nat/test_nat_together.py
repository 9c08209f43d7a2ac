"""Datagrams that come together: what belongs together goes to qh3 in one piece, the rest as ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nat_peers import Peer, make_peer

from p2pnode.core.address import Address
from p2pnode.core.segments import groups, split_untrusted
from p2pnode.nat import Connection
from p2pnode.nat.headers import CID_BYTES, is_run_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


class Together:
    """Keeps a peer's QUIC datagrams for a millisecond, and hands on those of one source and size in one piece."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.pieces = self.alone = 0
        self.foreign: dict[Address, list[bytes]] = {}
        """Put before the genuine ones of each piece: what somebody sent with the same source address."""
        self._waiting: list[tuple[bytes, Address]] = []
        peer.mux.on("quic", self.received)

    def received(self, data: bytes, source: Address) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(0.001, self._hand_on)
        self._waiting.append((data, source))

    def _hand_on(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.peer.mux.on("quic", self.peer.endpoint.datagram_received, self.peer.endpoint.datagrams_received)
        for source in dict.fromkeys(source for _, source in waiting):
            foreign = self.foreign.get(source, [])
            datagrams = foreign + [data for data, its in waiting if its == source]
            for first, end in groups(datagrams):
                if end - first == 1:
                    self.alone += 1
                    self.peer.mux.received(datagrams[first], source)
                else:
                    self.pieces += 1
                    self.peer.mux.received_many(b"".join(datagrams[first:end]), len(datagrams[first]), source)
        self.peer.mux.on("quic", self.received)


async def transfer(connection: Connection, data: bytes) -> bytes:
    """Send `data` to an echo, and return what came back."""
    stream = await connection.open_stream("echo")

    async def send() -> None:
        await stream.write(data)
        stream.finish()

    sending = asyncio.ensure_future(send())
    back = await stream.readexactly(len(data))
    assert await stream.read() == b""
    await sending
    return back


def test_a_transfer_in_pieces_keeps_every_byte() -> None:
    """A MiB there and back, all datagrams of a millisecond in one piece on both sides: equal, and most came so."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        both = [Together(alice), Together(bob)]
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        data = random.Random(2).randbytes(1 << 20)
        assert await transfer(connection, data) == data
        print("pieces", [side.pieces for side in both], "alone", [side.alone for side in both])
        assert all(side.pieces > 20 for side in both)

    run_virtual(main, delay=0.01)


def hostile(connection: Connection, seed: int) -> Iterator[bytes]:
    """Yield datagrams of 1,200 bytes that look like the connection's, or nearly."""
    rng = random.Random(seed)
    cid = connection.transport.cid
    yield bytes([0x40]) + cid + rng.randbytes(1191)
    yield bytes([0x40 | rng.randrange(64)]) + cid + rng.randbytes(1191)
    yield bytes([0x40]) + rng.randbytes(1199)
    yield bytes([0xC0]) + b"\0\0\0\1" + b"\x08" + cid + rng.randbytes(1186)
    yield bytes([0xE0]) + rng.randbytes(1199)
    yield bytes([0x05]) + rng.randbytes(1199)
    yield bytes(1200)
    yield bytes([0x40]) + cid + bytes(1191)


@pytest.mark.parametrize("seed", range(3))
def test_i1_strangers_datagrams_in_the_same_piece_change_nothing(seed: int) -> None:
    """Forged datagrams with the peer's address come in one piece with genuine ones: every byte still arrives."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        side = Together(bob)
        connection = await alice.endpoint.connect(bob.key.peer_id, bob.address)
        side.foreign[alice.address] = list(hostile(bob.incoming[0], seed))
        data = random.Random(seed).randbytes(200_000)
        assert await transfer(connection, data) == data
        print("pieces", side.pieces, bob.mux.statistics().dropped, bob.endpoint.statistics().dropped)
        assert side.pieces > 20
        assert not connection.closed
        assert not bob.incoming[0].closed

    run_virtual(main, delay=0.01)


def test_two_connections_between_the_same_addresses() -> None:
    """Datagrams of two connections from one address come in one piece: each gets its own."""

    async def main(world: VirtualWorld) -> None:
        alice, bob = await make_peer(world, "10.0.0.1"), await make_peer(world, "10.0.0.2")
        both = [Together(alice), Together(bob)]
        connections = [await alice.endpoint.connect(bob.key.peer_id, bob.address) for _ in range(2)]
        parts = [random.Random(seed).randbytes(150_000) for seed in range(2)]
        assert await asyncio.gather(*(transfer(c, d) for c, d in zip(connections, parts, strict=True))) == parts
        assert all(side.pieces for side in both)

    run_virtual(main, delay=0.01)


def test_a_handler_that_closes_the_mux_is_not_called_again() -> None:
    """Five datagrams in one piece, and the first one's handler closes the sockets: the other four go nowhere."""

    async def main(world: VirtualWorld) -> None:
        alice = await make_peer(world, "10.0.0.1")
        got: list[bytes] = []

        def handler(data: bytes, _source: Address) -> None:
            got.append(data)
            alice.mux.close()

        alice.mux.on("dht", handler)
        alice.mux.received_many((b"\x05" + bytes(19)) * 5, 20, Address("10.0.0.9", 1))
        assert len(got) == 1

    run_virtual(main)


def test_what_came_together_is_counted_as_if_it_came_alone() -> None:
    async def main(world: VirtualWorld) -> None:
        alice = await make_peer(world, "10.0.0.1")
        source = Address("10.0.0.9", 1)
        quic = (b"\x41" + bytes(19)) * 3 + b"\x41" + bytes(5)
        alice.mux.received_many(quic, 20, source)
        alice.mux.received_many(quic[:40] + b"\x05" + bytes(19) + b"\x90", 20, source)
        counted = alice.mux.statistics()
        assert counted.datagrams_in == {"quic": 6, "dht": 1}
        assert counted.bytes_in == {"quic": 106, "dht": 20}
        assert counted.dropped == {"unknown_kind": 1, "no_handler": 1}

    run_virtual(main)


@given(st.binary(min_size=1, max_size=400), st.integers(1, 120))
def test_a_run_has_one_connection_id_and_short_headers(buffer: bytes, size: int) -> None:
    """Whatever comes: true only when every single datagram has a short header and the first one's id."""
    pieces = split_untrusted(buffer, size)
    expected = all(len(piece) > CID_BYTES and piece[0] < 0x80 and piece[1:9] == pieces[0][1:9] for piece in pieces)
    assert is_run_untrusted(buffer, size) == expected


@given(st.integers(1, 20), st.integers(9, 60), st.integers(0, 200))
def test_a_run_is_known_as_one(count: int, size: int, last: int) -> None:
    run = b"".join(bytes([0x41]) + bytes(CID_BYTES) + bytes(size - 9) for _ in range(count))
    assert is_run_untrusted(run, size)
    changed = bytearray(run)
    changed[last % count * size + 3] ^= 1
    assert is_run_untrusted(bytes(changed), size) == (count == 1)
