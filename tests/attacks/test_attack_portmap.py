"""Gateways and neighbours that lie about ports, and dial-backs to a port that the asker names (C1). Virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from support.port_mapping import believed, mapping_of, opening_kind, published, town

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket, Gateway
from p2pnode.nat import pcp, upnp
from p2pnode.nat.gateway import CONTROL_PORT, GatewayClient, MappingRefusedError, PcpMapper, find_mapper
from p2pnode.simulations.routers.kinds import PortProtocol
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import VirtualRouter

GATEWAY, OWN, NEIGHBOUR = "192.168.1.1", "192.168.1.2", "192.168.1.9"
INTERNAL, NONCE = Address(OWN, 4747), bytes(range(12))
Answerer = Callable[[bytes, Address, Callable[[bytes], None]], None]


async def serve(network: VirtualNetwork, ip: str, port: int, answerer: Answerer) -> DatagramSocket:
    def received(data: bytes, source: Address) -> None:
        answerer(data, source, lambda answer: socket.send(answer, source))

    socket = await network.open_udp(Address(ip, port), received)
    return socket


def lan(world: VirtualWorld, *ips: str) -> list[VirtualNetwork]:
    hosts = [world.host(name=ip) for ip in ips]
    for network, ip in zip(hosts, ips, strict=True):
        network.host.add_address(ip, lan="home")
    return hosts


def granted(request: bytes) -> bytearray:
    """What an honest gateway would answer to a PCP MAP."""
    answer = bytearray(request)
    answer[1] |= 0x80
    answer[8:24] = (1000).to_bytes(4, "big") + bytes(12)
    answer[44:60] = bytes(10) + b"\xff\xff" + bytes((5, 6, 7, 8))
    return answer


def test_attack_c1_a_gateway_that_sends_garbage_is_left_in_bounded_time() -> None:
    """100 datagrams of noise for each of ours, and UPnP answers that lead elsewhere: none is believed."""

    async def main(world: VirtualWorld) -> tuple[int, float]:
        here, gateway, elsewhere = lan(world, OWN, GATEWAY, NEIGHBOUR)
        rng = random.Random(1)
        connects: list[str] = []
        await elsewhere.listen_tcp(Address(NEIGHBOUR, 80), lambda stream: connects.append(str(stream.remote)))

        def noise(data: bytes, _source: Address, answer: Callable[[bytes], None]) -> None:
            for _ in range(100):
                answer(bytes((rng.choice((0, 1, 2)), rng.choice((128, 129, 1)))) + rng.randbytes(rng.randrange(5)))

        def led_away(_data: bytes, _source: Address, answer: Callable[[bytes], None]) -> None:
            for location in (f"http://{NEIGHBOUR}/", "http://[::1]/", "ftp://192.168.1.1/", "x" * 1900):
                answer(f"HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n".encode())

        await serve(gateway, GATEWAY, CONTROL_PORT, noise)
        await serve(gateway, GATEWAY, upnp.SSDP_GROUP.port, led_away)
        client = GatewayClient(here, Gateway(GATEWAY, OWN), lambda _epoch: None)
        began = world.loop.time()
        assert await find_mapper(client, lambda _internal: NONCE) == []
        assert connects == []
        return client.sent, world.loop.time() - began

    sent, seconds = run_virtual(main)
    print(f"C1: {sent} datagrams and {seconds:.1f} s for a gateway of noise")
    assert sent <= 8
    assert seconds <= 5


@pytest.mark.parametrize("field", ["nonce", "inside port", "protocol", "version", "request", "cut"])
def test_attack_c1_pcp_answers_that_are_not_to_our_question_count_for_nothing(field: str) -> None:
    """Another nonce, port, protocol, version; the request itself; half of it. The honest answer that follows does."""

    async def main(world: VirtualWorld) -> None:
        here, gateway = lan(world, OWN, GATEWAY)

        def answerer(data: bytes, _source: Address, answer: Callable[[bytes], None]) -> None:
            bad = granted(data)
            bad[44:60] = bytes(10) + b"\xff\xff" + bytes((6, 6, 6, 6))
            if field in ("nonce", "inside port", "protocol", "version"):
                bad[{"nonce": 24, "inside port": 40, "protocol": 36, "version": 0}[field]] ^= 1
            answer(data if field == "request" else bytes(bad[:48] if field == "cut" else bad))
            answer(bytes(granted(data)))

        await serve(gateway, GATEWAY, CONTROL_PORT, answerer)
        client = GatewayClient(here, Gateway(GATEWAY, OWN), lambda _epoch: None)
        grant = await PcpMapper(client, lambda _internal: NONCE).map(INTERNAL, 4747)
        assert (grant.ip, grant.port) == ("5.6.7.8", 4747)

    run_virtual(main)


def test_attack_c1_a_neighbour_cannot_answer_for_the_gateway() -> None:
    """It sees the port (not the nonce), and answers faster, from its own address: the gateway's silence counts."""

    async def main(world: VirtualWorld) -> None:
        here, _gateway, neighbour = lan(world, OWN, GATEWAY, NEIGHBOUR)
        forged = await neighbour.open_udp(Address(NEIGHBOUR, CONTROL_PORT), lambda _data, _source: None)

        async def forge() -> None:
            while True:
                for socket in list(here.host.udp):
                    forged.send(bytes(granted(pcp.map_request(INTERNAL, None, 7200, NONCE))), Address(OWN, socket.port))
                await asyncio.sleep(0.01)

        forging = asyncio.ensure_future(forge())
        client = GatewayClient(here, Gateway(GATEWAY, OWN), lambda _epoch: None)
        with pytest.raises(MappingRefusedError, match="silent"):
            await PcpMapper(client, lambda _internal: NONCE).map(INTERNAL, 4747)
        forging.cancel()

    run_virtual(main)


