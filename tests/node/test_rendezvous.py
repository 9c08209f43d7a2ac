"""Keeping rendezvous nodes, in virtual time, against a DHT of which only two calls exist."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import pytest

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId
from p2pnode.dht import KnownContact, Registration
from p2pnode.rendezvous import RendezvousKeeper, RendezvousSettings
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def contact(number: int, block: int | None = None) -> KnownContact:
    ip = f"8.0.{number if block is None else block}.{number}"
    return KnownContact(None, NodeId(bytes([number]) * 20), Address(ip, 4747))


class FakeDht:
    """Knows `nodes`, in order of merit; those in `dead` do not answer, which takes three seconds to find out."""

    def __init__(self, nodes: list[KnownContact], now: Callable[[], float]) -> None:
        self.nodes = nodes
        self.dead: set[KnownContact] = set()
        self.refusing: set[KnownContact] = set()
        self.asked: list[tuple[float, KnownContact]] = []
        self.seen: dict[KnownContact, bytes] = {}
        self.without443: set[KnownContact] = set()  # take no links at port 443
        self.leases: set[float] = set()
        self.moves: list[float] = []
        self._now = now

    async def register(self, contact: KnownContact, *, lease_s: float = 60.0) -> Registration | None:
        self.leases.add(lease_s)
        self.asked.append((self._now(), contact))
        dead = contact in self.dead
        await asyncio.sleep(3.0 if dead else 0.04)
        return (
            None
            if dead or contact in self.refusing
            else Registration(True, rtt_s=0.04, seen=self.seen.get(contact, b""), tls443=contact not in self.without443)
        )

    def rendezvous_candidates(
        self, count: int, *, realm: Realm = Realm.PUBLIC, families: Collection[bool] = (False, True)
    ) -> list[KnownContact]:
        assert realm is Realm.PUBLIC
        return self.nodes[:count]


@asynccontextmanager
async def keeping(
    world: VirtualWorld, nodes: list[KnownContact], settings: RendezvousSettings | None = None
) -> AsyncIterator[tuple[RendezvousKeeper, FakeDht, list[set[KnownContact]]]]:
    """A running keeper, its DHT, and the sets that it told the publisher."""
    dht = FakeDht(nodes, world.loop.time)
    told: list[set[KnownContact]] = []
    keeper = RendezvousKeeper(
        dht=dht,
        network=world.host(),
        changed=lambda: told.append(set(keeper.contacts())),
        settings=settings,
        moved=lambda: dht.moves.append(world.loop.time()),
    )
    task = asyncio.ensure_future(keeper.run())
    try:
        await asyncio.sleep(1.0)
        yield keeper, dht, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_best_four_are_registered_at_once() -> None:
    """In parallel, within a round trip, and told once."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 10)]
        async with keeping(world, nodes) as (keeper, dht, told):
            assert keeper.contacts() == tuple(nodes[:4])
            assert told == [set(nodes[:4])]
            assert len({at for at, _ in dht.asked}) == 1

    run_virtual(main)


@pytest.mark.parametrize("place", [2, 7, None])
def test_one_that_takes_links_at_port_443_is_among_them(place: int | None) -> None:
    """Where there is one: those whom nothing else passes call through it. Six more nodes are asked for it, once."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 20)]
        async with keeping(world, nodes) as (keeper, dht, told):
            dht.without443 = {node for n, node in enumerate(nodes) if n != place}
            keeper.renew()
            await asyncio.sleep(200)
            assert keeper.contacts()[:3] == tuple(nodes[:3])
            assert keeper.contacts()[3] == nodes[7 if place == 7 else 3]
            further = [node for _, node in dht.asked if node in nodes[4:]]
            assert len(set(further)) == (0 if place == 2 else 6)
            assert place == 7 or len(further) == len(set(further))
            assert len(told) == 1 + (place == 7)

    run_virtual(main)


def test_quiet_keep_alive_costs_one_request_per_node_and_25_seconds() -> None:
    """Never more than 25 s apart, and ten to twelve requests a minute for four nodes; nothing is told again."""

    async def main(world: VirtualWorld) -> None:
        async with keeping(world, [contact(n) for n in range(1, 10)]) as (_, dht, told):
            await asyncio.sleep(599)
            for node in dht.nodes[:4]:
                times = [at for at, asked in dht.asked if asked == node]
                assert max(b - a for a, b in itertools.pairwise(times)) <= 25.1
            per_minute = len(dht.asked) / 10
            print(f"{per_minute:.1f} renewals a minute for 4 nodes, twice as many datagrams")
            assert per_minute <= 11
            assert len(told) == 1

    run_virtual(main)


def test_flows_are_used_as_seldom_as_is_allowed() -> None:
    """Another keep-alive holds at once, also a shorter one; the lease is always longer than three renewals."""

    async def main(world: VirtualWorld) -> None:
        async with keeping(world, [contact(n) for n in range(1, 10)]) as (keeper, dht, _):
            assert dht.leases == {90.0}
            for every, most in ((100.0, 28), (10.0, 275), (None, 110)):
                keeper.keep_alive_every(every)
                dht.asked.clear()
                await asyncio.sleep(600)
                for node in dht.nodes[:4]:
                    times = [at for at, asked in dht.asked if asked == node]
                    assert max(b - a for a, b in itertools.pairwise(times)) <= (every or 25.0) + 0.1
                assert len(dht.asked) <= most
            assert max(dht.leases) == 360.0

    run_virtual(main)


def test_several_nodes_that_see_us_elsewhere_are_told_of_and_one_is_not() -> None:
    """One alone may lie; the same address again says nothing."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 10)]
        async with keeping(world, nodes) as (_, dht, _told):
            dht.seen[nodes[0]] = b"another"
            await asyncio.sleep(60)
            assert not dht.moves
            dht.seen.update(dict.fromkeys(nodes, b"elsewhere"))
            await asyncio.sleep(100)
            assert len(dht.moves) == 1

    run_virtual(main)


