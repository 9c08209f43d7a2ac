"""Attacks on and through rendezvous nodes and dial-back (security.md O1, C1, A1, R1, V2)."""

from __future__ import annotations

import random
import time

import pytest
from support.dht_attacks import ELSEWHERE, captured, signed
from support.dht_pair import SERVING, Peer, World

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, KnownContact
from p2pnode.dht.leases import Leases
from p2pnode.dht.messages import (
    Answer,
    Deliver,
    Delivered,
    DialBack,
    DialBackAccepted,
    DialFor,
    Error,
    ErrorCode,
    Forward,
    Forwarded,
    Register,
    Registered,
    Request,
    Watch,
    encode,
)

CLIENT = DhtSettings(serve=frozenset())
Inbox = list[tuple[PeerId, bytes, KnownContact]]


def inbox_of(peer: Peer) -> Inbox:
    inbox: Inbox = []
    peer.engine.rendezvous.on_deliver = lambda sender, blob, via, _seen: inbox.append((sender, blob, via))
    return inbox


def answer_of(world: World, asker: Peer, answerer: Peer, request: Request) -> Answer | None:
    """Ask, deliver everything, return the answer; None when none came."""
    outcomes = asker.ask(answerer, request)
    world.run()
    return outcomes[0].answer if outcomes else None


def code_of(answer: Answer | None) -> int | None:
    return answer.code if isinstance(answer, Error) else None


def scene() -> tuple[World, Peer, Peer, Inbox]:
    """Return a world, a rendezvous node, a node registered there, and what is handed to that one."""
    world = World()
    via, callee = world.peer("5.0.0.1"), world.peer("5.0.1.1", CLIENT)
    inbox = inbox_of(callee)
    register(world, callee, via)
    return world, via, callee, inbox


def register(world: World, peer: Peer, via: Peer, lease: int = 120) -> None:
    peer.engine.rendezvous.used(via.key.node_id, via.address, world.now + lease)
    assert isinstance(answer_of(world, peer, via, Register(lease)), Registered)


@pytest.mark.slow
def test_attack_o1_one_sender_gets_its_share_and_costs_one_aead_each() -> None:
    """10,000 offers of one sender in ten seconds: a few dozen are handed over, no signature is checked for any."""
    world, via, callee, inbox = scene()
    flooder = world.peer("5.66.0.1", CLIENT)
    world.introduce(flooder, via)
    checked = via.engine.counters.signatures_checked, callee.engine.counters.signatures_checked
    started = time.process_time()
    for i in range(10_000):
        world.now += 0.001
        world.wall += 0.001
        flooder.ask(via, Forward(callee.key.node_id, i.to_bytes(4, "big") + bytes(800), False))
        world.run()
    cpu = time.process_time() - started
    print(f"O1: 10,000 forwards of one sender: {len(inbox)} handed over, {cpu / 10:.0%} of a core, all sides")
    assert 20 <= len(inbox) <= SERVING.forward_sender_burst + 10 * SERVING.forward_sender_rate + 1
    assert (via.engine.counters.signatures_checked, callee.engine.counters.signatures_checked) == checked