def test_attack_c1_forged_announcements_of_a_restart() -> None:
    """A neighbour says each second that the gateway was restarted: not from its address, so nobody asks anything."""

    async def main(world: VirtualWorld) -> int:
        async with town(world) as there:
            router = there.router("port-restricted", "nat-pmp")
            home = await there.move_in(router.host(OWN))
            await believed(home)
            asked: list[bytes] = []
            neighbour = router.host(NEIGHBOUR)
            socket = await neighbour.open_udp(Address(NEIGHBOUR, CONTROL_PORT), lambda _data, _source: None)
            deliver = router.deliver

            def counted(data: bytes, source: Address, to: Address, group: str | None) -> None:
                if to == Address(router.inside, CONTROL_PORT):
                    asked.append(data)
                deliver(data, source, to, group)

            router.deliver = counted  # type: ignore[method-assign]
            for _ in range(60):
                socket.send(bytes((0, 128, 0, 0)) + bytes(4) + bytes((5, 6, 7, 8)), Address("224.0.0.1", 5350))
                await asyncio.sleep(1)
            return len(asked)

    asked = run_virtual(main, delay=0.04, keep_trace=False)
    print(f"C1: {asked} questions after 60 forged announcements")
    assert asked == 0


@pytest.mark.parametrize("protocol", ["nat-pmp", "upnp"])
def test_attack_c1_a_gateway_that_claims_a_victims_address(protocol: PortProtocol) -> None:
    """The port works, but the gateway says that the outside address is 8.8.8.8: published is where nodes see us."""

    async def main(world: VirtualWorld) -> None:
        async with town(world) as there:
            router = VirtualRouter(world, opening_kind("port-restricted", protocol), "11.0.0.1")
            assert router.services is not None
            grants = router.services._grants
            opened = grants.open
            grants.external_ip = lambda _host: "8.8.8.8"  # type: ignore[method-assign]

            def open_really(*arguments: object, **more: object) -> object:
                grants.external_ip = lambda _host: "11.0.0.1"  # type: ignore[method-assign]
                try:
                    return opened(*arguments, **more)  # type: ignore[arg-type]
                finally:
                    grants.external_ip = lambda _host: "8.8.8.8"  # type: ignore[method-assign]

            grants.open = open_really  # type: ignore[assignment, method-assign]
            home = await there.move_in(router.host(OWN))
            address = await believed(home)
            assert address.ip == "11.0.0.1"
            await asyncio.sleep(5)
            assert await published(there.public[3], home) == (address,)
            assert mapping_of(home).external == str(address)

    run_virtual(main, delay=0.04, keep_trace=False)
