"""O1, T1: strangers who call make us open flows at our relays, where our places are few."""

import asyncio
import random
from typing import Any, cast

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.dht import Dht, KnownContact
from p2pnode.dht.messages import Relaying as Granted
from p2pnode.relay_table import RelaySettings, RelayTable
from p2pnode.relaying import RelayFlow, Relaying
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

HOME = Address("9.1.0.1", 9)


class AtRelay:
    """The DHT's part: asks a relay's table. `number`: what a lying relay says of every flow."""

    number: int | None = None

    def __init__(self, network: Network, key: NodeKey) -> None:
        self.network, self.key = network, key
        self.table = RelayTable(RelaySettings(), network.token_bytes)

    async def relay(self, contact: KnownContact, peer: NodeId, *, lease_s: float, timeout: float) -> Granted | None:
        del contact, timeout
        await asyncio.sleep(0.05)
        opened = self.table.open(self.key.node_id, peer, HOME, lease_s, self.network.monotonic())
        if opened is None:
            return None
        flow = opened.flow if self.number is None else self.number
        return Granted(HOME.pack(), flow, opened.lease, opened.paired)


def peer_of(number: int) -> PeerId:
    return NodeKey.generate(random.Random(number).randbytes).peer_id


def relaying_at(
    world: VirtualWorld, used: set[RelayFlow], known: frozenset[PeerId] = frozenset()
) -> tuple[Relaying, KnownContact, AtRelay]:
    network = world.host(HOME.ip)
    dht = AtRelay(network, NodeKey.generate(random.Random(1).randbytes))
    nothing: Any = lambda *_: None  # noqa: E731
    relaying = Relaying(
        network=network, dht=cast("Dht", dht), send=nothing, send_many=nothing, received=nothing,
        settings=RelaySettings(enabled=False),
        paired=nothing, in_use=used.__contains__, known=known.__contains__, ended=nothing, renewed=nothing,
        line_changed=nothing,
    )  # fmt: skip
    relay = peer_of(2)
    return relaying, KnownContact(relay, relay.node_id, Address("9.2.0.1", 9)), dht


def test_o1_strangers_calls_do_not_use_up_our_places_at_a_relay() -> None:
    """Two strangers a second make offers and never come by the relay; each tenth second a friend calls, who does."""

    async def main(world: VirtualWorld) -> tuple[int, int, int]:
        used: set[RelayFlow] = set()
        relaying, relay, dht = relaying_at(world, used)
        for turn in range(120):
            await relaying.open(peer_of(100 + turn), relay)
            await asyncio.sleep(0.45)
            if turn % 20 == 19 and (flow := await relaying.open(peer_of(1000 + turn), relay)) is not None:
                used.add(flow)
        held = len(relaying.flows()), dht.table.statistics().flows
        assert all(flow in relaying.flows() for flow in used)
        await relaying.stop()
        return (len(used), *held)

    friends, flows, sides = run_virtual(main)
    print(f"O1: of 6 friends {friends} got a flow among 120 strangers; {flows} flows, {sides} sides at the relay")
    assert friends == 6
    assert sides <= 32


def test_o1_strangers_who_come_leave_our_places_to_whom_we_know() -> None:
    """A contact is relayed; then 64 strangers call and do come, and stay. Contacts who call, and peers that we call,
    get flows all the same; the contact of before keeps his; strangers among themselves push nobody out."""

    async def main(world: VirtualWorld) -> tuple[int, int, int, int]:
        used: set[RelayFlow] = set()
        contacts = [peer_of(2000 + number) for number in range(12)]
        relaying, relay, dht = relaying_at(world, used, frozenset(contacts))

        async def come(peer: PeerId, *, calls: bool = False) -> RelayFlow | None:
            flow = await relaying.open(peer, relay, calls=calls)
            if flow is not None:
                used.add(flow)
            await asyncio.sleep(0.5)
            return flow

        first = await come(contacts[0])
        strangers = [flow for number in range(64) if (flow := await come(peer_of(100 + number))) is not None]
        assert [flow for flow in strangers if flow in relaying.flows()] == strangers
        called = [await come(peer_of(3000 + number), calls=True) for number in range(12)]
        came = [await come(contact) for contact in contacts[1:]]
        held = relaying.flows()
        assert first in held
        assert sum(flow in held for flow in strangers) == 32 - 12 - 12
        figures = len(strangers), sum(f in held for f in called), sum(f in held for f in came)
        sides = dht.table.statistics().flows
        await relaying.stop()
        return (*figures, sides)

    strangers, called, came, sides = run_virtual(main)
    print(
        f"O1: {strangers} of 64 strangers, then {called} of 12 calls of ours and {came} of 11 contacts; {sides} sides"
    )
    assert (strangers, called, came) == (16, 12, 11)
    assert sides <= 32


def test_o1_peers_that_were_relayed_once_are_not_remembered_for_ever() -> None:
    """A thousand strangers, each with a flow that was never used."""

    async def main(world: VirtualWorld) -> int:
        relaying, relay, _ = relaying_at(world, set())
        for number in range(1_000):
            await relaying.open(peer_of(100 + number), relay)
            await asyncio.sleep(1)
        await relaying.stop()
        return len(relaying._usage)

    kept = run_virtual(main)
    print(f"O1: {kept} of 1,000 peers are remembered")
    assert kept <= 256


def test_t2_a_relay_that_gives_two_flows_one_number_mixes_no_peers() -> None:
    """At once, or when the second one is renewed: it has none, and the first one's frames stay the first one's."""

    async def main(world: VirtualWorld) -> None:
        used: set[RelayFlow] = set()
        relaying, relay, dht = relaying_at(world, used)
        first = await relaying.open(peer_of(100), relay, calls=True)
        second = await relaying.open(peer_of(101), relay, calls=True)
        assert first is not None
        assert second is not None
        used.update((first, second))
        dht.number = first.number
        assert await relaying.open(peer_of(102), relay, calls=True) is None
        relaying.renew(second)
        await asyncio.sleep(1)
        assert relaying.flows() == [first]
        assert relaying._flows == {(relay.address, first.number): first}
        await relaying.stop()

    run_virtual(main)
