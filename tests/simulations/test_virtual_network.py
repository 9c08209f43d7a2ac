"""The virtual network: delays, ports, segments, multicast, TCP, loss, hosts that move."""

from __future__ import annotations

import asyncio
import errno

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import Interface
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual

GROUP = Address("224.0.0.251", 5353)


class Inbox:
    """Keeps datagrams with their virtual time of arrival."""

    def __init__(self, network: VirtualNetwork) -> None:
        self.items: list[tuple[float, bytes, Address]] = []
        self._now = network.monotonic

    def __call__(self, data: bytes, source: Address) -> None:
        self.items.append((round(self._now(), 6), data, source))

    @property
    def bodies(self) -> list[bytes]:
        return [data for _, data, _ in self.items]


def nothing(_data: bytes, _source: Address) -> None:
    """A handler that ignores what it is given."""


def test_delay_between_hosts() -> None:
    """A datagram arrives after the one-way delay: the world's, a pair's own, or 20 us within a host."""

    async def main(world: VirtualWorld) -> None:
        a, b, c = (world.host(f"198.51.100.{i}") for i in (1, 2, 3))
        world.set_delay(a, c, 0.3)
        boxes = [Inbox(each) for each in (a, b, c)]
        for network, box in zip((a, b, c), boxes, strict=True):
            await network.open_udp(Address("0.0.0.0", 4747), box)
        sender = await a.open_udp(Address("0.0.0.0", 0), nothing)
        for i in (1, 2, 3):
            sender.send(b"x", Address(f"198.51.100.{i}", 4747))
        await asyncio.sleep(1)
        source = Address("198.51.100.1", sender.local.port)
        assert [box.items for box in boxes] == [
            [(0.00002, b"x", source)],
            [(0.05, b"x", source)],
            [(0.3, b"x", source)],
        ]
        assert [entry.time for entry in world.trace] == [0.0] * 3

    run_virtual(main, delay=0.05)


def test_drawn_delays_stay_in_range_and_reorder() -> None:
    """A delay drawn per datagram gives jitter: all arrive within the bounds, not all in order."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
        box = Inbox(b)
        await b.open_udp(Address("198.51.100.2", 4747), box)
        sender = await a.open_udp(Address("198.51.100.1", 0), nothing)
        for number in range(200):
            sender.send(bytes([number]), Address("198.51.100.2", 4747))
        await asyncio.sleep(1)
        assert all(0.025 <= at <= 0.075 for at, _, _ in box.items)
        assert len(box.items) == 200
        assert box.bodies != sorted(box.bodies)

    run_virtual(main, delay=lambda rng: rng.uniform(0.025, 0.075))


def test_several_nodes_share_a_host_and_its_loopback() -> None:
    """Two networks of one host reach each other by loopback; another host's loopback is another world."""

    async def main(world: VirtualWorld) -> None:
        first = world.host("10.0.0.1")
        second, stranger = first.network(), world.host("10.0.0.2")
        box, other = Inbox(first), Inbox(stranger)
        await first.open_udp(Address("127.0.0.1", 4747), box)
        await stranger.open_udp(Address("127.0.0.1", 4747), other)
        sender = await second.open_udp(Address("0.0.0.0", 0), nothing)
        sender.send(b"x", Address("127.0.0.1", 4747))
        outward = await second.open_udp(Address("127.0.0.1", 0), nothing)
        outward.send(b"x", Address("10.0.0.2", 4747))
        await asyncio.sleep(1)
        assert box.items == [(0.00002, b"x", Address("127.0.0.1", sender.local.port))]
        assert not other.items
        assert outward.dropped == 1  # a loopback source does not leave the host
        assert first.token_bytes(8) != second.token_bytes(8)

    run_virtual(main)


@pytest.mark.parametrize(
    ("first", "second"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.1", "0.0.0.0"), ("::1", "::")],
)
def test_port_collision_is_an_error(first: str, second: str) -> None:
    """A port taken on an address, or on the wildcard of its family, is EADDRINUSE; after closing it is free."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")
        sock = await network.open_udp(Address(first, 4747), nothing)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
            await network.network().open_udp(Address(second, 4747), nothing)
        assert caught.value.errno == errno.EADDRINUSE
        sock.close()
        sock.close()
        await network.open_udp(Address(second, 4747), nothing)

    run_virtual(main)


def test_wildcards_of_both_families_share_a_port() -> None:
    """`::` and `0.0.0.0` do not collide, nor do two addresses of one host; a foreign address cannot be bound."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1", "10.0.0.9")
        await network.open_udp(Address("::", 4747), nothing)
        await network.open_udp(Address("10.0.0.1", 4747), nothing)
        await network.open_udp(Address("10.0.0.9", 4747), nothing)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
            await network.open_udp(Address("10.0.0.2", 4747), nothing)
        assert caught.value.errno == errno.EADDRNOTAVAIL

    run_virtual(main)


