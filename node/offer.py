"""Offers and answers: how two nodes tell each other, through nodes that they do not trust, where to send packets.

HPKE (RFC 9180, base mode; X25519, HKDF-SHA256, ChaCha20-Poly1305) to the receiver's X25519 key, both ids and the
network in `info`; inside, signed by the sender's node key over the same ids. So a rendezvous node reads nothing and can
change nothing, and nobody can pass an offer on to a third node as his own. Every sealed message has the same size, so
that not even the number of candidates shows. Byte table: docs/protocol/offer.md. Replays: `node.offer_guard`.

Order of work for a stranger's bytes: length and version, one HPKE opening (36 us), one signature (109 us), no more.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from p2pnode.core.address import Address
from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.dht import KnownContact
from p2pnode.reachability import NatKind

__all__ = [
    "MAX_RELAYS",
    "Answer",
    "Offer",
    "Refusal",
    "RelayHint",
    "offer_hash",
    "open_untrusted",
    "read_untrusted",
    "seal",
    "unseal_untrusted",
]

# Fixed by docs/protocol/offer.md
VERSION = 1
DOMAIN = b"p2pnode/1/offer"
SEALED_BYTES = 900  # what a rendezvous node forwards; with the frames around it well below 1,200
HPKE_BYTES = 48  # encapsulated key 32, tag 16
SIGNATURE_BYTES = 64
_TEXT_BYTES = SEALED_BYTES - 1 - HPKE_BYTES
MAX_BODY_BYTES = _TEXT_BYTES - SIGNATURE_BYTES - 2
MAX_ICE_BYTES = 400
MAX_ADDRESSES = 10  # security.md C1
ATTEMPT_BYTES = 16
NODE_ID_BYTES = 20
MAX_RELAYS = 3

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_NATS = (
    NatKind.UNKNOWN,
    NatKind.NONE,
    NatKind.ENDPOINT_INDEPENDENT,
    NatKind.ADDRESS_DEPENDENT,
    NatKind.ADDRESS_AND_PORT_DEPENDENT,
    NatKind.UDP_BLOCKED,
)  # the index is the number on the wire


class Refusal(enum.IntEnum):
    """Why an answer brings no candidates. Numbers are never given a new meaning; unknown ones read as REFUSED."""

    NONE = 0
    REFUSED = 1
    """The callee does not want to talk to the caller."""
    BUSY = 2
    """Too many attempts at once; try again later."""


Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Attempt = Annotated[bytes, msgspec.Meta(min_length=ATTEMPT_BYTES, max_length=ATTEMPT_BYTES)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Ice = Annotated[bytes, msgspec.Meta(max_length=MAX_ICE_BYTES)]
Addresses = Annotated[list[Annotated[bytes, msgspec.Meta(max_length=18)]], msgspec.Meta(max_length=MAX_ADDRESSES)]
Relays = Annotated[
    list[Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES + 8, max_length=NODE_ID_BYTES + 20)]],
    msgspec.Meta(max_length=MAX_RELAYS),
]
Number = Annotated[int, msgspec.Meta(ge=0, le=255)]


# No forbid_unknown_fields: later versions append fields; what is appended is signed as well.
class _OfferBody(msgspec.Struct, array_like=True, frozen=True, tag=1):
    attempt: Attempt
    sent_at_ms: Milliseconds
    x25519: Key
    ice: Ice
    addresses: Addresses
    nat: Number
    relays: Relays


class _AnswerBody(msgspec.Struct, array_like=True, frozen=True, tag=2):
    attempt: Attempt
    sent_at_ms: Milliseconds
    x25519: Key
    ice: Ice
    addresses: Addresses
    nat: Number
    offer_hash: Key
    refusal: Number
    relays: Relays


_Body: TypeAlias = _OfferBody | _AnswerBody
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[_Body] = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class RelayHint:
    """A node that may relay between the two, and the sender's round trip to it in seconds (sent in whole ms, at most
    65,535); only the contact's node id is known."""

    contact: KnownContact
    rtt_s: float


