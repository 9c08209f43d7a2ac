"""How long a router remembers a quiet flow: measured in the background, and used; in virtual time, with whole nodes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.netcheck import Checked, checked

from p2pnode import Address
from p2pnode.dht.messages import Probed
from p2pnode.mapping_life import KEEP_ALIVE_MAX_S, MAX_S, keep_alive_for
from p2pnode.nat.lifetime import LifetimeBracket
from p2pnode.simulations.routers.kinds import KINDS, RouterKind
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ONE_WAY_S = 0.04


async def measured(there: Checked, limit_s: float = 4000.0) -> float:
    """Wait until the lifetime is known; return how long that took."""
    began = there.world.loop.time()
    life = there.home.reaching.mapping_life
    for _ in range(int(limit_s / 10)):
        if life.shortest is not None:
            break
        await asyncio.sleep(10)
    return there.world.loop.time() - began


def test_bracket_narrows() -> None:
    """Twice as long while nothing dies, then the middle; what contradicts is noticed."""
    bracket = LifetimeBracket()
    tried = []
    while not bracket.found(320, 1):
        pause = bracket.next(25, 320)
        tried.append(round(pause, 1))
        bracket.took(alive=pause < 70, least=pause, most=pause)
    assert tried == [25, 50, 100, 75, 62.5, 68.8, 71.9, 70.3, 69.5]
    assert bracket.low < 70 <= bracket.high
    bracket.took(alive=False, least=30, most=30)
    assert bracket.contradictory
    assert LifetimeBracket().spread(4, 100) == [25, 50, 75, 100]


@pytest.mark.parametrize(("low", "every"), [(3, 5), (10, 7), (30, 27), (60, 54), (120, 108), (300, KEEP_ALIVE_MAX_S)])
def test_keep_alive_leaves_room_for_a_lost_renewal(low: float, every: float) -> None:
    """Three seconds or a tenth below the lifetime, two minutes at most."""
    assert keep_alive_for(low) == every


@pytest.mark.parametrize(
    ("name", "lifetime"),
    [("port-restricted", 15.0), ("symmetric", 30.0), ("symmetric", 65.0), ("port-restricted", 180.0)],
)
def test_lifetime_is_found_and_used(name: str, lifetime: float) -> None:
    """To a second or 4 %, within 40 minutes and 250 datagrams; then flows are used as seldom as that allows.

    They live: at the end a public node calls.
    """
    kind = KINDS[name].with_lifetime(lifetime)

    async def main(world: VirtualWorld) -> None:
        async with checked(world, kind) as there:
            home = there.home
            seconds = await measured(there)
            life = home.reaching.mapping_life
            found = life.lifetime(ipv6=False)
            assert found is not None
            print(f"{lifetime:.0f} s: found {found.low:.1f} to {found.high:.1f} in {seconds:.0f} s, {life.packets} out")
            assert found.low <= lifetime <= found.high
            assert found.high - found.low <= max(1.0, 0.04 * lifetime) + 0.5
            assert seconds <= 2400
            assert life.packets <= 250
            budget = home.status().flows
            assert budget.kept == 4
            assert budget.keep_alive_s == keep_alive_for(found.low)
            assert budget.mapping_lifetime_s == found.low
            assert budget.datagrams_per_hour == round(8 * 3600 / budget.keep_alive_s)
            report = await home.netcheck()
            assert report.ipv4 is not None
            assert report.ipv4.mapping_lifetime_s == pytest.approx(lifetime, abs=max(1.0, 0.04 * lifetime))
            before = home.reaching._keeper.statistics().asked
            await asyncio.sleep(300)
            asked = home.reaching._keeper.statistics().asked - before
            print(f"{asked} renewals of 4 flows in 5 minutes")
            assert asked <= 4 * (300 / (0.9 * budget.keep_alive_s) + 1)
            session = await there.helpers[4].connect(home.peer_id)
            assert await session.ping() > 0
            own = home.session(there.helpers[4].peer_id)
            assert own is not None
            assert own.connection.keep_alive_s == min(20.0, budget.keep_alive_s)

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


def test_long_lifetimes_are_left_open() -> None:
    """Beyond five minutes nothing is tried; the flows are used each two minutes."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, KINDS["port-restricted"].with_lifetime(1000)) as there:
            await measured(there)
            assert there.home.status().flows.keep_alive_s == KEEP_ALIVE_MAX_S
            report = await there.home.netcheck()
            assert report.ipv4 is not None
            assert (report.ipv4.mapping_lifetime_s, report.ipv4.lifetime_open) == (MAX_S, True)

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


