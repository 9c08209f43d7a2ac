"""The vectors of docs/protocol/dht.md, checked both ways."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from support.dht_vectors import VECTORS, make

from p2pnode.core.envelope import signing_input
from p2pnode.core.ids import PublicKey, node_id_of
from p2pnode.dht.messages import (
    decode_answer_untrusted,
    decode_notice_untrusted,
    decode_request_untrusted,
    encode,
)
from p2pnode.dht.wire import (
    parse_dialled_untrusted,
    parse_sealed_text_untrusted,
    parse_signed_answer_untrusted,
    parse_signed_request_untrusted,
)

REQUESTS = (
    "ping", "find_node", "get", "put", "register", "forward", "deliver", "dial_back", "dial_for", "watch",
    "watch_through", "changed", "announce", "list_topic", "probe", "relay",
)  # fmt: skip


def load() -> Any:
    return json.loads(VECTORS.read_text())


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_vectors_are_what_the_code_makes() -> None:
    """Encoding gives the stored bytes."""
    assert make() == load()


def test_vectors_read_as_the_document_says() -> None:
    """Decoding, signatures, key derivation and AEAD of the stored bytes hold, with bare primitives."""
    vectors = load()
    keys, frames = vectors["keys"], vectors["frames"]
    request = parse_signed_request_untrusted(raw(frames["signed_request"]))
    answer = parse_signed_answer_untrusted(raw(frames["signed_answer"]))
    assert request.receiver == node_id_of(answer.responder_key) == raw(keys["answerer_node_id"])
    assert answer.requester == node_id_of(request.sender_key) == raw(keys["asker_node_id"])
    assert answer.request_hash == hashlib.sha256(raw(frames["signed_request"])).digest()
    for key, kind, frame in ((request.sender_key, b"request", request), (answer.responder_key, b"answer", answer)):
        assert PublicKey(key).verify(frame.signature, signing_input(b"p2pnode/1/dht", kind, frame.signed))
    private = X25519PrivateKey.from_private_bytes(raw(keys["answerer_ephemeral_private"]))
    assert private.exchange(X25519PublicKey.from_public_bytes(request.ephemeral)) == raw(keys["shared_secret"])
    derived = raw(keys["derived_80_bytes"])
    for name, at in (("sealed_confirmation", 0), ("sealed_request", 0), ("sealed_answer", 40)):
        frame = raw(frames[name])
        assert frame[1:9] == derived[at + 32 : at + 40]
        text = ChaCha20Poly1305(derived[at : at + 32]).decrypt(bytes(4) + frame[9:17], frame[17:], frame[:17])
        assert text == raw(vectors["sealed_texts"][name])
        parse_sealed_text_untrusted(text)
    assert parse_dialled_untrusted(raw(frames["dialled"])) == raw(vectors["payloads"]["dial_back"])[4:20]
    assert raw(frames["forgot"])[1:] == raw(frames["sealed_request"])[1:17]


def test_vector_payloads_round_trip() -> None:
    """decode then encode gives the same bytes, for each kind of message."""
    for name, text in load()["payloads"].items():
        decode = decode_request_untrusted if name in REQUESTS else decode_answer_untrusted
        assert encode(decode(raw(text))) == raw(text)


def test_the_notice_is_the_record_behind_its_mark() -> None:
    """0x80, then the record as it stands in a Changed."""
    vectors = load()
    blob = raw(vectors["notice"]["blob"])
    assert blob == b"\x80" + raw(vectors["payloads"]["changed"])[2:]
    assert decode_notice_untrusted(blob).signature == raw(vectors["record"]["signature"])


def test_vector_topic_entry_holds_with_bare_primitives() -> None:
    """Topic id, place in the tree, shard keys, order and signature are what the document says."""
    topic = {name: raw(value) if isinstance(value, str) and name != "name" else value
             for name, value in load()["topic"].items()}  # fmt: skip
    tag, number = raw(load()["network"]["tag"]), topic["seq"].to_bytes(8, "big") + topic["expires"].to_bytes(8, "big")
    assert topic["id"] == hashlib.sha256(b"p2pnode/1/topic-name" + topic["name"].encode()).digest()[:20]
    place = hashlib.sha256(b"p2pnode/1/topic-place" + topic["id"] + topic["public_key"]).digest()
    assert topic["index"] == place[0] >> 8 - topic["depth"]
    for name, where in (("shard_key", bytes([topic["depth"], 0, topic["index"]])), ("root_key", bytes(3))):
        assert topic[name] == hashlib.sha256(b"p2pnode/1/topic-shard" + topic["id"] + where).digest()[:20]
    ordered = hashlib.blake2b(topic["public_key"], digest_size=8, key=topic["order_nonce"]).digest()
    assert topic["order"] == bytes([ordered[0] % 128]) + ordered[1:]
    assert topic["order_withdrawn"] == bytes([ordered[0] % 128 + 128]) + ordered[1:]
    signed = signing_input(b"p2pnode/1/topic", b"topic-entry", tag + topic["id"] + number + topic["value"])
    assert PublicKey(topic["public_key"]).verify(topic["signature"], signed)
    assert not PublicKey(topic["public_key"]).verify(topic["withdrawn_signature"], signed)
