"""Every datagram and TCP packet is accounted for, whatever links and faults do; the trace and traffic counters."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket
from p2pnode.simulations.virtual import KilledError, VirtualHost, VirtualNetwork, VirtualWorld, faults, run_virtual
from p2pnode.simulations.virtual.links import (
    Bursts,
    Lane,
    LaneProfile,
    LinkProfile,
    Lognormal,
    Normal,
    Pareto,
    Uniform,
)
from p2pnode.simulations.virtual.tcp_packet import TcpPacket

APART = {"no_route", "message_too_long", "sent", "duplicated"}
IPS = [f"198.51.100.{i}" for i in range(1, 5)] + ["192.168.0.9"]
GROUP = Address("224.0.0.251", 5353)

delays = st.sampled_from([0.0, 0.03, Uniform(0.0, 0.2), Normal(0.05, 0.05), Lognormal(0.01, 0.02, 1.0),
                          Pareto(0.01, 1.2, 3.0)])  # fmt: skip
shares = st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0])
lanes = st.builds(
    LaneProfile,
    delay=delays,
    rate_bps=st.sampled_from([None, 5_000.0, 1e6]),
    queue_bytes=st.sampled_from([1_000.0, 100_000.0]),
    loss=st.one_of(shares, st.builds(Bursts, st.floats(0.01, 0.4), st.floats(1.0, 10.0))),
    duplicate=shares,
    reorder=shares,
)
links = st.builds(LinkProfile, st.just("any"), up=lanes, down=lanes, mtu=st.sampled_from([600, 1500]))
host_index = st.integers(0, len(IPS) - 1)
actions = st.one_of(
    st.tuples(st.just("send"), host_index, host_index, st.sampled_from([0, 1, 700, 66_000])),
    st.tuples(st.just("stream"), host_index, host_index, st.integers(0, 5_000)),
    st.tuples(st.just("wait"), st.floats(0.001, 3.0)),
    st.tuples(st.just("link"), host_index, st.one_of(st.none(), links)),
    st.tuples(st.just("partition"), st.integers(1, len(IPS) - 1)),
    st.tuples(st.sampled_from(["heal", "block", "multicast"]), host_index, host_index),
    st.tuples(st.sampled_from(["suspend", "resume", "kill", "crash", "down", "up", "move"]), host_index),
)


class Relay(VirtualHost):
    """A router without translation that forwards every other packet."""

    passed = 0

    def deliver(self, data: bytes, source: Address, to: Address, group: str | None) -> None:
        if self._forwards(self.world.counts):
            self.world.carry(data, source, to, self, self.next_hop(to.ip), None)

    def deliver_tcp(self, packet: TcpPacket, source: Address, to: Address) -> None:
        if self._forwards(self.world.tcp_counts):
            self.world.carry_tcp(packet, source, to, self, self.next_hop(to.ip))

    def _forwards(self, counts: Counter[str]) -> bool:
        self.passed += 1
        counts["forwarded" if self.passed % 2 else "router_dropped"] += 1
        return bool(self.passed % 2)


class Play:
    """Some hosts, one of them behind a router, to which a list of actions happens."""

    def __init__(self, world: VirtualWorld) -> None:
        self.world = world
        self.hosts: list[VirtualNetwork] = [world.host(ip) for ip in IPS[:-1]]
        relay = Relay(world, "relay")
        relay.add_address("203.0.113.1")
        relay.add_address("192.168.0.1", lan="home")
        self.hosts.append(world.host(IPS[-1], lan="home"))
        self.hosts[-1].host.gateway = relay
        self.sockets: list[DatagramSocket] = []
        self.heals = [faults.partition(world)]
        self.streams: list[asyncio.Task[None]] = []
        self.moves = 0

    async def run(self, script: list[tuple[object, ...]]) -> None:
        self.sockets = [await self.open(network) for network in self.hosts]
        for name, *arguments in script:
            await getattr(self, f"do_{name}")(*arguments)
            self.check()
        for network in self.hosts:
            faults.resume(network)
        for stream in self.streams:
            stream.cancel()
        await asyncio.sleep(5_000)  # all retransmissions are given up
        self.check(on_the_wire=0)

    def check(self, *, on_the_wire: int | None = None) -> None:
        """What was sent is on the wire or has exactly one outcome."""
        for counts, receiver in ((self.world.counts, "deliver"), (self.world.tcp_counts, "deliver_tcp")):
            begun = counts["sent"] + counts["duplicated"]
            ended = sum(count for reason, count in counts.items() if reason not in APART)
            flying = sum(is_packet(entry, receiver) for entry in (*self.world.loop._timers, *self.world.loop._ready))
            assert begun == ended + flying, dict(counts)
            if on_the_wire is not None:
                assert flying == on_the_wire

    async def open(self, network: VirtualNetwork) -> DatagramSocket:
        await network.run(network.listen_tcp(Address("0.0.0.0", 80), lambda stream: None))
        await network.run(network.open_multicast(GROUP, lambda *_: None))
        return await network.run(network.open_udp(Address("0.0.0.0", 4747), lambda *_: None))

    async def do_send(self, one: int, other: int, size: int) -> None:
        port = 4747 if size else 9  # where nobody listens
        self.hosts[one].call(self.sockets[one].send, bytes(size), Address(IPS[other], port))

    async def do_multicast(self, one: int, _other: int) -> None:
        network = self.hosts[one].network()
        group = await network.run(network.open_multicast(GROUP, lambda *_: None))
        network.call(group.send, b"hello")
        group.close()

    async def do_stream(self, one: int, other: int, size: int) -> None:
        network = self.hosts[one]

        async def talk() -> None:
            stream = await network.connect_tcp(Address(IPS[other], 80))
            await stream.write(bytes(size))
            stream.close()

        async def try_it() -> None:
            with contextlib.suppress(OSError, KilledError):
                await network.run(talk())

        self.streams.append(asyncio.create_task(try_it()))

    async def do_wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def do_link(self, one: int, profile: LinkProfile | None) -> None:
        self.world.set_link(self.hosts[one], profile)

    async def do_partition(self, at: int) -> None:
        self.heals.append(faults.partition(self.world, self.hosts[:at], self.hosts[at:]))

    async def do_block(self, one: int, other: int) -> None:
        self.heals.append(faults.block(self.world, [self.hosts[one]], [self.hosts[other]]))

    async def do_heal(self, _one: int, _other: int) -> None:
        self.heals.pop()() if len(self.heals) > 1 else self.heals[0]()

    async def do_suspend(self, one: int) -> None:
        faults.suspend(self.hosts[one])

    async def do_resume(self, one: int) -> None:
        faults.resume(self.hosts[one])

    async def do_kill(self, one: int) -> None:
        await faults.kill(self.hosts[one])
        await self.restart(one)

    async def do_crash(self, one: int) -> None:
        await faults.crash(self.hosts[one])
        await self.restart(one)

    async def restart(self, one: int) -> None:
        faults.resume(self.hosts[one])
        self.hosts[one] = self.hosts[one].network()
        self.sockets[one] = await self.open(self.hosts[one])

    async def do_down(self, one: int) -> None:
        self.hosts[one].host.up = False

    async def do_up(self, one: int) -> None:
        self.hosts[one].host.up = True

    async def do_move(self, one: int) -> None:
        self.moves += 1
        faults.move(self.hosts[one], f"5.0.{self.moves}.1")


def is_packet(entry: Any, receiver: str) -> bool:
    """Whether a timer of the loop is an arrival, at a host's socket (or router) or at its link."""
    callback: Any = entry[2] if isinstance(entry, tuple) else None
    name = getattr(callback, "__name__", "")
    if name == "_enter":  # on its way to a downlink
        name = entry[3][3].__name__
    return name == receiver


