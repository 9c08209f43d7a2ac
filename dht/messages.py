"""Payloads: what nodes ask and answer. MessagePack arrays whose first element is the kind; strict and bounded.

Requests: `[1]` Ping · `[2, target]` FindNode · `[3, key]` Get · `[4, token, record]` Put ·
`[10, token, topic, depth, entry]` Announce · `[11, topic, depth, index, nonce, after]` ListTopic. Only sealed, and
from a proven address: `[5, lease]` Register · `[6, target, blob, vouch]` Forward · `[7, sender, blob, seen]` Deliver ·
`[8, nonce, port]` DialBack · `[9, address, nonce]` DialFor · `[12, key, seq, lease, ways]` Watch ·
`[13, record]` Changed · `[14, port, fresh, nonce]` Probe · `[15, peer, lease]` Relay.
Answers: `[1, observed]` Pong · `[2, observed, token, ipv4, ipv6]` Nodes · `[3, observed, token, record or nil, ipv4,
ipv6]` Value · `[4, observed]` Stored · `[5, observed, code, detail]` Error · `[6, observed, lease,
relays, tls443]` Registered · `[7, observed]` Forwarded · `[8, observed]` Delivered · `[9, observed]` DialBackAccepted ·
`[11, observed, held, split, more, entries]` TopicPage · `[12, observed, lease, seq, record or nil]` Watching ·
`[13, observed]` Noticed · `[14, observed, port]` Probed · `[15, observed, flow, lease, paired]`
Relaying.
`observed` is the requester's address as the answerer saw it; `ipv4`, `ipv6` are contacts of 26 and 38 bytes each.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from p2pnode.core.errors import BadPacket
from p2pnode.dht.contact import CONTACT4_BYTES, CONTACT6_BYTES
from p2pnode.dht.error_codes import ErrorCode
from p2pnode.dht.fields import (
    MAX_BLOB,
    MAX_LEASE,
    MAX_RELAY_LEASE,
    MAX_WATCH,
    NONCE_BYTES,
    Blob,
    Contacts4,
    Contacts6,
    Depth,
    Key,
    Lease,
    Nonce,
    Observed,
    Order,
    Port,
    PublicKey,
    RelayLease,
    Seen,
    Seq,
    Token,
    Topic,
    WatchLease,
    Way,
)
from p2pnode.dht.records import SignedRecord
from p2pnode.dht.topic_entries import MAX_DEPTH, Shard, TopicEntry
from p2pnode.dht.wire import SEALED_REQUEST_MIN

__all__ = [
    "MAX_BLOB", "MAX_LEASE", "MAX_RELAY_LEASE", "MAX_WATCH", "MAX_WAYS", "NONCE_BYTES", "NOTICE", "PING_BYTES",
    "SEALED_ONLY", "UNDER_KEYS", "Announce", "Answer", "Changed", "Deliver", "Delivered", "DialBack",
    "DialBackAccepted", "DialFor", "Error", "ErrorCode", "FindNode", "Forward", "Forwarded", "Get", "ListTopic",
    "Nodes", "Noticed", "Ping", "Pong", "Probe", "Probed", "Put", "Register", "Registered", "Relay", "Relaying",
    "Request", "Signal", "Stored", "TopicPage", "Value", "Watch", "Watching", "decode_answer_untrusted",
    "decode_notice_untrusted", "decode_request_untrusted", "encode", "sealed_size",
]  # fmt: skip

MAX_WAYS = 2
PING_BYTES = 224  # a signed Ping
NOTICE = b"\x80"
"""First byte of a forwarded blob that is for the receiver's DHT: a record follows. Sealed offers begin with less."""
MAX_PAGE_ENTRIES = 10  # of 116 bytes at least, in 1,200


class Ping(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=1):
    """Are you there? Also the only request of a hello, which names no receiver."""


class FindNode(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=2):
    """The contacts nearest to `target` (20 bytes) that the answerer knows in the requester's realm."""

    target: Key


