"""Topic entries: one signer's statement under a topic (a room, a name, the lobby), and in which shard it belongs.

A topic is a tree of shards, so that no key grows hot: one shard at depth 0, 2^d at depth d, each with a key of its own
in the DHT. Where a signer belongs at each depth is told by a hash of topic and key, so nobody can be in two shards of
one depth, and whoever stores an entry can check it. An entry goes into the shallowest shard of its branch that has
room; who finds one full goes one deeper (a prefix hash tree as in Ramabhadran et al., "Prefix Hash Tree", 2004, whose
inner nodes keep what they hold). Readers begin at depth 0, and go on where a shard says that it turned somebody away.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache
from typing import Annotated

import msgspec

from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PublicKey
from p2pnode.core.keys import SigningKey

__all__ = [
    "MAX_DEPTH",
    "MAX_ENTRY_VALUE",
    "MAX_TOPIC_LIFE",
    "ORDER_BYTES",
    "TOPIC_BYTES",
    "Shard",
    "TopicEntry",
    "order_of",
    "topic_id",
]

TOPIC_BYTES = 20
MAX_ENTRY_VALUE = 200
MAX_DEPTH = 12  # 4,096 shards of 128 there, and as many again above: a million entries in one topic
MAX_TOPIC_LIFE = 3_600  # seconds
CLOCK_TOLERANCE = 300  # seconds, as for records (security.md R2)
ORDER_BYTES = 8
ENTRY_DOMAIN = b"p2pnode/1/topic"
ENTRY_TYPE = b"topic-entry"
_PLACE = b"p2pnode/1/topic-place"
_SHARD = b"p2pnode/1/topic-shard"


def topic_id(name: str) -> bytes:
    """Return the 20 bytes of a topic that people name: SHA-256("p2pnode/1/topic-name" || NFC, UTF-8)[:20]."""
    text = unicodedata.normalize("NFC", name).encode()
    return hashlib.sha256(b"p2pnode/1/topic-name" + text).digest()[:TOPIC_BYTES]


class Shard(msgspec.Struct, frozen=True, order=True):
    """Which part of a topic: `index` is below 2^depth. Its parent at depth - 1 has half the index."""

    depth: int
    index: int
    topic: bytes

    @classmethod
    def of(cls, topic: bytes, depth: int, public_key: bytes) -> Shard:
        """Return the shard of a signer at a depth: the first bits of SHA-256("..topic-place" || topic || key)."""
        place = int.from_bytes(hashlib.sha256(_PLACE + topic + public_key).digest()[:2], "big")
        return cls(depth, place >> (16 - depth), topic)

    @property
    def key(self) -> NodeId:
        """SHA-256("..topic-shard" || topic || depth 1 || index 2)[:20]: the nodes nearest to it hold the shard."""
        data = _SHARD + self.topic + bytes((self.depth,)) + self.index.to_bytes(2, "big")
        return NodeId(hashlib.sha256(data).digest()[:20])

    def children(self) -> tuple[Shard, ...]:
        if self.depth >= MAX_DEPTH:
            return ()
        return tuple(Shard(self.depth + 1, 2 * self.index + bit, self.topic) for bit in (0, 1))


def order_of(nonce: bytes, public_key: bytes, *, withdrawn: bool) -> bytes:
    """Return an entry's place in the order that a reader's nonce makes: 8 bytes of keyed BLAKE2b, whose first bit says
    whether it is withdrawn.

    The reader draws the nonce, so whoever grinds keys cannot choose to stand first, or to push somebody out. What is
    withdrawn comes last: where people come and go it outnumbers the others, who would hardly be on any first page.
    """
    digest = hashlib.blake2b(public_key, digest_size=ORDER_BYTES, key=nonce).digest()
    return bytes((digest[0] & 0x7F | withdrawn << 7,)) + digest[1:]


class TopicEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """MessagePack array of five. Which topic it is for stands beside it, and is signed.

    `public_key`: 32 bytes · `seq`: unix milliseconds, strictly rising · `expires`: unix seconds, at most an hour ahead
    · `value`: up to 200 bytes; empty: withdrawn · `signature`: 64 bytes.
    """

    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    expires: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    value: Annotated[bytes, msgspec.Meta(max_length=MAX_ENTRY_VALUE)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

    @classmethod
    def sign(
        cls, signing_key: SigningKey, network_tag: bytes, topic: bytes, seq: int, expires: int, value: bytes
    ) -> TopicEntry:
        """Make an entry. Raise ValueError when the value is too long or the topic has not 20 bytes."""
        if len(value) > MAX_ENTRY_VALUE or len(topic) != TOPIC_BYTES:
            raise ValueError("an entry holds 200 bytes, under a topic of 20")
        if not (0 <= seq < 2**63 and 0 <= expires < 2**63):
            raise ValueError("seq and expires are unsigned 63-bit numbers")
        signature = signing_key.sign(_signed_bytes(network_tag, topic, seq, expires, value))
        return cls(signing_key.public_raw, seq, expires, value, signature)

    def verify(self, network_tag: bytes, topic: bytes, now_wall: float) -> None:
        """Raise BadPacket: `bad_key`, `entry_expired`, `entry_expires_too_far`, `bad_entry_signature`. About 0.1 ms."""
        if self.expires + CLOCK_TOLERANCE <= now_wall:
            raise BadPacket("entry_expired")
        if self.expires > now_wall + MAX_TOPIC_LIFE + CLOCK_TOLERANCE:
            raise BadPacket("entry_expires_too_far")
        if not _signature_holds(self, network_tag, topic):
            raise BadPacket("bad_entry_signature")


@lru_cache(maxsize=1024)  # the same entry comes from several holders; 1,024 of at most 0.6 kB
def _signature_holds(entry: TopicEntry, network_tag: bytes, topic: bytes) -> bool:
    signed = _signed_bytes(network_tag, topic, entry.seq, entry.expires, entry.value)
    return PublicKey.from_untrusted(entry.public_key).verify(entry.signature, signed)


def _signed_bytes(network_tag: bytes, topic: bytes, seq: int, expires: int, value: bytes) -> bytes:
    """tag 8 · topic 20 · seq 8 · expires 8 · value, under domain and type."""
    body = network_tag + topic + seq.to_bytes(8, "big") + expires.to_bytes(8, "big") + value
    return signing_input(ENTRY_DOMAIN, ENTRY_TYPE, body)
