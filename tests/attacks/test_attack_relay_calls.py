"""O1 (relays in calls): strangers that use up our flows."""

import asyncio

from support.offer_vectors import ALICE, BOB, CAROL, make_offer

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.dht import KnownContact
from p2pnode.meetings import OwnSide
from p2pnode.nat import AddressBudget
from p2pnode.offer import RelayHint
from p2pnode.reachability import NatKind
from p2pnode.relay_dialing import MAX_STRANGERS, RelayDialing
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def test_o1_strangers_do_not_use_up_the_flows() -> None:
    """A few strangers at once get relays in their answers, all contacts do."""

    async def main(world: VirtualWorld) -> None:
        relay = RelayHint(KnownContact(None, CAROL.node_id, Address("9.9.9.9", 1)), 0.05)
        own = OwnSide((), (), NatKind.UNKNOWN, relays=(relay,))
        dialing = RelayDialing(
            open_flow=None, lookup=None, own=ALICE.peer_id,  # type: ignore[arg-type]  # nothing is opened here
            usable=lambda _: True, session=lambda _: None, known=lambda peer: peer == BOB.peer_id, contacts=list,
            budget=AddressBudget(), now=world.loop.time,
        )  # fmt: skip
        offer = make_offer(relays=())
        given = [dialing.choose(PeerId(bytes([n] * 31 + [3])), own, offer) for n in range(50)]
        assert sum(map(bool, given)) == MAX_STRANGERS
        assert dialing.choose(BOB.peer_id, own, offer) == (relay,)
        await asyncio.sleep(30)
        assert dialing.choose(ALICE.peer_id, own, offer) == (relay,)

    run_virtual(main)


def test_o1_a_stranger_who_came_is_none_any_more() -> None:
    """Many call one after the other, each gets a session: all of them get relays, however fast they come."""

    async def main(world: VirtualWorld) -> None:
        relay = RelayHint(KnownContact(None, CAROL.node_id, Address("9.9.9.9", 1)), 0.05)
        own = OwnSide((), (), NatKind.UNKNOWN, relays=(relay,))
        came: set[PeerId] = set()
        dialing = RelayDialing(
            open_flow=None, lookup=None, own=ALICE.peer_id,  # type: ignore[arg-type]  # nothing is opened here
            usable=lambda _: True, session=lambda _: None, known=came.__contains__, contacts=list,
            budget=AddressBudget(), now=world.loop.time,
        )  # fmt: skip
        for n in range(3 * MAX_STRANGERS):
            peer = PeerId(bytes([n] * 31 + [3]))
            assert dialing.choose(peer, own, make_offer(relays=())) == (relay,)
            came.add(peer)

    run_virtual(main)


def test_o1_hidden_strangers_make_a_hidden_node_search_little() -> None:
    """Fifty at once, who know no relay in common with us: a few searches; a contact gets his."""

    async def main(world: VirtualWorld) -> int:
        searches: list[NodeId] = []

        async def lookup(key: NodeId) -> list[KnownContact]:
            searches.append(key)
            await asyncio.sleep(0.3)
            return []

        async def open_flow(_peer: PeerId, _relay: KnownContact, _calls: bool) -> None:
            return None

        dialing = RelayDialing(
            open_flow=open_flow, lookup=lookup, own=ALICE.peer_id, usable=lambda _: True, session=lambda _: None,
            known=lambda peer: peer == BOB.peer_id, contacts=list, budget=AddressBudget(), now=world.loop.time,
            hidden=True,
        )  # fmt: skip
        own = OwnSide((), (), NatKind.UNKNOWN)
        strangers = [PeerId(bytes([n] * 31 + [3])) for n in range(50)]
        answers = [dialing.called(each, own, make_offer(), caller_is_hidden=True) for each in strangers]
        contact = dialing.called(BOB.peer_id, own, make_offer(), caller_is_hidden=True)
        assert sum(each.done() for each in answers) == 50 - MAX_STRANGERS
        assert not contact.done()
        assert [await each for each in (*answers, contact)] == 51 * [()]
        await dialing.stop()
        return len(searches)

    count = run_virtual(main)
    print(f"O1: 50 hidden strangers and a contact cause {count} searches")
    assert count == MAX_STRANGERS + 1
