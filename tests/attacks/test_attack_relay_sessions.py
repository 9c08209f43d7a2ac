"""T3 by relays: handshakes that come through flows, all from one address, the relay's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from support.nat_peers import TAG, BareClient, Peer, make_peer

from p2pnode.core.address import Address
from p2pnode.core.errors import RefusedError
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.nat import Connection, Path, PathKind, QuicEndpoint, QuicSettings
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

AT = Address("20.7.7.7", 4747)
HALF_S = 0.005


class End:
    """One end of a relayed flow. `peer`: who is at the other one."""

    kind: PathKind = "relay"

    def __init__(self, peer: PeerId) -> None:
        self.peer: PeerId | None = peer
        self.path = Path(AT, self)
        self.deliver: Callable[[bytes], None] = lambda _data: None

    def send(self, data: bytes, to: Address) -> None:
        del to
        asyncio.get_running_loop().call_later(HALF_S, self.deliver, data)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        for data in datagrams:
            self.send(data, to)


def flow_to(bob: Peer, caller: PeerId) -> tuple[End, End]:
    """Return the caller's end and Bob's; what comes to the caller goes to `deliver` of Bob's end."""
    ours, bobs = End(bob.key.peer_id), End(caller)
    ours.deliver = lambda data: bob.endpoint.datagram_received(data, AT, bobs)
    return ours, bobs


def relayed_peer(world: VirtualWorld, ip: str, bob: Peer, key: NodeKey | None = None) -> tuple[QuicEndpoint, End]:
    """An endpoint that has a flow to Bob and nothing else. `key`: other than the one that opened the flow."""
    network = world.host(ip)
    opener = NodeKey.generate(network.token_bytes)
    nothing: Any = lambda *_: None  # noqa: E731
    endpoint = QuicEndpoint(key=key or opener, network=network, send=nothing, network_tag=TAG)
    ours, bobs = flow_to(bob, opener.peer_id)
    bobs.deliver = lambda data: endpoint.datagram_received(data, AT, ours)
    return endpoint, ours


class FlowMux:
    """What a bare client takes for its socket: a flow, perhaps one of many clients."""

    def __init__(self, ours: End, bobs: End) -> None:
        self.ours = ours
        self.handlers: list[Callable[[bytes, Address], None]] = []
        bobs.deliver = lambda data: [handler(data, AT) for handler in self.handlers] and None

    def on(self, kind: str, handler: Callable[[bytes, Address], None]) -> None:
        del kind
        self.handlers.append(handler)

    def send(self, data: bytes, to: Address) -> None:
        self.ours.send(data, to)


async def half_open(world: VirtualWorld, bob: Peer, clients: int) -> None:
    """One stranger, one flow, many handshakes that never send a proof; Retry is answered."""
    mux = FlowMux(*flow_to(bob, NodeKey.generate(os.urandom).peer_id))
    network = world.host("20.6.6.6")
    for _ in range(clients):
        BareClient(network, cast("Any", mux), AT, bob.endpoint.alpn).connect()
        await asyncio.sleep(0.005)


def test_t3_half_open_handshakes_of_one_flow_leave_room_for_the_other_flows_of_the_relay() -> None:
    """40 of one stranger by one flow: four are held at a time; another peer of the same relay connects at once."""

    async def main(world: VirtualWorld) -> tuple[int, float]:
        settings = QuicSettings(retry_above=2, max_unproven=64, max_unproven_per_prefix=16)
        bob = await make_peer(world, "20.0.0.2", settings=settings)
        await half_open(world, bob, 40)
        await asyncio.sleep(0.1)
        held = bob.endpoint.statistics().unproven
        alice, flow = relayed_peer(world, "20.1.0.1", bob)
        began = world.loop.time()
        connection = await alice.connect(bob.key.peer_id, flow.path, timeout=2)
        seconds = world.loop.time() - began
        await asyncio.sleep(0.1)
        assert not connection.closed
        return held, seconds

    held, seconds = run_virtual(main)
    print(f"T3: {held} of 40 handshakes of one flow are held; another flow's takes {seconds:.3f} s")
    assert held <= 4
    assert seconds < 0.1


def test_t3_half_open_handshakes_of_a_relays_neighbours_do_not_lock_its_flows_out() -> None:
    """Real addresses of the relay's /24 hold all places that a block may have: who comes through the relay gets in."""

    async def main(world: VirtualWorld) -> None:
        settings = QuicSettings(retry_above=2, max_unproven=64, max_unproven_per_prefix=16)
        bob = await make_peer(world, "20.0.0.2", settings=settings)
        for number in range(24):
            client = await BareClient.open(world, f"20.7.7.{number + 100}", bob)
            client.connect()
        await asyncio.sleep(0.5)
        assert bob.endpoint.statistics().unproven == 16
        alice, flow = relayed_peer(world, "20.1.0.1", bob)
        await alice.connect(bob.key.peer_id, flow.path, timeout=2)

    run_virtual(main, delay=0.01)


def test_t3_m1_a_flow_brings_the_peer_that_it_is_for_and_no_other_key() -> None:
    """A stranger proves twelve keys of his through one flow, where eight sessions fit: none of them opens, and those
    who come by flows of their own, or directly, stay."""

    async def main(world: VirtualWorld) -> tuple[int, int]:
        bob = await make_peer(world, "20.0.0.2", settings=QuicSettings(max_connections=8))
        honest: list[Connection] = []
        for number in range(4):
            endpoint, flow = relayed_peer(world, f"20.{number + 10}.0.1", bob)
            honest.append(await endpoint.connect(bob.key.peer_id, flow.path))
        refused = 0
        for number in range(12):
            key = NodeKey.generate(os.urandom)
            endpoint, flow = relayed_peer(world, f"20.6.{number}.1", bob, key)
            with pytest.raises(RefusedError):
                await endpoint.connect(bob.key.peer_id, flow.path)
            refused += 1
        await asyncio.sleep(0.1)
        return refused, sum(not each.closed for each in honest)

    refused, stayed = run_virtual(main)
    print(f"T3: {refused} of 12 keys by flows of another are refused, {stayed} of 4 honest sessions stay")
    assert (refused, stayed) == (12, 4)
