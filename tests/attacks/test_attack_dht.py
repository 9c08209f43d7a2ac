"""Attacks on the DHT's messages (security.md V1-V3, R1, R3, A1, P1, K1, S2)."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import msgspec
import pytest
from support.dht_pair import SERVING, WALL, Peer, World, answered

from p2pnode.core.address import Address, Realm
from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.calls import Call, Outcome
from p2pnode.dht.contact import Contact
from p2pnode.dht.crawl import Crawl
from p2pnode.dht.keyring import WINDOW
from p2pnode.dht.messages import (
    Error,
    ErrorCode,
    FindNode,
    Get,
    Nodes,
    Ping,
    Put,
    Request,
    Stored,
    Value,
    decode_answer_untrusted,
    decode_request_untrusted,
    encode,
)
from p2pnode.dht.storage import RecordStorage
from p2pnode.dht.table import Table
from p2pnode.dht.wire import SIGNED_REQUEST, signed_request_body, signing_bytes

ELSEWHERE = Address("5.66.0.1", 6666)


def pair() -> tuple[World, Peer, Peer]:
    world = World()
    return world, world.peer("5.0.0.1"), world.peer("5.0.1.1")


def record(peer: Peer, seq: int = 1, value: bytes = b"v", salt: bytes = b"s", expires: int = 900) -> SignedRecord:
    return SignedRecord.sign(peer.key, peer.tag, salt, seq, int(WALL) + expires, value)


def captured(world: World, asker: Peer, answerer: Peer, request: Request) -> bytes:
    """Return the datagram of a request, taken off the wire."""
    asker.ask(answerer, request)
    return world.wire.pop()[0]


def signed(peer: Peer, to: bytes, payload: bytes, **changes: Any) -> bytes:
    """Return a well-signed request with any content."""
    fields: dict[str, Any] = {
        "tag": peer.tag, "receiver": to, "sender_key": peer.key.public_raw, "nonce": peer.rng.randbytes(16),
        "ephemeral": peer.key.x25519_public, "wall_ms": int(WALL * 1000), "flags": 7, "token": b"", "payload": payload,
        "size": 1200,
    }  # fmt: skip
    body = signed_request_body(**(fields | changes))
    return body + peer.key.sign(signing_bytes(SIGNED_REQUEST, body))


def valid_frames(world: World, a: Peer, b: Peer) -> list[tuple[str, bytes, Peer, Address]]:
    """Return one of each frame type: name, bytes, receiver, source. Nothing of it was delivered."""
    world.introduce(a, b)
    c = world.peer("5.0.2.1")
    request = captured(world, a, c, FindNode(bytes(20)))
    c.receive(request, a.address)
    answer = world.wire.pop()[0]
    sealed_request = captured(world, a, b, Get(bytes(20)))
    session = b.engine.keyring.for_sending(a.key.node_id, world.now)
    assert session is not None
    sealed_unknown = b"\x07" + bytes(8) + sealed_request[9:]
    b.receive(sealed_unknown, a.address)
    forgot = world.wire.pop()[0]
    return [
        ("signed request", request, c, a.address),
        ("signed answer", answer, a, c.address),
        ("sealed", sealed_request, b, a.address),
        ("forgot", forgot, a, b.address),
        ("token", b"\x08" + bytes(40), a, b.address),
    ]


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


def hostile_payloads() -> list[bytes]:
    """Every field of every payload replaced by every other type, dropped, doubled; deep nesting."""
    peer = World().peer("5.0.0.1")
    rec = record(peer)
    messages = [
        Ping(), FindNode(bytes(20)), Get(bytes(20)), Put(bytes(8), rec), Nodes(bytes(6), bytes(8), b"", b""),
        Value(bytes(6), bytes(8), rec, b"", b""), Stored(bytes(6)), Error(bytes(6), 1, 0),
    ]  # fmt: skip
    wrong: list[object] = [
        None, True, -1, 2**64 - 1, 1.5, "text", b"", bytes(19), bytes(2000), [], [[]], {"a": 1},
        msgspec.msgpack.Ext(1, b"x"),
    ]  # fmt: skip
    payloads = [b"", b"\xc1", b"\x91" * 1000, b"\x81" * 1000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
    for message in messages:
        fields = msgspec.msgpack.decode(encode(message))
        payloads += [msgspec.msgpack.encode(fields[:i]) for i in range(len(fields))]
        payloads += [msgspec.msgpack.encode([*fields, 0]), msgspec.msgpack.encode([99, *fields[1:]])]
        for i in range(len(fields)):
            payloads += [msgspec.msgpack.encode([*fields[:i], value, *fields[i + 1 :]]) for value in wrong]
            if isinstance(fields[i], list):
                for j in range(len(fields[i])):
                    nested = [
                        [*fields[:i], [*fields[i][:j], value, *fields[i][j + 1 :]], *fields[i + 1 :]] for value in wrong
                    ]
                    payloads += [msgspec.msgpack.encode(value) for value in nested]
    return payloads


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
        "bad_flags": signed(a, b.key.node_id, ping, flags=8),
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


@pytest.mark.parametrize("request_", [Ping(), FindNode(b"\x07" * 20), Get(b"\x07" * 20)])
@pytest.mark.parametrize("family", ["4", "6"])
def test_attack_a1_never_more_bytes_out_than_in_to_an_unproven_address(request_: Request, family: str) -> None:
    """For each request, first contact and sealed from elsewhere: an unproven source gets no more than it sent."""
    world, a, b = pair()
    for i in range(60):
        ip = f"5.{i}.7.1" if family == "4" else f"2a00:{i:x}::1"
        b.members.seen(NodeKey.generate(random.Random(i).randbytes).peer_id, Address(ip, 9), Realm.PUBLIC, world.now)
    key = b"\x07" * 20
    stored = record(a, value=bytes(800), salt=bytes(32))
    b.storage._records[Realm.PUBLIC, key] = b.storage._records.pop((Realm.PUBLIC, stored.key), None) or _entry(stored)
    forged = captured(world, a, b, request_)
    b.receive(forged, ELSEWHERE)
    out = sum(len(data) for data, _, _ in world.wire)
    print(f"A1: first contact {type(request_).__name__}/IPv{family}: in {len(forged)}, out {out}")
    assert 0 < out <= len(forged)
    world.wire.clear()
    for hostile in (signed(a, b.key.node_id, encode(request_), size=0), b"\x07" + bytes(32), b"\x07" + bytes(79)):
        b.receive(hostile, ELSEWHERE)
        assert sum(len(data) for data, _, _ in world.wire) <= len(hostile)
        world.wire.clear()
    world.introduce(a, b)
    sealed = captured(world, a, b, request_)
    b.receive(sealed, ELSEWHERE)
    out = sum(len(data) for data, _, _ in world.wire)
    print(f"A1: sealed from elsewhere {type(request_).__name__}: in {len(sealed)}, out {out}")
    assert 0 < out <= len(sealed)


def _entry(rec: SignedRecord) -> Any:
    storage = RecordStorage(World().peer("5.0.0.1").tag, SERVING)
    assert storage.store(rec, Realm.PUBLIC, b"x", 1000.0, WALL) is None
    return storage[Realm.PUBLIC, rec.key]


def test_attack_a1_clock_answers_and_tokens_are_not_larger_either() -> None:
    """The answers to a wrong clock and to senders over budget are smaller than what came."""
    world, a, b = pair()
    late = signed(a, b.key.node_id, encode(Ping()), wall_ms=int(WALL * 1000) - 700_000, size=224)
    b.receive(late, ELSEWHERE)
    assert [len(data) <= len(late) for data, _, _ in world.wire] == [True]
    world.wire.clear()
    for _ in range(1000):
        frame = signed(a, b.key.node_id, encode(Ping()), size=224)
        b.receive(frame, ELSEWHERE)
    checked, tokens = b.engine.counters.signatures_checked, b.drops["token_sent"]
    print(f"A1/B1: of 1,000 unproven requests from one /24 {checked} signatures checked, {tokens} tokens sent")
    assert checked <= SERVING.prefix_burst + 2
    assert all(len(data) <= len(frame) for data, _, _ in world.wire)


def test_attack_b1_an_honest_sender_gets_through_with_a_token() -> None:
    """Over budget, an honest node returns the token and is answered; the token is worthless elsewhere and later."""
    world = World()
    a, b = world.peer("5.0.0.1"), world.peer("5.0.1.1", DhtSettings(signature_rate=0.1, signature_burst=0.1))
    outcomes = a.ask(b, Ping())
    world.run()
    assert answered(outcomes)
    assert b.drops == {"token_sent": 1}
    c = world.peer("5.0.2.1")
    outcomes = c.ask(b, Ping())
    world.deliver()
    world.deliver()
    with_token = world.wire.pop()[0]
    b.receive(with_token, ELSEWHERE)
    assert b.drops["bad_token"] == 1
    world.now += 100
    b.receive(with_token, c.address)
    assert b.drops["old_token"] == 1
    assert not outcomes


def test_attack_p1_stores_need_a_token_and_stay_within_quotas() -> None:
    """A wrong token, a forged record, a far `expires` and a full store are refused, each with its code."""
    world, a, b = pair()
    world.introduce(a, b)

    def put(token: bytes, rec: SignedRecord) -> object:
        outcomes = a.ask(b, Put(token, rec))
        world.run()
        answer = outcomes[0].answer
        return answer.code if isinstance(answer, Error) else type(answer)

    def token(rec: SignedRecord) -> bytes:
        return b.service._tokens.issue(a.address.pack(), rec.key, world.now)

    good = record(a)
    forged = msgspec.structs.replace(good, value=b"forged")
    stolen = msgspec.structs.replace(good, public_key=b.key.public_raw)
    far, past = record(a, expires=90_000), record(a, expires=-1000)
    assert put(bytes(8), good) == ErrorCode.BAD_TOKEN
    assert put(b.service._tokens.issue(ELSEWHERE.pack(), good.key, world.now), good) == ErrorCode.BAD_TOKEN
    assert put(token(forged), forged) == ErrorCode.BAD_RECORD
    assert put(token(stolen), stolen) == ErrorCode.BAD_RECORD
    assert put(token(far), far) == put(token(past), past) == ErrorCode.EXPIRES
    assert len(b.storage) == 0
    old_token = token(good)
    world.now += 700
    assert put(old_token, good) == ErrorCode.BAD_TOKEN
    assert put(token(good), good) is Stored
    assert put(token(good), good) is Stored


def test_attack_p1_the_heaviest_prefix_loses_first() -> None:
    """A flood from one /24 fills free room only; others' records push it out, and never the other way round."""
    settings = DhtSettings(storage_bytes=300_000, prefix_records=64)
    peer = World().peer("5.0.0.1")
    storage = RecordStorage(peer.tag, settings)
    flood = [record(peer, salt=i.to_bytes(4, "big")) for i in range(400)]
    codes = [storage.store(rec, Realm.PUBLIC, b"bad", 0.0, WALL) for rec in flood]
    flooded = len(storage)
    assert codes[-1] == (ErrorCode.FULL, 0)
    for i in range(100):
        rec = record(peer, salt=b"honest" + bytes([i]))
        assert storage.store(rec, Realm.PUBLIC, b"h%d" % (i % 50), 0.0, WALL) is None
    held = [entry.prefix for _, entry in storage]
    print(f"P1: flood held {flooded} records, then {held.count(b'bad')} beside 100 honest ones; {storage.bytes} bytes")
    assert storage.bytes <= settings.storage_bytes
    assert len(held) - held.count(b"bad") == 100
    storage.expire(10_000.0)
    assert (len(storage), storage.bytes, storage._prefixes) == (0, 0, {})