def test_addresses_mean_something_in_their_segment_only() -> None:
    """Private addresses are reached on their own segment; a public host and a private one have no route."""

    async def main(world: VirtualWorld) -> None:
        home_a = world.host("192.168.1.2", lan="a")
        home_b = world.host("192.168.1.2", lan="b")  # the same address in another home
        near, public = world.host("192.168.1.3", lan="a"), world.host("203.0.113.5")
        boxes = [Inbox(each) for each in (home_a, home_b, public)]
        for network, box in zip((home_a, home_b, public), boxes, strict=True):
            await network.open_udp(Address("0.0.0.0", 4747), box)
        sender = await near.open_udp(Address("0.0.0.0", 4747), nothing)
        sender.send(b"x", Address("192.168.1.2", 4747))
        sender.send(b"x", Address("203.0.113.5", 4747))
        outside = await public.open_udp(Address("0.0.0.0", 0), nothing)
        outside.send(b"x", Address("192.168.1.2", 4747))
        await asyncio.sleep(1)
        assert [box.bodies for box in boxes] == [[b"x"], [], []]
        assert (sender.dropped, outside.dropped) == (1, 1)

    run_virtual(main)


def test_send_never_raises_and_counts() -> None:
    """Another family, port 0 and 70,000 bytes are dropped and counted; the accounts of the world add up."""

    async def main(world: VirtualWorld) -> None:
        a, _b = world.host("10.0.0.1"), world.host("10.0.0.2")
        sock = await a.open_udp(Address("0.0.0.0", 0), nothing)
        for data, to in (
            (b"", Address("::1", 1)),
            (b"", Address("10.0.0.2", 0)),
            (bytes(70_000), Address("10.0.0.2", 1)),
        ):
            sock.send(data, to)
        sock.send(b"nobody listens", Address("10.0.0.2", 1))
        sock.send(b"nobody is there", Address("10.0.0.77", 1))
        await asyncio.sleep(1)
        assert sock.dropped == 4
        assert world.counts == {"no_route": 3, "message_too_long": 1, "sent": 1, "no_socket": 1}
        sock.close()
        sock.send(b"late", Address("10.0.0.2", 1))
        assert world.counts["sent"] == 1

    run_virtual(main)


def test_multicast_reaches_the_segment_and_the_own_host() -> None:
    """All group members of one /24 hear it, the sender too, once by LAN and once by loopback; others do not."""

    async def main(world: VirtualWorld) -> None:
        a, b, far = world.host("10.0.0.1"), world.host("10.0.0.2"), world.host("10.0.1.1")
        boxes = [Inbox(each) for each in (a, b, far)]
        sockets = [await n.open_multicast(GROUP, box) for n, box in zip((a, b, far), boxes, strict=True)]
        sockets[0].send(b"hello")
        await asyncio.sleep(1)
        lan = Address("10.0.0.1", 5353)
        assert boxes[0].items == [(0.00002, b"hello", Address("127.0.0.1", 5353)), (0.00002, b"hello", lan)]
        assert boxes[1].items == [(0.001, b"hello", lan)]
        assert boxes[2].items == []
        sockets[1].close()
        sockets[0].send(b"again")
        await asyncio.sleep(1)
        assert len(boxes[1].items) == 1
        with pytest.raises(OSError, match="Invalid argument"):
            await a.open_multicast(Address("10.0.0.1", 5353), nothing)

    run_virtual(main)


