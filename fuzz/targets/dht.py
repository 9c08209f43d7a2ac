"""Frames, payloads and records of the DHT."""

from __future__ import annotations

import itertools

from p2pnode.core.errors import BadPacket
from p2pnode.core.network_id import network_tag
from p2pnode.dht import SignedRecord, wire
from p2pnode.dht.contact import split_contacts_untrusted
from p2pnode.dht.messages import (
    NOTICE,
    Announce,
    Answer,
    Nodes,
    Put,
    Request,
    Value,
    decode_answer_untrusted,
    decode_notice_untrusted,
    decode_request_untrusted,
    encode,
)
from p2pnode.dht.topic_entries import MAX_DEPTH, Shard, TopicEntry, topic_id
from targets.base import Target

__all__ = ["ANNOUNCE_HEAD", "TARGETS", "WALL"]

WALL = 1_700_000_000.0
TAG = network_tag("public")
PUT_HEAD = encode(Put(bytes(8), SignedRecord(bytes(32), b"", 0, 0, b"", bytes(64))))[:12]

TOPIC = topic_id("chess")
TOPIC_HEAD = encode(Announce(bytes(8), TOPIC, 3, TopicEntry(bytes(32), 0, 0, b"", bytes(64))))[:35]
ANNOUNCE_HEAD = len(TOPIC_HEAD)


def read_frame(data: bytes) -> tuple[int, object]:
    """Read a frame by its first byte, as the engine does; 0x07: the text inside, which the fuzzer cannot seal."""
    kind = data[0] if data else -1
    if kind == wire.SIGNED_REQUEST:
        return kind, wire.parse_signed_request_untrusted(data)
    if kind == wire.SIGNED_ANSWER:
        return kind, wire.parse_signed_answer_untrusted(data)
    if kind == wire.SEALED:
        return kind, wire.parse_sealed_text_untrusted(data[1:])
    if kind == wire.RETRY:
        return kind, wire.parse_retry_untrusted(data)
    if kind == wire.DIALLED:
        return kind, wire.parse_dialled_untrusted(data)
    raise BadPacket("unknown_type")


def hold_frame(data: bytes, result: tuple[int, object]) -> None:
    """Written again from its fields, a frame is what came, padding left aside."""
    kind, frame = result
    if isinstance(frame, wire.SignedRequest):
        assert frame.signed + frame.signature == data
        body = wire.signed_request_body(
            tag=frame.tag, receiver=frame.receiver, sender_key=frame.sender_key, nonce=frame.nonce,
            ephemeral=frame.ephemeral, wall_ms=frame.wall_ms, flags=frame.flags, token=frame.token,
            payload=frame.payload, size=0,
        )  # fmt: skip
        assert frame.signed.startswith(body)
    elif isinstance(frame, wire.SignedAnswer):
        body = wire.signed_answer_body(
            requester=frame.requester, responder_key=frame.responder_key, request_hash=frame.request_hash,
            ephemeral=frame.ephemeral, flags=frame.flags, payload=frame.payload,
        )  # fmt: skip
        assert body + frame.signature == data
    elif kind == wire.SEALED:
        assert isinstance(frame, tuple)
        what, flags, counter, payload = frame
        if what == wire.IS_REQUEST:
            assert data[1:].startswith(wire.sealed_request_text(flags, payload, size=0))
        elif what == wire.IS_ANSWER:
            assert wire.sealed_answer_text(flags, counter, payload) == data[1:]
    elif kind == wire.RETRY:
        assert isinstance(frame, tuple)
        assert wire.retry_frame(*frame) == data
    else:
        assert isinstance(frame, bytes)
        assert wire.dialled_frame(frame) == data


def hold_request(_data: bytes, request: Request) -> None:
    assert decode_request_untrusted(encode(request)) == request


def hold_answer(_data: bytes, answer: Answer) -> None:
    assert decode_answer_untrusted(encode(answer)) == answer
    if isinstance(answer, Nodes | Value):
        try:
            contacts = split_contacts_untrusted(answer.ipv4, answer.ipv6)
        except BadPacket:
            return
        assert len(contacts) <= 20
        assert all(len(packed) in (26, 38) for packed in contacts)


def read_record(data: bytes) -> SignedRecord:
    """A record as it stands in a Put, and whether it may be believed."""
    request = decode_request_untrusted(PUT_HEAD + data)
    assert isinstance(request, Put)
    request.record.verify(TAG, WALL)
    return request.record


def hold_record(_data: bytes, record: SignedRecord) -> None:
    assert decode_request_untrusted(PUT_HEAD + encode(record)) == Put(bytes(8), record)
    assert len(record.key) == 20


def hold_notice(data: bytes, record: SignedRecord) -> None:
    assert data[:1] == NOTICE
    assert decode_notice_untrusted(NOTICE + encode(record)) == record


def read_topic_entry(data: bytes) -> TopicEntry:
    """An entry as it stands in an Announce, and whether it may be believed."""
    request = decode_request_untrusted(TOPIC_HEAD + data)
    assert isinstance(request, Announce)
    request.entry.verify(TAG, TOPIC, WALL)
    return request.entry


def hold_topic_entry(_data: bytes, entry: TopicEntry) -> None:
    assert decode_request_untrusted(TOPIC_HEAD + encode(entry)) == Announce(bytes(8), TOPIC, 3, entry)
    shards = [Shard.of(TOPIC, depth, entry.public_key) for depth in range(MAX_DEPTH + 1)]
    assert all(below in above.children() for above, below in itertools.pairwise(shards))


TARGETS = [
    Target("dht_frame", read_frame, hold_frame),
    Target("dht_request", decode_request_untrusted, hold_request),
    Target("dht_answer", decode_answer_untrusted, hold_answer),
    Target("dht_notice", decode_notice_untrusted, hold_notice),
    Target("dht_record", read_record, hold_record),
    Target("dht_topic_entry", read_topic_entry, hold_topic_entry),
]
