"""Watching records: told by push, at a bounded cost, while holders come and go."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.dht_network import DhtNode, make_network, stop_all

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, SignedRecord, Told
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

pytestmark = pytest.mark.slow
SALT = b"presence/public"
AUTHOR = NodeKey.generate(random.Random("author").randbytes)
CLIENT = DhtSettings(serve=frozenset())


def delay(rng: random.Random) -> float:
    return rng.uniform(0.025, 0.075)


class Story:
    """An author's records in a network, and what one watcher was told, when."""

    def __init__(self, world: VirtualWorld, nodes: list[DhtNode], watcher: DhtNode) -> None:
        self.world, self.nodes, self.watcher = world, nodes, watcher
        self.told: list[tuple[float, Told]] = []

    def watch(self) -> None:
        self.watcher.dht.watcher.watch(AUTHOR.public_raw, SALT, Realm.PUBLIC, self._told)

    def _told(self, told: Told) -> None:
        self.told.append((self.world.loop.time(), told))

    async def publish(self, value: bytes, by: int = -1) -> None:
        wall = self.nodes[by].network.wall()
        record = SignedRecord.sign(AUTHOR, self.watcher.dht.network_tag, SALT, int(wall * 1000), int(wall) + 900, value)
        await self.nodes[by].dht.put(record, realms=[Realm.PUBLIC], enough=8)

    async def seconds_until(self, value: bytes, limit: float) -> float:
        """Wait until this value was told; return how long it took."""
        started = self.world.loop.time()
        while self.world.loop.time() - started < limit:
            if self.told and (record := self.told[-1][1].record) is not None and record.value == value:
                return self.world.loop.time() - started
            await asyncio.sleep(0.05)
        raise AssertionError(f"{value!r} was not told within {limit} s: {self.told[-3:]}")

    @property
    def holders(self) -> list[DhtNode]:
        ids = {c.node_id for c in self.watcher.dht.watcher.holders(AUTHOR.public_raw, SALT, Realm.PUBLIC)}
        return [node for node in self.nodes if node.key.node_id in ids]


async def story(world: VirtualWorld, count: int = 20) -> Story:
    nodes = await make_network(world, count)
    return Story(world, nodes, nodes[7])


def test_changes_are_pushed_and_refreshes_are_not() -> None:
    """What is there is told at once, each new value within a second; the same value with a new `seq` costs nothing."""

    async def main(world: VirtualWorld) -> list[float]:
        it = await story(world)
        await it.publish(b"one")
        it.watch()
        figures = [await it.seconds_until(b"one", 5)]
        await asyncio.sleep(20)
        assert len(it.holders) == 3
        for value in (b"two", b"", b"three"):
            await asyncio.sleep(30)
            published = asyncio.ensure_future(it.publish(value))
            figures.append(await it.seconds_until(value, 5))
            assert it.told[-1][1].how in ("notice", "own")
            await published
        await asyncio.sleep(5)
        sent = sum(node.dht.statistics().notices for node in it.nodes)
        await it.publish(b"three")
        await asyncio.sleep(5)
        assert sum(node.dht.statistics().notices for node in it.nodes) == sent
        await stop_all(it.nodes)
        return figures

    figures = run_virtual(main, delay=delay, loss=0.02, keep_trace=False)
    print("told after", [f"{seconds:.2f} s" for seconds in figures])
    assert max(figures[1:]) < 1.0


def test_a_watch_of_nothing_sees_the_first_record() -> None:
    """Somebody who is not there yet is watched all the same."""

    async def main(world: VirtualWorld) -> float:
        it = await story(world)
        it.watch()
        await asyncio.sleep(20)
        assert [told.record for _, told in it.told] == [None]
        published = asyncio.ensure_future(it.publish(b"here"))
        seconds = await it.seconds_until(b"here", 5)
        await published
        await stop_all(it.nodes)
        return seconds

    assert run_virtual(main, delay=delay, keep_trace=False) < 1.0


@pytest.mark.parametrize("killed", ["holders", "half"])
def test_the_watch_survives_its_holders(killed: str) -> None:
    """All three holders, or half the network, die at once: five minutes later a change is told, soon by three again."""

    async def main(world: VirtualWorld) -> float:
        it = await story(world)
        await it.publish(b"one")
        it.watch()
        await asyncio.sleep(30)
        before = it.holders
        victims = before if killed == "holders" else [node for node in it.nodes[8:-1] if world.rng.random() < 0.5]
        for node in victims:
            node.network.host.up = False
        await asyncio.sleep(270)
        started = world.loop.time()
        await it.publish(b"two")
        await it.seconds_until(b"two", 5)
        seconds = world.loop.time() - started
        await asyncio.sleep(500)
        assert len([node for node in it.holders if node.network.host.up]) == 3
        for node in victims:
            node.network.host.up = True
        await stop_all(it.nodes)
        return seconds

    assert run_virtual(main, delay=delay, loss=0.02, keep_trace=False) < 3.0


def test_an_hour_of_watching_costs_little() -> None:
    """Three holders asked every twelve minutes while the record is refreshed every five; nothing is left after it."""

    async def main(world: VirtualWorld) -> tuple[int, int, int]:
        it = await story(world, 12)
        await it.publish(b"one")

        def asked() -> int:
            return sum(node.dht.statistics().requests.get("Watch", 0) for node in it.nodes)

        it.watch()
        counts = []
        for _ in range(2):
            before = asked()
            for _ in range(12):
                await asyncio.sleep(300)
                await it.publish(b"one")
            counts.append(asked() - before)
        it.watcher.dht.watcher.unwatch(AUTHOR.public_raw, SALT, Realm.PUBLIC)
        await asyncio.sleep(2)
        leases = sum(node.dht.statistics().watches for node in it.nodes)
        await stop_all(it.nodes)
        return counts[0], counts[1], leases

    first, second, leases = run_virtual(main, delay=delay, keep_trace=False, until=9_000)
    search = 40  # datagrams of one lookup, each two hours
    print(f"watching one contact: {2 * first + search} datagrams in the first hour, then {2 * second + search / 2:g}")
    assert second <= 18
    assert first <= 21
    assert leases == 0


def test_leases_end_with_the_watcher() -> None:
    """A watcher that is gone is told three times at most, then forgotten; one that nothing was told, at its end."""

    async def main(world: VirtualWorld) -> tuple[int, int]:
        it = await story(world, 12)
        await it.publish(b"one")
        it.watch()
        await asyncio.sleep(30)
        it.watcher.network.host.up = False
        count = sum(node.dht.statistics().watches for node in it.nodes)
        await it.publish(b"two")
        await asyncio.sleep(30)
        dropped = sum(node.dht.statistics().watches for node in it.nodes)
        it.watcher.network.host.up = True
        await it.seconds_until(b"two", 1500)
        it.watcher.network.host.up = False
        await asyncio.sleep(1600)
        left = sum(node.dht.statistics().watches for node in it.nodes)
        it.watcher.network.host.up = True
        await stop_all(it.nodes)
        assert count == 3
        return dropped, left

    assert run_virtual(main, delay=delay, keep_trace=False) == (0, 0)