def test_attack_o1_a_contact_gets_through_while_strangers_crowd() -> None:
    """200 strangers of 200 prefixes flood one target: whom it spoke to itself is still handed over, others wait."""
    world, via, callee, inbox = scene()
    friend, bystander = world.peer("5.1.1.1", CLIENT), world.peer("5.2.1.1", CLIENT)
    at_friend = inbox_of(friend)
    at_bystander = inbox_of(bystander)
    register(world, friend, via)
    register(world, bystander, via)
    assert isinstance(answer_of(world, callee, via, Forward(friend.key.node_id, b"hello", False)), Forwarded)
    assert len(at_friend) == 1
    strangers = [world.peer(f"5.66.{i}.1", CLIENT) for i in range(200)]
    refused = through = others = 0
    for stranger in strangers:
        world.introduce(stranger, via)
    for turn in range(3):
        world.pass_time(1.0)
        for stranger in strangers:
            answer = answer_of(world, stranger, via, Forward(callee.key.node_id, b"spam%d" % turn, False))
            refused += code_of(answer) == ErrorCode.BUSY
        answer = answer_of(world, friend, via, Forward(callee.key.node_id, b"friend%d" % turn, False))
        through += isinstance(answer, Forwarded)
        others += isinstance(
            answer_of(world, strangers[0], via, Forward(bystander.key.node_id, b"other%d" % turn, False)),
            Forwarded,
        )
    spam = sum(blob.startswith(b"spam") for _, blob, _ in inbox)
    print(f"O1: of 600 strangers' offers {spam} handed over, {refused} refused; the friend's: {through} of 3")
    assert (through, others, len(at_bystander)) == (3, 3, 3)
    assert spam <= SERVING.forward_target_burst + 4 * SERVING.forward_target_rate


def test_attack_o1_many_ids_of_one_prefix_share_one_budget() -> None:
    """300 senders of one /24 with an offer each: the prefix's burst passes, a sender elsewhere is not held up."""
    world, via, callee, _ = scene()
    targets = [world.peer(f"5.3.{i}.1", CLIENT) for i in range(30)]
    for target in targets:
        inbox_of(target)
        register(world, target, via)
    via.engine._answerer._unproven._budgets.clear()
    passed = 0
    for i in range(200):
        sender = world.peer(f"5.66.0.{1 + i}", CLIENT)
        via.engine._answerer._unproven._budgets.clear()  # signatures have their own budget and test
        world.introduce(sender, via)
        answer = answer_of(world, sender, via, Forward(targets[i % 30].key.node_id, b"x%d" % i, False))
        passed += isinstance(answer, Forwarded)
    honest = world.peer("5.4.0.1", CLIENT)
    world.introduce(honest, via)
    assert isinstance(answer_of(world, honest, via, Forward(callee.key.node_id, b"honest", False)), Forwarded)
    print(f"O1: 200 senders of one /24: {passed} forwarded")
    assert passed <= SERVING.forward_prefix_burst


@pytest.mark.slow
def test_attack_o1_registrations_of_one_prefix_take_free_room_only() -> None:
    """20,000 ids of one /24, then 1,000 /24: the table stays full and bounded, honest leases stay, newcomers enter."""
    rng = random.Random(3)
    leases = Leases(4_096, 10.0, 30.0)
    honest = [(rng.randbytes(20), Address(f"5.{i}.0.1", 1)) for i in range(100)]
    assert all(leases.grant(node_id, address, 120.0, 0.0) for node_id, address in honest)
    granted = sum(
        leases.grant(rng.randbytes(20), Address(f"5.200.0.{1 + i % 200}", 1 + i % 60_000), 120.0, 0.0)
        for i in range(20_000)
    )
    assert len(leases) == 4_096
    late = [(rng.randbytes(20), Address(f"5.{i}.1.1", 1)) for i in range(100)]
    assert all(leases.grant(node_id, address, 120.0, 0.0) for node_id, address in late)
    started = time.process_time()
    for i in range(4_000):
        leases.grant(rng.randbytes(20), Address(f"5.{201 + i % 5}.{i % 200}.1", 1 + i), 120.0, 0.0)
    cost = (time.process_time() - started) / 4_000
    kept = sum(leases.find(node_id, 1.0) is not None for node_id, _ in honest + late)
    print(f"O1: {granted} of 20,000 granted; honest leases kept {kept} of 200; {cost * 1e6:.0f} us each when full")
    assert kept == 200
    assert len(leases) == 4_096
    leases.expire(121.0)
    assert (len(leases), leases._by_prefix) == (0, {})


