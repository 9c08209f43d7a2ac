"""O1 (relays in calls): strangers that use up our flows."""

import asyncio

from support.offer_vectors import ALICE, BOB, CAROL, make_offer

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
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
            open_flow=None,  # type: ignore[arg-type]  # nothing is opened here
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
