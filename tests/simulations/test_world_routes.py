"""Which way packets go: several addresses, both families, gateways, routers behind routers, public hosts inside."""

from __future__ import annotations

import asyncio

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import Interface
from p2pnode.simulations.virtual import VirtualHost, VirtualWorld, faults, run_virtual


class Passer(VirtualHost):
    """A router that passes everything on as it is, and remembers what."""

    def __init__(self, world: VirtualWorld, name: str, *outside: str, behind: Passer | None = None) -> None:
        super().__init__(world, name)
        self.seen: list[bytes] = []
        for ip in outside:
            self.add_address(ip, lan=behind.name if behind else None)
        self.add_address("192.168.0.1", lan=name)
        self.gateway = behind

    def deliver(self, data: bytes, source: Address, to: Address, group: str | None) -> None:
        self.seen.append(data)
        self.world.counts["forwarded"] += 1
        self.world.carry(data, source, to, self, self.next_hop(to.ip), None)


def test_source_address_fits_the_way() -> None:
    """The source is an own address of the right family on the right segment; bound sockets keep theirs or have none."""

    async def main(world: VirtualWorld) -> None:
        host = world.host("198.51.100.1", "2001:db8::1", "10.0.0.1").host
        host.add_address("192.168.5.1", lan="lab")
        for ip, lan in (("198.51.100.2", None), ("2001:db8::2", None), ("10.0.0.2", None), ("192.168.5.2", "lab")):
            world.host(ip, lan=lan)
        ways = {"198.51.100.2": "198.51.100.1", "2001:db8::2": "2001:db8::1", "10.0.0.2": "10.0.0.1",
                "192.168.5.2": "192.168.5.1", "127.0.0.1": "127.0.0.1", "10.0.0.1": "10.0.0.1"}  # fmt: skip
        for ip, source in ways.items():
            to = Address(ip, 1)
            wild = "::" if to.is_ipv6 else "0.0.0.0"
            found = host.route(to, wild)
            assert found is not None
            assert found[0] == source
            assert found[1] is (host if ip in host.addresses() or ip == "127.0.0.1" else world.hosts[
                1 + list(ways).index(ip)])  # fmt: skip
            assert host.route(to, source) == found
        assert host.route(Address("10.0.0.2", 1), "198.51.100.1") is None
        assert host.route(Address("10.9.9.9", 1), "0.0.0.0") is None
        assert host.route(Address("198.51.100.9", 1), "0.0.0.0") == ("198.51.100.1", None)  # nobody is there
        assert [len(each.addresses) for each in world.hosts[0].network().interfaces()] == [2, 1, 1, 1, 1]

    run_virtual(main)


def test_ipv6_hosts_with_both_kinds_of_addresses() -> None:
    """A global address goes out, a unique local one stays; without a global one IPv6 ends at the LAN."""

    async def main(world: VirtualWorld) -> None:
        router = Passer(world, "home", "2001:db8:1::1")
        both = world.host("fd00::5", "2001:db8:1::5", lan="home")
        local = world.host("fd00::6", lan="home")
        both.host.gateway = local.host.gateway = router
        world.host("2001:db8:9::9")
        out = both.host.route(Address("2001:db8:9::9", 1), "::")
        assert out == ("2001:db8:1::5", router)
        assert both.host.route(Address("fd00::6", 1), "::") == ("fd00::5", local.host)
        assert both.host.route(Address("fe80::1", 1), "::") is None
        assert both.interfaces()[1] == Interface("eth0", ("fd00::5", "2001:db8:1::5"))

    run_virtual(main)


def test_public_host_behind_two_routers_is_entered_hop_by_hop() -> None:
    """Outermost router, inner router, host; and back; neighbours talk directly; unknown addresses end outside."""

    async def main(world: VirtualWorld) -> None:
        carrier = Passer(world, "carrier", "2001:db8:1::1")
        home = Passer(world, "home", "2001:db8:2::1", behind=carrier)
        inside, beside = (world.host(f"2001:db8:3::{i}", lan="home") for i in (5, 6))
        inside.host.gateway = beside.host.gateway = home
        outside = world.host("2001:db8:9::9")
        heard: list[bytes] = []
        sockets = [
            await network.open_udp(Address("::", 1), lambda data, _source: heard.append(data))
            for network in (inside, beside, outside)
        ]
        outside_socket = sockets.pop()
        outside_socket.send(b"in", Address("2001:db8:3::5", 1))
        sockets[0].send(b"out", Address("2001:db8:9::9", 1))
        sockets[0].send(b"over", Address("2001:db8:3::6", 1))
        sockets[0].send(b"void", Address("2001:db8:7::7", 1))
        await asyncio.sleep(1)
        assert sorted(heard) == [b"in", b"out", b"over"]
        assert sorted(carrier.seen) == [b"in", b"out", b"void"]
        assert sorted(home.seen) == [b"in", b"out", b"void"]
        assert world.counts["no_host"] == 1
        assert world.counts["sent"] == world.counts["forwarded"] + world.counts["delivered"] + 1
        faults.move(inside, "2001:db8:4::4")
        outside_socket.send(b"moved", Address("2001:db8:4::4", 1))
        await asyncio.sleep(1)
        assert b"moved" in heard
        assert b"moved" not in carrier.seen

    run_virtual(main)


@pytest.mark.parametrize("off", ["carrier", "home"])
def test_router_that_is_off_cuts_its_hosts_off(off: str) -> None:
    """What passes a router without power is lost and counted, in both directions."""

    async def main(world: VirtualWorld) -> None:
        carrier = Passer(world, "carrier", "2001:db8:1::1")
        home = Passer(world, "home", "2001:db8:2::1", behind=carrier)
        inside, outside = world.host("2001:db8:3::5", lan="home"), world.host("2001:db8:9::9")
        inside.host.gateway = home
        {"carrier": carrier, "home": home}[off].up = False
        heard: list[bytes] = []
        one = await inside.open_udp(Address("::", 1), lambda data, _source: heard.append(data))
        other = await outside.open_udp(Address("::", 1), lambda data, _source: heard.append(data))
        one.send(b"out", Address("2001:db8:9::9", 1))
        other.send(b"in", Address("2001:db8:3::5", 1))
        await asyncio.sleep(1)
        assert not heard
        assert world.counts["down"] == 2

    run_virtual(main)
