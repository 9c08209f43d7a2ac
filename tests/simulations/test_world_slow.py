"""Slow behaviours in virtual time, with whole nodes: expiry, refresh, a day of idling. CPU seconds are printed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path

import pytest
from support.virtual_nodes import lan_of, make_node, network_of

from p2pnode import Node, PeerNotFoundError
from p2pnode.core.address import Address, Realm
from p2pnode.core.network_id import network_tag
from p2pnode.dht import SignedRecord
from p2pnode.simulations.virtual import VirtualWorld, faults, run_virtual

DAY_S = 86_400.0
HOUR_S = 3_600.0


def test_presence_of_a_killed_node_expires() -> None:
    """15 minutes after its last refresh, and the 5 that clocks may differ, a killed node is found no more."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 6) as nodes:
            await asyncio.sleep(60)
            bob = nodes.pop()
            await faults.kill(network_of(bob))
            killed_at = world.loop.now()
            while True:
                try:
                    await network_of(nodes[1]).run(nodes[1].find(bob.peer_id))
                except PeerNotFoundError:
                    break
                await asyncio.sleep(10)
            gone_s = world.loop.now() - killed_at
            print(f"a node that was killed is found for {gone_s:.0f} s")
            assert 15 * 60 - 60 <= gone_s <= 20 * 60 + 10

    run_virtual(main, keep_trace=False)


def test_presence_is_refreshed_every_five_minutes() -> None:
    """Over two hours the evidence that a find returns is never older than the refresh, and is renewed 24 times."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 6) as nodes:
            signed: list[float] = []
            for _ in range(int(2 * HOUR_S / 15)):
                found = await network_of(nodes[1]).run(nodes[1].find(nodes[4].peer_id))
                assert found.age_s <= 315
                signed.append(round(world.loop.now() - found.age_s))
                await asyncio.sleep(15)
            times = [at for i, at in enumerate(signed) if not i or at - signed[i - 1] > 60]
            pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
            print(f"refreshed {len(pauses)} times in two hours, after {min(pauses)} to {max(pauses)} s")
            assert 22 <= len(pauses) <= 28
            assert min(pauses) >= 240
            assert max(pauses) <= 310

    run_virtual(main, until=None, keep_trace=False)


def test_record_expires_when_it_says_so() -> None:
    """A record of an hour is read for an hour and the five minutes that clocks may differ, then from nobody."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 8) as nodes:
            author = nodes[1]
            wall = network_of(author).wall()
            record = SignedRecord.sign(
                author.key, network_tag("public"), salt=b"slow", seq=1, expires=int(wall + HOUR_S), value=b"x" * 500
            )  # fmt: skip
            result = await network_of(author).run(author.dht.put(record, realms=[Realm.PRIVATE]))
            assert result.stored > 0
            for minutes, there in ((1, True), (59, True), (64, True), (66, False), (120, False)):
                await asyncio.sleep(minutes * 60 - (network_of(author).wall() - wall))
                got = await network_of(nodes[5]).run(nodes[5].dht.get(author.key.public_raw, b"slow"))
                assert (got.record is not None) is there, minutes

    run_virtual(main, until=None, keep_trace=False)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 5])
def test_a_day_of_idling(count: int, tmp_path: Path) -> None:
    """Nodes left alone for 24 hours: still joined, found and connected; the traffic of an idle day."""

    async def main(world: VirtualWorld) -> None:
        nodes: list[Node] = []
        for i in range(count):
            network = world.host(f"5.{i}.0.1")
            nodes.append(make_node(network, i, through=nodes[:1], role="bootstrap" if i == 0 else "peer",
                                   listen=(Address("0.0.0.0", 4747),), state_path=tmp_path / str(i)))  # fmt: skip
            await network.run(nodes[-1].start())
        one, other = nodes[0], nodes[-1]
        await asyncio.sleep(60)
        world.counts_traffic = True
        began = time.process_time()
        await asyncio.sleep(DAY_S)
        cpu_s = time.process_time() - began
        found = await network_of(one).run(one.find(other.peer_id))
        assert found.online
        assert found.age_s <= 315
        session = await network_of(one).run(one.connect(other.peer_id))
        assert await network_of(one).run(session.ping()) > 0
        out: Counter[str] = Counter()
        for kind, row in network_of(other).host.traffic.items():
            out[kind] += row[0]
        total = sum(world.counts[reason] for reason in ("delivered", "lost", "no_socket"))
        print(
            f"{count} nodes, a day: {cpu_s:.1f} CPU s, {total} datagrams, {1e6 * cpu_s / total:.0f} us each; "
            f"the last one sent {dict(out)}"
        )
        for node in nodes:
            await network_of(node).run(node.stop())

    run_virtual(main, until=None, keep_trace=False, delay=lambda rng: rng.uniform(0.02, 0.05))
