"""Watched peers: who is there is known within seconds, and says what it is known from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.virtual_nat import router_of
from support.virtual_nodes import make_node, network_of

from p2pnode import Node, PresenceChanged
from p2pnode.core.address import Realm
from p2pnode.presence import presence_salt
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

pytestmark = pytest.mark.slow

FULL = os.environ.get("P2PNODE_DHT") == "full"
KINDS = ["public", "port-restricted", "symmetric"] if FULL else ["port-restricted"]
PAIRS = [(watcher, peer) for watcher in KINDS for peer in KINDS[:2]] if FULL else [("symmetric", "port-restricted")]


class Neighbourhood:
    """Servers, somebody who watches from behind a router of some kind, and events with their times."""

    def __init__(self, world: VirtualWorld) -> None:
        self.world = world
        self.nodes: list[Node] = []
        self.told: list[tuple[float, PresenceChanged]] = []

    async def open(self, count: int = 12) -> None:
        for number in range(count):
            role = "bootstrap" if number < 8 else "peer"
            await self.node(f"9.{number}.0.1", role=role)
        await asyncio.sleep(10)  # the peers are dialled back and become servers

    async def node(self, ip: str = "", kind: str = "public", role: str = "peer") -> Node:
        number = len(self.nodes)
        if kind == "public":
            network = self.world.host(ip or f"9.{number}.0.1")
        else:
            network = router_of(self.world, kind, f"11.{number}.0.1").host("192.168.1.2")
        node = make_node(network, number, through=self.nodes[:2], role=role)
        await network.run(node.start())
        self.nodes.append(node)
        return node

    def watch(self, watcher: Node, peer: Node) -> None:
        def note(event: object) -> None:
            if isinstance(event, PresenceChanged) and event.peer == peer.peer_id:
                self.told.append((self.world.loop.time(), event))

        watcher.subscribe(note)
        assert watcher.watch(peer.peer_id)

    async def until(self, state: str, limit: float, evidence: tuple[str, ...] = ()) -> float:
        """Wait for an event with this state from now on; return how long it took."""
        started, begin = self.world.loop.time(), len(self.told)
        while self.world.loop.time() - started < limit:
            for at, event in self.told[begin:]:
                if event.state == state and (not evidence or event.evidence in evidence):
                    return at - started
            await asyncio.sleep(0.05)
        raise AssertionError(f"not {state} within {limit} s: {self.told}")


@asynccontextmanager
async def neighbourhood(world: VirtualWorld) -> AsyncIterator[Neighbourhood]:
    it = Neighbourhood(world)
    try:
        await it.open()
        yield it
    finally:
        for node in it.nodes:
            await network_of(node).run(node.stop())


def holders_of(watcher: Node, peer: Node) -> set[str]:
    watcher_of = watcher.dht.watcher
    held = watcher_of.holders(peer.peer_id.raw, presence_salt(Realm.PUBLIC), Realm.PUBLIC)
    return {contact.address.ip for contact in held}


@pytest.mark.parametrize(("watcher_kind", "peer_kind"), PAIRS)
def test_a_clean_exit_is_seen_within_two_seconds(watcher_kind: str, peer_kind: str) -> None:
    """By whoever watches, without a session: the holders tell. And its return."""

    async def main(world: VirtualWorld) -> tuple[float, float]:
        async with neighbourhood(world) as it:
            watcher, peer = await it.node(kind=watcher_kind), await it.node(kind=peer_kind)
            it.watch(watcher, peer)
            await asyncio.sleep(60)
            assert len(holders_of(watcher, peer)) == 3
            assert it.told[-1][1].state == "online"
            assert watcher.session(peer.peer_id) is None
            leaving = asyncio.ensure_future(network_of(peer).run(peer.stop()))
            gone = await it.until("offline", 5, ("goodbye",))
            await leaving
            await asyncio.sleep(30)
            again = make_node(network_of(peer), it.nodes.index(peer), through=it.nodes[:2])
            began = asyncio.ensure_future(network_of(peer).run(again.start()))
            back = await it.until("online", 20, ("notice",))
            await began
            it.nodes[it.nodes.index(peer)] = again
            return gone, back

    gone, back = run_virtual(main, delay=lambda rng: rng.uniform(0.025, 0.075), loss=0.02, keep_trace=False)
    print(
        f"{peer_kind} peer, {watcher_kind} watcher: exit seen after {gone:.2f} s, return {back:.2f} s after its start"
    )
    assert gone < 2.0
    assert back < 6.0


@pytest.mark.parametrize("watcher_kind", KINDS)
def test_a_changed_address_is_seen_within_five_seconds(watcher_kind: str) -> None:
    """The peer's host gets another address; the watcher is told the new one."""

    async def main(world: VirtualWorld) -> float:
        async with neighbourhood(world) as it:
            watcher, peer = await it.node(kind=watcher_kind), await it.node("9.100.0.1")
            it.watch(watcher, peer)
            await asyncio.sleep(60)
            host = network_of(peer).host
            host.add_address("9.101.0.1")
            host.remove_address("9.100.0.1")
            started = world.loop.time()
            while [a.ip for a in it.told[-1][1].addresses] != ["9.101.0.1"]:
                assert world.loop.time() - started < 10, it.told[-1]
                await asyncio.sleep(0.05)
            return it.told[-1][0] - started

    seconds = run_virtual(main, delay=lambda rng: rng.uniform(0.025, 0.075), loss=0.02, keep_trace=False)
    print(f"{watcher_kind} watcher: new address after {seconds:.2f} s")
    assert seconds < 5.0