def test_attack_o1_a_dead_target_costs_three_datagrams_and_is_forgotten() -> None:
    """Who registers and falls silent gets three datagrams per offer, for three offers; nothing stays pending."""
    world, via, callee, inbox = scene()
    caller = world.peer("5.5.0.1", CLIENT)
    world.introduce(caller, via)
    del world.peers[callee.address]
    for i in range(5):
        outcomes = caller.ask(via, Forward(callee.key.node_id, b"offer%d" % i, False), timeout=3.0)
        to_callee = 0
        for _ in range(60):
            while world.wire:
                to_callee += world.deliver()[2] == callee.address
            world.pass_time(0.1)
        assert to_callee == (3 if i < 3 else 0)
        assert code_of(outcomes[0].answer) == ErrorCode.NOT_HERE
    rendezvous = via.engine.rendezvous
    print("O1: a dead target got 9 datagrams of 3 offers, then none")
    assert (len(rendezvous.registered), rendezvous._pending, via.engine.calls.pending) == (0, 0, 0)
    assert not inbox


def test_attack_r1_repeated_and_replayed_requests_hand_over_once() -> None:
    """The same offer asked three times, each frame replayed from two addresses: one delivery, no lease moves."""
    world, via, callee, inbox = scene()
    caller = world.peer("5.5.0.1", CLIENT)
    world.introduce(caller, via)
    for _ in range(3):
        assert isinstance(answer_of(world, caller, via, Forward(callee.key.node_id, b"offer", False)), Forwarded)
    assert len(inbox) == 1
    frame = captured(world, caller, via, Forward(callee.key.node_id, b"second", False))
    via.receive(frame, caller.address)
    delivery = world.wire[-1][0]
    world.run()
    renewal = captured(world, callee, via, Register(120))
    via.receive(renewal, callee.address)
    world.run()
    for source in (caller.address, ELSEWHERE):
        for replayed in (frame, renewal):
            via.receive(replayed, source)
        callee.receive(delivery, source)
        callee.receive(delivery, via.address)
    assert not world.wire
    assert len(inbox) == 2
    lease = via.engine.rendezvous.registered.find(callee.key.node_id, world.now)
    assert lease is not None
    assert lease.address == callee.address
    assert via.drops["replayed_counter"] == 4
    assert callee.drops["replayed_counter"] == 4


def test_attack_o1_only_nodes_that_were_asked_may_deliver() -> None:
    """A stranger, or a former rendezvous node, cannot hand us blobs in anybody's name; nor under a useless key."""
    world, via, callee, inbox = scene()
    stranger = world.peer("5.66.0.1")
    world.introduce(stranger, callee)
    victim = NodeKey.generate(random.Random(5).randbytes).peer_id
    assert code_of(answer_of(world, stranger, callee, Deliver(victim.raw, b"forged", b""))) == ErrorCode.NOT_HERE
    assert answer_of(world, via, callee, Deliver(bytes(32), b"small order", b"")) is None
    world.pass_time(5.0)
    assert isinstance(answer_of(world, via, callee, Deliver(victim.raw, b"a lie, seen by the seal", b"")), Delivered)
    world.pass_time(121.0)
    assert code_of(answer_of(world, via, callee, Deliver(victim.raw, b"too late", b""))) == ErrorCode.NOT_HERE
    assert [blob for _, blob, _ in inbox] == [b"a lie, seen by the seal"]
    assert callee.drops["unasked_delivery"] == 2


@pytest.mark.slow
def test_attack_o1_a_flooding_rendezvous_node_is_limited() -> None:
    """10,000 deliveries in ten seconds of a node we registered with: at most its rate is looked at."""
    world, via, callee, inbox = scene()
    victim = NodeKey.generate(random.Random(5).randbytes).peer_id
    for i in range(10_000):
        world.now += 0.001
        world.wall += 0.001
        via.ask(callee, Deliver(victim.raw, i.to_bytes(4, "big"), b""))
        world.run()
    print(f"O1: 10,000 deliveries of one rendezvous node in 10 s: {len(inbox)} looked at")
    assert 300 <= len(inbox) <= 12 * SERVING.deliver_rate + 1


