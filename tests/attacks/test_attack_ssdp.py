"""Neighbours that answer a search for the router, sooner than it and in its name (C1). Virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.port_mapping import believed, opening_kind, published, town

from p2pnode.core.address import Address
from p2pnode.core.network import Gateway, TcpStream
from p2pnode.nat import natpmp, pcp, upnp
from p2pnode.nat.gateway import CONTROL_PORT, GatewayClient, Mapper, find_upnp
from p2pnode.nat.igd import MAX_PLACES, SSDP_PORT
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import VirtualRouter

GATEWAY, OWN, NEIGHBOUR, THIRD = "192.168.1.1", "192.168.1.2", "192.168.1.9", "9.9.9.9"
ODD_PORT = 8081  # something of the router's that is not its UPnP service
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
Serve = Callable[[TcpStream], Coroutine[Any, Any, None]]

AWAY = {
    "its own host": f"http://{NEIGHBOUR}:5000/rootDesc.xml",
    "a third host": f"http://{THIRD}/rootDesc.xml",
    "a name": "http://router.home/rootDesc.xml",
    "the router as user": f"http://{GATEWAY}@{THIRD}/rootDesc.xml",
    "another scheme": f"ftp://{GATEWAY}/rootDesc.xml",
    "our own host": "http://127.0.0.1:7447/v1/status",
    "a giant URL": f"http://{GATEWAY}/" + "a" * 1500,
    "line ends": f"http://{GATEWAY}/ HTTP/1.1\nHost: x",
}


def service_at(control: str, kind: str = "WANIPConnection:1") -> bytes:
    return (
        f"<service><serviceType>urn:schemas-upnp-org:service:{kind}</serviceType>"
        f"<controlURL>{control}</controlURL></service>"
    ).encode()


def whole(body: bytes) -> bytes:
    return HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def saying(*parts: bytes, pause: float = 0.0, ends: bool = True) -> Serve:
    """Answer any request with these parts; then end, or keep the connection open."""

    async def serve(stream: TcpStream) -> None:
        with contextlib.suppress(OSError):
            await stream.read(4096)
            for part in parts:
                await stream.write(part)
                await asyncio.sleep(pause)
            if ends:
                stream.close()

    return serve


BOMB = b'<!DOCTYPE r [<!ENTITY a0 "ha">' + b"".join(
    b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 10)
)
SERVED: dict[str, Serve] = {
    "nothing": saying(ends=False),
    "a redirect": saying(f"HTTP/1.1 302 Found\r\nLocation: http://{THIRD}/d.xml\r\nContent-Length: 0\r\n\r\n".encode()),
    "a redirect with a description": saying(
        f"HTTP/1.1 302 Found\r\nLocation: http://{THIRD}/d.xml\r\n\r\n".encode() + service_at("/c")
    ),
    "a giant description": saying(HEAD + b"\r\n", *[bytes(65_536)] * 200),
    "a giant length": saying(HEAD + b"Content-Length: 99999999999\r\n\r\n"),
    "an endless description": saying(HEAD + b"\r\n", *[b"<a>"] * 1000, pause=0.1),
    "endless headers": saying(b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 1000, pause=0.1),
    "endless chunks": saying(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 1000, pause=0.01),
    "a number of 5,000 digits": saying(whole(service_at("&#" + "9" * 5000 + ";"))),
    "a control URL outside": saying(whole(service_at(f"http://{THIRD}/control"))),
    "a base outside": saying(whole(f"<URLBase>http://{THIRD}/</URLBase>".encode() + service_at("/control"))),
    "no HTTP": saying(b"SSH-2.0-dropbear\r\n" * 100),
}


class Street:
    """A router with UPnP (or one that has none), we and a neighbour behind it, a third host on the Internet."""

    def __init__(self, world: VirtualWorld, *, honest: bool = True) -> None:
        kind = opening_kind("port-restricted", *(["upnp"] if honest else []))  # type: ignore[list-item]
        self.world, self.router = world, VirtualRouter(world, kind, "11.0.0.1")
        self.here, self.neighbour = self.router.host(OWN), self.router.host(NEIGHBOUR)
        self.third = world.host(THIRD)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve_oddly(self, serve: Serve) -> None:
        """The router has something else on another port."""

        def accepted(stream: TcpStream) -> None:
            self._tasks.add(asyncio.ensure_future(serve(stream)))

        await self.router.network().listen_tcp(Address(GATEWAY, ODD_PORT), accepted)

    async def forge(self, claimed: str, *locations: str) -> None:
        await forge(self.neighbour, self.here, claimed, *locations)

    async def find(self) -> tuple[list[Mapper], int, float]:
        """Return what was found, how many datagrams it cost, and seconds."""
        client = GatewayClient(self.here, Gateway(GATEWAY, OWN), lambda _epoch: None)
        began = self.world.loop.time()
        return await find_upnp(client), client.sent, self.world.loop.time() - began

    def asked(self) -> set[str]:
        """All addresses to which we sent anything."""
        return {entry.destination.ip for entry in self.world.trace if entry.source.ip == OWN}

    def connects(self) -> int:
        return len({entry.source for entry in self.world.trace if entry.source.ip == OWN and entry.kind == "tcp"})

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def forge(neighbour: VirtualNetwork, victim: VirtualNetwork, claimed: str, *locations: str) -> None:
    """Answer searches at once, as if from `claimed`: datagrams carry what source their sender likes."""

    def heard(_data: bytes, source: Address) -> None:
        for location in locations:
            answer = f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {location}\r\n\r\n".encode()
            victim.host.deliver(answer, Address(claimed, SSDP_PORT), source, None)

    await neighbour.open_multicast(upnp.SSDP_GROUP, heard)


@pytest.mark.parametrize("claimed", [NEIGHBOUR, GATEWAY])
def test_attack_c1_a_forged_answer_leads_nowhere_else(claimed: str) -> None:
    """Whatever it names beside the router: nobody there hears from us, and the router's own answer counts."""

    async def main(world: VirtualWorld) -> tuple[set[str], float]:
        street = Street(world)
        await street.forge(claimed, *AWAY.values())
        (mapper,), _, seconds = await street.find()
        grant = await mapper.map(Address(OWN, 4747), 4747)
        assert (grant.ip, grant.port) == ("11.0.0.1", 4747)
        await street.close()
        return street.asked(), seconds

    asked, seconds = run_virtual(main)
    print(f"C1: {len(AWAY)} forged places in the name of {claimed}: asked were {sorted(asked)}, {seconds:.3f} s")
    assert asked == {GATEWAY, upnp.SSDP_GROUP.ip}
    assert seconds < 0.1


