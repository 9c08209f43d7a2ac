"""Routers between hosts of the virtual world: LANs, chains, restarts, TCP, IPv6, port-mapping services."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket, TcpStream
from p2pnode.simulations.routers.kinds import KINDS, RouterKind, kind_named
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home, VirtualRouter

PORT = 4747
SERVER = Address("203.0.113.1", PORT)
# A carrier that translates IPv4 and lets IPv6 through, as many do; the home router guards it.
DUAL_STACK_BEHIND_CARRIER = replace(
    KINDS["cgnat"], name="dual-stack-cgnat", ipv6="firewall", carrier=replace(KINDS["cgnat"].carrier, ipv6="open")
)
Got = list[tuple[bytes, Address]]


async def socket_on(network: VirtualNetwork, port: int = PORT, *, ip: str = "0.0.0.0") -> tuple[DatagramSocket, Got]:
    got: Got = []
    return await network.open_udp(Address(ip, port), lambda data, source: got.append((data, source))), got


def run(main: Callable[[VirtualWorld], object], **options: object) -> None:
    run_virtual(main, delay=0.01, until=None, **options)  # type: ignore[arg-type]


def test_two_homes_use_the_same_private_addresses() -> None:
    """Each has its 192.168.1.10; a server sees two public ones and answers each."""

    async def main(world: VirtualWorld) -> None:
        server, seen = await socket_on(world.host(SERVER.ip))
        homes = [Home.build(world, "port-restricted", f"198.51.100.{number}") for number in (1, 2)]
        sockets = [await socket_on(home.host()) for home in homes]
        for number, (socket, _) in enumerate(sockets):
            socket.send(bytes([number]), SERVER)
        await asyncio.sleep(1)
        assert sorted(source.ip for _, source in seen) == ["198.51.100.1", "198.51.100.2"]
        for data, source in seen:
            server.send(data, source)
        await asyncio.sleep(1)
        assert [got for _, got in sockets] == [[(bytes([number]), SERVER)] for number in (0, 1)]
        assert [home.router.mappings for home in homes if home.router] == [1, 1]

    run(main)


def test_hosts_of_one_lan_meet_without_the_router() -> None:
    """Their packets do not pass it; it forwards nothing and has no mapping. A LAN's wire is short."""

    async def main(world: VirtualWorld) -> None:
        router = VirtualRouter(world, kind_named("port-restricted"), "198.51.100.1")
        (one, _), (_, got) = [await socket_on(router.host(f"192.168.1.{number}")) for number in (10, 11)]
        one.send(b"hello", Address("192.168.1.11", PORT))
        await asyncio.sleep(0.002)
        assert got == [(b"hello", Address("192.168.1.10", PORT))]
        assert router.mappings == router.model.passed == 0

    run(main)


def test_multicast_stays_on_its_lan() -> None:
    """Heard by the neighbours, neither outside nor in another home."""

    async def main(world: VirtualWorld) -> None:
        group = Address("224.0.0.251", 5353)
        heard: list[str] = []

        async def join(name: str, network: VirtualNetwork) -> object:
            return await network.open_multicast(group, lambda _data, _source: heard.append(name))

        homes = [Home.build(world, "cgnat", f"198.51.100.{2 * n}", f"198.51.100.{2 * n + 1}") for n in (1, 2)]
        sender = await join("sender", homes[0].host())
        await join("neighbour", homes[0].host())
        await join("other home", homes[1].host())
        await join("public", world.host(SERVER.ip))
        sender.send(b"who is there?")  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert set(heard) == {"neighbour", "sender"}

    run(main)