@settings(max_examples=150, deadline=None)
@given(script=st.lists(actions, max_size=40), seed=st.integers(0, 1000), loss=shares, delay=delays)
def test_sent_is_the_sum_of_all_outcomes_and_what_is_under_way(
    script: list[tuple[object, ...]], seed: int, loss: float, delay: float
) -> None:
    """After each of up to 40 sends and faults, for datagrams and TCP packets; in the end nothing is under way."""

    async def main(world: VirtualWorld) -> None:
        await Play(world).run(script)

    run_virtual(main, seed=seed, loss=loss, delay=delay, until=None)


def test_one_long_play_sees_every_outcome() -> None:
    """3,000 random actions; each reason of docs/world.md occurs, and the same seed plays the same."""

    def play() -> tuple[str, Counter[str]]:
        rng = random.Random(7)
        lossy = LaneProfile(
            Lognormal(0.01, 0.02, 1.0), 2e4, 1_500, loss=Bursts(0.1, 3), duplicate=0.05, reorder=0.05
        )  # fmt: skip

        async def main(world: VirtualWorld) -> tuple[str, Counter[str]]:
            script: list[tuple[object, ...]] = []
            for _ in range(3_000):
                one, other = rng.randrange(len(IPS)), rng.randrange(len(IPS))
                script.append(rng.choices(
                    [("send", one, other, rng.choice([0, 1, 700, 700, 66_000])), ("stream", one, other, 3_000),
                     ("wait", rng.random()), ("link", one, LinkProfile("bad", lossy, lossy, rng.choice([600, 1500]))),
                     ("partition", rng.randrange(1, len(IPS))), ("heal", 0, 0), ("multicast", one, other),
                     (rng.choice(["suspend", "kill", "crash", "down"]), one), ("resume", one), ("up", one)],
                    weights=[30, 3, 10, 1, 0.2, 2, 1, 0.5, 4, 4],
                )[0])  # fmt: skip
            await Play(world).run(script)
            return world.trace_hash(), world.counts

        return run_virtual(main, seed=3, delay=Uniform(0.0, 0.1), loss=0.02, until=None)

    digest, counts = play()
    print(dict(counts))
    assert {"delivered", "forwarded", "lost", "no_host", "no_socket", "down", "suspended", "partitioned", "too_big",
            "queue_full", "duplicated", "no_route", "message_too_long", "router_dropped"} <= set(counts)  # fmt: skip
    assert play() == (digest, counts)