@pytest.mark.parametrize("served", SERVED)
def test_attack_c1_a_forged_answer_names_another_port_of_the_router(served: str) -> None:
    """Whatever is there: the router's own answer counts, as soon as without; alone it is given up in time, and
    nobody else is asked."""

    async def main(world: VirtualWorld) -> float:
        street = Street(world)
        await street.serve_oddly(SERVED[served])
        await street.forge(GATEWAY, f"http://{GATEWAY}:{ODD_PORT}/d.xml", f"http://{GATEWAY}:9/d.xml")
        (mapper,), _, seconds = await street.find()
        assert seconds < 0.1
        assert (await mapper.map(Address(OWN, 4747), 4747)).ip == "11.0.0.1"
        assert street.asked() == {GATEWAY, upnp.SSDP_GROUP.ip}
        await street.close()
        return seconds

    async def alone(world: VirtualWorld) -> tuple[int, float]:
        street = Street(world, honest=False)
        await street.serve_oddly(SERVED[served])
        await street.forge(GATEWAY, f"http://{GATEWAY}:{ODD_PORT}/d.xml")
        found, sent, seconds = await street.find()
        assert found == []
        assert street.asked() == {GATEWAY, upnp.SSDP_GROUP.ip}
        took = sum(entry.size for entry in world.trace if entry.destination.ip == OWN and entry.kind == "tcp")
        await street.close()
        assert sent == 2
        return took, seconds

    beside = run_virtual(main)
    took, seconds = run_virtual(alone)
    print(f"C1: {served}: {beside:.3f} s beside the router's answer; alone {seconds:.1f} s and {took} bytes")
    assert seconds <= 8.1
    assert took <= 4 * upnp.MAX_HTTP_BYTES  # the most that we read, and what was under way then


def test_attack_c1_a_bomb_is_text() -> None:
    """Entities are not expanded: no XML parser reads it."""

    async def main(world: VirtualWorld) -> None:
        street = Street(world, honest=False)
        await street.serve_oddly(saying(whole(BOMB + b"]><root>" + service_at("/&a9;") + b"</root>")))
        await street.forge(GATEWAY, f"http://{GATEWAY}:{ODD_PORT}/d.xml")
        (mapper,), _, _ = await street.find()
        assert mapper._service.control.path == "/&a9"  # type: ignore[attr-defined]
        await street.close()

    run_virtual(main)


def test_attack_c1_forged_answers_without_end() -> None:
    """A hundred places at the router's address: a few are asked, at once, and it ends."""

    async def main(world: VirtualWorld) -> tuple[int, float]:
        street = Street(world, honest=False)
        await street.serve_oddly(SERVED["nothing"])
        await street.forge(GATEWAY, *(f"http://{GATEWAY}:{ODD_PORT}/{number}.xml" for number in range(100)))
        found, _, seconds = await street.find()
        assert found == []
        await street.close()
        return street.connects(), seconds

    connects, seconds = run_virtual(main)
    print(f"C1: 200 forged answers: {connects} connections to the router, {seconds:.1f} s")
    assert connects == MAX_PLACES
    assert seconds <= 8.1


def test_attack_c1_a_node_is_not_kept_from_its_port() -> None:
    """A neighbour forges the router's answers by SSDP, NAT-PMP and PCP at once: the port is proven all the same."""

    async def main(world: VirtualWorld) -> float:
        async with town(world) as there:
            router = there.router("port-restricted", "upnp")
            network, neighbour = router.host(OWN), router.host(NEIGHBOUR)
            await forge(neighbour, network, GATEWAY, f"http://{GATEWAY}:9/d.xml", AWAY["a third host"])
            forged = (bytes((pcp.VERSION, 128, 0, 0)) + bytes(20), bytes((0, 128, 0, 0)) + bytes(4) + bytes((8,) * 4))
            assert pcp.parse_answer_untrusted(forged[0]).opcode == pcp.ANNOUNCE
            assert natpmp.parse_answer_untrusted(forged[1]).external_ip == "8.8.8.8"

            async def spray() -> None:
                while True:
                    for socket in list(network.host.udp):
                        for each in forged if socket.port != 4747 else ():
                            network.host.deliver(each, Address(GATEWAY, CONTROL_PORT), Address(OWN, socket.port), None)
                    await asyncio.sleep(0.05)

            spraying = asyncio.ensure_future(spray())
            home = await there.move_in(network)
            began = world.loop.time()
            address = await believed(home)
            assert address.ip == "11.0.0.1"
            seconds = world.loop.time() - began
            spraying.cancel()
            await asyncio.sleep(5)
            assert await published(there.public[3], home) == (address,)
            return seconds

    seconds = run_virtual(main, delay=0.04, keep_trace=False)
    print(f"C1: believed {seconds:.1f} s after the start, beside a neighbour that forges everything")
    assert seconds < 30
