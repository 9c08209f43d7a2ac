"""Offers handed over by rendezvous nodes, on the virtual network."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.dht_network import PUBLIC, DhtNode, make_network, start_node, stop_all

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, KnownContact
from p2pnode.dht.overlay import Overlay
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

CLIENT = DhtSettings(dial_back=False)
Inbox = list[tuple[PeerId, bytes, KnownContact]]


def inbox_of(node: DhtNode) -> Inbox:
    inbox: Inbox = []
    node.dht.on_deliver = lambda sender, blob, via, _seen: inbox.append((sender, blob, via))
    return inbox


async def three(world: VirtualWorld) -> tuple[DhtNode, DhtNode, DhtNode]:
    """Return a rendezvous node, a callee that is registered there, and a caller that knows nobody."""
    via = await start_node(world, "5.0.0.1")
    callee = await start_node(world, "5.0.1.1", CLIENT, [via])
    caller = await start_node(world, "5.0.2.1", CLIENT)
    assert await callee.dht.register(via.contact)
    return via, callee, caller


def test_an_offer_reaches_a_registered_node_and_the_answer_finds_the_way_back() -> None:
    """One forward each way: the callee learns sender, blob and through whom; the caller is registered nowhere."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        at_callee, at_caller = inbox_of(callee), inbox_of(caller)
        blob = bytes(range(256)) * 3 + bytes(132)
        assert await caller.dht.forward(via.contact, callee.key.node_id, blob)
        assert at_callee == [(caller.key.peer_id, blob, via.contact)]
        assert await callee.dht.forward(at_callee[0][2], at_callee[0][0].node_id, b"answer")
        assert at_caller == [(callee.key.peer_id, b"answer", via.contact)]
        statistics = via.dht.statistics()
        assert (statistics.registered, statistics.forwarded) == (1, 2)
        assert callee.dht.statistics().delivered == 1
        await stop_all([via, callee, caller])

    run_virtual(main, delay=0.04)


def test_who_asks_for_it_is_vouched_for() -> None:
    """The forwarder tells where it sees the sender, if that asks for it; else the address stays with the forwarder."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        told: list[Address | None] = []
        callee.dht.on_deliver = lambda _sender, _blob, _via, seen: told.append(seen)
        assert await caller.dht.forward(via.contact, callee.key.node_id, b"hidden")
        assert await caller.dht.forward(via.contact, callee.key.node_id, b"open", vouch=True)
        via.dht.on_deliver = callee.dht.on_deliver
        assert await caller.dht.forward(via.contact, via.key.node_id, b"direct")
        own = Address("5.0.2.1", caller.contact.address.port)
        assert told == [None, own, own]
        await stop_all([via, callee, caller])

    run_virtual(main, delay=0.04)


def test_forward_takes_one_round_trip_to_the_target_when_keys_are_agreed() -> None:
    """80 ms between any two: a forward is confirmed after 160 ms, delivered after 80; first contact costs 80 more."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        arrived: list[float] = []
        callee.dht.on_deliver = lambda *_: arrived.append(world.loop.time())
        for delivered, confirmed in ((0.16, 0.24), (0.08, 0.16)):
            before = world.loop.time()
            assert await caller.dht.forward(via.contact, callee.key.node_id, b"offer %f" % confirmed)
            assert arrived[-1] - before == pytest.approx(delivered, abs=0.001)
            assert world.loop.time() - before == pytest.approx(confirmed, abs=0.001)
        await stop_all([via, callee, caller])

    run_virtual(main, delay=0.04)