def test_two_routers_in_a_row() -> None:
    """Both translate, both remember; what comes back passes both; the world sees the carrier's address only."""

    async def main(world: VirtualWorld) -> None:
        server, seen = await socket_on(world.host(SERVER.ip))
        home = Home.build(world, "cgnat", "198.51.100.1", "198.51.100.2")
        assert home.router is not None
        carrier = home.router.gateway
        assert isinstance(carrier, VirtualRouter)
        assert home.router.outside_ips == ("100.64.0.10",)
        socket, got = await socket_on(home.host())
        socket.send(b"up", SERVER)
        await asyncio.sleep(1)
        assert seen[0][1].ip in ("198.51.100.1", "198.51.100.2")
        server.send(b"down", seen[0][1])
        await asyncio.sleep(1)
        assert got == [(b"down", SERVER)]
        assert (home.router.mappings, carrier.mappings) == (1, 1)

    run(main)


def test_customers_of_one_carrier_reach_each_other() -> None:
    """Behind one carrier's router, which hairpins: punched through both home routers without leaving it."""

    async def main(world: VirtualWorld) -> None:
        kind = kind_named("cgnat")
        assert kind.carrier is not None
        carrier = VirtualRouter(world, kind.carrier, "198.51.100.1", "198.51.100.2", inside="100.64.0.1")
        homes = [Home.build(world, kind, carrier=carrier, name=name) for name in "ab"]
        server, seen = await socket_on(world.host(SERVER.ip))
        sockets = [await socket_on(home.host()) for home in homes]
        for socket, _ in sockets:
            socket.send(b"stun", SERVER)
        await asyncio.sleep(1)
        public = [source for _, source in seen]
        assert len({address.ip for address in public}) == 2  # spread over the pool
        for _ in range(2):
            for (socket, _), other in zip(sockets, reversed(public), strict=True):
                socket.send(b"punch", other)
            await asyncio.sleep(1)
        assert all((b"punch", other) in got for (_, got), other in zip(sockets, reversed(public), strict=True))
        assert server is not None

    run(main)


def test_restart_takes_time_and_memory() -> None:
    """Without power nothing passes; afterwards the old mapping leads nowhere, and a new one is made."""

    async def main(world: VirtualWorld) -> None:
        server, seen = await socket_on(world.host(SERVER.ip))
        router = VirtualRouter(world, replace(kind_named("fullcone"), ports="random"), "198.51.100.1")
        socket, got = await socket_on(router.host("192.168.1.10"))
        socket.send(b"1", SERVER)
        await asyncio.sleep(1)
        router.reboot(down_s=20)
        socket.send(b"lost", SERVER)
        await asyncio.sleep(19)
        server.send(b"lost", seen[0][1])
        await asyncio.sleep(2)
        assert router.mappings == 0
        server.send(b"unknown", seen[0][1])
        await asyncio.sleep(1)
        socket.send(b"2", SERVER)
        await asyncio.sleep(1)
        assert [data for data, _ in seen] == [b"1", b"2"]
        assert seen[0][1] != seen[1][1]
        assert got == []
        assert router.drops["unsolicited"] == 1

    run(main)


def test_renumbered_router_is_seen_elsewhere() -> None:
    """Its hosts keep their addresses, and are seen at the new one."""

    async def main(world: VirtualWorld) -> None:
        _, seen = await socket_on(world.host(SERVER.ip))
        router = VirtualRouter(world, kind_named("port-restricted"), "198.51.100.1")
        socket, _ = await socket_on(router.host("192.168.1.10"))
        socket.send(b"1", SERVER)
        await asyncio.sleep(1)
        router.renumber("198.51.100.99")
        socket.send(b"2", SERVER)
        await asyncio.sleep(1)
        assert [source for _, source in seen] == [Address("198.51.100.1", PORT), Address("198.51.100.99", PORT)]

    run(main)