class Get(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=3):
    """The record under `key` (20 bytes), and the contacts nearest to it."""

    key: Key


class Put(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=4):
    """Store `record`; `token` came with the answer to a FindNode or Get of its key."""

    token: Token
    record: SignedRecord


class Register(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=5):
    """Forward to me, at the address that this came from, for `lease` seconds."""

    lease: Lease


class Forward(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=6):
    """Hand `blob` to the node `target`, which registered with you or spoke to somebody through you.

    `vouch`: tell it also at which address you see me. Who hides his address does not ask for that.
    """

    target: Key
    blob: Blob
    vouch: bool


class Deliver(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=7):
    """The node with key `sender` asked me to hand you `blob`. That it did is my word; the blob has to prove itself.

    `seen`: the sender's address, packed, where it asked me to vouch for it; else empty.
    """

    sender: PublicKey
    blob: Blob
    seen: Seen


class DialBack(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=8):
    """Have another node send me, at the address that this came from, a frame with `nonce`.

    `port`: to this port of that address instead, where a router was asked for one; 0: to the one that it came from.
    """

    nonce: Nonce
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0


class DialFor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=9):
    """Send one frame with `nonce` to `address` (6 or 18 bytes), whose owner wishes it."""

    address: Observed
    nonce: Nonce


class Announce(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=10):
    """Keep `entry` in the signer's shard of `topic` at `depth`; `token` came with the answer to a FindNode of its key.

    Answered with Stored or an Error.
    """

    token: Token
    topic: Topic
    depth: Depth
    entry: TopicEntry


class ListTopic(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=11):
    """The entries of a shard that come after `after` (zeros: from the first on) in the order that `nonce` makes."""

    topic: Topic
    depth: Depth
    index: Annotated[int, msgspec.Meta(ge=0, lt=2**MAX_DEPTH)]
    nonce: Order
    after: Order

    @property
    def shard(self) -> Shard:
        return Shard(self.depth, self.index, self.topic)


class Watch(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=12):
    """Tell me for `lease` seconds when the record under `key` says something else; 0 ends it.

    `seq`: of the version that I have, 0 for none. `ways`: up to two nodes (26 or 38 bytes, as contacts) that forward to
    me, for whom a NAT lets nobody else in; empty: at the address that this comes from.
    """

    key: Key
    seq: Seq
    lease: WatchLease
    ways: Annotated[list[Way], msgspec.Meta(max_length=MAX_WAYS)]


class Changed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=13):
    """A record that you watch is another one now. Believed by its signature."""

    record: SignedRecord


class Probe(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=14):
    """Send one frame with `nonce` to `port` of the IP address that this came from: from your socket, or, if `fresh`,
    from a new port, which then answers STUN for 15 s."""

    port: Annotated[int, msgspec.Meta(ge=1_024, le=65_535)]
    fresh: bool
    nonce: Nonce


class Relay(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=15):
    """Join me, at the address that this came from, with the node `peer` when it asks the same of you; for `lease`
    seconds, 0 ends it."""

    peer: Key
    lease: RelayLease


class Pong(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=1):
    """`observed`: 6 or 18 bytes, the requester's address and port as seen."""

    observed: Observed


class Nodes(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=2):
    """Up to 20 contacts, and 4 of the other address family for who wishes; nearest first within each list. `token`:
    allows a Put under the target."""

    observed: Observed
    token: Token
    ipv4: Contacts4
    ipv6: Contacts6


class Value(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=3):
    """The record or nil; contacts as far as there is room."""

    observed: Observed
    token: Token
    record: SignedRecord | None
    ipv4: Contacts4
    ipv6: Contacts6


class Stored(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=4):
    """The record is stored, or was already."""

    observed: Observed


class Error(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=5):
    """Refused. Unknown codes are kept as numbers: a later version may have more."""

    observed: Observed
    code: Annotated[int, msgspec.Meta(ge=0, le=255)]
    detail: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Registered(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=6):
    """Granted, for `lease` seconds. `relays`: whether the node relays, too (Relay). `tls443`: it takes TLS links at
    port 443."""

    observed: Observed
    lease: Lease
    relays: bool
    tls443: bool


