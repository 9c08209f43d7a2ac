"""Which relays a call gets, how a rate is shared, how long direct ways are tried alone: pure."""

from __future__ import annotations

import asyncio

import pytest
from support.offer_vectors import ALICE, BOB, CAROL, make_offer

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.dht import KnownContact
from p2pnode.fair_share import level_of
from p2pnode.meetings import OwnSide
from p2pnode.nat import AddressBudget
from p2pnode.offer import RelayHint
from p2pnode.reachability import NatKind
from p2pnode.relay_choice import FLOWS, choose_relays, head_start, key_between
from p2pnode.relay_dialing import RelayDialing
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

NONE, EASY, HARD = NatKind.NONE, NatKind.ENDPOINT_INDEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT


def relay(number: int, block: int | None = None) -> KnownContact:
    return KnownContact(
        None, NodeId(bytes([number]) * 20), Address(f"9.{number if block is None else block}.0.1", number)
    )


def chosen(own: list[tuple[int, float]], offered: list[tuple[int, float]]) -> list[int]:
    hints = choose_relays(
        [(relay(number), rtt_s) for number, rtt_s in own], [RelayHint(relay(n), rtt_s) for n, rtt_s in offered]
    )
    return [hint.contact.address.port for hint in hints]


def test_the_lowest_sum_of_round_trips_is_first() -> None:
    """Of relays that both know the sum counts, not who is nearest to one side."""
    assert chosen([(1, 0.01), (2, 0.05)], [(1, 0.3), (2, 0.06)]) == [2, 1]


def test_relays_of_one_side_count_as_far_from_the_other() -> None:
    """What is not known is taken for a tenth of a second at least, so a shared one that is as near goes first."""
    assert chosen([(1, 0.02)], [(2, 0.03), (1, 0.05)]) == [1, 2]
    assert chosen([(1, 0.02)], [(2, 0.01)]) == [2, 1]
    assert chosen([], [(3, 0.2), (4, 0.1)]) == [4, 3]
    assert chosen([(1, 0.02)], []) == [1]
    assert chosen([], []) == []


def test_the_spare_stands_in_another_block_where_there_is_one() -> None:
    """What takes the first one down should spare the second."""
    own = [(relay(1, block=5), 0.01), (relay(2, block=5), 0.02), (relay(3), 0.2)]
    assert [hint.contact.address.port for hint in choose_relays(own, [])] == [1, 3]
    assert [hint.contact.address.port for hint in choose_relays(own[:2], [])] == [1, 2]
    assert len(choose_relays([(relay(n), 0.1) for n in range(1, 9)], [])) == FLOWS


def test_the_place_between_two_is_the_same_for_both_and_another_for_each_pair() -> None:
    """A known answer, so that versions agree."""
    one, other, third = ALICE.peer_id, BOB.peer_id, CAROL.peer_id
    assert key_between(one, other) == key_between(other, one) != key_between(one, third)
    assert key_between(one, other).hex() == "56c917c7ed10621e30d25f5ca0dc7af8bb733e97"


@pytest.mark.parametrize(
    ("own", "theirs", "dialable", "seconds"),
    [(HARD, HARD, False, 0.0), (HARD, EASY, False, 0.15), (EASY, EASY, False, 0.5), (NONE, HARD, True, 1.0)],
)
def test_direct_ways_get_a_start_as_long_as_they_need(
    own: NatKind, theirs: NatKind, dialable: bool, seconds: float
) -> None:
    """None where no check can pass."""
    assert head_start(own, theirs, dialable=dialable) == head_start(theirs, own, dialable=dialable) == seconds


@pytest.mark.parametrize(
    ("offered", "level"),
    [
        ([], float("inf")),
        ([30.0, 40.0], float("inf")),
        ([100.0], 90.0),
        ([10.0, 200.0, 300.0], 40.0),
        ([90.0] * 3, 30.0),
    ],
)
def test_the_level_fills_the_whole(offered: list[float], level: float) -> None:
    """Of 90: those below the level get all that they want, the rest the level."""
    assert level_of(offered, 90.0) == level
    if offered and level != float("inf"):
        assert sum(min(each, level) for each in offered) == pytest.approx(90.0)


@pytest.mark.parametrize("blocked", ["callee", "caller", "both, one relay shared", "both, none shared"])
def test_where_udp_is_blocked_the_relays_of_that_side_are_taken(blocked: str) -> None:
    """It has links to those; whether it gets one to another relay, however near that is, nobody knows."""

    async def main(world: VirtualWorld) -> None:
        near, far, third = (
            KnownContact(None, NodeId(bytes(19) + bytes([n])), Address(f"9.0.{n}.1", 4747)) for n in range(3)
        )
        dialing = RelayDialing(
            open_flow=None, lookup=None, own=ALICE.peer_id,  # type: ignore[arg-type]  # nothing is opened here
            usable=lambda _: True, session=lambda _: None, known=lambda _: True, contacts=list,
            budget=AddressBudget(), now=world.loop.time,
        )  # fmt: skip
        closed, free = NatKind.UDP_BLOCKED, NatKind.ENDPOINT_INDEPENDENT
        ours, theirs, expected = {
            "callee": ([far], [near], [far]),
            "caller": ([near], [far], [far]),
            "both, one relay shared": ([near, far], [far, third], [far]),
            "both, none shared": ([near], [far], [near]),
        }[blocked]
        rtt_s = {near: 0.01, far: 0.5, third: 0.3}
        own = OwnSide(
            (), (), free if blocked == "caller" else closed, relays=tuple(RelayHint(each, rtt_s[each]) for each in ours)
        )
        offer = make_offer(
            nat=free if blocked == "callee" else closed,
            relays=tuple(RelayHint(each, rtt_s[each]) for each in theirs),
        )
        assert [hint.contact for hint in dialing.choose(BOB.peer_id, own, offer)] == expected

    run_virtual(main)


def test_who_calls_again_in_vain_gets_others_and_who_came_the_same() -> None:
    """Among four: two, then the other two, then any; after a session, or a minute, the best again."""

    async def main(world: VirtualWorld) -> None:
        dialing = RelayDialing(
            open_flow=None, lookup=None, own=ALICE.peer_id,  # type: ignore[arg-type]  # nothing is opened here
            usable=lambda _: True, session=lambda _: None, known=lambda _: True, contacts=list,
            budget=AddressBudget(), now=world.loop.time,
        )  # fmt: skip
        own = OwnSide((), (), HARD, relays=tuple(RelayHint(relay(n), n / 100) for n in range(1, 5)))

        def given() -> list[int]:
            return [each.contact.address.port for each in dialing.choose(BOB.peer_id, own, make_offer(relays=()))]

        assert [given() for _ in range(3)] == [[1, 2], [3, 4], [1, 2]]
        assert given() == [3, 4]
        dialing.came(BOB.peer_id)
        assert given() == [1, 2]
        await asyncio.sleep(61)
        assert given() == [1, 2]

    run_virtual(main)
