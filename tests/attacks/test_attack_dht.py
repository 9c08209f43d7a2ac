"""Attacks on the DHT's messages (security.md V1-V3, R1, R3)."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from support.dht_attacks import ELSEWHERE, captured, hostile_payloads, pair, record, signed, valid_frames
from support.dht_pair import SERVING, answered

from p2pnode.core.address import Address, Realm
from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.dht.keyring import WINDOW
from p2pnode.dht.messages import (
    Error,
    ErrorCode,
    FindNode,
    Nodes,
    Ping,
    Put,
    Stored,
    decode_answer_untrusted,
    decode_request_untrusted,
    encode,
)
from p2pnode.dht.wire import SIGNED_REQUEST, signing_bytes


def test_attack_v1_every_byte_of_every_frame_changed_cut_or_grown_changes_nothing() -> None:
    """Each frame with any byte flipped, cut at any place, or grown: dropped with a reason, no state, no exception."""
    world, a, b = pair()
    tried = 0
    for name, frame, receiver, source in valid_frames(world, a, b):
        mutants = [frame[:i] + bytes([frame[i] ^ bit]) + frame[i + 1 :] for i in range(len(frame)) for bit in (1, 128)]
        mutants += [frame[:i] for i in range(0, len(frame), 1 if len(frame) < 200 else 7)]
        mutants += [frame + bytes(n) for n in (1, 16, 300, 70_000)]
        before = receiver.state()
        for mutant in mutants:
            drops = sum(receiver.engine.counters.drops.values())
            if name == "signed request" and mutant[:1] == b"\x05":
                receiver.engine._answerer._unproven._budgets.clear()  # the budget has its own test
                receiver.engine._answerer._unproven._total._left = 100.0
            receiver.receive(mutant, source)
            assert sum(receiver.engine.counters.drops.values()) == drops + 1, (name, mutant[:20].hex())
            assert receiver.state() == before
            tried += 1
        world.wire.clear()
    reasons = sorted({reason for peer in world.peers.values() for reason in peer.drops})
    print(f"V1: {tried} mutants dropped; reasons: {', '.join(reasons)}")


@pytest.mark.slow
def test_attack_v1_random_bytes_of_every_type() -> None:
    """Random datagrams of every first byte and length are dropped; memory stays flat."""
    world, a, b = pair()
    world.introduce(a, b)
    before, rng = b.state(), random.Random(0)
    tracemalloc.start()
    for i in range(20_000):
        data = bytes([rng.randrange(3, 11)]) + rng.randbytes(rng.choice((0, 1, 16, 32, 40, 100, 183, 400, 1199, 1500)))
        b.receive(data, Address(f"5.{i % 200}.{i % 250}.9", 1 + i % 60_000))
        world.wire.clear()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"V1: 20,000 random datagrams, peak of new memory {peak / 1e6:.1f} MB")
    assert b.state() == before
    assert peak < 8e6


def test_attack_v1_type_confusion_in_payloads_gives_bad_packet_only() -> None:
    """Decoding any payload gives a message or BadPacket; a properly sealed malformed one is dropped unanswered."""
    world, a, b = pair()
    world.introduce(a, b)
    session = a.engine.keyring.for_sending(b.key.node_id, world.now)
    assert session is not None
    refused = 0
    for payload in hostile_payloads():
        for decode in (decode_request_untrusted, decode_answer_untrusted):
            try:
                decode(payload)
            except BadPacket as bad:
                assert bad.reason == "malformed"
                refused += 1
        before = b.state()
        if len(payload) < 1100:
            for text in (b"\0\7" + len(payload).to_bytes(2, "big") + payload, b"\1\7" + bytes(8) + payload):
                b.receive(session.seal(text), a.address)
        b.receive(signed(a, b.key.node_id, payload[:1000]), a.address)
        assert b.state()[3:] == before[3:]
    print(f"V1: {refused} malformed payloads refused; drops {b.drops}")


def test_attack_v2_other_receiver_domain_network_and_key_are_refused() -> None:
    """A request for another node, in another domain or network, or under another's or a weak key gets no answer."""
    world, a, b = pair()
    other = world.peer("5.0.2.1")
    before = b.state()
    ping = encode(Ping())
    frame = signed(a, b.key.node_id, ping)
    body = frame[:-64]
    weak = bytes(32)
    cases = {
        "other_receiver": signed(a, other.key.node_id, ping),
        "other_network": signed(a, b.key.node_id, ping, tag=bytes(8)),
        "bad_signature": body + a.key.sign(body),
        "own_key": signed(b, b.key.node_id, ping),
        "bad_key": signed(a, b.key.node_id, ping, sender_key=weak),
        "bad_ephemeral": signed(a, b.key.node_id, ping, ephemeral=bytes(32)),
        "hello_asks_more": signed(a, bytes(20), encode(FindNode(bytes(20)))),
        "bad_flags": signed(a, b.key.node_id, ping, flags=32),
    }
    for reason, case in cases.items():
        b.receive(case, a.address)
        assert b.drops.get(reason) == 1, reason
    group_order = 2**252 + 27742317777372353535851937790883648493
    for wrong in (
        body + a.key.sign(signing_input(b"p2pnode/1/dht", b"answer", body)),
        body + a.key.sign(signing_input(b"p2pnode/1/session", b"request", body)),
        body + other.key.sign(signing_bytes(SIGNED_REQUEST, body)),
        # malleability: S + L verifies under careless verifiers
        body + frame[-64:-32] + (int.from_bytes(frame[-32:], "little") + group_order).to_bytes(32, "little"),
    ):  # fmt: skip
        b.receive(wrong, a.address)
    assert b.drops["bad_signature"] == 5
    assert b.state() == before
    assert not world.wire


