"""Public identities: PeerId (a node's key), UserId (an account's key), NodeId (the DHT fingerprint).

A PeerId *is* an Ed25519 public key; its text is libp2p's: base58btc of the identity multihash of the protobuf public
key, always beginning with 12D3KooW (libp2p specs, peer-ids, "Keys"). A UserId is an account's Ed25519 public key in
bech32m with prefix p2p. A NodeId is the first 20 bytes of SHA-256(public key).
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import NewType, Self, cast
from weakref import WeakValueDictionary

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2pnode.core.encoding import base58_decode, base58_encode, bech32m_decode, bech32m_encode
from p2pnode.core.errors import BadPacket, InvalidPeerError

__all__ = ["NodeId", "PeerId", "PublicKey", "UserId", "node_id_of"]

NodeId = NewType("NodeId", bytes)
"""20 bytes: SHA-256(public key)[:20]; the node's place in the DHT."""

NODE_ID_BYTES = 20
# libp2p: identity multihash (0x00), 36 bytes of protobuf: field 1 varint KeyType Ed25519 = 1, field 2 bytes of 32.
_LIBP2P_PREFIX = bytes.fromhex("002408011220")
_USER_HRP = "p2p"

# The y coordinates of the eight points of small order (1, -1, 0, and two of order 8). Under such a key signatures that
# nobody made verify, and OpenSSL loads them. The sign bit is masked before the comparison, so both signs are meant.
# Their non-canonical twins (y + p, as 0 + p and 1 + p in libsodium's list) are refused by the range check below.
_FIELD = 2**255 - 19  # p of RFC 8032, section 5.1 "Ed25519ph, Ed25519ctx, and Ed25519"
_Y_OF_ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
_SMALL_ORDER_Y = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        int.from_bytes(_Y_OF_ORDER_8, "little"),
        _FIELD - int.from_bytes(_Y_OF_ORDER_8, "little"),
    )
)


def node_id_of(public_key: bytes) -> NodeId:
    """Return the DHT fingerprint (20 bytes) of a 32-byte Ed25519 public key."""
    return NodeId(hashlib.sha256(public_key).digest()[:NODE_ID_BYTES])


@lru_cache(maxsize=4096)
def _load(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)


class PublicKey:
    """An Ed25519 public key: 32 bytes, canonically encoded, never of small order. Base of PeerId and UserId.

    Half of all 32-byte strings are no point of the curve. Testing that costs as much as a tenth of a verification and
    gains nothing: no signature ever verifies under them.

    Compares and hashes by kind and bytes; immutable.
    """

    __slots__ = ("__dict__", "__weakref__", "raw")
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        """Raise InvalidPeerError when `raw` is not a usable key."""
        if len(raw) != 32:
            raise InvalidPeerError("A public key has 32 bytes.")
        y = int.from_bytes(raw, "little") & (2**255 - 1)
        if y >= _FIELD:
            raise InvalidPeerError("This public key is not in canonical form.")  # else one key would have two ids
        if y in _SMALL_ORDER_Y:
            raise InvalidPeerError("This public key has small order and proves nothing.")
        self.raw = bytes(raw)

    @classmethod
    def of(cls, raw: bytes) -> Self:
        """Return the one in use, or make one: what is worked out of a key is worked out once. Raise as `PublicKey`."""
        known = _IN_USE.get((cls, raw))
        if known is None:
            known = cls(raw)
            _IN_USE[cls, known.raw] = known
        return cast("Self", known)

    @classmethod
    def from_untrusted(cls, raw: bytes) -> Self:
        """The same for network bytes. Raise BadPacket("bad_key")."""
        try:
            return cls.of(raw)
        except InvalidPeerError as exc:
            raise BadPacket("bad_key") from exc

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) over `message` was made by this key. Costs about 0.1 ms. Never raises."""
        try:
            _load(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, PublicKey) and self.raw == other.raw

    def __lt__(self, other: PublicKey) -> bool:
        return self.raw < other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


# The same keys are heard over and over: one object for each that is in use, with what was worked out of it.
_IN_USE: WeakValueDictionary[tuple[type[PublicKey], bytes], PublicKey] = WeakValueDictionary()


class PeerId(PublicKey):
    """A node's public key; `str()` gives libp2p's text, 52 characters from 12D3KooW."""

    @cached_property
    def text(self) -> str:
        return base58_encode(_LIBP2P_PREFIX + self.raw)

    @cached_property
    def node_id(self) -> NodeId:
        return node_id_of(self.raw)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Raise InvalidPeerError with one sentence when `text` is not a peer id."""
        try:
            data = base58_decode(text)
        except ValueError as exc:
            raise InvalidPeerError(f"{text[:80]!r} is not a peer id: {exc}.") from exc
        if len(data) != 38 or not data.startswith(_LIBP2P_PREFIX):
            raise InvalidPeerError(
                f"{text[:80]!r} is not the id of an Ed25519 node (52 characters that begin with 12D3KooW)."
            )
        return cls(data[6:])


class UserId(PublicKey):
    """An account's public key; `str()` gives bech32m, p2p1..., 62 characters."""

    @cached_property
    def text(self) -> str:
        return bech32m_encode(_USER_HRP, self.raw)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> UserId:
        """Raise InvalidPeerError with one sentence when `text` is not a user id."""
        try:
            hrp, data = bech32m_decode(text)
        except ValueError as exc:
            raise InvalidPeerError(f"{text[:80]!r} is not a user id: {exc}.") from exc
        if hrp != _USER_HRP or len(data) != 32:
            raise InvalidPeerError(f"{text[:80]!r} is not a user id (p2p1 and 58 characters).")
        return cls(data)
