"""Sealed offers and answers: what goes in comes out, to the right reader only."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.offer_vectors import (
    ALICE,
    BOB,
    CAROL,
    TAG,
    VECTORS,
    body_of,
    make_answer,
    make_offer,
    make_vectors,
    sealed,
    text_of,
)

from p2pnode import NodeKey
from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.offer import (
    SEALED_BYTES,
    Answer,
    Offer,
    Refusal,
    offer_hash,
    open_untrusted,
    read_untrusted,
    seal,
    unseal_untrusted,
)
from p2pnode.reachability import NatKind


def test_offer_and_answer_round_trip() -> None:
    """Every field comes back, for each kind of NAT and refusal."""
    for nat in NatKind:
        offer = make_offer(nat=nat)
        blob = sealed(offer)
        assert open_untrusted(blob, key=BOB, sender=ALICE.peer_id, network_tag=TAG) == offer
        for refusal in Refusal:
            answer = make_answer(offer_hash(blob), nat=nat, refusal=refusal)
            back = seal(answer, key=BOB, to=ALICE.peer_id, to_x25519=offer.x25519, network_tag=TAG)
            assert open_untrusted(back, key=ALICE, sender=BOB.peer_id, network_tag=TAG) == answer


def test_largest_message_fits() -> None:
    """Ten IPv6 addresses and 400 bytes of ICE parameters, in an answer: still 900 bytes."""
    addresses = tuple(Address(f"2001:4860:4860::{i:x}", 65535) for i in range(1, 11))
    answer = make_answer(bytes(32), ice=bytes(400), addresses=addresses, sent_at_ms=2**63 - 1)
    blob = seal(answer, key=BOB, to=ALICE.peer_id, to_x25519=ALICE.x25519_public, network_tag=TAG)
    assert len(blob) == SEALED_BYTES
    assert open_untrusted(blob, key=ALICE, sender=BOB.peer_id, network_tag=TAG) == answer


def test_all_sealed_messages_have_one_size() -> None:
    """A rendezvous node cannot tell an offer from an answer, nor how many candidates there are."""
    answer = make_answer(bytes(32), ice=bytes(300))
    back = seal(answer, key=BOB, to=ALICE.peer_id, to_x25519=ALICE.x25519_public, network_tag=TAG)
    assert {len(sealed(make_offer(ice=b"", addresses=()))), len(sealed(make_offer())), len(back)} == {SEALED_BYTES}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ice": bytes(401)},
        {"addresses": (Address("8.8.8.8", 1),) * 11},
        {"attempt": bytes(15)},
        {"x25519": bytes(31)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_too_large_a_message_is_our_own_mistake(wrong: dict[str, object]) -> None:
    """It raises ValueError before anything is sent."""
    with pytest.raises(ValueError, match=r"at most|has 16"):
        sealed(make_offer(**wrong))


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), bytes(31)], ids=["zero", "one", "short"])
def test_key_that_nothing_can_be_sealed_to_is_refused(public: bytes) -> None:
    """A presence may name an X25519 key of small order; that is a refusal, not a crash."""
    with pytest.raises(BadPacket, match="bad_x25519"):
        seal(make_offer(), key=ALICE, to=BOB.peer_id, to_x25519=public, network_tag=TAG)


def test_later_versions_may_append_fields() -> None:
    """What is appended is signed and ignored; an unknown NAT or refusal number has a safe meaning."""

    body = [2, bytes(16), 5, bytes(32), b"", [], 200, bytes(32), 200, [], "new", [1]]
    text = text_of(BOB, ALICE.peer_id, b"answer", msgspec.msgpack.encode(body))
    answer = read_untrusted(text, sender=BOB.peer_id, receiver=ALICE.peer_id, network_tag=TAG)
    assert isinstance(answer, Answer)
    assert (answer.nat, answer.refusal) == (NatKind.UNKNOWN, Refusal.REFUSED)


def test_only_the_receiver_can_open() -> None:
    """Another reader, another claimed sender, another network: the seal does not open."""
    blob = sealed(make_offer())
    for key, sender, tag in itertools.product((BOB, CAROL), (ALICE, CAROL), (TAG, b"othernet")):
        if (key, sender, tag) == (BOB, ALICE, TAG):
            continue
        with pytest.raises(BadPacket, match="bad_seal"):
            open_untrusted(blob, key=key, sender=sender.peer_id, network_tag=tag)


@given(
    attempt=st.binary(min_size=16, max_size=16),
    sent_at_ms=st.integers(0, 2**63 - 1),
    ice=st.binary(max_size=400),
    ports=st.lists(st.integers(1, 65535), max_size=10, unique=True),
    nat=st.sampled_from(NatKind),
)
def test_any_offer_round_trips(attempt: bytes, sent_at_ms: int, ice: bytes, ports: list[int], nat: NatKind) -> None:
    """Whatever the fields hold."""
    addresses = tuple(Address("8.8.8.8" if port % 2 else "2a00::1", port) for port in ports)
    offer = Offer(attempt, sent_at_ms, ALICE.x25519_public, ice, addresses, nat)
    assert open_untrusted(sealed(offer), key=BOB, sender=ALICE.peer_id, network_tag=TAG) == offer


def test_vectors_of_offers() -> None:
    """The published vectors are what the byte tables make, and what our code opens."""
    vectors = json.loads(VECTORS.read_text())
    assert vectors == make_vectors()
    for vector in vectors:
        sender = NodeKey(bytes.fromhex(vector["sender_seed"]), bytes(32))
        receiver = NodeKey(bytes.fromhex(vector["receiver_seed"]), bytes.fromhex(vector["receiver_x25519_seed"]))
        message = open_untrusted(bytes.fromhex(vector["sealed"]), key=receiver, sender=sender.peer_id, network_tag=TAG)
        assert body_of(message).hex() == vector["body"]
        assert (message.attempt.hex(), message.nat.value) == (vector["attempt"], vector["nat"])
        assert [str(address) for address in message.addresses] == vector["addresses"]
        relays = [[h.contact.node_id.hex(), str(h.contact.address), h.rtt_s * 1000] for h in message.relays]
        assert relays == vector["relays"]
        # What our code seals differs in the ephemeral key only.
        ours = seal(message, key=sender, to=receiver.peer_id, to_x25519=receiver.x25519_public, network_tag=TAG)
        text = unseal_untrusted(ours, key=receiver, sender=sender.peer_id, network_tag=TAG)
        assert text.hex() == vector["text"]