def test_dead_node_is_replaced_within_forty_seconds() -> None:
    """One lost renewal changes nothing, the second gives the node up; the set is told once, with the next best."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 10)]
        async with keeping(world, nodes) as (keeper, dht, told):
            dht.dead.add(nodes[0])
            await asyncio.sleep(40)
            assert set(keeper.contacts()) == set(nodes[1:5])
            assert len(told) == 2
            assert keeper.statistics().given_up == 1
            await asyncio.sleep(200)
            assert sum(1 for _, asked in dht.asked if asked == nodes[0]) == 3

    run_virtual(main)


def test_one_lost_renewal_changes_nothing() -> None:
    """A node that answers again two seconds later stays, and nothing is published."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 10)]
        async with keeping(world, nodes) as (keeper, dht, told):
            dht.dead.add(nodes[0])
            await asyncio.sleep(25.2)  # every first renewal has been sent, none a second time
            dht.dead.clear()
            await asyncio.sleep(60)
            assert set(keeper.contacts()) == set(nodes[:4])
            assert len(told) == 1

    run_virtual(main)


def test_two_silent_nodes_bring_a_further_one_at_once() -> None:
    """Below three that answer, another is asked without waiting for the second miss."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 10)]
        async with keeping(world, nodes) as (keeper, dht, _):
            dht.dead.update(nodes[:2])
            await asyncio.sleep(27.2)
            assert {nodes[4], nodes[5]} <= set(keeper.contacts())

    run_virtual(main)


def test_all_dead_at_once_are_replaced() -> None:
    """Every bootstrap node is killed: the others take over."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 10)]
        async with keeping(world, nodes) as (keeper, dht, _):
            dht.dead.update(nodes[:5])
            await asyncio.sleep(40)
            assert set(keeper.contacts()) == set(nodes[5:9])

    run_virtual(main)


def test_refusing_node_is_left_alone_for_five_minutes() -> None:
    """One that is full is not asked again and again, and later it is."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(n) for n in range(1, 5)]
        async with keeping(world, nodes) as (keeper, dht, _):
            dht.refusing.add(nodes[0])
            dht.asked.clear()
            keeper.renew()
            await asyncio.sleep(250)
            assert sum(1 for _, asked in dht.asked if asked == nodes[0]) == 2
            dht.refusing.clear()
            await asyncio.sleep(100)
            assert set(keeper.contacts()) == set(nodes)

    run_virtual(main)


def test_fewer_nodes_than_wanted_are_kept_all_the_same() -> None:
    """In a network with two others both are used; a third is taken when it comes, at the latest after two seconds."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(1), contact(2)]
        async with keeping(world, nodes) as (keeper, dht, _):
            assert keeper.contacts() == tuple(nodes)
            dht.nodes.append(contact(3))
            await asyncio.sleep(2.1)
            assert len(keeper.contacts()) == 3
            dht.nodes.append(contact(4))
            keeper.wake()
            await asyncio.sleep(0.1)
            assert len(keeper.contacts()) == 4
        async with keeping(world, []) as (keeper, _, told):
            assert keeper.contacts() == ()
            assert told == []

    run_virtual(main)


def test_replacement_comes_from_another_block_first() -> None:
    """A second node of a block that we have one in is taken only when no other block has a candidate."""

    async def main(world: VirtualWorld) -> None:
        nodes = [contact(1), contact(2), contact(3), contact(4), contact(5, block=1), contact(6)]
        async with keeping(world, nodes) as (keeper, dht, _):
            dht.dead.add(nodes[3])
            await asyncio.sleep(40)
            assert nodes[5] in keeper.contacts()
            assert nodes[4] not in keeper.contacts()
            dht.dead.add(nodes[2])
            await asyncio.sleep(40)
            assert nodes[4] in keeper.contacts()

    run_virtual(main)


def test_change_of_network_renews_everything_at_once() -> None:
    """Every mapping is gone, so waiting for the next keep-alive would leave us unreachable."""

    async def main(world: VirtualWorld) -> None:
        async with keeping(world, [contact(n) for n in range(1, 10)]) as (keeper, dht, _):
            dht.asked.clear()
            keeper.renew()
            await asyncio.sleep(0.1)
            assert {asked for _, asked in dht.asked} == set(dht.nodes[:4])

    run_virtual(main)


@pytest.mark.parametrize(
    "wrong", [{"wanted": 5}, {"enough": 0}, {"enough": 4, "wanted": 3}, {"keep_alive": 50.0}, {"retry": 30.0}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    """At construction, not when it is too late."""
    with pytest.raises(ValueError, match=r"wanted|retry"):
        RendezvousSettings(**wrong)  # type: ignore[arg-type]  # numbers of both kinds