@pytest.mark.parametrize("watcher_kind", KINDS)
def test_a_vanished_peer_is_last_seen_at_once_and_offline_within_a_minute(watcher_kind: str) -> None:
    """In contact: noticed by QUIC, offline at most 60 s after it was cut off. Others believe its record to its end."""

    async def main(world: VirtualWorld) -> tuple[float, float, float]:
        async with neighbourhood(world) as it:
            watcher, other = await it.node(kind=watcher_kind), await it.node()
            peer = await it.node("9.100.0.1")
            it.watch(watcher, peer)
            await asyncio.sleep(20)
            session = await watcher.connect(peer.peer_id)
            await session.ping()
            await asyncio.sleep(7)
            cut_at = world.loop.time()
            network_of(peer).host.up = False
            unsure = await it.until("last_seen", 60, ("session_lost",))
            event = it.told[-1][1]
            assert event.online
            assert event.age_s == pytest.approx(unsure, abs=20.5)  # heard last at the cut, or at the keep-alive before
            gone = await it.until("offline", 60, ("session_lost",)) + unsure
            found = await watcher.find(peer.peer_id)
            assert (found.online, found.state, found.evidence) == (False, "offline", "session_lost")
            assert found.last_seen is not None
            found = await other.find(peer.peer_id)
            assert (found.online, found.evidence) == (True, "record")
            assert found.holders > 0
            it.told.clear()
            it.watch(other, peer)
            await it.until("offline", 1000)
            network_of(peer).host.up = True
            return unsure, gone, it.told[-1][0] - cut_at

    unsure, gone, expired = run_virtual(main, delay=0.04, loss=0.01, keep_trace=False)
    print(
        f"{watcher_kind}: last seen after {unsure:.1f} s, offline after {gone:.1f} s; for others after {expired:.0f} s"
    )
    assert unsure < 30
    assert gone <= 60
    assert 600 <= expired <= 905


