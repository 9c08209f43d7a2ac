"""Peers behind routers of the virtual world that speak STUN, ICE and QUIC on one socket; how hard those routers are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from support.nat_peers import TAG

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.nat import (
    Connection,
    IceCandidate,
    IceEndpoint,
    IceParameters,
    IceSession,
    QuicEndpoint,
    StunClient,
    StunServer,
    UdpMux,
)
from p2pnode.simulations.routers.kinds import RouterKind, kind_named
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld
from p2pnode.simulations.virtual.router import VirtualRouter

KINDS: dict[str, RouterKind] = {
    name: replace(kind_named(name), ports="random", inbound_refresh=False)
    for name in ("fullcone", "address-restricted", "port-restricted", "symmetric")
}
"""The common kinds at their hardest: no port is kept, and only packets from inside keep a mapping for its 30 s."""


def router_of(world: VirtualWorld, kind: str, outside: str) -> VirtualRouter:
    """Return a new router of one of these kinds."""
    return VirtualRouter(world, KINDS[kind], outside)


@dataclass
class IcePeer:
    """A node's sockets and machines, without DHT: offers and answers are handed over by the test."""

    network: VirtualNetwork
    mux: UdpMux
    ice: IceEndpoint
    quic: QuicEndpoint
    stun: StunClient
    host: Address
    incoming: list[Connection] = field(default_factory=list)
    sent: list[tuple[float, bytes, Address]] = field(default_factory=list)

    @classmethod
    async def open(cls, network: VirtualNetwork, *, port: int = 4747) -> IcePeer:
        mux = UdpMux(network)
        sent: list[tuple[float, bytes, Address]] = []

        def send(data: bytes, to: Address) -> None:
            sent.append((network.monotonic(), data, to))
            mux.send(data, to)

        ice = IceEndpoint(network=network, send=send, allow_documentation=True)
        key = NodeKey.generate(network.token_bytes)
        quic = QuicEndpoint(key=key, network=network, send=send, network_tag=TAG)
        client, server = StunClient(network, send), StunServer(send)

        def stun(data: bytes, source: Address) -> None:
            if not (ice.datagram_received(data, source) or client.datagram_received(data, source)):
                server.datagram_received(data, source)

        mux.on("stun", stun)
        mux.on("quic", quic.datagram_received)
        host = Address(network.host.addresses()[0], port)
        await mux.open([host])
        peer = cls(network, mux, ice, quic, client, host, sent=sent)
        quic.on_connection = peer.incoming.append
        return peer

    async def candidates(self, *servers: IcePeer) -> list[IceCandidate]:
        """Own host candidate, and what the STUN servers see."""
        found = [IceCandidate(self.host, "host")]
        found += [IceCandidate(await self.stun.query(server.host, timeout=30), "srflx") for server in servers]
        return list({each.address: each for each in reversed(found)}.values())[::-1]

    def close(self) -> None:
        self.ice.close()
        self.quic.close()
        self.mux.close()


@dataclass
class Meeting:
    """What came of an offer and an answer. Times are seconds from the moment the offer left."""

    caller: IceSession
    callee: IceSession
    caller_address: Address | None
    callee_address: Address | None
    seconds: float
    errors: list[Exception]


async def meet(
    caller: IcePeer, callee: IcePeer, servers: list[IcePeer], *, signal_s: float = 0.08, timeout: float = 12.0
) -> Meeting:
    """Both gather, the offer takes `signal_s`, the callee begins, so does the answer; the caller begins with it."""
    one = caller.ice.session(controlling=True, candidates=await caller.candidates(*servers))
    two = callee.ice.session(controlling=False, candidates=await callee.candidates(*servers))
    return await meet_sessions(one, two, signal_s=signal_s, timeout=timeout)


async def meet_sessions(one: IceSession, two: IceSession, *, signal_s: float = 0.08, timeout: float = 12.0) -> Meeting:
    loop = asyncio.get_running_loop()
    began = loop.time()
    offer, answer = one.local.encode(), two.local.encode()
    await asyncio.sleep(signal_s)
    second = asyncio.ensure_future(two.connect(IceParameters.decode_untrusted(offer), timeout=timeout))
    await asyncio.sleep(signal_s)
    first = asyncio.ensure_future(one.connect(IceParameters.decode_untrusted(answer), timeout=timeout))
    results = await asyncio.gather(first, second, return_exceptions=True)
    errors = [each for each in results if isinstance(each, Exception)]
    addresses = [each if isinstance(each, Address) else None for each in results]
    return Meeting(one, two, addresses[0], addresses[1], loop.time() - began, errors)
