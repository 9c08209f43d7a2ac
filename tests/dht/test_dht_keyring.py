"""The pairwise keys: bounded, agreed anew, forgotten, and fast."""

from __future__ import annotations

import random

import pytest
from support.dht_pair import SERVING, Peer, World, answered

from p2pnode.core.address import Address
from p2pnode.core.ids import NodeId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings
from p2pnode.dht.contact import Contact
from p2pnode.dht.keyring import CIPHERS_AT_HAND, UNCONFIRMED_PER_PEER, Ciphers, Keyring, Session
from p2pnode.dht.messages import FindNode, Ping
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.wire import SEALED, SIGNED_ANSWER, SIGNED_REQUEST


def session(ring: Keyring, rng: random.Random, peer: NodeKey | None = None, now: float = 0.0) -> Session:
    key = peer or NodeKey.generate(rng.randbytes)
    return Session(key.peer_id, rng.randbytes(80), ring.ciphers, initiator=True, now=now)


def test_r3_every_cache_of_keys_is_bounded() -> None:
    """Confirmed peers, strangers that never confirm, keys per stranger, ciphers: none outgrows its limit."""
    rng = random.Random(1)
    ring = Keyring(max_sessions=30, max_unconfirmed=10, max_age=100.0)
    peers = [NodeKey.generate(rng.randbytes) for _ in range(50)]
    first = session(ring, rng, peers[0])
    ring.confirm(first)
    for peer in peers:
        for _ in range(5):
            new = session(ring, rng, peer)
            ring.confirm(new)
            new.seal(b"text")
    assert ring.peers == 30
    assert len(ring) == 60  # the newest of each, and the one before it
    assert ring.find(first.receive_id) is None
    for _ in range(100):
        ring.add_unconfirmed(session(ring, rng, peers[0]))
    assert len(ring) == 60 + UNCONFIRMED_PER_PEER
    for _ in range(100):
        ring.add_unconfirmed(session(ring, rng))
    assert len(ring) <= 60 + 10
    ciphers = Ciphers(8)
    for _ in range(100):
        ciphers[rng.randbytes(32)].encrypt(bytes(12), b"", None)
    assert len(ciphers) == 8
    assert len(ring.ciphers) <= CIPHERS_AT_HAND


def test_r3_strangers_push_out_strangers_only() -> None:
    """Ten thousand keys agreed with requesters that never use them leave the confirmed ones alone."""
    rng = random.Random(2)
    ring = Keyring(max_sessions=10, max_unconfirmed=10, max_age=100.0)
    ours = session(ring, rng)
    ring.confirm(ours)
    for _ in range(300):
        ring.add_unconfirmed(session(ring, rng))
    assert ring.find(ours.receive_id) is ours
    assert ring.for_sending(ours.peer_id.node_id, 1.0) is ours


def test_keys_of_a_search_are_at_hand_for_its_stores() -> None:
    """Each node has ciphers of its own: 30 nodes that speak in turn make none anew."""
    world = World()
    server = world.peer("5.0.0.1")
    others = [world.peer(f"5.1.{n}.1") for n in range(30)]
    for other in others:
        world.introduce(server, other)
        server.ask(other, FindNode(bytes(20)))
    world.run()
    made = len(server.engine.keyring.ciphers)
    assert made == 60
    for other in others:
        server.ask(other, FindNode(bytes(20)))
        world.run()
        assert len(other.engine.keyring.ciphers) == 2
    assert len(server.engine.keyring.ciphers) == made


def test_keys_are_agreed_anew_when_they_are_old_suspect_or_forgotten() -> None:
    """A sealed frame while the keys hold; a signed exchange after six hours, after a silence, after a restart."""
    world = World()
    a, b = world.peer("5.0.0.1"), world.peer("5.0.1.1")
    world.introduce(a, b)

    def first_byte_of_a_ping() -> int:
        outcomes = a.ask(b, Ping())
        kind = world.wire[0][0][0]
        world.run()
        assert answered(outcomes)
        return kind

    assert first_byte_of_a_ping() == 7
    world.now += SERVING.session_max_age + 1
    assert first_byte_of_a_ping() == 5
    assert first_byte_of_a_ping() == 7
    lost = a.ask(b, Ping())
    world.wire.clear()
    for _ in range(10):
        world.pass_time(1.0)
        world.wire.clear()
    assert not answered(lost)
    assert first_byte_of_a_ping() == 5
    b.engine = b.fresh_engine()
    outcomes = a.ask(b, Ping())
    assert [data[0] for data, _, _ in (world.deliver(), world.deliver(), world.deliver())] == [7, 9, 5]
    world.run()
    assert answered(outcomes)


def test_what_is_forgotten_leaves_nothing() -> None:
    """A dropped session takes its ciphers and addresses with it; a late frame under it is told so."""
    rng = random.Random(3)
    ring = Keyring(max_sessions=1, max_unconfirmed=10, max_age=100.0)
    old = session(ring, rng)
    ring.confirm(old)
    old.seal(b"text")
    assert len(ring.ciphers) == 1
    ring.confirm(session(ring, rng))
    assert ring.find(old.receive_id) is None
    assert (len(ring.ciphers), old.paths) == (0, {})


@pytest.mark.parametrize("budget", [0.1, 5.0])
def test_over_budget_senders_get_tokens_and_then_their_answer(budget: float) -> None:
    """Twenty newcomers at once at a node with hardly any budget for signatures: all are answered, with a token."""
    world = World()
    server: Peer = world.peer("5.0.0.1", DhtSettings(signature_rate=budget, signature_burst=budget))
    newcomers = [world.peer(f"5.1.{n}.1") for n in range(20)]
    outcomes = [newcomer.ask(server, Ping()) for newcomer in newcomers]
    world.run()
    assert all(answered(outcome) for outcome in outcomes)
    assert server.drops == {"token_sent": 20 - int(budget)}
    assert not world.wire


def test_who_has_no_place_for_the_asker_gets_no_confirmation() -> None:
    """A first exchange is two datagrams then, and nobody enters a table; the keys serve all the same."""
    world = World()
    server, *others = (world.peer(f"5.{n}.1.1") for n in range(1, 6))
    asker = next(each for each in others if (each.key.node_id[0] ^ server.key.node_id[0]) & 0x80)  # of the far half
    table, rng = server.members.tables[Overlay.PUBLIC_IPV4], random.Random(4)
    for n in range(6000):
        each = Contact(NodeId(rng.randbytes(20)), Address(f"6.{n // 250}.{n % 250}.1", 1), Overlay.PUBLIC_IPV4)
        each.last_seen = world.now
        table.add_contact(each)
    outcomes = asker.ask(server, Ping())
    kinds = []
    while world.wire:
        kinds.append(world.deliver()[0][0])
    assert answered(outcomes)
    assert kinds == [SIGNED_REQUEST, SIGNED_ANSWER]
    assert table.find(asker.key.node_id) is None
    outcomes = asker.ask(server, Ping())
    kinds = []
    while world.wire:
        kinds.append(world.deliver()[0][0])
    assert answered(outcomes)
    assert kinds == [SEALED, SEALED]