@pytest.mark.parametrize(
    "request_",
    [
        Register(60),
        Forward(b"t" * 20, b"x", False),
        Deliver(b"k" * 32, b"x", b""),
        DialBack(bytes(16)),
        DialFor(bytes(6), bytes(16)),
    ],
)
def test_attack_a1_requests_that_act_on_others_need_keys_and_a_proven_address(request_: Request) -> None:
    """In a signed frame they are dropped; sealed from an unproven address they change nothing and reach nobody."""
    world = World()
    via, attacker = world.peer("5.0.0.1"), world.peer("5.66.0.1", CLIENT)
    dialled: list[Address] = []
    via.engine.dial_backs.dial = lambda _, to: dialled.append(to)
    via.receive(signed(attacker, via.key.node_id, encode(request_)), ELSEWHERE)
    assert via.drops == {"sealed_only": 1}
    assert not world.wire
    world.introduce(attacker, via)
    inbox = inbox_of(via)
    frame = captured(world, attacker, via, request_)
    via.receive(frame, ELSEWHERE)
    out = [(len(data), to) for data, _, to in world.wire]
    print(f"A1: {type(request_).__name__} from a forged source: in {len(frame)}, out {out[0][0]}")
    assert [to for _, to in out] == [ELSEWHERE]
    assert out[0][0] <= len(frame)
    rendezvous = via.engine.rendezvous
    assert (len(rendezvous.registered), len(rendezvous.visitors), inbox, dialled) == (0, 0, [], [])


def test_attack_a1_a_forward_is_not_amplified() -> None:
    """One offer in: at most three deliveries out, each at most 19 bytes longer (it tells the sender's address), to an
    address that asked for them."""
    world, via, callee, _ = scene()
    caller = world.peer("5.5.0.1", CLIENT)
    world.introduce(caller, via)
    frame = captured(world, caller, via, Forward(callee.key.node_id, bytes(900), vouch=True))
    via.receive(frame, caller.address)
    out = [(len(data), to) for data, _, to in world.wire]
    print(f"A1: Forward of {len(frame)} bytes gives a Deliver of {out[0][0]} bytes")
    assert [to for _, to in out] == [callee.address]
    assert out[0][0] <= len(frame) + 19 <= 1200


def dialling(peer: Peer) -> list[tuple[bytes, Address]]:
    dialled: list[tuple[bytes, Address]] = []
    peer.engine.dial_backs.dial = lambda frame, to: dialled.append((frame, to))
    return dialled


def test_attack_c1_dial_back_sends_one_small_frame_to_the_observed_address_only() -> None:
    """Through a third node, 17 bytes, once, whatever the request says; the third is at another IP."""
    world = World()
    helper, third, twin = world.peer("5.0.0.1"), world.peer("5.0.1.1"), world.peer("5.9.0.1", port=9)
    asker = world.peer("5.9.0.1", CLIENT)
    frames = {peer.address: dialling(peer) for peer in (helper, third, twin)}
    for peer in (third, twin):
        world.introduce(helper, peer)
    for i in range(5):
        nonce = bytes([i]) * 16
        assert isinstance(answer_of(world, asker, helper, DialBack(nonce)), DialBackAccepted)
        assert frames[third.address][-1] == (b"\x0a" + nonce, asker.address)
    assert [len(frames[peer.address]) for peer in (helper, third, twin)] == [0, 5, 0]


def test_attack_c1_a_named_port_is_dialled_at_the_observed_ip_only() -> None:
    """One that a router opened for the asker: another port, never another host, and within the same limits."""
    world = World()
    helper, third = world.peer("5.0.0.1"), world.peer("5.0.1.1")
    asker = world.peer("5.9.0.1", CLIENT)
    dialling(helper)
    frames = dialling(third)
    world.introduce(helper, third)
    for i in range(100):
        answer_of(world, asker, helper, DialBack(i.to_bytes(16, "big"), 1 + 600 * i))
    print(f"C1: {len(frames)} frames of {len(frames[0][0])} bytes for 100 named ports")
    assert {to.ip for _, to in frames} == {asker.address.ip}
    assert frames[1][1].port == 601
    assert len(frames) <= 32


