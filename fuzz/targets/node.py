"""Offers and answers, sealed and unsealed; presence."""

from __future__ import annotations

from p2pnode.core.address import Realm
from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.keys import NodeKey
from p2pnode.core.network_id import network_tag
from p2pnode.netcheck_outside import read_http_untrusted
from p2pnode.offer import (
    DOMAIN,
    MAX_BODY_BYTES,
    SEALED_BYTES,
    Answer,
    Offer,
    Refusal,
    open_untrusted,
    read_untrusted,
    seal,
)
from p2pnode.offer_guard import OfferGuard
from p2pnode.presence import Presence
from targets.base import Target

__all__ = ["RECEIVER", "SENDER", "TARGETS", "text_of"]

WALL = 1_767_225_600.0  # of tests/vectors/offer.json
TAG = network_tag("public")
SENDER = NodeKey(bytes([1]) * 32, bytes([0x65]) * 32)
RECEIVER = NodeKey(bytes([2]) * 32, bytes([0x66]) * 32)
TEXT_BYTES = SEALED_BYTES - 49  # version, encapsulated key, tag


def read_offer(data: bytes) -> Offer | Answer:
    """A sealed message, through the guard, as a rendezvous node hands it to us."""
    guard = OfferGuard(key=RECEIVER, network_tag=TAG, known=lambda _peer: False)
    return guard.receive_untrusted(data, sender=SENDER.peer_id, via=bytes(20), now=1.0, wall=WALL).message


def hold_offer(data: bytes, message: Offer | Answer) -> None:
    assert open_untrusted(data, key=RECEIVER, sender=SENDER.peer_id, network_tag=TAG) == message
    hold_message(data, message)


def hold_message(_data: bytes, message: Offer | Answer) -> None:
    """Sealed again, it fits the same 900 bytes and reads the same."""
    sealed = seal(message, key=SENDER, to=RECEIVER.peer_id, to_x25519=RECEIVER.x25519_public, network_tag=TAG)
    assert len(sealed) == SEALED_BYTES
    assert open_untrusted(sealed, key=RECEIVER, sender=SENDER.peer_id, network_tag=TAG) == message
    assert isinstance(message, Offer) or isinstance(message.refusal, Refusal)


def read_offer_text(data: bytes) -> Offer | Answer:
    """The text after unsealing, which any stranger can seal to us."""
    return read_untrusted(data, sender=SENDER.peer_id, receiver=RECEIVER.peer_id, network_tag=TAG)


def text_of(body: bytes, kind: bytes) -> bytes:
    """Return the text with this body, signed by its sender. `kind`: b"offer" or b"answer"."""
    signed = signing_input(DOMAIN, kind, TAG + SENDER.peer_id.raw + RECEIVER.peer_id.raw + body)
    return (SENDER.sign(signed) + len(body).to_bytes(2, "big") + body).ljust(TEXT_BYTES, b"\0")


def read_offer_body(data: bytes) -> Offer | Answer:
    """The body, well signed: what a hostile but known peer can say."""
    body = data[:MAX_BODY_BYTES]
    try:
        return read_offer_text(text_of(body, b"offer"))
    except BadPacket as bad:
        if bad.reason != "bad_signature":
            raise
    return read_offer_text(text_of(body, b"answer"))


def read_presence(data: bytes) -> tuple[Realm, Presence]:
    """The first byte chooses the realm."""
    realm = tuple(Realm)[data[0] % 3] if data else Realm.PUBLIC
    return realm, Presence.decode_untrusted(data[1:], realm)


def hold_presence(_data: bytes, result: tuple[Realm, Presence]) -> None:
    realm, presence = result
    encoded = presence.encode()
    assert len(encoded) <= 500
    assert Presence.decode_untrusted(encoded, realm) == presence


TARGETS = [
    Target("offer_sealed", read_offer, hold_offer, max_bytes=910),
    Target("offer_text", read_offer_text, hold_message, max_bytes=860),
    Target("offer_body", read_offer_body, hold_message, max_bytes=800),
    Target("netcheck_http", read_http_untrusted, max_bytes=4_096),
    Target("presence", read_presence, hold_presence, max_bytes=800),
]
