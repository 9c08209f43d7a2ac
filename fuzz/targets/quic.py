"""What arrives on the socket: the mux's choice, and a QUIC endpoint in virtual time fed packets.

Input: steps of `kind (1) · length (2) · bytes`: bytes as they are; bytes padded to a first packet's 1,200; the
frames of a well-encrypted Initial packet (its keys follow from the connection id, which everybody chooses for himself).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import cast

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.core.segments import split_untrusted
from p2pnode.nat import QuicEndpoint, UdpMux, kind_of
from p2pnode.nat.headers import is_run_untrusted
from p2pnode.nat.quic import QuicStatistics
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from targets.base import Target
from targets.initial import initial_packet

__all__ = ["FRAMES", "PADDED", "RAW", "TARGETS"]

RAW, PADDED, FRAMES = range(3)
MAX_STEPS = 6
OWN, CLIENT = Address("7.0.0.1", 4747), Address("7.0.1.1", 5000)


@cache
def key() -> NodeKey:
    return NodeKey(bytes([5]) * 32, bytes([6]) * 32)


def hold_kind(data: bytes, kind: str | None) -> None:
    assert kind in (None, "stun", "dht", "relay", "quic")
    assert (kind is None) or data


def steps_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, bytes)."""
    for _ in range(MAX_STEPS):
        if len(data) < 3:
            return
        end = 3 + int.from_bytes(data[1:3], "big") % 1_300
        yield data[0] % 3, data[3:end]
        data = data[end:]


def read_steps(data: bytes) -> None:
    """Run the steps. At most three times what came goes back, as to any address that has not proven itself."""

    async def main(world: VirtualWorld) -> None:
        network, outside = world.host(OWN.ip), world.host(CLIENT.ip)
        mux, received, came = UdpMux(network), 0, 0

        def answered(out: bytes, _source: Address) -> None:
            nonlocal received
            received += len(out)

        client = await outside.open_udp(CLIENT, answered)
        endpoint = QuicEndpoint(key=key(), network=network, send=mux.send, network_tag=bytes(8))
        mux.on("quic", endpoint.datagram_received)
        await mux.open([OWN])
        for number, (kind, content) in enumerate(steps_of(data)):
            datagram = content
            if kind == PADDED:
                datagram = content.ljust(1_200, b"\0")
            elif kind == FRAMES:
                datagram = initial_packet(content, number)
            came += len(datagram)
            client.send(datagram, OWN)
            await asyncio.sleep(0.005)
        await asyncio.sleep(12)
        statistics: QuicStatistics = endpoint.statistics()
        assert statistics.unproven == 0, statistics
        assert statistics.accepted == 0
        assert received <= 3 * came, (received, came)
        endpoint.close()
        mux.close()
        client.close()

    run_virtual(main, keep_trace=False, until=60)


def read_together(data: bytes) -> list[bytes]:
    """Two bytes of segment size, then what came together: return the datagrams that its handlers get, in order."""
    size, buffer = int.from_bytes(data[:2], "big"), data[2:]
    if not 0 < size < len(buffer):
        raise BadPacket("not_together")
    mux, got = UdpMux(cast("Network", None)), list[bytes]()
    mux.on("quic", lambda one, _: got.append(one), lambda many, _size, _: got.extend(split_untrusted(many, _size)))
    for kind in ("stun", "dht", "relay"):
        mux.on(kind, lambda one, _: got.append(one))
    mux.received_many(buffer, size, CLIENT)
    return got


def hold_together(data: bytes, got: list[bytes]) -> None:
    """Those of a kind that somebody takes come whole, once, in order; a run has one id and short headers."""
    size, buffer = int.from_bytes(data[:2], "big"), data[2:]
    datagrams = [buffer[start : start + size] for start in range(0, len(buffer), size)]
    assert got == [one for one in datagrams if kind_of(one) is not None]
    alike = all(len(one) > 8 and one[0] < 0x80 and one[1:9] == datagrams[0][1:9] for one in datagrams)
    assert is_run_untrusted(buffer, size) == alike


TARGETS = [
    Target("together", read_together, hold_together, max_bytes=4_000),
    Target("mux_kind", kind_of, hold_kind, (), 100),
    Target("quic_endpoint", read_steps, errors=(), max_bytes=4_000, cpu_s=0.4),
]
