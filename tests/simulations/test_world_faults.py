"""Faults of the virtual world: partitions, moves, suspended hosts, killed processes; on small programs."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pnode.core.address import Address
from p2pnode.core.network import DatagramSocket
from p2pnode.simulations.virtual import KilledError, VirtualNetwork, VirtualWorld, faults, run_virtual
from p2pnode.simulations.virtual.links import LaneProfile, LinkProfile


class Ticker:
    """A program that sends the number of its tick each second, hears others, and wants to say goodbye."""

    def __init__(self, network: VirtualNetwork, to: Address) -> None:
        self.network, self._to = network, to
        self.heard: list[tuple[float, bytes]] = []
        self.ticks: list[tuple[float, float]] = []
        self.ended = 0
        self.socket: DatagramSocket | None = None

    async def start(self) -> None:
        self.socket = await self.network.open_udp(Address("0.0.0.0", 4747), self._hear)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        assert self.socket is not None
        try:
            while True:
                self.ticks.append((self.network.monotonic(), self.network.host.world.loop.now()))
                self.socket.send(b"%d" % len(self.ticks), self._to)
                await asyncio.sleep(1)
        finally:
            self.socket.send(b"goodbye", self._to)
            await asyncio.sleep(0.5)  # a program that takes its time
            self.ended += 1

    def _hear(self, data: bytes, _source: Address) -> None:
        self.heard.append((self.network.host.world.loop.now(), data))
        if data == b"later":
            asyncio.get_running_loop().call_later(3, self.heard.append, (self.network.monotonic(), b"done"))


async def two(world: VirtualWorld) -> tuple[Ticker, Ticker]:
    """Two programs on two hosts that tick at each other."""
    a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
    one, other = Ticker(a, Address("10.0.0.2", 4747)), Ticker(b, Address("10.0.0.1", 4747))
    await a.run(one.start())
    await b.run(other.start())
    return one, other


def test_partition_and_heal() -> None:
    """Groups do not reach each other, hosts in no group reach all; healing restores; loopback is never cut."""

    async def main(world: VirtualWorld) -> None:
        hosts = [world.host(f"10.0.0.{i}") for i in (1, 2, 3)]
        heard: dict[tuple[int, int], int] = {}
        sockets = []
        for i, network in enumerate(hosts):

            def hear(data: bytes, _source: Address, i: int = i) -> None:
                heard[data[0], i] = heard.get((data[0], i), 0) + 1

            sockets.append(await network.open_udp(Address("0.0.0.0", 4747), hear))

        async def all_to_all() -> set[tuple[int, int]]:
            heard.clear()
            for i, sock in enumerate(sockets):
                for j in range(3):
                    sock.send(bytes([i]), Address(f"10.0.0.{j + 1}", 4747))
            await asyncio.sleep(1)
            return set(heard)

        everybody = {(i, j) for i in range(3) for j in range(3)}
        heal = faults.partition(world, hosts[:1], [hosts[1].host])
        assert await all_to_all() == everybody - {(0, 1), (1, 0)}
        assert world.counts["partitioned"] == 2
        unblock = faults.block(world, [hosts[2]], hosts[:2])
        assert await all_to_all() == everybody - {(0, 1), (1, 0), (2, 0), (2, 1)}
        heal()
        heal()
        assert await all_to_all() == everybody - {(2, 0), (2, 1)}
        unblock()
        assert await all_to_all() == everybody
        with pytest.raises(ValueError, match="two groups"):
            faults.partition(world, hosts[:2], hosts[1:])

    run_virtual(main)


def test_suspended_host_stands_still() -> None:
    """Nothing runs, what arrives is lost, monotonic time stops, wall time does not, a timer keeps what it had to go."""

    async def main(world: VirtualWorld) -> None:
        one, other = await two(world)
        await asyncio.sleep(2.5)
        other.socket.send(b"later", Address("10.0.0.1", 4747))  # type: ignore[union-attr]  # due 3 s later
        await asyncio.sleep(0.7)
        wall = one.network.wall()
        faults.suspend(one.network)
        faults.suspend(one.network)
        one.network.host.up = False  # a cable pulled meanwhile stays out
        one.network.host.up = True
        ticks, heard = len(one.ticks), len(one.heard)
        await asyncio.sleep(100)
        assert (len(one.ticks), len(one.heard)) == (ticks, heard)
        assert world.counts["suspended"] == 100
        assert one.network.wall() - wall == 100
        faults.resume(one.network)
        faults.resume(one.network)
        await asyncio.sleep(10)
        assert [own for own, _ in one.ticks] == pytest.approx(range(14))  # by its own clock it never missed a second
        assert [now for _, now in one.ticks[:5]] == pytest.approx([0, 1, 2, 3, 104])
        assert [at for at, data in one.heard if data == b"done"] == [
            pytest.approx(2.501)
        ]  # noted when it was asked for, done at 5.501 of its clock
        assert one.network.monotonic() == pytest.approx(13.2)
        assert len(other.ticks) == 114

    run_virtual(main)


def test_a_timer_of_a_host_that_slept_is_never_early() -> None:
    """Whatever the fractions of seconds slept: a timer fires when the clock of its process shows its time."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")
        rng = random.Random(1)
        early: list[float] = []

        async def tick() -> None:
            loop = asyncio.get_running_loop()
            for _ in range(50):
                when = loop.time() + rng.random()
                fired = loop.create_future()
                loop.call_at(when, lambda: fired.set_result(loop.time()))  # noqa: B023
                if await fired < when:
                    early.append(when)

        for _ in range(40):
            running = asyncio.create_task(network.run(tick()))
            await asyncio.sleep(rng.random())
            faults.suspend(network)
            await asyncio.sleep(rng.random() * 1000)
            faults.resume(network)
            await running
        assert not early

    run_virtual(main, until=None)


