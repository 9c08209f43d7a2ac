"""First packets that leave ahead of the answer: where a peer's router shows it stands in its presence."""

import asyncio

import pytest
from support.street import ONE_WAY_S, reach, street

from p2pnode.core.address import Address
from p2pnode.outside import outside_addresses
from p2pnode.reachability import NatKind, Reflexive
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

AHEAD = "started (ahead of its answer)"
SEEN = Address("11.20.0.1", 31_000)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Reflexive(NatKind.ENDPOINT_INDEPENDENT, SEEN, SEEN.ip), (SEEN,)),
        (Reflexive(NatKind.ADDRESS_DEPENDENT, None, SEEN.ip, (1, 2, 3)), (Address(SEEN.ip, 4747),)),
        (Reflexive(NatKind.UNKNOWN, None, None), ()),
        (Reflexive(NatKind.NONE, Address("9.9.9.9", 4747), "9.9.9.9"), ()),
    ],
    ids=["one-address", "port-differs", "unknown", "published"],
)
def test_what_is_said_of_a_router(seen: Reflexive, said: tuple[Address, ...]) -> None:
    """Its one address; with a port for each destination one that never changes; nothing that stands there anyway."""
    bound = (Address("0.0.0.0", 4747),)
    assert outside_addresses({False: seen}, bound=bound, own=[Address("9.9.9.9", 4747)], mapped=[]) == said
    assert not outside_addresses({False: seen}, bound=bound, own=[], mapped=[Address("9.9.9.9", 47470)])


def test_home_is_shown_outside_and_dialled_there_ahead() -> None:
    """Lookup 80 ms, then half a round trip less than offer, answer, handshake and echo would take in a row."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("port-restricted"), await there.home("port-restricted")
            await asyncio.sleep(5)
            found = await a.find(b.peer_id)
            assert found.addresses == ()
            assert tuple(map(str, found.outside)) == b.status().seen_as
            assert (await a.find(there.public[4].peer_id)).outside == ()
            session, seconds = await reach(world, a, b)
            assert [step.result for step in session.trace.steps].count(AHEAD) == 1
            assert session.path == "punched"
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"two homes: {seconds:.3f} s")
    assert seconds <= 0.35


def test_session_that_is_there_before_the_answer_is_checked_all_the_same() -> None:
    """A router that lets in everybody lets the handshake in ahead of the offer; consent is asked for from then on."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("port-restricted"), await there.home("fullcone")
            await asyncio.sleep(5)
            session, seconds = await reach(world, a, b)
            await asyncio.sleep(60)
            other = b.session(a.peer_id)
            assert other is not None
            assert session.path == other.path == "punched"
            for node in (a, b):
                ice = node.reaching._ice.statistics()
                assert ice.sessions == 1
                assert ice.checks_sent > 8  # one each five seconds
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"to a router that lets in everybody: {seconds:.3f} s")
    assert seconds <= 0.25


def test_address_of_a_router_that_was_restarted_costs_nothing() -> None:
    """The presence shows an address that leads nowhere: the answer brings the new one, as fast as without."""

    async def main(world: VirtualWorld) -> float:
        async with street(world) as there:
            a, b = await there.home("port-restricted"), await there.home("port-restricted")
            await asyncio.sleep(5)
            before = (await a.find(b.peer_id)).outside
            there.routers[1].reboot()
            b.reaching._refresh_now()
            await asyncio.sleep(1)
            b.publisher._outside = lambda: before  # what a lookup may still find for a while
            session, seconds = await reach(world, a, b)
            assert session.path == "punched"
            assert session.connection.remote not in before
            return seconds

    seconds = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    print(f"an old address first: {seconds:.3f} s")
    assert seconds <= 0.6


def test_two_behind_one_router_do_not_go_round_by_it() -> None:
    """A router with hairpin would answer sooner than the LAN's address is known."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            a = await there.home("fullcone")
            b = await there.move_in(there.routers[0], "192.168.1.3")
            await asyncio.sleep(5)
            session, _ = await reach(world, a, b)
            assert session.path == "lan"
            assert AHEAD not in [step.result for step in session.trace.steps]

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