def test_nobody_is_reached_who_did_not_register_or_whose_lease_ended() -> None:
    """Unknown target, ended lease, dead target, client as rendezvous node: False, and within the time-out."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        inbox = inbox_of(callee)
        stranger = NodeKey.generate(random.Random(1).randbytes).node_id
        assert not await caller.dht.forward(via.contact, stranger, b"x")
        assert not await caller.dht.forward(via.contact, caller.key.node_id, b"x")
        assert not await callee.dht.register(caller.contact)
        assert not await callee.dht.register(KnownContact(None, stranger, Address("5.9.9.9", 9)))
        assert await callee.dht.register(via.contact, lease_s=20)
        await asyncio.sleep(21)
        assert not await caller.dht.forward(via.contact, callee.key.node_id, b"x")
        assert inbox == []
        assert await callee.dht.register(via.contact, lease_s=1000)  # cut to 480
        await callee.close()
        before = world.loop.time()
        for blob in (b"1", b"2", b"3"):
            assert not await caller.dht.forward(via.contact, callee.key.node_id, blob)
        assert world.loop.time() - before < 5
        assert via.dht.statistics().registered == 0  # three silences end a lease
        with pytest.raises(ValueError, match="900"):
            await caller.dht.forward(via.contact, stranger, bytes(901))
        await stop_all([via, caller])

    run_virtual(main, delay=0.04)


def test_a_node_hands_over_what_is_meant_for_itself() -> None:
    """A peer with a public address needs no third: the offer goes to it directly, and the answer back."""

    async def main(world: VirtualWorld) -> None:
        callee = await start_node(world, "5.0.0.1")
        caller = await start_node(world, "5.0.1.1", CLIENT)
        at_callee, at_caller = inbox_of(callee), inbox_of(caller)
        assert await caller.dht.forward(callee.contact, callee.key.node_id, b"offer")
        assert at_callee == [(caller.key.peer_id, b"offer", caller.contact)]
        assert await callee.dht.forward(caller.contact, caller.key.node_id, b"answer")
        assert at_caller == [(callee.key.peer_id, b"answer", callee.contact)]
        await stop_all([callee, caller])

    run_virtual(main, delay=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_offers_survive_loss_and_arrive_once(loss: float) -> None:
    """200 offers, each through one rendezvous node: at 10 % loss nearly all are confirmed, and none arrives twice."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        inbox = inbox_of(callee)
        assert await caller.dht.forward(via.contact, callee.key.node_id, b"first")
        world.loss = loss
        confirmed = 0
        for i in range(200):
            if i % 20 == 0:
                await callee.dht.register(via.contact)
            confirmed += await caller.dht.forward(via.contact, callee.key.node_id, i.to_bytes(2, "big"))
        print(f"loss {loss:.0%}: {confirmed} of 200 confirmed, {len(inbox) - 1} arrived")
        assert confirmed >= (194 if loss < 0.2 else 110)
        assert len(inbox) - 1 >= confirmed
        assert len({blob for _, blob, _ in inbox}) == len(inbox)
        await asyncio.sleep(5)
        assert all(node.dht.statistics().pending == 0 for node in (via, callee, caller))
        await stop_all([via, callee, caller])

    run_virtual(main, seed=2, delay=0.04)


@pytest.mark.slow
def test_three_rendezvous_nodes_in_parallel_beat_loss_and_a_dead_one() -> None:
    """19 % loss (10 % on each of two links), one of three nodes dead: offers arrive, half of them undelayed."""

    async def main(world: VirtualWorld) -> None:
        vias = [await start_node(world, f"5.0.{i}.1") for i in range(3)]
        callee = await start_node(world, "5.1.0.1", CLIENT, vias)
        caller = await start_node(world, "5.2.0.1", CLIENT, vias)
        for via in vias:
            assert await callee.dht.register(via.contact, lease_s=120)
        await vias[0].close()
        arrived: dict[bytes, float] = {}
        callee.dht.on_deliver = lambda _, blob, *__: arrived.setdefault(blob, world.loop.time())
        world.loss = 0.19
        took: list[float] = []
        for i in range(100):
            if i % 10 == 0:
                await asyncio.gather(*(callee.dht.register(via.contact) for via in vias))
            blob, before = b"offer%d" % i, world.loop.time()
            await asyncio.gather(*(caller.dht.forward(via.contact, callee.key.node_id, blob) for via in vias))
            if blob in arrived:
                took.append(arrived[blob] - before)
        took.sort()
        print(f"3 ways, 1 dead, 19 % loss: {len(took)} of 100 arrived, median {took[50]:.3f} s, p95 {took[94]:.3f} s")
        assert len(took) >= 99
        assert took[50] < 0.1
        assert took[94] < 0.6
        await stop_all([*vias[1:], callee, caller])

    run_virtual(main, seed=4, delay=0.04)


