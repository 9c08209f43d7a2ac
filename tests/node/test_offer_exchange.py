"""Keepers, offers and guards together on real DHT nodes in virtual time: two peers that know only each other's id."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from support.dht_network import DhtNode, make_network, start_node, stop_all

from p2pnode.core.address import Address, Realm
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.dht import DhtSettings, KnownContact, SignedRecord
from p2pnode.offer import Answer, Offer, offer_hash, seal
from p2pnode.offer_guard import OfferGuard, Received
from p2pnode.presence import Presence, presence_salt
from p2pnode.reachability import Reachability
from p2pnode.rendezvous import RendezvousKeeper
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

ONE_WAY_S = 0.04
CLIENT = DhtSettings(dial_back=False)
SALT = presence_salt(Realm.PUBLIC)


@dataclass
class Peer:
    """A node's signalling parts, put together as a node does it."""

    node: DhtNode
    keeper: RendezvousKeeper
    guard: OfferGuard
    received: list[Received] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    sending: set[asyncio.Task[bool]] = field(default_factory=set)

    @classmethod
    def of(cls, node: DhtNode) -> Peer:
        keeper = RendezvousKeeper(dht=node.dht, network=node.network, changed=lambda: None)
        guard = OfferGuard(key=node.key, network_tag=node.dht.network_tag, known=lambda _: False)
        peer = cls(node, keeper, guard)
        node.dht.on_deliver = peer.delivered
        return peer

    def delivered(self, sender: PeerId, blob: bytes, via: KnownContact, _seen: Address | None) -> None:
        network = self.node.network
        try:
            received = self.guard.receive_untrusted(
                blob, sender=sender, via=via.node_id, now=network.monotonic(), wall=network.wall()
            )
        except BadPacket as bad:
            self.refused.append(bad.reason)
            return
        self.received.append(received)
        if isinstance(received.message, Answer):
            self.answered.set()
            return
        if received.copy == 0:
            self.answer = self.sealed_answer(received.message, blob, sender)
        self.forward(via, sender, self.answer)

    def sealed_answer(self, offer: Offer, sealed: bytes, to: PeerId) -> bytes:
        key = self.node.key
        answer = Answer(
            offer.attempt, int(self.node.network.wall() * 1000), key.x25519_public, b"ice", (), offer.nat,
            offer_hash(sealed),
        )  # fmt: skip
        return seal(answer, key=key, to=to, to_x25519=offer.x25519, network_tag=self.node.dht.network_tag)

    def forward(self, via: KnownContact, to: PeerId, blob: bytes) -> None:
        task = asyncio.ensure_future(self.node.dht.forward(via, to.node_id, blob))
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def publish(self) -> None:
        await self.keeper.keep_due()
        network, key = self.node.network, self.node.key
        value = Presence((), key.x25519_public, None, rendezvous=self.keeper.contacts()).encode()
        wall = network.wall()
        record = SignedRecord.sign(key, self.node.dht.network_tag, SALT, int(wall * 1000), int(wall) + 900, value)
        assert (await self.node.dht.put(record, realms=[Realm.PUBLIC])).stored >= 3

    async def call(self, callee: PeerId) -> float:
        """Look up, offer through every rendezvous node; return the seconds until an answer came."""
        network, key, tag = self.node.network, self.node.key, self.node.dht.network_tag
        started = network.monotonic()
        found = await self.node.dht.get(callee.raw, SALT, realms=[Realm.PUBLIC])
        assert found.record is not None
        presence = Presence.decode_untrusted(found.record.value, Realm.PUBLIC)
        offer = Offer(network.token_bytes(16), int(network.wall() * 1000), key.x25519_public, b"ice", ())
        blob = seal(offer, key=key, to=callee, to_x25519=presence.x25519, network_tag=tag)
        self.guard.expect(callee, offer.attempt, blob)
        for via in presence.rendezvous:
            self.forward(via, callee, blob)
        async with asyncio.timeout(10):
            await self.answered.wait()
        return network.monotonic() - started


async def two_peers(world: VirtualWorld) -> tuple[list[DhtNode], Peer, Peer]:
    servers = await make_network(world, 8)
    clients = [await start_node(world, ip, CLIENT, servers[:1]) for ip in ("8.8.8.8", "9.9.9.9")]
    alice, bob = (Peer.of(node) for node in clients)
    await asyncio.sleep(1)
    await bob.publish()
    return servers, alice, bob


def test_offer_and_answer_cross_through_every_rendezvous_node() -> None:
    """Four ways there and back; the first copy counts, and all of it with the lookup takes at most five round trips."""

    async def main(world: VirtualWorld) -> None:
        servers, alice, bob = await two_peers(world)
        assert len(bob.keeper.contacts()) == 4
        seconds = await alice.call(bob.node.key.peer_id)
        await asyncio.sleep(1)
        print(f"lookup, offer and answer: {seconds / (2 * ONE_WAY_S):.1f} round trips of {2 * ONE_WAY_S * 1000:.0f} ms")
        assert seconds <= 10.1 * ONE_WAY_S
        assert sorted(r.copy for r in bob.received) == [0, 1, 2, 3]
        assert sorted(r.copy for r in alice.received) == [0, 1, 2, 3]
        assert alice.refused == bob.refused == []
        assert alice.received[0].sent is not None
        await stop_all([*servers, alice.node, bob.node])

    run_virtual(main, delay=ONE_WAY_S)


def test_call_works_while_half_the_rendezvous_nodes_are_dead() -> None:
    """They died a moment ago and stand in the presence still: the other two carry it, without any time-out."""

    async def main(world: VirtualWorld) -> None:
        servers, alice, bob = await two_peers(world)
        dead = {contact.node_id for contact in bob.keeper.contacts()[:2]}
        for server in servers:
            server.network.host.up = server.key.node_id not in dead
        seconds = await alice.call(bob.node.key.peer_id)
        print(f"with two of four dead: {seconds:.2f} s")
        assert sorted(r.copy for r in bob.received) == [0, 1]
        for server in servers:
            server.network.host.up = True
        await stop_all([*servers, alice.node, bob.node])

    run_virtual(main, delay=ONE_WAY_S)


def test_dht_answers_tell_the_own_address() -> None:
    """What eight servers saw is believed, and is an address of our own: no NAT."""

    async def main(world: VirtualWorld) -> None:
        servers = await make_network(world, 8)
        node = await start_node(world, "8.8.8.8", CLIENT)
        reachability = Reachability()
        node.dht.on_observed = lambda peer, at, own: reachability.report(peer.raw, at, own, node.network.monotonic())
        await node.dht.bootstrap([servers[0].contact])
        verdict = reachability.verdict(
            Realm.PUBLIC,
            ipv6=False,
            local=[node.address],
            known=[contact.address for contact in node.dht.known_contacts()],
            now=node.network.monotonic(),
        )
        assert (verdict.kind.value, verdict.address) == ("none", node.address)
        assert verdict.witnesses == verdict.votes == 8
        await stop_all([*servers, node])

    run_virtual(main, delay=ONE_WAY_S)