class Forwarded(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=7):
    """The target confirmed that it has the blob."""

    observed: Observed


class Delivered(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=8):
    """I have it; what I think of it goes another way."""

    observed: Observed


class DialBackAccepted(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=9):
    """Somebody will dial `observed` (answer to DialBack), or the frame is on its way (answer to DialFor)."""

    observed: Observed


class TopicPage(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=11):
    """`held`: live entries of the shard. `split`: others are one deeper. `more`: entries follow the last of these."""

    observed: Observed
    held: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    split: bool
    more: bool
    entries: Annotated[tuple[TopicEntry, ...], msgspec.Meta(max_length=MAX_PAGE_ENTRIES)]


class Watching(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=12):
    """Granted, for `lease` seconds. `seq`: of what is held, 0 for nothing; `record`: it, when newer than yours."""

    observed: Observed
    lease: WatchLease
    seq: Seq
    record: SignedRecord | None


class Probed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=14):
    """The frame is on its way. `port`: the new one, 0 where it came from the answerer's socket."""

    observed: Observed
    port: Port


class Noticed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=13):
    """I have the changed record."""

    observed: Observed


class Relaying(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=15):
    """Your relay frames go under the number `flow` for `lease` seconds. `paired`: the peer has asked as well."""

    observed: Observed
    flow: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    lease: RelayLease
    paired: bool


Request: TypeAlias = (
    Ping
    | FindNode
    | Get
    | Put
    | Register
    | Forward
    | Deliver
    | DialBack
    | DialFor
    | Announce
    | ListTopic
    | Watch
    | Changed
    | Probe
    | Relay
)
Answer: TypeAlias = (
    Pong
    | Nodes
    | Value
    | Stored
    | Error
    | Registered
    | Forwarded
    | Delivered
    | DialBackAccepted
    | TopicPage
    | Watching
    | Noticed
    | Probed
    | Relaying
)
Signal: TypeAlias = Register | Forward | Deliver | DialBack | DialFor | Watch | Changed | Probe | Relay
SEALED_ONLY = (Register, Forward, Deliver, DialBack, DialFor, Watch, Changed, Probe, Relay)
"""Requests that act on others or last: never in a signed first exchange, whose source address is not proven."""
UNDER_KEYS = (Deliver, Changed)
"""Requests that go out under keys that there are, or not at all: their sender does no public-key work for them."""

encode = msgspec.msgpack.Encoder().encode
# A union alias is no class to mypy, hence the written types.
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_record_decoder = msgspec.msgpack.Decoder(SignedRecord)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_request_untrusted(data: bytes) -> Request:
    """Raise BadPacket("malformed")."""
    try:
        request = _request_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    if type(request) is DialFor and len(request.address) not in (6, 18):
        raise BadPacket("malformed")
    if type(request) is Watch and any(len(way) not in (CONTACT4_BYTES, CONTACT6_BYTES) for way in request.ways):
        raise BadPacket("malformed")
    if type(request) is ListTopic and request.index >> request.depth:
        raise BadPacket("malformed")
    return request


def decode_answer_untrusted(data: bytes) -> Answer:
    """Raise BadPacket("malformed")."""
    try:
        answer = _answer_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    if len(answer.observed) not in (6, 18):
        raise BadPacket("malformed")
    return answer


def decode_notice_untrusted(blob: bytes) -> SignedRecord:
    """Return the record of a forwarded blob: NOTICE, then the record. Raise BadPacket("malformed")."""
    if blob[:1] != NOTICE:
        raise BadPacket("malformed")
    try:
        return _record_decoder.decode(blob[1:])
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc


def sealed_size(request: Request) -> int:
    """Return how many bytes a sealed request has at least: a Watch pays for the pings that it causes (A1)."""
    return PING_BYTES * len(request.ways) if type(request) is Watch and request.ways else SEALED_REQUEST_MIN