def test_what_becomes_ready_in_a_suspended_host_waits() -> None:
    """Work started or cancelled from outside during the sleep begins, or ends, on waking; in its order."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")
        done: list[tuple[str, float]] = []

        async def work(name: str, seconds: float) -> str:
            try:
                await asyncio.sleep(seconds)
            finally:
                done.append((name, world.loop.now()))
            return name

        sleeper = asyncio.create_task(network.run(work("cancelled", 1000)))
        await asyncio.sleep(1)
        faults.suspend(network)
        fresh = asyncio.create_task(network.run(work("fresh", 2)))
        await asyncio.sleep(1)
        sleeper.cancel()
        await asyncio.sleep(48)
        assert not done
        assert not sleeper.done()
        faults.resume(network)
        assert await fresh == "fresh"
        assert done == [("cancelled", 50.0), ("fresh", 52.0)]
        with pytest.raises(asyncio.CancelledError):
            await sleeper

    run_virtual(main)


def test_programs_started_outside_cannot_be_stopped_by_halves() -> None:
    """Suspending or killing what was not started by `run` is refused; so is calling what has slept from outside."""

    async def main(world: VirtualWorld) -> None:
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        await a.open_udp(Address("0.0.0.0", 1), lambda *_: None)
        with pytest.raises(RuntimeError, match="outside of its process"):
            faults.suspend(a)
        with pytest.raises(RuntimeError, match="outside of its process"):
            await faults.kill(a)
        sock = await b.run(b.open_udp(Address("0.0.0.0", 1), lambda *_: None))
        faults.suspend(b)
        await asyncio.sleep(1)
        faults.resume(b)
        with pytest.raises(RuntimeError, match=r"VirtualNetwork\.run"):
            sock.send(b"", Address("10.0.0.1", 1))
        b.call(sock.send, b"", Address("10.0.0.1", 1))
        assert world.counts["sent"] == 1

    run_virtual(main)


def test_killed_process_ends_without_a_word_and_its_disk_stays(tmp_path: Path) -> None:
    """No goodbye, nothing written after the kill, all tasks gone at once; the same port is free for the next life."""

    async def main(world: VirtualWorld) -> None:
        one, other = await two(world)
        disk = tmp_path / "disk"

        async def save_at_the_end() -> None:
            try:
                await one.network.run_blocking(disk.write_text, "saved in time")
                await asyncio.sleep(1000)
            finally:
                await one.network.run_blocking(disk.write_text, "saved after death")

        unfinished = asyncio.create_task(one.network.run(save_at_the_end()))
        await asyncio.sleep(2.5)
        before = world.loop.now()
        tasks = len(asyncio.all_tasks())
        await faults.kill(one.network)
        assert world.loop.now() == before
        with pytest.raises(KilledError, match="host-1"):
            await unfinished
        assert len(asyncio.all_tasks()) == tasks - 3  # its ticker, its saver, and ours that waited for it
        assert disk.read_text() == "saved in time"
        assert one.ended == 0
        await asyncio.sleep(10)
        assert [data for _, data in other.heard] == [b"1", b"2", b"3"]
        assert world.counts["no_socket"] == 10
        with pytest.raises(OSError, match="down"):
            await one.network.open_udp(Address("0.0.0.0", 4747), lambda *_: None)
        again = Ticker(one.network.network(), Address("10.0.0.2", 4747))
        await again.network.run(again.start())
        await asyncio.sleep(0.5)
        assert other.heard[-1][1] == b"1"
        assert again.network.token_bytes(8) != one.network.token_bytes(8)

    run_virtual(main)


def test_task_that_will_not_die_is_named() -> None:
    """A process that swallows its cancellation for ever is an error of the program, and says so."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")

        async def immortal() -> None:
            while True:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    if finished:
                        raise

        finished: list[int] = []
        task = network.host.world.loop.create_task(immortal(), name="immortal", context=network.process.context)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="still running: immortal"):
            await faults.kill(network)
        finished.append(1)
        task.cancel()

    run_virtual(main)


