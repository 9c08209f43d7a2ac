"""Signed mutable records: what a node stores for others, and believes only by its author's signature.

Key in the DHT: SHA-256(public_key || salt)[:20], in a pool (`pools`) SHA-256(domain || salt)[:20] (as mainline's BEP 44
with a shorter, different hash). `seq` is the author's clock in milliseconds, strictly rising (in a pool: the work in
it); `expires` ends the record's life. A record is unpublished by one with a higher `seq`, an empty value and an
`expires` that is not before its predecessor's.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

import msgspec

from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PublicKey
from p2pnode.core.keys import SigningKey
from p2pnode.dht.pools import POOL_DOMAIN, check_work_untrusted, is_pool

__all__ = [
    "CLOSE_TO_EXPIRY",
    "MAIL_LIFE",
    "MAIL_SALT",
    "MAX_SALT_BYTES",
    "MAX_VALUE_BYTES",
    "SignedRecord",
    "is_mail",
    "max_life",
    "record_key",
]

MAX_VALUE_BYTES = 800
MAX_SALT_BYTES = 32
RECORD_DOMAIN = b"p2pnode/1/record"
RECORD_TYPE = b"signed-record"
MAX_LIFE = 86_400  # seconds: nobody keeps a record longer without its author
MAIL_SALT = b"mail/"  # how the salt of mail begins: it waits longer, and in room of its own
MAIL_LIFE = 7 * 86_400  # seconds: as long as its recipient may be away
CLOSE_TO_EXPIRY = 60.0  # seconds: a record with less life is not worth a datagram any more
CLOCK_TOLERANCE = 300  # seconds: clocks may be wrong by five minutes (security.md R2)


def record_key(public_key: bytes, salt: bytes) -> NodeId:
    """Return where the record lives: 20 bytes."""
    return NodeId(hashlib.sha256((POOL_DOMAIN if is_pool(salt) else public_key) + salt).digest()[:20])


def is_mail(salt: bytes) -> bool:
    """Whether a record of this salt is mail."""
    return salt.startswith(MAIL_SALT)


def max_life(salt: bytes) -> int:
    """Return how far ahead `expires` of a record with this salt may be, seconds."""
    return MAIL_LIFE if is_mail(salt) else MAX_LIFE


class SignedRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """MessagePack array of six.

    `public_key`: 32 bytes · `salt`: up to 32 · `seq`: unix milliseconds · `expires`: unix seconds ·
    `value`: up to 800 bytes · `signature`: 64 bytes.
    """

    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    salt: Annotated[bytes, msgspec.Meta(max_length=MAX_SALT_BYTES)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    expires: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    value: Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

    @property
    def key(self) -> NodeId:
        return record_key(self.public_key, self.salt)

    @classmethod
    def sign(
        cls, signing_key: SigningKey, network_tag: bytes, salt: bytes, seq: int, expires: int, value: bytes
    ) -> SignedRecord:
        """Make a record. Raise ValueError when salt or value is too long."""
        if len(value) > MAX_VALUE_BYTES or len(salt) > MAX_SALT_BYTES:
            raise ValueError("a record holds 800 bytes of value and 32 of salt")
        if not (0 <= seq < 2**63 and 0 <= expires < 2**63):
            raise ValueError("seq and expires are unsigned 63-bit numbers")
        signature = signing_key.sign(_signed_bytes(network_tag, salt, seq, expires, value))
        return cls(signing_key.public_raw, salt, seq, expires, value, signature)

    def verify(self, network_tag: bytes, now_wall: float) -> None:
        """Raise BadPacket: `bad_key`, `record_expired`, `expires_too_far`, `bad_record_signature`. About 0.1 ms; in a
        pool 3 ms, and also `bad_place`, `too_little_work`, `false_work`."""
        if self.expires + CLOCK_TOLERANCE <= now_wall:
            raise BadPacket("record_expired")
        if self.expires > now_wall + max_life(self.salt) + CLOCK_TOLERANCE:
            raise BadPacket("expires_too_far")
        if not _signature_holds(self, network_tag):
            raise BadPacket("bad_record_signature")
        if is_pool(self.salt):
            check_work_untrusted(self.public_key, self.salt, self.expires, self.value, self.seq)


@lru_cache(maxsize=1024)  # the same record comes back from 20 holders; 1,024 of at most 1.2 kB
def _signature_holds(record: SignedRecord, network_tag: bytes) -> bool:
    signed = _signed_bytes(network_tag, record.salt, record.seq, record.expires, record.value)
    return PublicKey.from_untrusted(record.public_key).verify(record.signature, signed)


def _signed_bytes(network_tag: bytes, salt: bytes, seq: int, expires: int, value: bytes) -> bytes:
    """tag 8 · salt length 1 · salt · seq 8 · expires 8 · value, under domain and type."""
    body = network_tag + bytes([len(salt)]) + salt + seq.to_bytes(8, "big") + expires.to_bytes(8, "big") + value
    return signing_input(RECORD_DOMAIN, RECORD_TYPE, body)