def test_a_rendezvous_node_that_restarted_is_registered_with_again() -> None:
    """Keys and leases are gone with the process: the next registration agrees keys anew, and forwarding works."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        inbox = inbox_of(callee)
        await via.close()
        again = DhtNode(via.network, via.key, PUBLIC)
        await again.open("5.0.0.1")
        assert not await caller.dht.forward(via.contact, callee.key.node_id, b"too early")
        assert await callee.dht.register(via.contact)
        assert await caller.dht.forward(via.contact, callee.key.node_id, b"offer")
        assert [blob for _, blob, _ in inbox] == [b"offer"]
        await stop_all([again, callee, caller])

    run_virtual(main, delay=0.04)


def test_a_node_whose_nat_gave_it_another_mapping_is_found_after_the_next_registration() -> None:
    """The router rebooted: the same keys from another address prove it first, and offers go there."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        inbox = inbox_of(callee)
        callee.sockets.pop().close()
        callee.sockets.append(await callee.network.open_udp(Address("5.0.1.1", 9), callee.dht.datagram_received))
        assert not await caller.dht.forward(via.contact, callee.key.node_id, b"lost")
        assert await callee.dht.register(via.contact)
        assert await caller.dht.forward(via.contact, callee.key.node_id, b"offer")
        assert [blob for _, blob, _ in inbox] == [b"offer"]
        await stop_all([via, callee, caller])

    run_virtual(main, delay=0.04)


def test_candidates_are_servers_of_different_prefixes_near_and_long_known_first() -> None:
    """Two servers of one /24 come after the first of every other; a client and a silent node are not proposed."""

    async def main(world: VirtualWorld) -> None:
        servers = await make_network(world, 5)
        twin = await start_node(world, "5.0.0.2", PUBLIC, servers[:1])
        node = await start_node(world, "5.8.0.1", CLIENT, servers[:1])
        client = await start_node(world, "5.8.1.1", CLIENT, servers[:1])
        await node.dht.ping(client.contact)
        found = node.dht.rendezvous_candidates(10)
        assert {c.node_id for c in found} == {s.key.node_id for s in [*servers, twin]}
        assert len({c.address.ip.rpartition(".")[0] for c in found[:5]}) == 5
        assert found[5].address.ip in ("5.0.0.1", "5.0.0.2")
        assert node.dht.rendezvous_candidates(3) == found[:3]
        assert node.dht.rendezvous_candidates(3, realm=Realm.PRIVATE) == []
        for contact in node.dht._members.tables[Overlay.PUBLIC_IPV4]:
            contact.rtt_s = 0.3 if contact.id == found[0].node_id else 0.03
        far = found[0].node_id
        assert [c.node_id for c in node.dht.rendezvous_candidates(10)].index(far) >= 4
        await stop_all([*servers, twin, node, client])

    run_virtual(main, delay=0.04)


def test_a_missing_session_is_no_reason_to_send_a_blob_signed() -> None:
    """Only Ping leaves in a signed frame; the blob follows sealed."""

    async def main(world: VirtualWorld) -> None:
        via, callee, caller = await three(world)
        inbox_of(callee)
        before = via.dht.statistics()
        assert await caller.dht.forward(via.contact, NodeId(callee.key.node_id), b"secret offer")
        after = via.dht.statistics()
        assert after.datagrams_in["signed_request"] == before.datagrams_in["signed_request"] + 1
        assert after.requests["Ping"] == before.requests.get("Ping", 0) + 1
        assert after.requests["Forward"] == 1
        await stop_all([via, callee, caller])

    run_virtual(main, delay=0.04)