@pytest.mark.parametrize("asleep", [False, True])
def test_crashed_host_is_off_until_it_is_turned_on(asleep: bool) -> None:
    """Everything on it is gone, also when the lid was closed; what is sent to it is lost; it can be used again."""

    async def main(world: VirtualWorld) -> None:
        one, other = await two(world)
        second = Ticker(one.network.network(), Address("10.0.0.2", 4748))
        await asyncio.sleep(2.5)
        if asleep:
            faults.suspend(one.network)
            await asyncio.sleep(5)
        await faults.crash(one.network)
        assert one.network.host.networks == []
        await asyncio.sleep(5)
        assert len(one.ticks) == 3
        assert len(other.heard) == 3
        assert second.network.process.dead
        one.network.host.up = True
        again = Ticker(one.network.network(), Address("10.0.0.2", 4747))
        await again.network.run(again.start())
        await asyncio.sleep(2.5)
        assert [data for _, data in again.heard] == [data for _, data in again.heard if data.isdigit()]
        assert len(again.heard) == 2

    run_virtual(main)


def test_host_moves_to_another_network() -> None:
    """New addresses, link and segment; watchers hear of it once; old addresses are free; wildcard sockets go on."""

    async def main(world: VirtualWorld) -> None:
        a = world.host("192.168.0.2", "fd00::2", lan="home")
        home, cafe = world.host("192.168.0.3", lan="home"), world.host("10.9.9.1", lan="cafe")
        changes: list[tuple[str, ...]] = []
        a.watch_interfaces(lambda: changes.append(a.host.addresses()))
        heard: list[tuple[str, bytes]] = []

        def listener(name: str) -> Callable[[bytes, Address], None]:
            return lambda data, source: heard.append((f"{name} from {source.ip}", data))

        for name, network in (("home", home), ("cafe", cafe)):
            await network.open_udp(Address("0.0.0.0", 4747), listener(name))
        sock = await a.open_udp(Address("0.0.0.0", 4747), listener("a"))
        world.set_link(a, LinkProfile("slow", up=LaneProfile(9.0)))
        late = await home.open_udp(Address("0.0.0.0", 0), lambda *_: None)
        late.send(b"too late", Address("192.168.0.2", 4747))  # on the wire when the host leaves
        faults.move(a, "10.9.9.2", lan="cafe")
        sock.send(b"1", Address("192.168.0.3", 4747))
        sock.send(b"2", Address("10.9.9.1", 4747))
        await asyncio.sleep(1)
        assert heard == [("cafe from 10.9.9.2", b"2")]
        assert changes == [("10.9.9.2",)]
        assert world.counts == {"sent": 2, "no_host": 1, "delivered": 1, "no_route": 1}
        home.host.add_address("192.168.0.2", lan="home")
        with pytest.raises(ValueError, match="taken"):
            faults.move(a, "10.9.9.3", "10.9.9.1", lan="cafe")
        assert a.host.addresses() == ()
        cafe.host.add_address("10.9.9.3", lan="cafe")

    run_virtual(main)


def test_dead_process_opens_nothing() -> None:
    """Whatever a killed node tries afterwards fails as on a machine whose network is down."""

    async def main(world: VirtualWorld) -> None:
        a = world.host("10.0.0.1")
        await faults.kill(a)
        await faults.kill()
        tries = [
            a.open_udp(Address("0.0.0.0", 1), lambda *_: None),
            a.open_multicast(Address("224.0.0.251", 5353), lambda *_: None),
            a.connect_tcp(Address("10.0.0.1", 1)),
            a.listen_tcp(Address("10.0.0.1", 1), lambda _: None),
        ]
        for each in tries:
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
                await each
            assert caught.value.errno == errno.ENETDOWN

    run_virtual(main)