async def echo_server(network: VirtualNetwork, port: int) -> list[TcpStream]:
    streams: list[TcpStream] = []
    tasks = set()

    async def serve(stream: TcpStream) -> None:
        with contextlib.suppress(OSError):
            while data := await stream.read(1 << 16):
                await stream.write(data)
        stream.close()

    def accept(stream: TcpStream) -> None:
        streams.append(stream)
        task = asyncio.get_running_loop().create_task(serve(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await network.listen_tcp(Address("0.0.0.0", port), accept)
    return streams


async def read_all(stream: TcpStream, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await stream.read(1 << 16)):
        data += more
    return data


@pytest.mark.parametrize("name", ["fullcone", "port-restricted", "symmetric", "cgnat", "udp-blocked"])
def test_tcp_passes_routers(name: str) -> None:
    """100 kB there and back through one router or two; after the end the mapping goes within 4 min."""

    async def main(world: VirtualWorld) -> None:
        streams = await echo_server(world.host(SERVER.ip), 80)
        home = Home.build(world, name, "198.51.100.1", "198.51.100.2")
        stream = await home.host().connect_tcp(Address(SERVER.ip, 80))
        data = bytes(range(250)) * 400
        await stream.write(data)
        assert await read_all(stream, len(data)) == data
        assert streams[0].remote.ip.startswith("198.51.100.")
        stream.close()
        assert home.router is not None
        await asyncio.sleep(60)
        assert home.router.mappings == 1
        await asyncio.sleep(240)
        assert home.router.mappings == 0

    run(main)


def test_tcp_and_what_is_in_its_way() -> None:
    """Only port 443; a dead line; a stranger's SYN gets silence, or a RST from a rude router."""

    async def main(world: VirtualWorld) -> None:
        host = world.host(SERVER.ip)
        for port in (80, 443):
            await echo_server(host, port)
        allowed = Home.build(world, "tcp-443", "198.51.100.1").host()
        (await allowed.connect_tcp(Address(SERVER.ip, 443))).close()
        with pytest.raises(TimeoutError):
            await allowed.connect_tcp(Address(SERVER.ip, 80))
        with pytest.raises(TimeoutError):
            await Home.build(world, "offline", "198.51.100.2").host().connect_tcp(Address(SERVER.ip, 443))
        for unsolicited, error in (("drop", TimeoutError), ("reject", ConnectionRefusedError)):
            kind = replace(kind_named("port-restricted"), tcp_unsolicited=unsolicited)
            ip = f"198.51.100.{3 if unsolicited == 'drop' else 4}"
            Home.build(world, kind, ip).host()
            with pytest.raises(error):
                await host.connect_tcp(Address(ip, 80))

    run(main)


def test_restarted_router_breaks_tcp() -> None:
    """As real ones do: the connection finds nothing of its own any more and times out in the end."""

    async def main(world: VirtualWorld) -> None:
        await echo_server(world.host(SERVER.ip), 80)
        router = VirtualRouter(world, kind_named("port-restricted"), "198.51.100.1")
        stream = await router.host("192.168.1.10").connect_tcp(Address(SERVER.ip, 80))
        await stream.write(b"1")
        assert await stream.read(1) == b"1"
        router.reboot()
        await stream.write(b"2")
        with pytest.raises(TimeoutError):
            await stream.read(1)

    run(main)


@pytest.mark.parametrize("kind", [KINDS["ipv6-firewall"], DUAL_STACK_BEHIND_CARRIER], ids=lambda kind: kind.name)
def test_ipv6_behind_a_firewall(kind: RouterKind) -> None:
    """No translation; strangers stay outside, whoever was asked gets in; a neighbour is reached directly."""

    async def main(world: VirtualWorld) -> None:
        server_ip = "2001:db8::1"
        server, seen = await socket_on(world.host(SERVER.ip, server_ip), ip="::")
        home = Home.build(world, kind, "198.51.100.1", "198.51.100.2", prefix6="2001:db8:7::/64")
        host, neighbour = home.host(), home.host()
        socket, got = await socket_on(host, ip="::")
        _, heard = await socket_on(neighbour, ip="::")
        own = Address(host.host.addresses()[1], PORT)
        server.send(b"unasked", own)
        await asyncio.sleep(1)
        assert got == []
        socket.send(b"up", Address(server_ip, PORT))
        await asyncio.sleep(1)
        assert seen == [(b"up", own)]
        server.send(b"down", own)
        socket.send(b"neighbour", Address(neighbour.host.addresses()[1], PORT))
        await asyncio.sleep(1)
        assert got == [(b"down", Address(server_ip, PORT))]
        assert heard == [(b"neighbour", own)]

    run(main)


def test_routers_announce_their_restart() -> None:
    """NAT-PMP and PCP: ten times, the pause doubled, to 224.0.0.1 port 5350, with an epoch that begins anew."""

    async def main(world: VirtualWorld) -> None:
        router = VirtualRouter(world, kind_named("upnp"), "198.51.100.1")
        got: list[tuple[float, bytes]] = []
        host = router.host("192.168.1.10")
        await host.open_multicast(
            Address("224.0.0.1", 5350), lambda data, _source: got.append((world.loop.now(), data))
        )
        await asyncio.sleep(100)
        router.reboot(down_s=10)
        await asyncio.sleep(300)
        natpmp = [(at, data) for at, data in got if len(data) == 12]
        assert len(natpmp) == 10
        assert len([data for _, data in got if len(data) == 24]) == 10
        pauses = [round(after[0] - before[0], 3) for before, after in itertools.pairwise(natpmp)]
        assert pauses == [0.25 * 2**i for i in range(9)]
        assert int.from_bytes(natpmp[0][1][4:8], "big") == 0

    run(main)


def test_search_from_an_ordinary_socket_finds_the_router() -> None:
    """SSDP: asked by multicast on the LAN, answered to the asking port; nobody outside hears it."""

    async def main(world: VirtualWorld) -> None:
        router = VirtualRouter(world, kind_named("upnp"), "198.51.100.1")
        other = VirtualRouter(world, kind_named("upnp"), "198.51.100.2")
        socket, got = await socket_on(router.host("192.168.1.10"), 0)
        search = b'M-SEARCH * HTTP/1.1\r\nMAN: "ssdp:discover"\r\nST: upnp:rootdevice\r\n\r\n'
        socket.send(search, Address("239.255.255.250", 1900))
        await asyncio.sleep(1)
        assert [source for _, source in got] == [Address("192.168.1.1", 1900)]
        assert other.model.passed == 0
        silent, nothing = await socket_on(VirtualRouter(world, kind_named("fullcone"), "198.51.100.3").host("10.0.0.2"))
        silent.send(bytes(2), Address("192.168.1.1", 5351))
        await asyncio.sleep(1)
        assert nothing == []

    run(main)


def test_every_datagram_is_accounted_for() -> None:
    """Sent is delivered, forwarded or dropped for a named reason, at each hop, also behind routers."""

    async def main(world: VirtualWorld) -> None:
        world.loss = 0.1
        _, seen = await socket_on(world.host(SERVER.ip))
        homes = [Home.build(world, kind, f"198.51.100.{2 * n}", f"198.51.100.{2 * n + 1}") for n, kind in
                 enumerate(name for name in KINDS if name != "public")]  # fmt: skip
        for home in homes:
            socket, _ = await socket_on(home.host())
            for number in range(20):
                socket.send(b"x", SERVER)
                socket.send(b"x", Address(f"198.51.100.{2 * number}", PORT))
        await asyncio.sleep(5)
        counts = dict(world.counts)
        assert counts.pop("sent") == sum(value for name, value in counts.items() if name != "no_route")
        assert counts["router_line_dead"] > 0
        assert len(seen) > 100
        print(counts)

    run(main)


def test_impossible_homes_are_refused() -> None:
    """Too few addresses, no router for a public host, no address left."""

    async def main(world: VirtualWorld) -> None:
        with pytest.raises(ValueError, match="needs 2 outside addresses"):
            Home.build(world, "cgnat", "198.51.100.1")
        with pytest.raises(ValueError, match="is no router"):
            VirtualRouter(world, kind_named("public"), "198.51.100.2")
        home = Home.build(world, "public", "198.51.100.3")
        home.host()
        with pytest.raises(ValueError, match="no public address left"):
            home.host()
        with pytest.raises(ValueError, match="did you mean fullcone"):
            Home.build(world, "fulcone", "198.51.100.4")

    run(main)
