"""Attacks on what the DHT sends, stores and believes (security.md A1, B1, P1, K1)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from support.dht_attacks import ELSEWHERE, Answering, captured, pair, record, signed
from support.dht_pair import SERVING, WALL, World, answered

from p2pnode.core.address import Address, Realm
from p2pnode.core.keys import NodeKey
from p2pnode.dht import DhtSettings, SignedRecord
from p2pnode.dht.contact import Contact
from p2pnode.dht.crawl import Crawl
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
    encode,
)
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.storage import RecordStorage


@pytest.mark.parametrize("request_", [Ping(), FindNode(b"\x07" * 20), Get(b"\x07" * 20)])
@pytest.mark.parametrize("family", ["4", "6"])
def test_attack_a1_never_more_bytes_out_than_in_to_an_unproven_address(request_: Request, family: str) -> None:
    """For each request, first contact and sealed from elsewhere: an unproven source gets no more than it sent."""
    world, a, b = pair()
    for i in range(60):
        ip = f"5.{i}.7.1" if family == "4" else f"2a00:{i:x}::1"
        peer_id = NodeKey.generate(random.Random(i).randbytes).peer_id
        b.members.seen(peer_id, Address(ip, 9), Overlay.PUBLIC_IPV4, world.now)  # the longer ones are the worst case
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
    world.now += 7300
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
    assert (len(storage), storage.bytes, len(storage._accounts)) == (0, 0, 0)


def test_attack_p1_one_ipv6_32_with_thousands_of_48s_pushes_nobody_out() -> None:
    """Mail from each /48 of one /32, which costs its owner nothing, beside a neighbour that handed over 60 letters."""
    peer = World().peer("5.0.0.1")
    storage = RecordStorage(peer.tag, DhtSettings(mail_bytes=1_200_000, prefix_records=64))

    def put(name: bytes, prefix: bytes) -> bool:
        return storage.store(record(peer, salt=b"mail/" + name), Realm.PUBLIC, prefix, 0.0, WALL) is None

    assert all(put(b"n%d" % i, b"\5\5\5") for i in range(60))
    assert all(put(b"o%d" % i, b"\6\6%c" % i) for i in range(60))
    for i in range(2_000):
        put(b"x%d" % i, b"\x20\x01\x0d\xb8" + i.to_bytes(2, "big"))
    assert all(put(b"l%d" % i, b"\x2a\1\1%c\0\0" % i) for i in range(60))  # whoever comes later finds room
    held = [entry.prefix for _, entry in storage]
    flood = sum(prefix[:1] == b"\x20" for prefix in held)
    print(f"P1: 2,000 /48s of one /32 hold {flood} records beside {len(held) - flood} of 180 others")
    assert len(held) - flood == 180
    storage.expire(1e7)
    assert (len(storage), storage.bytes, len(storage._mail), len(storage._mail._wides)) == (0, 0, 0, 0)


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
    crawl = Crawl(transport, a.engine, a.key.node_id, Overlay.PUBLIC_IPV4, finished.append)
    first = (
        Contact(b.node_id, Address("5.1.1.1", 1), Overlay.PUBLIC_IPV4) if (b := world.peer("5.0.3.1").engine) else None
    )
    assert first is not None
    crawl.start([first])
    transport.run()
    scopes = {a.members.overlay_of(contact.address.ip) for contact, _ in transport.asked}
    ignored = a.engine.counters.ignored_contacts
    print(f"K1: {len(transport.asked)} queries against endless liars, {ignored} contacts ignored")
    assert len(finished) == 1
    assert scopes == {Overlay.PUBLIC_IPV4}
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
        crawl = Crawl(transport, a.engine, record(a).key, Overlay.PUBLIC_IPV4, finished.append, quorum=3)
        crawl.start([Contact(b.key.node_id, b.address, Overlay.PUBLIC_IPV4)])
        transport.run()
        assert finished == [crawl]
        assert crawl.record is None
    assert a.drops["bad_record_signature"] == a.drops["other_record"] == 1
