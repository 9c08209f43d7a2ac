"""Types of the fields of messages, with their bounds. Decoding refuses everything else."""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2pnode.dht.contact import CONTACT4_BYTES, CONTACT6_BYTES, MAX_CONTACTS
from p2pnode.dht.tokens import PUT_TOKEN_BYTES
from p2pnode.dht.topic_entries import MAX_DEPTH, ORDER_BYTES, TOPIC_BYTES

__all__ = [
    "MAX_BLOB", "MAX_LEASE", "MAX_RELAY_LEASE", "MAX_WATCH", "NONCE_BYTES", "Blob", "Contacts4", "Contacts6",
    "Depth", "Key", "Lease", "Nonce", "Observed", "Order", "Port", "PublicKey", "RelayLease", "Seen", "Seq",
    "Token", "Topic", "WatchLease", "Way",
]  # fmt: skip

MAX_BLOB = 900  # of an offer; with frame and payload 976 bytes of the 1,200
MAX_LEASE = 480  # seconds: three renewals and more, where a router forgets nothing for two minutes
MAX_RELAY_LEASE = 120  # seconds
MAX_WATCH = 3_600  # seconds
NONCE_BYTES = 16

Key = Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]
Observed = Annotated[bytes, msgspec.Meta(min_length=6, max_length=18)]
Seen = Annotated[bytes, msgspec.Meta(max_length=18)]
Token = Annotated[bytes, msgspec.Meta(min_length=PUT_TOKEN_BYTES, max_length=PUT_TOKEN_BYTES)]
Blob = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_BLOB)]
PublicKey = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Lease = Annotated[int, msgspec.Meta(ge=1, le=MAX_LEASE)]
RelayLease = Annotated[int, msgspec.Meta(ge=0, le=MAX_RELAY_LEASE)]
WatchLease = Annotated[int, msgspec.Meta(ge=0, le=MAX_WATCH)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Way = Annotated[bytes, msgspec.Meta(min_length=CONTACT4_BYTES, max_length=CONTACT6_BYTES)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Topic = Annotated[bytes, msgspec.Meta(min_length=TOPIC_BYTES, max_length=TOPIC_BYTES)]
Depth = Annotated[int, msgspec.Meta(ge=0, le=MAX_DEPTH)]
Order = Annotated[bytes, msgspec.Meta(min_length=ORDER_BYTES, max_length=ORDER_BYTES)]
Contacts4 = Annotated[bytes, msgspec.Meta(max_length=MAX_CONTACTS * CONTACT4_BYTES)]
Contacts6 = Annotated[bytes, msgspec.Meta(max_length=MAX_CONTACTS * CONTACT6_BYTES)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
