"""Attacks with and on watches (security.md P2, A1, C1, R1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.dht_pair import SERVING, Peer, World

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.contact import pack_address
from p2pnode.dht.messages import (
    NOTICE,
    Answer,
    Changed,
    Error,
    ErrorCode,
    Forward,
    Forwarded,
    Get,
    Noticed,
    Put,
    Register,
    Request,
    Value,
    Watch,
    Watching,
    encode,
)
from p2pnode.dht.wire import sealed_request_text

CLIENT = DhtSettings(serve=frozenset())
SALT = b"presence/public"


def answer_of(world: World, asker: Peer, answerer: Peer, request: Request) -> Answer | None:
    outcomes = asker.ask(answerer, request)
    world.run()
    return outcomes[0].answer if outcomes else None


def record_of(author: Peer, world: World, value: bytes) -> SignedRecord:
    return SignedRecord.sign(author.key, author.tag, SALT, int(world.wall * 1000), int(world.wall) + 900, value)


def publish(world: World, author: Peer, holder: Peer, value: bytes) -> SignedRecord:
    """Put a new record at the holder, and deliver what comes of it."""
    world.pass_time(1.5)
    record = record_of(author, world, value)
    held = answer_of(world, author, holder, Get(record.key))
    assert isinstance(held, Value)
    answer_of(world, author, holder, Put(held.token, record))
    return record


def listen(peer: Peer, key: bytes) -> list[SignedRecord]:
    """Let an engine watch a key, without the shell that keeps leases; return what it is told."""
    told: list[SignedRecord] = []
    notices = peer.engine.notices
    notices.watched = lambda _realm, asked: asked == key
    notices.wanted = lambda _realm, record: record.key == key and (not told or record.seq > told[-1].seq)
    notices.on_notice = lambda _realm, record, _by: told.append(record)
    return told


def packed(node_id: bytes, address: Address) -> bytes:
    return node_id + pack_address(address)


def test_attack_a1_a_watch_sends_a_victim_no_more_than_came() -> None:
    """Ways that name a victim, watches repeated, keys and ids many, records changed: it gets less than was sent."""
    world = World()
    holder = world.peer("5.0.0.1")
    attackers = [world.peer(f"5.66.{i}.1", CLIENT) for i in range(20)]
    author = world.peer("5.67.0.1", CLIENT)
    victims = {Address("5.99.0.1", port) for port in range(1, 41)}
    for attacker in [author, *attackers]:
        world.introduce(attacker, holder)
    spent = hit = packets = 0

    def drain() -> None:
        nonlocal spent, hit, packets
        while world.wire:
            data, source, to = world.deliver()
            spent += len(data) if to == holder.address else 0
            if source == holder.address and to in victims:
                hit, packets = hit + len(data), packets + 1

    for turn in range(10):
        for i, attacker in enumerate(attackers):
            names = sorted(victims)[2 * i : 2 * i + 2]
            ways = [packed(bytes([turn, i]) * 10, address) for address in names]
            attacker.ask(holder, Watch(record_of(author, world, b"").key, 0, 3600, ways))
            drain()
        world.pass_time(1.5)
        record = record_of(author, world, b"%d" % turn)
        outcomes = author.ask(holder, Get(record.key))
        drain()
        answer = outcomes[0].answer
        assert isinstance(answer, Value)
        author.ask(holder, Put(answer.token, record))
        drain()
        for _ in range(40):
            world.pass_time(0.5)
            drain()
    print(f"A1: {spent} bytes in, {hit} bytes in {packets} datagrams to one victim's block")
    assert 0 < hit <= spent
    assert packets <= 32 + 0.2 * (world.now - 1000) + 1


def test_attack_a1_an_unpadded_watch_is_dropped() -> None:
    """One that is smaller than the pings it asks for changes nothing."""
    world = World()
    holder, watcher = world.peer("5.0.0.1"), world.peer("5.1.0.1", CLIENT)
    world.introduce(watcher, holder)
    session = watcher.engine.keyring.newest(holder.key.node_id)
    assert session is not None
    ways = [packed(bytes(20), Address(f"5.99.{i}.1", 4747)) for i in range(2)]
    for size in (80, 224, 447):
        text = sealed_request_text(0, encode(Watch(bytes(20), 0, 60, ways)), size)
        holder.receive(session.seal(text), watcher.address)
    assert (len(holder.engine.notices.watches), len(world.wire)) == (0, 0)
    assert holder.drops["too_short"] == 3


@pytest.mark.parametrize("ip", ["192.168.1.1", "127.0.0.1", "224.0.0.1", "10.0.0.1"])
def test_attack_c1_ways_of_another_realm_are_refused(ip: str) -> None:
    """Nobody makes a holder send into its own network."""
    world = World()
    holder, watcher = world.peer("5.0.0.1"), world.peer("5.1.0.1", CLIENT)
    world.introduce(watcher, holder)
    assert answer_of(world, watcher, holder, Watch(bytes(20), 0, 60, [packed(bytes(20), Address(ip, 80))])) is None
    assert len(holder.engine.notices.watches) == 0
    assert holder.drops["way_of_another_realm"] == 1


def test_attack_p2_one_block_takes_free_room_only() -> None:
    """A /24 fills all places, of one key or of many; a watcher elsewhere gets one, and keeps it."""
    world = World()
    holder = world.peer("5.0.0.1", replace(SERVING, max_watches=100, max_watches_of_key=20))
    honest = world.peer("5.1.0.1", CLIENT)
    crowd = [world.peer(f"5.66.0.{i}", CLIENT) for i in range(1, 41)]
    key, figures = bytes([7]) * 20, []
    for peer in crowd:
        world.introduce(peer, holder)
        world.pass_time(2.0)
    for keys in ([key], [bytes([i]) * 20 for i in range(10)]):
        for peer in crowd:
            for each in keys:
                answer_of(world, peer, holder, Watch(each, 0, 3600, []))
                world.pass_time(0.2)
        figures.append(len(holder.engine.notices.watches))
        assert isinstance(answer_of(world, honest, holder, Watch(key, 0, 3600, [])), Watching)
    for peer in crowd:
        answer_of(world, peer, holder, Watch(key, 0, 3600, []))
        world.pass_time(0.2)
    print(f"P2: a block of 40 ids holds {figures} of 20 places for a key and 100 in all")
    assert figures == [20, 100]
    assert holder.engine.notices.watches.find((Realm.PUBLIC, key), honest.key.node_id) is not None
    world.pass_time(3601)
    holder.engine.notices.expire(world.now)
    assert len(holder.engine.notices.watches) == 0


@pytest.mark.slow
def test_attack_p2_watches_of_one_block_are_paced() -> None:
    """10,000 watches in ten seconds: a few hundred are looked at, and a block elsewhere is served meanwhile."""
    world = World()
    holder, honest = world.peer("5.0.0.1"), world.peer("5.1.0.1", CLIENT)
    flooder = world.peer("5.66.0.1", CLIENT)
    world.introduce(flooder, holder)
    for i in range(10_000):
        world.now += 0.001
        flooder.ask(holder, Watch(i.to_bytes(20, "big"), 0, 3600, []))
        world.run()
    taken = len(holder.engine.notices.watches)
    print(f"P2: 10,000 watches of one node in 10 s: {taken} leases")
    assert taken <= 360
    assert isinstance(answer_of(world, honest, holder, Watch(bytes(20), 0, 60, [])), Watching)


def test_attack_p2_the_lease_of_a_watcher_that_left_ends() -> None:
    """One that does not watch any more says so; one that is silent is told three times; nobody else gets anything."""
    world = World()
    holder, author = world.peer("5.0.0.1"), world.peer("5.2.0.1", CLIENT)
    restarted, gone, still = (world.peer(f"5.1.{i}.1", CLIENT) for i in range(3))
    key = record_of(author, world, b"").key
    told = listen(still, key)
    for watcher in (restarted, gone, still):
        assert isinstance(answer_of(world, watcher, holder, Watch(key, 0, 3600, [])), Watching)
    del world.peers[gone.address]
    record = publish(world, author, holder, b"new")
    assert told == [record]
    assert len(holder.engine.notices.watches) == 2
    sent = 0
    for _ in range(60):
        world.pass_time(0.5)
        sent += sum(to == gone.address for _, _, to in world.wire)
        world.run()
    print(f"P2: a watcher that is gone costs {sent + 1} datagrams")
    assert len(holder.engine.notices.watches) == 1
    assert sent < 9


def test_attack_p2_forged_notices_are_not_believed_and_cost_little() -> None:
    """Changed records with a wrong signature: nothing is handed up, few are verified, a true one still gets through."""
    world = World()
    watcher, liar = world.peer("5.0.0.1"), world.peer("5.66.0.1")
    author, holder = world.peer("5.2.0.1", CLIENT), world.peer("5.3.0.1")
    key = record_of(author, world, b"").key
    told = listen(watcher, key)
    world.introduce(liar, watcher)
    true = record_of(author, world, b"true")
    for i in range(1, 1000):
        world.now += 0.001
        forged = SignedRecord(true.public_key, true.salt, true.seq + i, true.expires, b"false", bytes(64))
        liar.ask(watcher, Changed(forged))
        world.run()
    verified = watcher.drops["bad_record_signature"]
    print(f"P2: 999 forged notices in a second: {verified} signatures checked")
    assert told == []
    assert verified <= 80
    answer_of(world, watcher, holder, Watch(key, 0, 60, []))
    assert publish(world, author, holder, b"new") in told


def test_attack_r1_old_notices_and_unwatched_ones_are_not_handed_up() -> None:
    """A holder that plays an earlier version, or a record of somebody else."""
    world = World()
    watcher, holder = world.peer("5.0.0.1"), world.peer("5.3.0.1")
    author, other = world.peer("5.2.0.1", CLIENT), world.peer("5.4.0.1", CLIENT)
    told = listen(watcher, record_of(author, world, b"").key)
    world.introduce(watcher, holder)
    old = record_of(author, world, b"old")
    world.pass_time(1.0)
    new = record_of(author, world, b"new")
    for record in (new, old, new):
        assert isinstance(answer_of(world, holder, watcher, Changed(record)), Noticed)
    refused = answer_of(world, holder, watcher, Changed(record_of(other, world, b"x")))
    assert isinstance(refused, Error)
    assert refused.code == ErrorCode.NOT_HERE
    assert told == [new]


def test_notices_reach_a_watcher_through_its_rendezvous_node() -> None:
    """The holder has the way prove itself when the watch is taken, and forwards the record through it."""
    world = World()
    holder, via = world.peer("5.0.0.1"), world.peer("5.3.0.1")
    watcher, author = world.peer("5.1.0.1", CLIENT), world.peer("5.2.0.1", CLIENT)
    told = listen(watcher, record_of(author, world, b"").key)
    watcher.engine.rendezvous.used(via.key.node_id, via.address, world.now + 120)
    answer_of(world, watcher, via, Register(120))
    ways = [packed(via.key.node_id, via.address)]
    assert isinstance(
        answer_of(world, watcher, holder, Watch(record_of(author, world, b"").key, 0, 60, ways)), Watching
    )
    record = publish(world, author, holder, b"new")
    assert told == [record]
    assert via.engine.rendezvous.forwarded == 1
    assert holder.engine.notices.confirmed == 1


def test_attack_p2_forged_notices_through_a_rendezvous_node_do_not_end_the_registration() -> None:
    """Whoever forwards nonsense that looks like a notice is answered, and the watcher stays registered."""
    world = World()
    via, watcher, liar = world.peer("5.3.0.1"), world.peer("5.1.0.1", CLIENT), world.peer("5.66.0.1", CLIENT)
    author = world.peer("5.2.0.1", CLIENT)
    forged = record_of(author, world, b"x")
    told = listen(watcher, forged.key)
    watcher.engine.rendezvous.used(via.key.node_id, via.address, world.now + 120)
    answer_of(world, watcher, via, Register(120))
    wrong = SignedRecord(forged.public_key, forged.salt, forged.seq, forged.expires, b"y", forged.signature)
    target = NodeId(watcher.key.node_id)
    for blob in (NOTICE, NOTICE + b"nonsense", NOTICE + encode(wrong), NOTICE + encode(wrong) + b"x", b"\xff"):
        world.pass_time(1.0)
        assert isinstance(answer_of(world, liar, via, Forward(target, blob, False)), Forwarded)
    assert told == []
    assert via.engine.rendezvous.registered.find(target, world.now) is not None