def test_answered_flows_are_what_is_measured() -> None:
    """A router that gives 30 s to a first packet and 120 s to a flow that was answered has 120 s."""
    kind: RouterKind = replace(KINDS["port-restricted"], udp_lifetime_s=30.0, udp_answered_lifetime_s=120.0)

    async def main(world: VirtualWorld) -> None:
        async with checked(world, kind) as there:
            await measured(there)
            found = there.home.reaching.mapping_life.lifetime(ipv6=False)
            assert found is not None
            assert found.low <= 120 <= found.high

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


def test_who_can_be_dialled_measures_nothing() -> None:
    """No flow has to be kept alive, so nothing is sent for it."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, "public") as there:
            await asyncio.sleep(1000)
            assert there.home.reaching.mapping_life.packets == 0
            assert there.home.status().flows.datagrams_per_hour == 0

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


def test_another_network_is_measured_anew() -> None:
    """What was found of one router says nothing about the next: back to 25 s at once."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, KINDS["port-restricted"].with_lifetime(100)) as there:
            await measured(there)
            assert there.home.status().flows.keep_alive_s > 80
            there.home.reaching.addresses_changed()
            flows = there.home.status().flows
            assert (flows.keep_alive_s, flows.mapping_lifetime_s) == (25.0, None)
            await measured(there)
            assert there.home.status().flows.keep_alive_s > 80

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


def test_what_the_router_belies_is_measured_anew() -> None:
    """It forgets its flows: several rendezvous nodes see us elsewhere, and the keep-alive is short until measured."""
    kind = KINDS["symmetric"].with_lifetime(100)

    async def main(world: VirtualWorld) -> None:
        async with checked(world, kind) as there:
            await measured(there)
            assert there.home.status().flows.keep_alive_s > 80
            assert there.place.router is not None
            there.place.router.reboot()
            await asyncio.sleep(120)
            assert there.home.status().flows.keep_alive_s == 25.0
            await measured(there)
            assert there.home.status().flows.keep_alive_s > 80

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


@pytest.mark.parametrize("seed", range(3))
def test_flows_that_were_used_too_seldom_until_then_refute_nothing(seed: int) -> None:
    """A router that forgets after 20 s had forgotten the flows when that was found: used each 25 s, they were seen at
    new ports with the next renewal. What was found stays, and from then on no flow gets another port."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, KINDS["symmetric"].with_lifetime(20)) as there:
            await measured(there)
            every = there.home.status().flows.keep_alive_s
            assert every < 20
            await asyncio.sleep(2 * every)
            ports = {kept.contact: kept.granted.seen for kept in there.home.reaching._keeper._kept.values()}
            for _ in range(30):
                await asyncio.sleep(20)
                assert there.home.status().flows.keep_alive_s == every
            after = {kept.contact: kept.granted.seen for kept in there.home.reaching._keeper._kept.values()}
            assert after == ports

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None, seed=seed)


def test_helpers_that_agree_and_send_nothing_do_not_shorten_it() -> None:
    """Two of five: who cannot reach us before is not believed about silence after."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, KINDS["port-restricted"].with_lifetime(60)) as there:
            for liar in there.helpers[:2]:
                liar.dht._engine.probes.handle = (  # type: ignore[method-assign]
                    lambda _request, asked, _now: Probed(asked.source.pack(), 0)
                )
            await measured(there)
            found = there.home.reaching.mapping_life.lifetime(ipv6=False)
            assert found is not None
            assert found.low <= 60 <= found.high

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)


def test_a_helper_that_keeps_the_mapping_alive_does_not_lengthen_it() -> None:
    """Datagrams that nobody asked for void the trial: nothing is found rather than something false."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, KINDS["fullcone"].with_lifetime(40)) as there:
            for liar in there.helpers:
                honest = liar.dht._engine.probes.handle

                def handle(request, asked, now, honest=honest, liar=liar):  # type: ignore[no-untyped-def]
                    answer = honest(request, asked, now)
                    to = Address(asked.source.ip, request.port)
                    for i in range(1, 40):
                        asyncio.get_running_loop().call_later(10 * i, liar.mux.send, b"\x0anoise", to)
                    return answer

                liar.dht._engine.probes.handle = handle  # type: ignore[method-assign]
            await measured(there, 1500)
            found = there.home.reaching.mapping_life.lifetime(ipv6=False)
            assert found is None

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False, until=None)