def test_a_short_break_is_no_absence() -> None:
    """A link that is cut for fifteen seconds: last seen, then online again, never offline."""

    async def main(world: VirtualWorld) -> list[str]:
        async with neighbourhood(world) as it:
            watcher, peer = await it.node(), await it.node("9.100.0.1")
            it.watch(watcher, peer)
            await asyncio.sleep(20)
            session = await watcher.connect(peer.peer_id)
            await session.ping()
            begin = len(it.told)
            network_of(peer).host.up = False
            await it.until("last_seen", 60)
            await asyncio.sleep(8)
            network_of(peer).host.up = True
            await asyncio.sleep(90)
            return [event.state for _, event in it.told[begin:]]

    states = run_virtual(main, delay=0.04, keep_trace=False)
    print(states)
    assert states[0] == "last_seen"
    assert states[-1] == "online"
    assert "offline" not in states


def test_attack_e1_holders_that_withhold_updates_do_not_make_a_peer_absent() -> None:
    """All three holders of a watch take no updates any more and say nothing: when the last version that they showed has
    expired, the whole neighbourhood is asked; the peer stays online, and other holders are taken."""

    async def main(world: VirtualWorld) -> tuple[list[str], int]:
        async with neighbourhood(world) as it:
            for _ in range(12):
                await it.node()
            watcher, peer = await it.node(), await it.node("9.100.0.1")
            it.watch(watcher, peer)
            await asyncio.sleep(60)
            liars = holders_of(watcher, peer)
            for node in it.nodes:
                if node.addresses()[0].ip in liars:
                    node.dht.storage.store = lambda *_: None  # type: ignore[method-assign]
            begin = len(it.told)
            await asyncio.sleep(1100)
            return [event.state for _, event in it.told[begin:]], len(holders_of(watcher, peer) & liars)

    states, liars = run_virtual(main, delay=0.04, keep_trace=False)
    print(f"E1: told {states}, {liars} of the liars are holders still")
    assert "offline" not in states
    assert liars == 0


def test_leases_end_when_the_watcher_leaves_a_peer_alone() -> None:
    """Unwatching tells the holders; nothing is left, and nothing more is told."""

    async def main(world: VirtualWorld) -> tuple[int, int, int]:
        async with neighbourhood(world) as it:
            watcher, peer = await it.node(kind="port-restricted"), await it.node()
            it.watch(watcher, peer)
            await asyncio.sleep(30)
            before = sum(node.dht.statistics().watches for node in it.nodes)
            watcher.unwatch(peer.peer_id)
            await asyncio.sleep(5)
            after = sum(node.dht.statistics().watches for node in it.nodes)
            count = len(it.told)
            await network_of(peer).run(peer.stop())
            await asyncio.sleep(5)
            return before, after, len(it.told) - count

    assert run_virtual(main, delay=0.04, keep_trace=False) == (3, 0, 0)


@pytest.mark.parametrize("kind", KINDS[-2:])
def test_an_idle_node_behind_a_router_with_twenty_contacts_stays_within_its_budget(kind: str) -> None:
    """At most 120 datagrams a minute, sent and received together, over ten minutes; listed by kind."""

    async def main(world: VirtualWorld) -> dict[str, float]:
        async with neighbourhood(world) as it:
            for _ in range(8):
                await it.node()
            watcher = await it.node(kind=kind)
            for peer in it.nodes[:20]:
                assert watcher.watch(peer.peer_id)
            await asyncio.sleep(180)
            counts = [(watcher.mux.statistics(), watcher.dht.statistics())]
            await asyncio.sleep(600)
            counts.append((watcher.mux.statistics(), watcher.dht.statistics()))
            per_minute: dict[str, float] = {}
            for way in ("datagrams_in", "datagrams_out"):
                for part, name in enumerate(("all", "dht")):
                    before, after = getattr(counts[0][part], way), getattr(counts[1][part], way)
                    for each, number in after.items():
                        per_minute[f"{name} {each} {way[10:]}"] = (number - before.get(each, 0)) / 10
            return per_minute

    per_minute = run_virtual(main, delay=0.04, loss=0.01, keep_trace=False)
    print(f"{kind}, datagrams a minute:", {what: count for what, count in per_minute.items() if count})
    total = sum(count for what, count in per_minute.items() if what.startswith("all"))
    print(f"in all {total:.0f}")
    assert total <= 120