@dataclass(frozen=True, slots=True)
class Offer:
    """The caller's wish to talk.

    `attempt`: 16 unguessable bytes that name this attempt. `sent_at_ms`: the sender's wall clock, Unix milliseconds.
    `x25519`: the sender's key, which the answer is sealed to (32 bytes). `ice`: encoded ICE parameters, at most 400
    bytes; empty: none. `addresses`: at most 10, published and reflexive ones, of any scope: whoever sends to them asks
    `realm_of` first. `nat`: what the sender knows of the NAT before it. `relays`: at most 3 that it could use.
    """

    attempt: bytes
    sent_at_ms: int
    x25519: bytes
    ice: bytes
    addresses: tuple[Address, ...]
    nat: NatKind = NatKind.UNKNOWN
    relays: tuple[RelayHint, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The callee's reply; fields as in the offer. `offer_hash`: `offer_hash` of the sealed offer that it answers.

    `relays`: those at which the callee asks for a flow with the caller, the best first.
    """

    attempt: bytes
    sent_at_ms: int
    x25519: bytes
    ice: bytes
    addresses: tuple[Address, ...]
    nat: NatKind
    offer_hash: bytes
    refusal: Refusal = Refusal.NONE
    relays: tuple[RelayHint, ...] = ()


def offer_hash(sealed: bytes) -> bytes:
    """Return the 32 bytes by which an answer names the sealed offer: their SHA-256."""
    return hashlib.sha256(sealed).digest()


def seal(message: Offer | Answer, *, key: NodeKey, to: PeerId, to_x25519: bytes, network_tag: bytes) -> bytes:
    """Sign with `key` and seal to `to`; return 900 bytes.

    `to_x25519`: 32 bytes, from the peer's presence or offer. Raise BadPacket("bad_x25519") when nothing can be sealed
    to that key, ValueError when the message is larger than its limits.
    """
    body = _encode_body(message)
    signature = key.sign(_signed(message, network_tag, key.peer_id, to, body))
    text = signature + len(body).to_bytes(2, "big") + body
    text += bytes(_TEXT_BYTES - len(text))
    try:
        public = X25519PublicKey.from_public_bytes(to_x25519)
        sealed = _SUITE.encrypt(text, public, info=_info(network_tag, key.peer_id, to))
    except ValueError as exc:  # a key of small order, or not 32 bytes
        raise BadPacket("bad_x25519") from exc
    return bytes([VERSION]) + sealed


def open_untrusted(sealed: bytes, *, key: NodeKey, sender: PeerId, network_tag: bytes) -> Offer | Answer:
    """Return what `sender` (as the rendezvous node claims) sealed to us; its authorship is proven then.

    Says nothing about freshness. Raise BadPacket: `bad_length`, `unknown_version`, `bad_seal`, `malformed`,
    `bad_signature`, `bad_address`.
    """
    text = unseal_untrusted(sealed, key=key, sender=sender, network_tag=network_tag)
    return read_untrusted(text, sender=sender, receiver=key.peer_id, network_tag=network_tag)


def unseal_untrusted(sealed: bytes, *, key: NodeKey, sender: PeerId, network_tag: bytes) -> bytes:
    """First step of `open_untrusted`: at most one HPKE opening. Raise BadPacket: `bad_length`, `unknown_version`,
    `bad_seal`."""
    if len(sealed) != SEALED_BYTES:
        raise BadPacket("bad_length")
    if sealed[0] != VERSION:
        raise BadPacket("unknown_version")
    try:
        return _SUITE.decrypt(sealed[1:], key.x25519, info=_info(network_tag, sender, key.peer_id))
    except (InvalidTag, ValueError) as exc:
        raise BadPacket("bad_seal") from exc


def read_untrusted(text: bytes, *, sender: PeerId, receiver: PeerId, network_tag: bytes) -> Offer | Answer:
    """Second step: at most one signature. Raise BadPacket: `malformed`, `bad_signature`, `bad_address`."""
    length = int.from_bytes(text[SIGNATURE_BYTES : SIGNATURE_BYTES + 2], "big")
    start = SIGNATURE_BYTES + 2
    if len(text) != _TEXT_BYTES or length > MAX_BODY_BYTES or any(text[start + length :]):
        raise BadPacket("malformed")
    body = text[start : start + length]
    try:
        wire = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as exc:
        raise BadPacket("malformed") from exc
    message = _message_untrusted(wire)
    if not sender.verify(text[:SIGNATURE_BYTES], _signed(message, network_tag, sender, receiver, body)):
        raise BadPacket("bad_signature")
    return message


def _info(tag: bytes, sender: PeerId, receiver: PeerId) -> bytes:
    return signing_input(DOMAIN, b"seal", tag + sender.raw + receiver.raw)


def _signed(message: Offer | Answer, tag: bytes, sender: PeerId, receiver: PeerId, body: bytes) -> bytes:
    kind = b"offer" if isinstance(message, Offer) else b"answer"
    return signing_input(DOMAIN, kind, tag + sender.raw + receiver.raw + body)


def _encode_body(message: Offer | Answer) -> bytes:
    if len(message.ice) > MAX_ICE_BYTES or len(message.addresses) > MAX_ADDRESSES:
        raise ValueError("at most 400 bytes of ICE parameters and 10 addresses")
    if len(message.attempt) != ATTEMPT_BYTES or len(message.x25519) != 32:
        raise ValueError("an attempt has 16 bytes, an X25519 key 32")
    nat = _NATS.index(message.nat)
    packed = [address.pack() for address in message.addresses]
    relays = [_pack_relay(hint) for hint in message.relays[:MAX_RELAYS]]
    wire: _Body
    if isinstance(message, Offer):
        wire = _OfferBody(message.attempt, message.sent_at_ms, message.x25519, message.ice, packed, nat, relays)
    else:
        if len(message.offer_hash) != 32:
            raise ValueError("a hash has 32 bytes")
        wire = _AnswerBody(
            message.attempt, message.sent_at_ms, message.x25519, message.ice, packed, nat,
            message.offer_hash, message.refusal, relays,
        )  # fmt: skip
    while len(body := _encode(wire)) > MAX_BODY_BYTES and wire.relays:
        wire.relays.pop()  # the worst of them; only where candidates and addresses fill the offer
    return body


def _pack_relay(hint: RelayHint) -> bytes:
    """Node id 20, address 6 or 18, round trip in ms 2."""
    return hint.contact.node_id + hint.contact.address.pack() + min(0xFFFF, round(hint.rtt_s * 1000)).to_bytes(2, "big")


def _relay_untrusted(packed: bytes) -> RelayHint:
    """Raise BadPacket("bad_address")."""
    address = Address.unpack_untrusted(packed[NODE_ID_BYTES:-2])
    contact = KnownContact(None, NodeId(packed[:NODE_ID_BYTES]), address)
    return RelayHint(contact, int.from_bytes(packed[-2:], "big") / 1000)


def _message_untrusted(wire: _Body) -> Offer | Answer:
    addresses = tuple(dict.fromkeys(Address.unpack_untrusted(packed) for packed in wire.addresses))
    nat = _NATS[wire.nat] if wire.nat < len(_NATS) else NatKind.UNKNOWN
    relays = tuple(_relay_untrusted(packed) for packed in wire.relays)
    if isinstance(wire, _OfferBody):
        return Offer(wire.attempt, wire.sent_at_ms, wire.x25519, wire.ice, addresses, nat, relays)
    refusal = Refusal(wire.refusal) if wire.refusal in set(Refusal) else Refusal.REFUSED
    return Answer(
        wire.attempt, wire.sent_at_ms, wire.x25519, wire.ice, addresses, nat, wire.offer_hash, refusal, relays
    )  # fmt: skip