def test_attack_v2_an_answer_of_somebody_else_is_not_believed() -> None:
    """An answer signed by another key, for another request, or from another address leaves the call waiting."""
    world, a, b = pair()
    mallory = world.peer("5.0.2.1")
    outcomes = a.ask(b, Ping())
    request = world.wire.pop()[0]
    mallory.receive(request, a.address)  # not for it
    assert mallory.drops == {"other_receiver": 1}
    b.receive(request, a.address)
    answer = world.wire.pop()[0]
    forged = answer[:22] + mallory.key.public_raw + answer[54:-64]
    a.receive(forged + mallory.key.sign(signing_bytes(6, forged)), b.address)
    a.receive(answer, ELSEWHERE)
    assert not outcomes
    assert a.drops == {"wrong_key": 1, "wrong_source": 1}
    a.receive(answer, b.address)
    assert answered(outcomes)


def test_attack_v3_older_record_never_replaces_a_newer_one() -> None:
    """A lower seq, or the same seq with another content, is refused with the seq that is held."""
    world, a, b = pair()
    world.introduce(a, b)
    for rec, expected in ((record(a, 5), Stored), (record(a, 4), Error), (record(a, 5, b"w"), Error)):
        outcomes = a.ask(b, FindNode(rec.key))
        world.run()
        nodes = outcomes[0].answer
        assert isinstance(nodes, Nodes)
        outcomes = a.ask(b, Put(nodes.token, rec))
        world.run()
        answer = outcomes[0].answer
        assert isinstance(answer, expected)
        if isinstance(answer, Error):
            assert (answer.code, answer.detail) == (ErrorCode.LOWER_SEQ, 5)
    held = b.storage.read(Realm.PUBLIC, record(a).key, world.now)
    assert held == record(a, 5)