class Answering:
    """A crawl's transport whose every query is answered by a function."""

    def __init__(self, world: World, answer: Any) -> None:
        self.world, self.answer = world, answer
        self.asked: list[tuple[Contact, Any]] = []

    def ask(self, contact: Contact, request: Request, on_done: Any, on_late: Any) -> Call:
        self.asked.append((contact, on_done))
        return Call(contact.address, None, request, b"", 0, on_done, on_late)

    def forget(self, call: Call) -> None:
        call.done = True

    def wall(self) -> float:
        return self.world.wall

    def run(self) -> None:
        at = 0
        while at < len(self.asked):
            contact, on_done = self.asked[at]
            on_done(Outcome(self.answer(contact), contact=contact))
            at += 1


def test_attack_k1_hostile_answers_are_ignored_and_lookups_end() -> None:
    """Private, multicast, port 0, own id, duplicates, endless contacts: ignored and counted; nothing private asked."""
    world, a, _ = pair()
    rng = random.Random(4)
    own = a.key.node_id + Address("5.7.7.7", 7).pack()

    def hostile(contact: Contact) -> Nodes:
        bad = [
            rng.randbytes(20) + Address(ip, 9).pack()
            for ip in ("10.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "192.0.2.1")
        ]
        bad += [rng.randbytes(20) + bytes([5, 1, 2, 3, 0, 0]), own, contact.packed, contact.packed]
        near = [bytes(18) + rng.randbytes(2) + rng.randbytes(4) + b"\1\1" for _ in range(10)]
        return Nodes(bytes(6), bytes(8), b"".join(rng.sample(bad, len(bad)) + near), b"")

    finished: list[Crawl] = []
    transport = Answering(world, hostile)
    crawl = Crawl(transport, a.engine, a.key.node_id, Realm.PUBLIC, finished.append)
    first = Contact(b.node_id, Address("5.1.1.1", 1), Realm.PUBLIC) if (b := world.peer("5.0.3.1").engine) else None
    assert first is not None
    crawl.start([first])
    transport.run()
    scopes = {a.members.realm_of(contact.address.ip) for contact, _ in transport.asked}
    ignored = a.engine.counters.ignored_contacts
    print(f"K1: {len(transport.asked)} queries against endless liars, {ignored} contacts ignored")
    assert len(finished) == 1
    assert scopes == {Realm.PUBLIC}
    assert all(contact.id != a.key.node_id and contact.address.port for contact, _ in transport.asked)
    assert len(transport.asked) <= SERVING.max_queries
    assert first.demerits > 0


def test_attack_k1_oversized_wrong_and_forged_answers_end_a_lookup_without_exception() -> None:
    """Too many contacts, cut lists, other kinds of answer, other people's and forged records: a failed query."""
    world, a, b = pair()
    other = record(b)
    for answer in (
        Nodes(bytes(6), bytes(8), bytes(27), b""),
        Nodes(bytes(6), bytes(8), bytes(520), bytes(38)),
        Value(bytes(6), bytes(8), other, b"", b""),
        Value(bytes(6), bytes(8), msgspec.structs.replace(record(a), value=b"x"), b"", b""),
        Stored(bytes(6)),
        Error(bytes(6), 200, 0),
        None,
    ):
        finished: list[Crawl] = []
        transport = Answering(world, lambda _, answer=answer: answer)
        crawl = Crawl(transport, a.engine, record(a).key, Realm.PUBLIC, finished.append, quorum=3)
        crawl.start([Contact(b.key.node_id, b.address, Realm.PUBLIC)])
        transport.run()
        assert finished == [crawl]
        assert crawl.record is None
    assert a.drops["bad_record_signature"] == a.drops["other_record"] == 1


def test_attack_s2_a_million_random_ids_leave_a_bounded_table() -> None:
    """Ids ground to split every bucket, and random ones: at most 160 buckets of 20, and as many replacements."""
    rng = random.Random(6)
    own = rng.randbytes(20)
    table = Table(own, 20, Realm.PUBLIC)  # type: ignore[arg-type]
    peer_id = PeerId(NodeKey.generate(rng.randbytes).public_raw)
    for i in range(20_000):
        shared = i % 160
        value = int.from_bytes(own, "big") ^ ((1 << (159 - shared)) | rng.getrandbits(max(1, 159 - shared)))
        node_id = (value if i % 2 else rng.getrandbits(160)).to_bytes(20, "big")
        address = Address(f"{5 + i % 50}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}", 1 + i)
        table.add_contact(Contact(node_id, address, Realm.PUBLIC, peer_id))  # type: ignore[arg-type]
    spare = sum(len(bucket.replacement_nodes) for bucket in table.buckets)
    print(f"S2: 20,000 ids: {len(table.buckets)} buckets, {len(table)} contacts, {spare} replacements")
    assert len(table.buckets) <= 160
    assert all(len(bucket.nodes) <= 20 and len(bucket.replacement_nodes) <= 20 for bucket in table.buckets)


def test_attack_s1_one_id_per_address_and_diverse_contacts_displace_crowded_ones() -> None:
    """A thousand ids at one address are one contact; a /24 that filled a bucket gives places up to others."""
    rng = random.Random(7)
    own = bytes(20)
    table = Table(own, 20, Realm.PUBLIC)  # type: ignore[arg-type]

    def contact(ip: str, port: int) -> Contact:
        return Contact(b"\xff" + rng.randbytes(19), Address(ip, port), Realm.PUBLIC)  # type: ignore[arg-type]

    for _ in range(1000):
        table.add_contact(contact("5.6.7.8", 1))
    assert len(table) == 1
    for i in range(40):
        table.add_contact(contact("5.6.7.8", 2 + i))
    honest = [contact(f"5.{i}.0.1", 1) for i in range(30, 60)]
    placed = sum(table.add_contact(c) for c in honest)
    print(f"S1: honest contacts placed in a bucket filled from one /24: {placed} of 20 places")
    assert placed == 18  # two places stay with the crowded /24
