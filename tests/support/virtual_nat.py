"""NAT routers for the virtual world, and peers behind them that speak STUN, ICE and QUIC on one socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

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
from p2pnode.simulations.virtual import VirtualHost, VirtualNetwork, VirtualWorld
from p2pnode.simulations.virtual.places import is_public

Rule = Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"]
KINDS: dict[str, tuple[Rule, Rule]] = {
    "fullcone": ("endpoint-independent", "endpoint-independent"),
    "address-restricted": ("endpoint-independent", "address-dependent"),
    "port-restricted": ("endpoint-independent", "address-and-port-dependent"),
    "symmetric": ("address-and-port-dependent", "address-and-port-dependent"),
}
"""Kind to (mapping, filtering), RFC 4787, sections 4.1 and 5."""
LAN_DELAY_S = 0.0005


@dataclass
class _Mapping:
    internal: Address
    port: int
    used_at: float
    sent_to: set[Address] = field(default_factory=set)


class NatBox(VirtualHost):
    """A router with one public address. Random ports; a mapping ends `timeout_s` after the last packet out."""

    def __init__(
        self, world: VirtualWorld, public_ip: str, kind: str, *, timeout_s: float = 30.0, hairpin: bool = False
    ) -> None:
        super().__init__(world, f"router-{public_ip}")
        world.hosts.append(self)
        self.public_ip = public_ip
        self.mapping, self.filtering = KINDS[kind]
        self.timeout_s = timeout_s
        self.hairpin = hairpin
        self.blocked = 0
        self._inside: dict[str, VirtualHost] = {}
        self._by_flow: dict[tuple[Address, object], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}
        self.add_address(public_ip)

    def host(self, ip: str) -> VirtualNetwork:
        """Make a host on the router's LAN."""
        host = _InsideHost(self.world, f"{self.name}/{ip}", self)
        self.world.hosts.append(host)
        host.add_address(ip, lan=self.name)
        self._inside[ip] = host
        self.world.set_delay(host, self, LAN_DELAY_S)
        for other in self._inside.values():
            if other is not host:
                self.world.set_delay(host, other, LAN_DELAY_S)
        return host.network()

    def reboot(self) -> None:
        """Forget all mappings."""
        self._by_flow.clear()
        self._by_port.clear()

    @property
    def mappings(self) -> int:
        now = self.world.loop.time()
        return sum(now - each.used_at < self.timeout_s for each in self._by_port.values())

    def deliver(self, data: bytes, source: Address, to: Address, group: str | None) -> None:
        if source.ip in self._inside and to.ip != self.public_ip:
            self._outgoing(data, source, to)
        elif source.ip in self._inside and self.hairpin:
            self._incoming(data, Address(self.public_ip, self._map(source, to).port), to)
        elif source.ip not in self._inside and to.ip == self.public_ip:
            self._incoming(data, source, to)
        else:
            self.blocked += 1

    def _outgoing(self, data: bytes, source: Address, to: Address) -> None:
        mapping = self._map(source, to)
        outside = Address(self.public_ip, mapping.port)
        self.world.carry(data, outside, to, self, self.world.owner(to.ip, None), None)

    def _incoming(self, data: bytes, source: Address, to: Address) -> None:
        mapping = self._by_port.get(to.port)
        if mapping is None or self._is_old(mapping) or not self._lets_in(mapping, source):
            self.blocked += 1
            return
        self.world.carry(data, source, mapping.internal, self, self._inside[mapping.internal.ip], None)

    def _map(self, source: Address, to: Address) -> _Mapping:
        key = (source, _part(self.mapping, to))
        mapping = self._by_flow.get(key)
        if mapping is None or self._is_old(mapping):
            port = self.world.rng.randint(1024, 65535)
            while port in self._by_port:
                port = self.world.rng.randint(1024, 65535)
            mapping = self._by_flow[key] = self._by_port[port] = _Mapping(source, port, 0.0)
        mapping.used_at = self.world.loop.time()
        mapping.sent_to.add(to)
        return mapping

    def _is_old(self, mapping: _Mapping) -> bool:
        return self.world.loop.time() - mapping.used_at >= self.timeout_s

    def _lets_in(self, mapping: _Mapping, source: Address) -> bool:
        seen = {_part(self.filtering, each) for each in mapping.sent_to}
        return _part(self.filtering, source) in seen


def _part(rule: Rule, address: Address) -> object:
    """What of a remote address a rule looks at."""
    if rule == "endpoint-independent":
        return None
    return address.ip if rule == "address-dependent" else address


class _InsideHost(VirtualHost):
    def __init__(self, world: VirtualWorld, name: str, router: NatBox) -> None:
        super().__init__(world, name)
        self._router = router

    def route(self, to: Address, bound: str) -> tuple[str, VirtualHost | None] | None:
        if is_public(to.ip):
            return self.addresses()[0], self._router
        return super().route(to, bound)


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