def test_attack_r1_replays_have_no_effect_from_any_address() -> None:
    """Replayed requests, answers and sealed frames are dropped, from the same and from another address."""
    world, a, b = pair()
    outcomes = a.ask(b, Ping())
    request = world.deliver()[0]
    answer = world.deliver()[0]
    world.run()
    assert answered(outcomes)
    sealed = captured(world, a, b, Ping())
    b.receive(sealed, a.address)
    world.run()
    before = a.state(), b.state()
    for source in (a.address, ELSEWHERE):
        b.receive(request, source)
        b.receive(sealed, source)
        a.receive(answer, source)
    assert (a.state(), b.state()) == before
    assert not world.wire
    assert b.drops == {"replay": 2, "replayed_counter": 2}
    assert a.drops == {"unknown_answer": 2}
    # A stored request outlives the nonce's memory only together with the time window.
    world.now += 1300
    world.wall += 1300
    b.engine = b.fresh_engine()
    b.receive(request, ELSEWHERE)
    assert b.drops == {"clock": 1}
    assert len(b.engine.keyring) == 0


def test_attack_r1_replay_to_a_restarted_node_agrees_no_usable_key() -> None:
    """After a restart a replayed request is answered once, to its source, and changes no key in use."""
    world, a, b = pair()
    a.ask(b, FindNode(bytes(20)))
    request = world.deliver()[0]
    world.run()
    b.engine = b.fresh_engine()
    b.receive(request, ELSEWHERE)
    assert b.engine.keyring.peers == 0
    assert [len(data) <= len(request) for data, _, _ in world.wire] == [True]


def test_attack_r3_forged_forgot_and_rekeying_storms() -> None:
    """A forged "forgot" does nothing without the frame's counter; a true one costs one signed request per call."""
    world, a, b = pair()
    world.introduce(a, b)
    outcomes = a.ask(b, Ping())
    sealed = world.wire.pop()[0]
    rng = random.Random(1)
    for _ in range(1000):
        a.receive(b"\x09" + rng.randbytes(16), b.address)
        a.receive(b"\x09" + sealed[1:9] + rng.randbytes(8), b.address)
    a.receive(b"\x09" + sealed[1:17], ELSEWHERE)
    assert not world.wire
    sessions = a.engine.keyring.peers
    for _ in range(1000):
        a.receive(b"\x09" + sealed[1:17], b.address)
    assert len(world.wire) == 1  # asked again once, signed
    assert a.engine.keyring.peers == sessions
    world.run()
    assert answered(outcomes)
    assert a.drops == {"unknown_frame": 2001, "forgot_limit": 999}
    # A storm of sealed frames under unknown keys: one budget of "forgot" frames, smaller than what came.
    for i in range(5000):
        b.receive(b"\x07" + i.to_bytes(8, "big") + bytes(63), ELSEWHERE)
    print(f"R3: 5,000 frames of unknown key brought {len(world.wire)} answers of 17 bytes")
    assert len(world.wire) <= SERVING.forgot_rate
    world.wire.clear()
    # A storm of signed requests by one identity: at most three unused keys are kept for it.
    before = len(b.engine.keyring)
    for _ in range(100):
        b.receive(signed(a, b.key.node_id, encode(Ping())), a.address)
    assert len(b.engine.keyring) <= before + 3


def test_attack_r3_counters_and_keys_are_never_used_twice() -> None:
    """No two frames share key id and counter, also after a restart; reordering within the window is accepted once."""
    world, a, b = pair()
    names: set[bytes] = set()
    sent = 0
    for _ in range(3):
        world.introduce(a, b)
        frames = [captured(world, a, b, Ping()) for _ in range(40)]
        names |= {frame[1:17] for frame in frames}
        sent += len(frames)
        shuffled = random.Random(2).sample(frames, len(frames))
        before = sum(b.engine.counters.requests.values())
        for frame in shuffled + shuffled:
            b.receive(frame, a.address)
        assert sum(b.engine.counters.requests.values()) == before + 40
        world.wire.clear()
        a.engine, b.engine = a.fresh_engine(), b.fresh_engine()
        world.pass_time(1)
    assert len(names) == sent
    world.introduce(a, b)
    old = captured(world, a, b, Ping())
    for _ in range(WINDOW):
        b.receive(captured(world, a, b, Ping()), a.address)
    b.receive(old, a.address)
    assert b.drops["old_counter"] == 1
