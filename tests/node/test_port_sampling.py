"""What a node learns of its router's ports from a fresh socket and a few STUN servers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.virtual_nat import IcePeer

from p2pnode.core.address import Address
from p2pnode.nat import GuessTerms
from p2pnode.port_sampling import PortSampler
from p2pnode.reachability import NatKind
from p2pnode.simulations.routers.kinds import RouterKind, kind_named
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import VirtualRouter

HARD, EASY = NatKind.ADDRESS_AND_PORT_DEPENDENT, NatKind.ENDPOINT_INDEPENDENT
OUTSIDE = "198.51.100.7"
DELAY_S = 0.04


async def scene(world: VirtualWorld, kind: RouterKind | str, *, servers: int = 4) -> tuple[VirtualRouter, PortSampler]:
    """A router with a host behind it that asks."""
    stun = [(await IcePeer.open(world.host(f"203.0.113.{number + 1}"))).host for number in range(servers)]
    router = VirtualRouter(world, kind_named(kind) if isinstance(kind, str) else kind, OUTSIDE)
    network = router.host("192.168.1.10")
    return router, PortSampler(network, local_ip=lambda: "0.0.0.0", servers=lambda: stun)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_sequence_and_its_next_port(step: int) -> None:
    """Asked anew each time: the next socket gets exactly the port that was told."""

    async def main(world: VirtualWorld) -> None:
        kind = replace(kind_named("symmetric-sequential"), step=step, port_range=(20_000, 40_000))
        router, sampler = await scene(world, kind)
        for turn in range(3):
            terms = await sampler.terms(HARD, ())
            assert terms.step == step
            inside = Address("192.168.1.10", 5_000 + turn)
            public = router.model.table("udp").outbound(world.loop.time(), inside, Address("9.9.9.9", 9))
            assert isinstance(public, Address)
            assert public.port == terms.next_port

    run_virtual(main, delay=DELAY_S)


def test_random_ports_are_asked_once() -> None:
    """No rule, and no second look within ten minutes: further calls are told at once."""

    async def main(world: VirtualWorld) -> None:
        router, sampler = await scene(world, "symmetric")
        assert await sampler.terms(HARD, ()) == GuessTerms()
        asked, began = router.model.passed, world.loop.time()
        assert asked == 8
        assert await sampler.terms(HARD, ()) == GuessTerms()
        sampler.look(HARD)
        assert (router.model.passed, world.loop.time()) == (asked, began)
        sampler.forget()
        await sampler.terms(HARD, ())
        assert router.model.passed == 2 * asked

    run_virtual(main, delay=DELAY_S)


def test_a_carriers_block_is_told() -> None:
    """The range of the ports seen of late, when that is narrow."""

    async def main(world: VirtualWorld) -> GuessTerms:
        _, sampler = await scene(world, replace(kind_named("symmetric"), port_block=1024))
        return await sampler.terms(HARD, ())

    terms = run_virtual(main, delay=DELAY_S)
    assert 0 < terms.high - terms.low < 3 * 1024


def test_nobody_is_asked_where_ports_do_not_differ() -> None:
    async def main(world: VirtualWorld) -> None:
        router, sampler = await scene(world, "port-restricted")
        sampler.look(EASY)
        assert await sampler.terms(EASY, (5, 6, 7, 8)) == GuessTerms()
        assert router.model.passed == 0

    run_virtual(main, delay=DELAY_S)


def test_silent_servers_cost_half_a_second() -> None:
    """Then the ports that others saw have to do."""

    async def main(world: VirtualWorld) -> float:
        _, sampler = await scene(world, "symmetric-sequential", servers=0)
        sampler._servers = lambda: [Address(f"203.0.113.{number}", 9) for number in (7, 8, 9)]
        began = world.loop.time()
        assert await sampler.terms(HARD, (3000, 3100, 3200, 3300)) == GuessTerms(low=2900, high=3400)
        return world.loop.time() - began

    assert run_virtual(main, delay=DELAY_S) <= 0.51