@pytest.mark.parametrize("size", [10, 3_000])
def test_hash_grows_with_the_trace(size: int) -> None:
    """The hash without a kept trace is that of the kept one, however long; nothing is kept then."""

    def run(**options: bool) -> tuple[str, int]:
        async def main(world: VirtualWorld) -> tuple[str, int]:
            a = world.host("10.0.0.1")
            sock = await a.open_udp(Address("0.0.0.0", 0), lambda *_: None)
            for i in range(size):
                sock.send(bytes(i % 100), Address("10.0.0.2", 1))
                sock.send(bytes(i % 100), Address("127.0.0.1", 1))
            await asyncio.sleep(1)
            first = world.trace_hash()
            sock.send(b"one more", Address("127.0.0.1", 1))
            assert world.trace_hash() != first
            return world.trace_hash(), len(world.trace)

        return run_virtual(main, **options)

    kept, entries = run()
    assert run(keep_trace=False, hash_trace=True) == (kept, 0)
    assert run(keep_trace=True, hash_trace=True) == (kept, entries)
    assert entries == size + 1


def test_traffic_by_kind_when_asked_for() -> None:
    """Hosts count datagrams and bytes out and in by kind, only when the world counts traffic."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        sock = await a.open_udp(Address("0.0.0.0", 0), lambda *_: None)
        await b.open_udp(Address("0.0.0.0", 1), lambda *_: None)
        group = await a.open_multicast(GROUP, lambda *_: None)
        await b.open_multicast(GROUP, lambda *_: None)
        sock.send(b"\x05" + bytes(99), Address("10.0.0.2", 1))
        world.counts_traffic = True
        for _ in range(3):
            sock.send(b"\x05" + bytes(99), Address("10.0.0.2", 1))
            sock.send(b"\x40" + bytes(9), Address("10.0.0.2", 2))
        group.send(b"1234")
        await asyncio.sleep(1)
        assert a.host.traffic == {"dht-05": [3, 300, 0, 0], "quic": [3, 30, 0, 0], "multicast": [2, 8, 2, 8]}
        assert b.host.traffic == {"dht-05": [0, 0, 4, 400], "multicast": [0, 0, 1, 4]}

    run_virtual(main)


def test_a_lane_without_anything_is_no_lane() -> None:
    """The default profile passes each packet at once."""
    lane = Lane(LaneProfile(), random.Random(1))
    counts: Counter[str] = Counter()
    assert [lane.pass_on(now, 1500, counts) for now in (0.0, 0.0, 1.0)] == [0.0, 0.0, 1.0]
    assert not lane.doubles(counts)
    assert not counts
