"""T1, C1, M1 (TLS links): floods, slow and wrong handshakes, what a link makes a node send and to whom, other keys."""

import asyncio
import random

import pytest
from support.street import ONE_WAY_S, street

from p2pnode import Node, P2PError, Session, WrongKeyError
from p2pnode.core.address import Address
from p2pnode.core.network import TcpStream
from p2pnode.link_gate import LinkGate, LinkLimits
from p2pnode.nat import Stream, TlsChannel, client_context
from p2pnode.nat.link_wire import FrameReader, link_frame
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home
from p2pnode.simulations.virtual.tcp_packet import TcpPacket


def at(node: Node) -> Address:
    return node.addresses()[0]


async def channel_to(network: VirtualNetwork, node: Node) -> TlsChannel:
    """A stranger's link, after the handshake."""
    channel = TlsChannel(await network.connect_tcp(at(node)), client_context(), server=False)
    await channel.handshake()
    return channel


def test_t1_ten_thousand_connections_of_one_block_leave_room_for_others() -> None:
    """Half-open ones, new ones per second and links are bounded per /24 and in all; a newcomer displaces the block
    that has most."""
    gate: LinkGate[int] = LinkGate(LinkLimits())
    admitted = sum(gate.arrived(number, "6.6.6.6", number * 0.001) for number in range(10_000))
    assert admitted == gate.shaking == 8  # they never finish
    assert gate.arrived(10_001, "7.7.7.7", 10.0)
    full: LinkGate[int] = LinkGate(LinkLimits(rate=10_000.0, rate_of_prefix=10_000.0))
    kept = refused = 0
    for number in range(4_000):
        ip = f"8.{number % 10}.0.1"
        assert full.arrived(number, ip, 1.0)
        stays, loser = full.opened(number)
        kept, refused = kept + stays, refused + (not stays)
        assert loser is None
    assert len(full) == kept == 512
    assert full.arrived(5_000, "9.9.9.9", 1.0)
    stays, loser = full.opened(5_000)
    assert stays
    assert loser is not None
    assert len(full) == 512
    print(f"T1: {admitted} of 10,000 half-open of one /24; {kept} links of 4,000, then a newcomer displaced one")


def test_t1_slow_and_wrong_handshakes_end_soon_and_cost_nothing_else() -> None:
    """Silence, a byte a second, and what is no TLS are cut within 5 s; meanwhile a member's link opens as ever."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            server = there.public[0]
            lurkers = [await world.host(f"6.{number}.0.1").connect_tcp(at(server)) for number in range(40)]
            wrong = await world.host("6.200.0.1").connect_tcp(at(server))
            await wrong.write(b"GET / HTTP/1.1\r\n\r\n")
            while await wrong.read(1024):
                pass  # TLS's alert, then the end
            slow = asyncio.ensure_future(drip(lurkers[0]))
            home = await there.home_of("udp-blocked")
            assert at(server) in home.links.open_links()
            await asyncio.sleep(5)
            assert server.links.server.gate.shaking == 0
            for each in lurkers[1:]:
                assert await each.read(1024) == b""
            slow.cancel()
            print(f"T1: {server.links.server.gate.refused}")

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def watch_sent(node: Node, sent_to: set[Address]) -> None:
    """Note where the node's UDP socket sends to; it sends all the same."""
    (socket,) = node.mux._sockets.values()
    original = socket.send

    def send(data: bytes, to: Address) -> None:
        sent_to.add(to)
        original(data, to)

    socket.send = send  # type: ignore[method-assign]


async def drip(stream: TcpStream) -> None:
    hello = b"\x16\x03\x01\x05\xdc\x01" + bytes(1_000)
    for byte in hello:
        await stream.write(bytes((byte,)))
        await asyncio.sleep(1)


def test_c1_a_link_makes_a_node_send_to_nobody_else() -> None:
    """10,000 frames of every kind, mutated ones of the mux's included: each datagram that leaves goes to the link, or
    to whom the node talks anyway; and no more bytes come back than went in."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            server = there.public[0]
            await asyncio.sleep(30)
            rng = random.Random(1)
            stranger = world.host("6.6.6.6")
            channel = await channel_to(stranger, server)
            sent_to: set[Address] = set()
            watch_sent(server, sent_to)
            sent = 0
            for _ in range(2_000):
                datagram = bytes((rng.choice((0, 1, 5, 6, 8, 11, 12, 13, 14, 15, 0x40, 0xC3)),))
                datagram += rng.randbytes(rng.randrange(1, 1_200))
                if datagram[0] < 4:
                    datagram = datagram[:4] + bytes.fromhex("2112A442") + datagram[8:]
                frame = link_frame(datagram)
                sent += len(frame)
                await channel.write(frame)
            await asyncio.sleep(2)
            public = {at(node) for node in there.public}
            assert sent_to <= public
            back = 0
            reader = FrameReader()
            reading = asyncio.ensure_future(channel.read())
            await asyncio.wait({reading}, timeout=1)
            if reading.done():
                back = sum(map(len, reader.feed_untrusted(reading.result())))
            reading.cancel()
            assert back <= sent
            print(f"C1: {sent} bytes in, {back} back to the link, 0 to third addresses")

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_m1_a_link_to_another_key_is_refused() -> None:
    """Whoever sits at the bootstrap node's address, or terminates TLS on the way, shows another key."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            home = await there.start(Home.build(world, "udp-blocked", "11.7.0.1").host())
            one, other = there.public[:2]
            with pytest.raises(WrongKeyError):
                await home.links.open(at(one).ip, at(one).port, other.peer_id)
            tapped = world.host("6.6.6.6")
            await tapped.listen_tcp(Address("0.0.0.0", 443), lambda stream: stream.close())
            with pytest.raises(P2PError):
                await home.links.open("6.6.6.6", 443, one.peer_id)
            assert Address("6.6.6.6", 443) not in home.links.open_links()

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_c1_a_peer_that_names_a_victim_for_a_tcp_punch_draws_few_connections() -> None:
    """The callee answers the punch with somebody else's address, which refuses: ten connections at most in a minute."""

    async def main(world: VirtualWorld) -> int:
        async with street(world) as there:
            victim = world.host("6.6.6.6")
            drawn: list[float] = []
            deliver = victim.host.deliver_tcp

            def watched(packet: TcpPacket, source: Address, to: Address) -> None:
                drawn.append(world.loop.time())
                deliver(packet, source, to)

            victim.host.deliver_tcp = watched  # type: ignore[method-assign]
            a, b = await there.home_of("udp-blocked"), await there.home_of("port-restricted")

            async def evil(_session: Session, stream: Stream) -> None:
                await stream.write(b"\x06" + Address("6.6.6.6", 25).pack())
                stream.finish()

            b.handle("p2pnode/tcp-punch/1", evil)
            await asyncio.sleep(5)
            session = await a.connect(b.peer_id)
            await asyncio.sleep(60)
            assert session.path == "relay"
            return len(drawn)

    drawn = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"C1: {drawn} SYNs to the victim")
    assert 1 <= drawn <= 10