@pytest.mark.slow
def test_attack_c1_dial_backs_are_limited_per_prefix_and_in_all() -> None:
    """10,000 wishes of one /24 in ten seconds, and 3,000 of a helper that aims at victims: a few dozen frames."""
    world = World()
    helper, third = world.peer("5.0.0.1"), world.peer("5.0.1.1")
    dialling(helper)
    frames = dialling(third)
    world.introduce(helper, third)
    asker = world.peer("5.9.0.1", CLIENT)
    world.introduce(asker, helper)
    for i in range(10_000):
        world.now += 0.001
        asker.ask(helper, DialBack(i.to_bytes(16, "big")))
        world.run()
    of_prefix = len(frames)
    frames.clear()
    hostile = world.peer("5.66.0.1")
    world.introduce(hostile, third)
    started = world.now
    for i in range(3_000):
        world.now += 0.01
        hostile.ask(third, DialFor(Address(f"5.77.{i % 250}.1", 53).pack(), i.to_bytes(16, "big")))
        world.run()
    seconds = world.now - started
    print(f"C1: {of_prefix} frames for one /24 in 10 s; {len(frames)} in {seconds:.0f} s on one helper's word")
    assert of_prefix <= 35
    assert len(frames) <= 20 + seconds + 1
    assert all(len(frame) == 17 for frame, _ in frames)


@pytest.mark.parametrize("ip", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "224.0.0.1", "255.255.255.255", "192.0.2.1"])
def test_attack_c1_dial_for_goes_to_public_addresses_only(ip: str) -> None:
    """Private, loopback, multicast and documentation addresses are never dialled; nor port 0."""
    world = World()
    third, hostile = world.peer("5.0.1.1"), world.peer("5.66.0.1")
    frames = dialling(third)
    world.introduce(hostile, third)
    assert answer_of(world, hostile, third, DialFor(Address(ip, 53).pack(), bytes(16))) is None
    assert answer_of(world, hostile, third, DialFor(bytes([5, 1, 1, 1, 0, 0]), bytes(16))) is None
    assert not frames
    assert third.drops == {"bad_address": 2}


def test_attack_r1_dial_back_frames_count_once_and_only_with_our_nonce() -> None:
    """Guessed, repeated, cut and grown 0x0A frames are dropped; an expected one arrives once."""
    world = World()
    peer = world.peer("5.0.0.1")
    arrived: list[Address] = []
    nonce = bytes(range(16))
    peer.engine.dial_backs.expect(nonce, arrived.append)
    for frame in (b"\x0a", b"\x0a" + bytes(16), b"\x0a" + nonce[:-1], b"\x0a" + nonce + b"\0"):
        peer.receive(frame, ELSEWHERE)
    assert not arrived
    for _ in range(3):
        peer.receive(b"\x0a" + nonce, ELSEWHERE)
    assert arrived == [ELSEWHERE]
    assert peer.drops == {"bad_length": 3, "unknown_nonce": 3}
    for i in range(100):
        peer.engine.dial_backs.expect(i.to_bytes(16, "big"), arrived.append)
    assert len(peer.engine.dial_backs._expected) == 16
    assert not world.wire  # nobody is answered


def test_attack_o1_clients_forward_for_nobody() -> None:
    """A node that does not serve refuses to register, forward and dial for others."""
    world = World()
    client, asker = world.peer("5.0.0.1", CLIENT), world.peer("5.1.0.1", CLIENT)
    dialling(client)
    for request in (Register(60), Forward(bytes(20), b"x", False), DialBack(bytes(16)), Watch(bytes(20), 0, 60, [])):
        assert code_of(answer_of(world, asker, client, request)) == ErrorCode.NOT_SERVING