def test_host_that_gets_an_address_tells_its_watchers_and_joins_on_refresh() -> None:
    """A new address shows in `interfaces`, calls watchers, and multicast works there after `refresh`."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host(), world.host("10.0.0.2")
        assert a.interfaces() == [Interface("lo", ("127.0.0.1", "::1"))]
        changes: list[int] = []
        cancel = a.watch_interfaces(lambda: changes.append(1))
        box = Inbox(a)
        group, speaker = await a.open_multicast(GROUP, box), await b.open_multicast(GROUP, nothing)
        a.host.add_address("10.0.0.1")
        await asyncio.sleep(0)
        assert changes == [1]
        assert a.interfaces()[1] == Interface("eth0", ("10.0.0.1",))
        speaker.send(b"too early")
        await asyncio.sleep(1)
        group.refresh()
        speaker.send(b"now")
        await asyncio.sleep(1)
        assert box.bodies == [b"now"]
        a.host.remove_address("10.0.0.1")
        await asyncio.sleep(0)
        assert changes == [1, 1]
        cancel()
        cancel()
        a.host.add_address("10.0.0.1")
        await asyncio.sleep(0)
        assert changes == [1, 1]
        with pytest.raises(ValueError, match="taken"):
            b.host.add_address("10.0.0.1")

    run_virtual(main)


def test_loss_takes_its_share_between_hosts_only() -> None:
    """20 % loss loses about 20 %; loopback loses nothing; every datagram is accounted for."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        box, own = Inbox(b), Inbox(a)
        await b.open_udp(Address("0.0.0.0", 4747), box)
        await a.open_udp(Address("0.0.0.0", 4747), own)
        sender = await a.open_udp(Address("0.0.0.0", 0), nothing)
        for _ in range(2_000):
            sender.send(b"x", Address("10.0.0.2", 4747))
            sender.send(b"x", Address("127.0.0.1", 4747))
        await asyncio.sleep(1)
        assert 1_520 <= len(box.items) <= 1_680
        assert len(own.items) == 2_000
        assert world.counts["sent"] == world.counts["delivered"] + world.counts["lost"] == 4_000

    run_virtual(main, loss=0.2)


def test_loss_by_rule() -> None:
    """A rule sees source, destination and bytes."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        box = Inbox(b)
        await b.open_udp(Address("0.0.0.0", 4747), box)
        sender = await a.open_udp(Address("0.0.0.0", 0), nothing)
        world.loss = lambda source, to, data: float(data == b"bad" and source.ip == "10.0.0.1" and to.port == 4747)
        for body in (b"bad", b"good"):
            sender.send(body, Address("10.0.0.2", 4747))
        await asyncio.sleep(1)
        assert box.bodies == [b"good"]

    run_virtual(main)


def test_unplugged_host_neither_sends_nor_receives() -> None:
    """With the cable out nothing passes; once it is back everything does."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        box, back = Inbox(b), Inbox(a)
        one = await a.open_udp(Address("0.0.0.0", 4747), back)
        two = await b.open_udp(Address("0.0.0.0", 4747), box)
        b.host.up = False
        one.send(b"1", Address("10.0.0.2", 4747))
        two.send(b"2", Address("10.0.0.1", 4747))
        await asyncio.sleep(1)
        b.host.up = True
        one.send(b"3", Address("10.0.0.2", 4747))
        await asyncio.sleep(1)
        assert (box.bodies, back.bodies) == ([b"3"], [])

    run_virtual(main)


def test_closed_socket_hears_nothing_more() -> None:
    """What is on the wire when a socket closes is not delivered to it; a handler may close its own socket."""

    async def main(world: VirtualWorld) -> None:
        a = world.host("10.0.0.1")
        seen: list[bytes] = []

        def handler(data: bytes, _source: Address) -> None:
            seen.append(data)
            sock.close()

        sock = await a.open_udp(Address("0.0.0.0", 4747), handler)
        sender = await a.network().open_udp(Address("0.0.0.0", 0), nothing)
        for body in (b"1", b"2"):
            sender.send(body, Address("127.0.0.1", 4747))
        await asyncio.sleep(1)
        assert seen == [b"1"]

    run_virtual(main)


def test_clocks_and_names() -> None:
    """The wall clock starts at a fixed date and may be wrong; names come from the world; blocking work runs inline."""

    async def main(world: VirtualWorld) -> None:
        a = world.host("10.0.0.1")
        await asyncio.sleep(10)
        assert a.wall() == 1_767_225_610.0
        a.host.wall_offset = -3600
        assert a.wall() == 1_767_222_010.0
        world.names["boot.example"] = ("203.0.113.5", "2001:db8::5")
        assert await a.resolve("Boot.Example", 7) == [Address("203.0.113.5", 7), Address("2001:db8::5", 7)]
        assert await a.resolve("::FFFF:10.0.0.1", 7) == [Address("10.0.0.1", 7)]
        assert await a.resolve("unknown.example", 7) == []
        assert await a.run_blocking(sum, [1, 2]) == 3

    run_virtual(main)
