"""What attacks on the DHT share: frames by hand, hostile payloads, a transport of liars."""

from __future__ import annotations

from typing import Any

import msgspec
from support.dht_pair import WALL, Peer, World

from p2pnode.core.address import Address
from p2pnode.core.keys import SigningKey
from p2pnode.dht import SignedRecord
from p2pnode.dht.calls import Call, Outcome
from p2pnode.dht.contact import Contact
from p2pnode.dht.messages import (
    Announce,
    Changed,
    Deliver,
    Delivered,
    DialBack,
    DialBackAccepted,
    DialFor,
    Error,
    FindNode,
    Forward,
    Forwarded,
    Get,
    ListTopic,
    Nodes,
    Noticed,
    Ping,
    Probe,
    Probed,
    Put,
    Register,
    Registered,
    Relay,
    Relaying,
    Request,
    Stored,
    TopicPage,
    Value,
    Watch,
    Watching,
    encode,
)
from p2pnode.dht.topic_entries import TopicEntry
from p2pnode.dht.wire import SIGNED_REQUEST, signed_request_body, signing_bytes

ELSEWHERE = Address("5.66.0.1", 6666)


def pair() -> tuple[World, Peer, Peer]:
    world = World()
    return world, world.peer("5.0.0.1"), world.peer("5.0.1.1")


def record(peer: Peer, seq: int = 1, value: bytes = b"v", salt: bytes = b"s", expires: int = 900) -> SignedRecord:
    return SignedRecord.sign(peer.key, peer.tag, salt, seq, int(WALL) + expires, value)


def entry(
    peer: Peer, topic: bytes, seq: int = 1, value: bytes = b"here", expires: int = 900, key: SigningKey | None = None
) -> TopicEntry:
    """A topic entry, signed by the peer's key or another one."""
    return TopicEntry.sign(key or peer.key, peer.tag, topic, seq, int(WALL) + expires, value)


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
        ("dial-back", b"\x0a" + bytes(16), a, b.address),
    ]


def hostile_payloads() -> list[bytes]:
    """Every field of every payload replaced by every other type, dropped, doubled; deep nesting."""
    peer = World().peer("5.0.0.1")
    rec = record(peer)
    said = entry(peer, bytes(20))
    messages = [
        Ping(), FindNode(bytes(20)), Get(bytes(20)), Put(bytes(8), rec), Nodes(bytes(6), bytes(8), b"", b""),
        Value(bytes(6), bytes(8), rec, b"", b""), Stored(bytes(6)), Error(bytes(6), 1, 0), Register(60),
        Forward(bytes(20), b"blob", False), Deliver(bytes(32), b"blob", b""), DialBack(bytes(16)),
        DialFor(bytes(6), bytes(16)),
        Registered(bytes(6), 60, True, True), Relay(bytes(20), 60), Relaying(bytes(6), 7, 60, True),
        Forwarded(bytes(6)), Delivered(bytes(6)), DialBackAccepted(bytes(6)),
        Watch(bytes(20), 0, 60, [bytes(26)]), Changed(rec), Watching(bytes(6), 60, 1, rec), Noticed(bytes(6)),
        Probe(2000, True, bytes(16)), Probed(bytes(6), 2000),
        Announce(bytes(8), bytes(20), 3, said), ListTopic(bytes(20), 3, 7, bytes(8), bytes(8)),
        TopicPage(bytes(6), 2, True, False, (said,)),
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
