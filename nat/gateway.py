"""Asks the gateway for ports: thin sockets around `pcp`, `natpmp` and `upnp`.

Each request leaves from an ephemeral socket of our address toward the gateway (PCP compares it with the address inside
the request); answers count only from the gateway's own address and port, and of PCP's only those with our nonce.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Gateway, Network
from p2pnode.nat import natpmp, pcp, upnp
from p2pnode.nat.igd import ServiceSearch, http_ask
from p2pnode.nat.portmap import LIFETIME_S, Grant, MappingRefusedError

__all__ = [
    "CONTROL_PORT",
    "GatewayClient",
    "GatewaySurvey",
    "Mapper",
    "MappingRefusedError",
    "NatPmpMapper",
    "PcpMapper",
    "UpnpMapper",
    "find_mapper",
    "find_upnp",
    "survey",
]

T = TypeVar("T")

CONTROL_PORT = 5351  # RFC 6887, section 19
# Pauses after each sending. The RFCs wait for 3 s or try for 64 s: a LAN answers within milliseconds, who is silent has
# no such service, and is asked again later.
PAUSES_S = (0.25, 0.5, 1.0)
BESIDE_S = 0.1  # after NAT-PMP's answer, for PCP's: both were asked in one moment
UPNP_LIFETIME_S = 3600
UPNP_PORTS_TRIED = 4


class Mapper(Protocol):
    """One protocol with one gateway."""

    protocol: str

    async def map(self, internal: Address, wanted_port: int) -> Grant:
        """Get or renew a UDP port. Raise MappingRefusedError."""

    async def unmap(self, internal: Address, grant: Grant) -> None:
        """Give it back; nothing happens where that fails."""

    async def forget(self, internal: Address) -> None:
        """Give back what an earlier run of this node may have left, where the protocol can tell that it is ours."""


class GatewayClient:
    """Questions to UDP port 5351 of one gateway, and the answers. Close it."""

    def __init__(self, network: Network, gateway: Gateway, told_epoch: Callable[[int], None]) -> None:
        """`told_epoch`: called with the epoch of each answer to a question of ours."""
        self.network, self.gateway = network, gateway
        self._told_epoch = told_epoch
        self.sent = 0

    async def ask(self, request: bytes, read: Callable[[bytes], T | None], pauses: tuple[float, ...] = PAUSES_S) -> T:
        """Send until `read` makes something of an answer. `read` may raise BadPacket. Raise MappingRefusedError."""
        return await self.ask_all([request], read, pauses)

    async def ask_all(
        self, requests: list[bytes], read: Callable[[bytes], T | None], pauses: tuple[float, ...] = PAUSES_S
    ) -> T:
        """The same with several requests at once."""
        server = Address(self.gateway.ip, CONTROL_PORT)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def received(data: bytes, source: Address) -> None:
            if source != server or answer.done():
                return
            with contextlib.suppress(BadPacket):
                found = read(data)
                if found is not None:
                    answer.set_result(found)

        try:
            socket = await self.network.open_udp(Address(self.gateway.local, 0), received)
        except OSError as exc:
            raise MappingRefusedError("no-socket") from exc
        try:
            for pause in pauses:
                for request in requests:
                    socket.send(request, server)
                    self.sent += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        return await asyncio.shield(answer)
            raise MappingRefusedError("silent")
        finally:
            answer.cancel()
            socket.close()

    def epoch(self, seconds: int) -> None:
        self._told_epoch(seconds)


class NatPmpMapper:
    """RFC 6886."""

    protocol = "nat-pmp"

    def __init__(self, client: GatewayClient) -> None:
        self._client = client

    async def map(self, internal: Address, wanted_port: int) -> Grant:
        def external(data: bytes) -> natpmp.NatPmpAnswer | None:
            answer = natpmp.parse_answer_untrusted(data)
            return answer if answer.opcode == natpmp.EXTERNAL else None

        ip = self._checked(await self._client.ask(natpmp.external_request(), external)).external_ip
        answer = self._checked(await self._client.ask(natpmp.map_request(internal.port, wanted_port, LIFETIME_S),
                                                      lambda data: _mapped(data, internal.port)))  # fmt: skip
        if not answer.lifetime_s:
            raise MappingRefusedError("no-lifetime")
        return Grant(ip, answer.external_port, answer.lifetime_s)

    async def unmap(self, internal: Address, grant: Grant) -> None:
        del grant  # section 3.4: the inside port names it
        with contextlib.suppress(MappingRefusedError):
            request = natpmp.map_request(internal.port, 0, 0)
            await self._client.ask(request, lambda data: _mapped(data, internal.port), PAUSES_S[:1])

    async def forget(self, internal: Address) -> None:
        await self.unmap(internal, Grant(None, 0, 0))

    def _checked(self, answer: natpmp.NatPmpAnswer) -> natpmp.NatPmpAnswer:
        self._client.epoch(answer.epoch)
        if answer.result != natpmp.SUCCESS:
            raise MappingRefusedError(_name_of(answer.result, natpmp.RESULTS))
        return answer


class PcpMapper:
    """RFC 6887. For IPv6 it opens a pinhole: nothing is translated."""

    protocol = "pcp"

    def __init__(self, client: GatewayClient, nonce: Callable[[Address], bytes]) -> None:
        """`nonce`: 12 bytes that nobody guesses, for an inside address; the same ones after a restart, since without
        them a mapping can be neither renewed nor deleted (section 11.2)."""
        self._client = client
        self._nonce = nonce
        self._wanted: Address | None = None

    async def map(self, internal: Address, wanted_port: int) -> Grant:
        wanted = self._wanted or Address(internal.ip if internal.is_ipv6 else "0.0.0.0", wanted_port)
        answer = await self._ask(internal, wanted, LIFETIME_S, PAUSES_S)
        if answer.result != pcp.SUCCESS:
            raise MappingRefusedError(_name_of(answer.result, pcp.RESULTS))
        if answer.external is None or not answer.lifetime_s or answer.external.is_ipv6 != internal.is_ipv6:
            raise MappingRefusedError("no-address")
        self._wanted = answer.external
        return Grant(answer.external.ip, answer.external.port, answer.lifetime_s)

    async def unmap(self, internal: Address, grant: Grant) -> None:
        del grant
        with contextlib.suppress(MappingRefusedError):
            await self._ask(internal, None, 0, PAUSES_S[:1])

    async def forget(self, internal: Address) -> None:
        await self.unmap(internal, Grant(None, 0, 0))

    async def _ask(
        self, internal: Address, wanted: Address | None, lifetime_s: int, pauses: tuple[float, ...]
    ) -> pcp.PcpAnswer:
        nonce = self._nonce(internal)

        def read(data: bytes) -> pcp.PcpAnswer | None:
            answer = pcp.parse_answer_untrusted(data)
            known = answer.nonce == nonce and answer.internal_port == internal.port
            return answer if answer.opcode == pcp.MAP and known else None

        answer = await self._client.ask(pcp.map_request(internal, wanted, lifetime_s, nonce), read, pauses)
        self._client.epoch(answer.epoch)
        return answer


class UpnpMapper:
    """UPnP-IGD."""

    protocol = "upnp"

    def __init__(self, network: Network, service: upnp.Service) -> None:
        self._network, self._service = network, service
        self._lifetime_s = UPNP_LIFETIME_S

    async def map(self, internal: Address, wanted_port: int) -> Grant:
        port = wanted_port
        for _ in range(UPNP_PORTS_TRIED):
            answer = await self._ask(upnp.add_mapping(self._service, port, internal, self._lifetime_s))
            if answer.error == upnp.ONLY_PERMANENT and self._lifetime_s:
                self._lifetime_s = 0
                answer = await self._ask(upnp.add_mapping(self._service, port, internal, 0))
            if answer.status == upnp.OK:
                ip = upnp.external_ip_untrusted(await self._ask(upnp.get_external_ip(self._service)))
                # What is permanent for the router is renewed all the same: it may forget it in a restart.
                return Grant(ip, port, float(self._lifetime_s or UPNP_LIFETIME_S))
            if answer.error != upnp.CONFLICT:
                raise MappingRefusedError(f"error-{answer.error or answer.status}")
            port = self._network.rng.randint(1024, 65_535)
        raise MappingRefusedError("ports-taken")

    async def unmap(self, internal: Address, grant: Grant) -> None:
        del internal
        with contextlib.suppress(MappingRefusedError):
            await self._ask(upnp.delete_mapping(self._service, grant.port))

    async def forget(self, internal: Address) -> None:
        with contextlib.suppress(MappingRefusedError):
            left = await self._ask(upnp.get_mapping(self._service, internal.port))
            if upnp.mapped_to_untrusted(left) == internal:
                await self._ask(upnp.delete_mapping(self._service, internal.port))

    async def _ask(self, request: bytes) -> upnp.HttpAnswer:
        return await http_ask(self._network, self._service.control.address, request)


async def find_mapper(client: GatewayClient, nonce: Callable[[Address], bytes]) -> list[Mapper]:
    """Return the protocols that the gateway speaks, the best first; six datagrams and two searches find none."""
    found: dict[str, Mapper] = {}
    either, both = asyncio.Event(), asyncio.Event()

    def read(data: bytes) -> bool | None:
        if data[:1] == bytes((pcp.VERSION,)):
            pcp.parse_answer_untrusted(data)
            found["pcp"] = PcpMapper(client, nonce)
        else:  # also what an older gateway answers to PCP: version 0, "unsupported version"
            natpmp.parse_answer_untrusted(data)
            found["nat-pmp"] = NatPmpMapper(client)
        either.set()
        if len(found) == 2 or is_ipv6:
            both.set()
        return True if both.is_set() else None

    is_ipv6 = ":" in client.gateway.ip
    requests = [pcp.announce_request(client.gateway.local), *([] if is_ipv6 else [natpmp.external_request()])]
    asking = asyncio.ensure_future(client.ask_all(requests, read))
    heard = asyncio.ensure_future(either.wait())
    try:
        await asyncio.wait([asking, heard], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            await asyncio.wait([asking], timeout=BESIDE_S)
    finally:
        asking.cancel()
        heard.cancel()
        await asyncio.gather(asking, heard, return_exceptions=True)
    mappers = [found[name] for name in ("pcp", "nat-pmp") if name in found]
    return mappers or await find_upnp(client)


async def find_upnp(client: GatewayClient) -> list[Mapper]:
    """The same for UPnP alone, which is asked for where the others are silent, and where they grant nothing."""
    service = None if ":" in client.gateway.ip else await _search(client)
    return [] if service is None else [UpnpMapper(client.network, service)]


@dataclass(frozen=True)
class GatewaySurvey:
    """`speaks`: protocols that the gateway answers; `external_ip`: what it calls its outside IPv4 address, or None."""

    speaks: frozenset[str]
    external_ip: str | None


async def survey(client: GatewayClient) -> GatewaySurvey:
    """Ask an IPv4 gateway which protocols it speaks, all at once; nothing is opened. Three seconds, up to 13 where
    something at the gateway's address begins to answer and does not go on."""

    def read_pcp(data: bytes) -> bool | None:
        if data[:1] != bytes((pcp.VERSION,)):
            return None  # an older gateway's answer: it speaks NAT-PMP only
        pcp.parse_answer_untrusted(data)
        return True

    def read_external(data: bytes) -> natpmp.NatPmpAnswer | None:
        answer = natpmp.parse_answer_untrusted(data)
        return answer if answer.opcode == natpmp.EXTERNAL else None

    async def by_upnp() -> tuple[bool, str | None]:
        service = await _search(client)
        if service is None:
            return False, None
        try:
            answer = await http_ask(client.network, service.control.address, upnp.get_external_ip(service))
        except MappingRefusedError:
            return True, None
        return True, upnp.external_ip_untrusted(answer)

    by_pcp, by_natpmp, igd = await asyncio.gather(
        client.ask(pcp.announce_request(client.gateway.local), read_pcp),
        client.ask(natpmp.external_request(), read_external),
        by_upnp(),
        return_exceptions=True,
    )
    for result in (by_pcp, by_natpmp, igd):
        if isinstance(result, BaseException) and not isinstance(result, MappingRefusedError | BadPacket):
            raise result
    answered = isinstance(by_natpmp, natpmp.NatPmpAnswer)
    upnp_there, upnp_ip = igd if isinstance(igd, tuple) else (False, None)
    spoken = {"pcp": by_pcp is True, "nat-pmp": answered, "upnp": upnp_there}
    ip = by_natpmp.external_ip if isinstance(by_natpmp, natpmp.NatPmpAnswer) else None
    return GatewaySurvey(frozenset(name for name, there in spoken.items() if there), ip or upnp_ip)


async def _search(client: GatewayClient) -> upnp.Service | None:
    search = ServiceSearch(client.network, client.gateway)
    try:
        return await search.run()
    finally:
        client.sent += search.sent


def _mapped(data: bytes, internal_port: int) -> natpmp.NatPmpAnswer | None:
    answer = natpmp.parse_answer_untrusted(data)
    if answer.opcode != natpmp.MAP_UDP:
        return None
    return answer if answer.result != natpmp.SUCCESS or answer.internal_port == internal_port else None


def _name_of(result: int, names: tuple[str, ...]) -> str:
    return names[result] if result < len(names) else f"result-{result}"
