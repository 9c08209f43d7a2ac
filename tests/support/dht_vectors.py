"""Makes tests/vectors/dht.json: one exchange with fixed keys, byte by byte.

/path/to/python -c "from support.dht_vectors import write; write()"
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.dht.keyring import Ciphers, Session, derive_keys
from p2pnode.dht.messages import (
    NOTICE,
    Announce,
    Changed,
    Deliver,
    Delivered,
    DialBack,
    DialBackAccepted,
    DialFor,
    Error,
    ErrorCode,
    FindNode,
    Forward,
    Forwarded,
    Get,
    ListTopic,
    Nodes,
    Noticed,
    Ping,
    Pong,
    Probe,
    Probed,
    Put,
    Register,
    Registered,
    Relay,
    Relaying,
    Stored,
    TopicPage,
    Value,
    Watch,
    Watching,
    encode,
)
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.topic_entries import Shard, TopicEntry, order_of, topic_id
from p2pnode.dht.wire import (
    SIGNED_ANSWER,
    SIGNED_REQUEST,
    dialled_frame,
    forgot_frame,
    retry_frame,
    sealed_answer_text,
    sealed_confirmation_text,
    sealed_request_text,
    signed_answer_body,
    signed_request_body,
    signing_bytes,
)

__all__ = ["VECTORS", "make", "write"]

VECTORS = Path(__file__).parent.parent / "vectors" / "dht.json"
WALL_MS = 1_700_000_000_000
OBSERVED = Address("203.0.113.7", 4747)


def seed(name: str) -> bytes:
    return hashlib.sha256(b"p2pnode test vector/" + name.encode()).digest()


def make() -> dict[str, Any]:
    """Return the vectors; all byte strings in hexadecimal."""
    asker, answerer = NodeKey(seed("asker"), seed("asker x")), NodeKey(seed("answerer"), seed("answerer x"))
    tag = network_tag("public")
    ours, theirs = (X25519PrivateKey.from_private_bytes(seed(name)) for name in ("asker eph", "answerer eph"))
    target = seed("target")[:20]
    body = signed_request_body(
        tag=tag, receiver=answerer.node_id, sender_key=asker.public_raw, nonce=seed("nonce")[:16],
        ephemeral=ours.public_key().public_bytes_raw(), wall_ms=WALL_MS, flags=3, token=b"",
        payload=encode(FindNode(target)), size=992,
    )  # fmt: skip
    request = body + asker.sign(signing_bytes(SIGNED_REQUEST, body))
    contact4 = seed("contact 4")[:20] + Address("198.51.100.9", 4000).pack()
    contact6 = seed("contact 6")[:20] + Address("2001:db8::9", 4001).pack()
    nodes = Nodes(OBSERVED.pack(), seed("token")[:8], contact4, contact6)
    answer_body = signed_answer_body(
        requester=asker.node_id, responder_key=answerer.public_raw, request_hash=hashlib.sha256(request).digest(),
        ephemeral=theirs.public_key().public_bytes_raw(), flags=7, payload=encode(nodes),
    )  # fmt: skip
    answer = answer_body + answerer.sign(signing_bytes(SIGNED_ANSWER, answer_body))
    secret = ours.exchange(X25519PublicKey.from_public_bytes(theirs.public_key().public_bytes_raw()))
    keys = derive_keys(
        secret, tag=tag, requester=asker.node_id, responder=answerer.node_id,
        request_hash=hashlib.sha256(request).digest(), answer=answer,
    )  # fmt: skip
    one = Session(answerer.peer_id, keys, Ciphers(), initiator=True, now=0)
    other = Session(asker.peer_id, keys, Ciphers(), initiator=False, now=0)
    confirmation = one.seal(sealed_confirmation_text(3))
    sealed_request = one.seal(sealed_request_text(3, encode(Get(target))))
    record = SignedRecord.sign(asker, tag, b"presence/public", WALL_MS, WALL_MS // 1000 + 900, b"value")
    topic = topic_id("chess")
    entry = TopicEntry.sign(asker, tag, topic, WALL_MS, WALL_MS // 1000 + 1800, b"looking for a game")
    withdrawn = TopicEntry.sign(asker, tag, topic, WALL_MS + 1, WALL_MS // 1000 + 1800, b"")
    shard = Shard.of(topic, 3, asker.public_raw)
    order_nonce = seed("order nonce")[:8]
    order, last = (order_of(order_nonce, asker.public_raw, withdrawn=each) for each in (False, True))
    value = Value(OBSERVED.pack(), seed("token")[:8], record, contact4, b"")
    sealed_answer = other.seal(sealed_answer_text(7, sealed_request[9:17], encode(value)))
    payloads = {
        "ping": Ping(), "find_node": FindNode(target), "get": Get(target), "put": Put(seed("token")[:8], record),
        "pong": Pong(OBSERVED.pack()), "nodes": nodes, "value": value, "stored": Stored(OBSERVED.pack()),
        "register": Register(60), "forward": Forward(target, b"sealed offer", vouch=True),
        "deliver": Deliver(asker.public_raw, b"sealed offer", OBSERVED.pack()),
        "dial_back": DialBack(seed("dial nonce")[:16], 4748),
        "dial_for": DialFor(OBSERVED.pack(), seed("dial nonce")[:16]),
        "registered": Registered(OBSERVED.pack(), 60, True, True),
        "relay": Relay(target, 100), "relaying": Relaying(OBSERVED.pack(), 0xBEEF, 100, True),
        "forwarded": Forwarded(OBSERVED.pack()), "delivered": Delivered(OBSERVED.pack()),
        "dial_back_accepted": DialBackAccepted(OBSERVED.pack()),
        "probe": Probe(50_000, True, seed("dial nonce")[:16]), "probed": Probed(OBSERVED.pack(), 61_000),
        "watch": Watch(target, WALL_MS, 1440, []), "watch_through": Watch(target, 0, 1440, [contact4, contact6]),
        "changed": Changed(record), "watching": Watching(OBSERVED.pack(), 1440, WALL_MS, record),
        "watching_nothing": Watching(OBSERVED.pack(), 1440, 0, None), "noticed": Noticed(OBSERVED.pack()),
        "announce": Announce(seed("token")[:8], topic, 3, entry),
        "list_topic": ListTopic(topic, 3, shard.index, order_nonce, bytes(8)),
        "topic_page": TopicPage(OBSERVED.pack(), 2, True, False, (entry, withdrawn)),
        "error_clock": Error(OBSERVED.pack(), ErrorCode.CLOCK, WALL_MS),
    }  # fmt: skip
    raw: dict[str, Any] = {
        "keys": {
            "asker_ed25519_seed": seed("asker"), "asker_public": asker.public_raw, "asker_node_id": asker.node_id,
            "answerer_ed25519_seed": seed("answerer"), "answerer_public": answerer.public_raw,
            "answerer_node_id": answerer.node_id, "asker_ephemeral_private": seed("asker eph"),
            "answerer_ephemeral_private": seed("answerer eph"), "shared_secret": secret, "derived_80_bytes": keys,
        },
        "network": {"id": "public", "tag": tag},
        "frames": {
            "signed_request": request, "signed_answer": answer, "sealed_confirmation": confirmation,
            "sealed_request": sealed_request, "sealed_answer": sealed_answer,
            "token": retry_frame(seed("nonce")[:16], seed("retry token")[:24]), "forgot": forgot_frame(sealed_request),
            "dialled": dialled_frame(seed("dial nonce")[:16]),
        },
        "sealed_texts": {
            "sealed_request": sealed_request_text(3, encode(Get(target))),
            "sealed_answer": sealed_answer_text(7, sealed_request[9:17], encode(value)),
            "sealed_confirmation": sealed_confirmation_text(3),
        },
        "payloads": {name: encode(message) for name, message in payloads.items()},
        "notice": {"blob": NOTICE + encode(record)},
        "record": {
            "public_key": record.public_key, "salt": record.salt, "seq": record.seq, "expires": record.expires,
            "value": record.value, "signature": record.signature, "key": record.key,
        },
        "topic": {
            "name": "chess", "id": topic, "public_key": entry.public_key, "seq": entry.seq, "expires": entry.expires,
            "value": entry.value, "signature": entry.signature, "withdrawn_signature": withdrawn.signature,
            "depth": shard.depth, "index": shard.index, "shard_key": shard.key,
            "root_key": Shard(0, 0, topic).key, "order_nonce": order_nonce, "order": order,
            "order_withdrawn": last,
        },
    }  # fmt: skip
    return {
        part: {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
        for part, fields in raw.items()
    }


def write() -> None:
    VECTORS.write_text(json.dumps(make(), indent=1) + "\n")
