"""Offers with fixed keys, and vectors: `python tests/support/offer_vectors.py` writes tests/vectors/offer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.hpke import seal_base

from p2pnode import NodeKey
from p2pnode.core.address import Address
from p2pnode.core.envelope import signing_input
from p2pnode.core.ids import PeerId
from p2pnode.core.network_id import network_tag
from p2pnode.dht import KnownContact
from p2pnode.offer import Answer, Offer, Refusal, RelayHint, offer_hash, seal
from p2pnode.reachability import NatKind

VECTORS = Path(__file__).parents[1] / "vectors" / "offer.json"
TAG = network_tag("public")
ALICE, BOB, CAROL = (NodeKey(bytes([n]) * 32, bytes([n + 100]) * 32) for n in (1, 2, 3))
NOW = 1_767_225_600.0  # wall time of the vectors and tests, 2026-01-01
TEXT_BYTES = 851
RELAY = RelayHint(KnownContact(None, CAROL.node_id, Address("9.9.9.9", 4747)), 0.041)


def make_offer(**changes: Any) -> Offer:
    """Alice's offer."""
    fields: dict[str, Any] = {
        "attempt": bytes(range(16)),
        "sent_at_ms": int(NOW * 1000),
        "x25519": ALICE.x25519_public,
        "ice": b"ice parameters",
        "addresses": (Address("8.8.8.8", 4747), Address("2a00::7", 4747)),
        "nat": NatKind.ENDPOINT_INDEPENDENT,
        "relays": (RELAY,),
    }
    return Offer(**{**fields, **changes})


def make_answer(hash_of_offer: bytes, **changes: Any) -> Answer:
    """Bob's answer to the offer with that hash."""
    fields: dict[str, Any] = {
        "attempt": bytes(range(16)),
        "sent_at_ms": int(NOW * 1000) + 80,
        "x25519": BOB.x25519_public,
        "ice": b"his ice parameters",
        "addresses": (Address("192.168.1.7", 4747),),
        "nat": NatKind.ADDRESS_AND_PORT_DEPENDENT,
        "offer_hash": hash_of_offer,
        "relays": (RelayHint(KnownContact(None, CAROL.node_id, Address("2a00::9", 4747)), 0.12), RELAY),
    }
    return Answer(**{**fields, **changes})


def sealed(offer: Offer, sender: NodeKey = ALICE, receiver: NodeKey = BOB) -> bytes:
    return seal(offer, key=sender, to=receiver.peer_id, to_x25519=receiver.x25519_public, network_tag=TAG)


def text_of(signer: NodeKey, receiver: PeerId, kind: bytes, body: bytes, *, sender: PeerId | None = None) -> bytes:
    """What is inside the seal, made by hand from the byte table; `sender` other than the signer: a forgery."""
    ids = TAG + (sender or signer.peer_id).raw + receiver.raw
    text = signer.sign(signing_input(b"p2pnode/1/offer", kind, ids + body)) + len(body).to_bytes(2, "big") + body
    return text + bytes(TEXT_BYTES - len(text))


def sealed_text(text: bytes, sender: PeerId, receiver: NodeKey, ephemeral: bytes = b"\x77" * 32) -> bytes:
    """The seal made by hand: version and HPKE with a chosen ephemeral key."""
    info = signing_input(b"p2pnode/1/offer", b"seal", TAG + sender.raw + receiver.peer_id.raw)
    return b"\1" + seal_base(receiver.x25519_public, info, text, ephemeral)


def body_of(message: Offer | Answer) -> bytes:
    """The MessagePack body made by hand from the byte table."""
    import msgspec

    nats = ["unknown", "none", "endpoint-independent", "address-dependent", "address-and-port-dependent"]
    fields: list[Any] = [
        1 if isinstance(message, Offer) else 2,
        message.attempt,
        message.sent_at_ms,
        message.x25519,
        message.ice,
        [address.pack() for address in message.addresses],
        nats.index(message.nat.value),
    ]
    if isinstance(message, Answer):
        fields += [message.offer_hash, int(message.refusal)]
    fields.append(
        [
            hint.contact.node_id + hint.contact.address.pack() + round(1000 * hint.rtt_s).to_bytes(2, "big")
            for hint in message.relays
        ]
    )
    return msgspec.msgpack.encode(fields)


def vector(name: str, message: Offer | Answer, sender: NodeKey, receiver: NodeKey) -> dict[str, Any]:
    """One line of the vectors: inputs, and each step of the way to the sealed bytes."""
    body = body_of(message)
    text = text_of(sender, receiver.peer_id, b"offer" if isinstance(message, Offer) else b"answer", body)
    answer = message if isinstance(message, Answer) else None
    return {
        "name": name,
        "network_id": "public",
        "sender_seed": sender.seed.hex(),
        "receiver_seed": receiver.seed.hex(),
        "receiver_x25519_seed": receiver.x25519.private_bytes_raw().hex(),
        "ephemeral_x25519_seed": "77" * 32,
        "kind": "answer" if answer else "offer",
        "attempt": message.attempt.hex(),
        "sent_at_ms": message.sent_at_ms,
        "x25519": message.x25519.hex(),
        "ice": message.ice.hex(),
        "addresses": [str(address) for address in message.addresses],
        "nat": message.nat.value,
        "offer_hash": answer.offer_hash.hex() if answer else None,
        "refusal": int(answer.refusal) if answer else None,
        "relays": [
            [hint.contact.node_id.hex(), str(hint.contact.address), round(1000 * hint.rtt_s)] for hint in message.relays
        ],
        "body": body.hex(),
        "text": text.hex(),
        "sealed": sealed_text(text, sender.peer_id, receiver).hex(),
    }


def make_vectors() -> list[dict[str, Any]]:
    offer = vector("offer", make_offer(), ALICE, BOB)
    named = offer_hash(bytes.fromhex(offer["sealed"]))
    return [
        offer,
        vector("answer", make_answer(named), BOB, ALICE),
        vector("refusal", make_answer(named, ice=b"", addresses=(), relays=(), refusal=Refusal.REFUSED), BOB, ALICE),
        vector("empty offer", make_offer(ice=b"", addresses=(), relays=(), nat=NatKind.UNKNOWN), ALICE, BOB),
    ]


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make_vectors(), indent=1) + "\n")
