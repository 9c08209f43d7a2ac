"""The probe: asks what the routers before this host do, with packets only.

RFC 5780, "NAT Behavior Discovery Using STUN", section 4. Differences: mapping and filtering are never asked from one
socket; ports are asked for one after the other, so that sequences show; a hairpin is tried from both sides at once,
since a router may filter it; where no UDP passes, TCP is tried all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

from p2pnode.core.address import Address, Scope, scope_of
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Network
from p2pnode.nat.behaviour import allocation_of, filtering_of, mapping_of
from p2pnode.simulations.probing.asker import Asker
from p2pnode.simulations.probing.gateway import GatewayAnswers, ask_gateway
from p2pnode.simulations.probing.lifetime import find_lifetime
from p2pnode.simulations.probing.messages import (
    CHANGE_IP,
    CHANGE_PORT,
    ProbeRequest,
    parse_answer_untrusted,
    request,
)
from p2pnode.simulations.probing.server import read_message
from p2pnode.simulations.probing.settings import ProbeServers, ProbeSettings
from p2pnode.simulations.probing.verdict import Verdict

__all__ = ["probe"]

_HAIRPIN = b"p2pnode probe hairpin"


async def probe(network: Network, servers: ProbeServers, settings: ProbeSettings | None = None) -> Verdict:
    """Find out what stands between this host and the servers. Silence is a finding; raise OSError only for sockets."""
    made = _Probe(network, servers, settings or ProbeSettings())
    try:
        return await made.run()
    finally:
        for asker in made.open:
            asker.close()


@dataclass
class _Probe:
    network: Network
    servers: ProbeServers
    settings: ProbeSettings
    open: list[Asker] = field(default_factory=list)

    async def run(self) -> Verdict:
        subject = await self._asker()
        own_ip = self._own_ip(ipv6=False)
        verdict = Verdict(own=Address(own_ip, subject.port) if own_ip else None)
        first = await subject.ask(self.servers.at(0, 0)) if own_ip else None
        verdict = replace(verdict, udp=first is not None)
        if first is not None:
            verdict = replace(verdict, public=first.mapped, nat=first.mapped != verdict.own)
            verdict = await self._mappings(subject, first.mapped, verdict)
        filtering, hairpin, tcp, ipv6, gateway = await asyncio.gather(
            self._filtering() if first is not None else _unknown(),
            self._hairpin(own_ip) if first and own_ip and self.settings.hairpin else _nothing(),
            self._tcp() if self.settings.tcp and own_ip else _nothing(),
            self._ipv6(),
            ask_gateway(self.network, self.settings, own_ip) if self.settings.port_mapping and own_ip else _nothing(),
        )
        verdict = replace(verdict, filtering=filtering, ipv6=ipv6[0], ipv6_filtering=ipv6[1])
        if hairpin is not None:
            source = None if not verdict.nat else hairpin[1]
            verdict = replace(verdict, hairpin=hairpin[0], hairpin_source=source)
        if tcp is not None:
            blocked = tuple(port for port in self.servers.tcp_ports if port not in tcp)
            verdict = replace(verdict, tcp=tcp, tcp_blocked=blocked)
        if gateway is not None:
            verdict = _with_gateway(verdict, gateway)
        if verdict.nat is False:
            verdict = replace(verdict, routers=0)
        if first is not None and self.settings.lifetime_max_s:
            lifetime, inbound = await find_lifetime(self._asker, self.servers.at(0, 0), self.settings)
            verdict = replace(verdict, lifetime_s=lifetime, inbound_refresh=inbound)
        return verdict

    async def _mappings(self, subject: Asker, first: Address, verdict: Verdict) -> Verdict:
        """Mapping behaviour, and how ports are given out."""
        seen: list[Address | None] = [first]
        for i, j in ((0, 1), (1, 0), (1, 1)):
            answer = await subject.ask(self.servers.at(i, j))
            seen.append(answer.mapped if answer is not None else None)
        mapping = mapping_of(seen)
        found = [address for address in seen if address is not None]
        samples = [(subject.port, address) for address in dict.fromkeys(found)]
        for _ in range(self.settings.allocation_sockets):
            asker = await self._asker()
            answer = await asker.ask(self.servers.at(0, 0))
            if answer is not None:
                samples.append((asker.port, answer.mapped))
        allocation, step = allocation_of(samples)
        ips = tuple(dict.fromkeys(address.ip for _, address in samples))
        return replace(verdict, mapping=mapping, allocation=allocation, step=step, public_ips=ips)

    async def _filtering(self, *, ipv6: bool = False) -> str:
        asker = await self._asker(ipv6=ipv6)
        server = self.servers.at(0, 0, ipv6=ipv6)
        own = await asker.ask(server)
        if own is None:
            return filtering_of(own=False, stranger=False, other_port=False)
        stranger, other_port = await asyncio.gather(
            asker.ask(server, CHANGE_IP | CHANGE_PORT), asker.ask(server, CHANGE_PORT)
        )
        return filtering_of(own=True, stranger=stranger is not None, other_port=other_port is not None)

    async def _hairpin(self, own_ip: str) -> tuple[bool, str | None] | None:
        """Whether two sockets of this host meet through the public address, and whose source address they see."""
        one, other = await self._asker(), await self._asker()
        server = self.servers.at(0, 0)
        mapped_one, mapped_other = await one.ask(server), await other.ask(server)
        if mapped_one is None or mapped_other is None:
            return None
        for _ in range(self.settings.tries):
            one.send(_HAIRPIN, mapped_other.mapped)
            other.send(_HAIRPIN, mapped_one.mapped)
            await asyncio.sleep(self.settings.wait_s / self.settings.tries)
        sources = [source for asker in (one, other) for data, source in asker.others if data == _HAIRPIN]
        if not sources:
            return False, None
        return True, "internal" if sources[0].ip == own_ip else "external"

    async def _tcp(self) -> tuple[int, ...]:
        """Ports of the server that answer over TCP."""
        reached = await asyncio.gather(*(self._tcp_port(port) for port in self.servers.tcp_ports))
        return tuple(port for port, good in zip(self.servers.tcp_ports, reached, strict=True) if good)

    async def _tcp_port(self, port: int) -> bool:
        asked = ProbeRequest(self.network.token_bytes(12))
        with contextlib.suppress(OSError, TimeoutError, BadPacket):
            async with asyncio.timeout(self.settings.wait_s):
                stream = await self.network.connect_tcp(Address(self.servers.ips[0], port))
                try:
                    await stream.write(request(asked))
                    data = await read_message(stream)
                    return data is not None and parse_answer_untrusted(data)[0] == asked.transaction_id
                finally:
                    stream.close()
        return False

    async def _ipv6(self) -> tuple[str, str]:
        """Reachability and filtering of IPv6. Without NAT our port outside is the one inside."""
        if not self._own_ip(ipv6=True):
            return "none", Verdict.ipv6_filtering
        if not self.servers.ips6:
            return Verdict.ipv6, Verdict.ipv6_filtering
        silent, asker = await self._asker(ipv6=True), await self._asker(ipv6=True)
        server = self.servers.at(0, 0, ipv6=True)
        if await asker.ask(server) is None:
            return Verdict.ipv6, Verdict.ipv6_filtering
        # The first of them has sent nothing: what reaches it passed no state of ours.
        unasked = await asker.ask(server, arriving_at=silent, port=silent.port)
        return "firewalled" if unasked is None else "open", await self._filtering(ipv6=True)

    async def _asker(self, *, ipv6: bool = False) -> Asker:
        made = await Asker.open(self.network, self.settings, ip="::" if ipv6 else "0.0.0.0")
        self.open.append(made)
        return made

    def _own_ip(self, *, ipv6: bool) -> str | None:
        """The address that packets to the servers carry: the first that is not only valid on this link."""
        wanted = (Scope.PUBLIC, Scope.DOCUMENTATION) if ipv6 else (
            Scope.PUBLIC, Scope.DOCUMENTATION, Scope.PRIVATE, Scope.SHARED,
        )  # fmt: skip
        found = [ip for each in self.network.interfaces() for ip in each.addresses if (":" in ip) == ipv6]
        return next((ip for ip in found if scope_of(ip) in wanted), None)


def _with_gateway(verdict: Verdict, gateway: GatewayAnswers) -> Verdict:
    verdict = replace(verdict, nat_pmp=gateway.nat_pmp, pcp=gateway.pcp, upnp=gateway.upnp)
    if verdict.nat and verdict.public is not None and gateway.external_ip is not None:
        # What our gateway calls its outside address is not how the world sees us: another router translates behind it.
        verdict = replace(verdict, routers=1 if gateway.external_ip == verdict.public.ip else 2)
    return verdict


async def _unknown() -> str:
    return Verdict.filtering


async def _nothing() -> None:
    return None
