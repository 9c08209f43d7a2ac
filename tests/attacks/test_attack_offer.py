"""Attacks on offers and answers: M1 in the middle, R1 replays, V1 changed bytes, V2 signatures, O1 floods."""

from __future__ import annotations

import random
import time
from functools import cache

import msgspec
import pytest
from support.hostile import mutations, noise, prefixes
from support.offer_vectors import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    TAG,
    body_of,
    make_answer,
    make_offer,
    sealed,
    sealed_text,
    text_of,
)

from p2pnode import NodeKey
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.offer import SEALED_BYTES, Answer, offer_hash, open_untrusted, read_untrusted, seal
from p2pnode.offer_guard import GuardSettings, OfferGuard, Received

VIA, OTHER_VIA = b"r" * 20, b"s" * 20


def guard_of(key: NodeKey, *friends: NodeKey, settings: GuardSettings | None = None) -> OfferGuard:
    known = {friend.peer_id for friend in friends}
    return OfferGuard(key=key, network_tag=TAG, known=lambda peer: peer in known, settings=settings)


def deliver(
    guard: OfferGuard, blob: bytes, sender: NodeKey | PeerId = ALICE, *, via: bytes = VIA, now: float = 0.0
) -> Received:
    peer = sender if isinstance(sender, PeerId) else sender.peer_id
    return guard.receive_untrusted(blob, sender=peer, via=via, now=now, wall=NOW + now)


def refused(
    guard: OfferGuard, blob: bytes, sender: NodeKey | PeerId = ALICE, *, via: bytes = VIA, now: float = 0
) -> str:
    with pytest.raises(BadPacket) as bad:
        deliver(guard, blob, sender, via=via, now=now)
    return bad.value.reason


def answer_to(blob: bytes, *, signer: NodeKey = BOB, **changes: object) -> bytes:
    answer = make_answer(offer_hash(blob), **changes)
    return seal(answer, key=signer, to=ALICE.peer_id, to_x25519=ALICE.x25519_public, network_tag=TAG)


@cache
def stranger(number: int) -> NodeKey:
    return NodeKey.generate(random.Random(f"stranger {number}").randbytes)


# -- M1: the rendezvous node is in the middle


def test_m1_rendezvous_node_sees_no_content() -> None:
    """Of attempt, candidates, addresses and keys nothing stands in the sealed bytes, and all sizes are equal."""
    offer = make_offer(ice=b"ufrag and password")
    blob = sealed(offer)
    for secret in (offer.attempt, offer.ice, offer.x25519, offer.addresses[0].pack(), ALICE.public_raw, body_of(offer)):
        assert secret not in blob
    assert len(blob) == len(sealed(make_offer(ice=b"", addresses=()))) == len(answer_to(blob)) == SEALED_BYTES


def test_m1_any_change_is_refused() -> None:
    """Every byte of an offer changed, dropped, doubled or swapped: refused, nothing remembered."""
    blob = sealed(make_offer())
    reasons = set()
    for number, changed in enumerate(mutations(blob)):
        reasons.add(refused(guard_of(BOB), changed, now=float(number)))
    assert reasons <= {"bad_length", "unknown_version", "bad_seal"}
    guard = guard_of(BOB)
    refused(guard, blob[:-1] + bytes([blob[-1] ^ 1]))
    assert guard.statistics().remembered == 0
    assert deliver(guard, blob).copy == 0  # the true one still works


def test_m1_rendezvous_node_cannot_pass_an_offer_on_as_its_own() -> None:
    """Delivered under another sender's id, or to another node, the seal does not open."""
    blob = sealed(make_offer())
    assert refused(guard_of(BOB), blob, CAROL) == "bad_seal"
    assert refused(guard_of(CAROL), blob, ALICE) == "bad_seal"


def test_m1_sealing_under_another_name_is_refused() -> None:
    """Anybody can seal to Bob and claim to be Alice; the signature inside is not hers."""
    body = body_of(make_offer())
    forged = text_of(CAROL, BOB.peer_id, b"offer", body, sender=ALICE.peer_id)
    assert refused(guard_of(BOB), sealed_text(forged, ALICE.peer_id, BOB)) == "bad_signature"


def test_m1_receiver_cannot_pass_an_offer_on_to_a_third() -> None:
    """Bob, who could read Alice's offer, seals her signed words to Carol: the signature names Bob."""
    signed_for_bob = text_of(ALICE, BOB.peer_id, b"offer", body_of(make_offer()))
    assert refused(guard_of(CAROL), sealed_text(signed_for_bob, ALICE.peer_id, CAROL)) == "bad_signature"


def test_m1_answer_of_another_node_is_refused() -> None:
    """The rendezvous node answers itself, in its own name or in Bob's."""
    guard = guard_of(ALICE)
    blob = sealed(make_offer())
    guard.expect(BOB.peer_id, make_offer().attempt, blob)
    own_name = answer_to(blob, signer=CAROL)
    assert refused(guard, own_name, CAROL) == "unexpected_answer"
    assert refused(guard, own_name, BOB) == "bad_seal"
    forged = text_of(CAROL, ALICE.peer_id, b"answer", body_of(make_answer(offer_hash(blob))), sender=BOB.peer_id)
    assert refused(guard, sealed_text(forged, BOB.peer_id, ALICE), BOB) == "bad_signature"
    received = deliver(guard, answer_to(blob), BOB)
    assert isinstance(received.message, Answer)
    assert received.sent is not None


@pytest.mark.parametrize("change", ["attempt", "hash", "both"])
def test_m1_answer_to_another_offer_is_refused(change: str) -> None:
    """An answer must name the attempt and the very bytes of the offer."""
    guard = guard_of(ALICE)
    blob = sealed(make_offer())
    guard.expect(BOB.peer_id, make_offer().attempt, blob)
    other = sealed(make_offer()) if change != "attempt" else blob
    attempt = bytes(16) if change != "hash" else make_offer().attempt
    assert refused(guard, answer_to(other, attempt=attempt), BOB) == "unexpected_answer"
    assert deliver(guard, answer_to(blob), BOB).sent is not None


def test_m1_offer_reflected_as_an_answer_is_refused() -> None:
    """Kinds cannot be confused: a signature over an offer is none over an answer."""
    body = body_of(make_answer(bytes(32)))
    text = text_of(BOB, ALICE.peer_id, b"offer", body)
    assert refused(guard_of(ALICE), sealed_text(text, BOB.peer_id, ALICE), BOB) == "bad_signature"


# -- R1: replays


def test_r1_replayed_offer_has_no_effect() -> None:
    """Copies through other rendezvous nodes at once are told as copies, at most three; later ones are refused."""
    guard = guard_of(BOB, ALICE)
    blob = sealed(make_offer())
    assert [deliver(guard, blob, via=bytes([n]) * 20, now=n / 10).copy for n in range(4)] == [0, 1, 2, 3]
    assert refused(guard, blob) == "replayed"
    for now in (5.0, 11.0, 60.0, 599.0):
        assert refused(guard, blob, now=now) == "replayed"
        assert refused(guard, blob, via=OTHER_VIA, now=now) == "replayed"
    assert refused(guard, blob, now=601.0) == "replayed"
    assert guard.statistics().accepted == 1


def test_r1_replay_is_known_however_many_offers_came_since() -> None:
    """The budgets bound what can be accepted in twenty minutes, and all of that is remembered."""
    guard = guard_of(BOB, settings=GuardSettings(strangers_rate=5, strangers_via_rate=5, max_copies=1))
    blob = sealed(make_offer())
    deliver(guard, blob)
    for number in range(600):  # twice as many as are kept for their copies
        deliver(guard, sealed(make_offer(attempt=number.to_bytes(16, "big")), sender=stranger(number % 50)),
                stranger(number % 50), now=0.5 * number, via=number.to_bytes(20, "big"))  # fmt: skip
    assert refused(guard, blob, now=310.0) == "replayed"


def test_r1_stranger_who_became_a_contact_cannot_be_replayed() -> None:
    """One memory for all: an offer that was taken while its sender was a stranger is not taken again."""
    friends: set[PeerId] = set()
    guard = OfferGuard(key=BOB, network_tag=TAG, known=lambda peer: peer in friends)
    blob = sealed(make_offer())
    deliver(guard, blob)
    friends.add(ALICE.peer_id)
    assert refused(guard, blob, now=20.0) == "replayed"


def test_r1_same_attempt_in_another_seal_is_refused() -> None:
    """A sender that uses an attempt id twice gets one attempt."""
    guard = guard_of(BOB)
    deliver(guard, sealed(make_offer()))
    assert refused(guard, sealed(make_offer(ice=b"other"))) == "replayed"


def test_r1_replayed_answer_has_no_effect() -> None:
    """It is taken once; copies are told, then refused; after the attempt is forgotten it is unexpected."""
    guard = guard_of(ALICE)
    blob = sealed(make_offer())
    sent = guard.expect(BOB.peer_id, make_offer().attempt, blob)
    answer = answer_to(blob)
    assert deliver(guard, answer, BOB).sent == sent
    assert deliver(guard, answer, BOB, via=OTHER_VIA).copy == 1
    assert refused(guard, answer, BOB, now=11.0) == "replayed"
    later = guard.expect(BOB.peer_id, bytes(16), blob)
    guard.forget(later)
    assert refused(guard, answer_to(blob, attempt=bytes(16)), BOB, now=30.0) == "unexpected_answer"


@pytest.mark.parametrize(("off_s", "accepted"), [(-601, False), (-599, True), (0, True), (599, True), (601, False)])
def test_r1_clock_window_of_ten_minutes(off_s: int, accepted: bool) -> None:
    """Offers from too wrong a clock, or too long ago, are refused."""
    blob = sealed(make_offer(sent_at_ms=int((NOW + off_s) * 1000)))
    if accepted:
        assert deliver(guard_of(BOB), blob).copy == 0
    else:
        assert refused(guard_of(BOB), blob) == "bad_clock"


def test_r1_answer_does_not_depend_on_the_clock() -> None:
    """It names our own offer's bytes, so it is fresh, whatever its sender's clock says."""
    guard = guard_of(ALICE)
    blob = sealed(make_offer())
    guard.expect(BOB.peer_id, make_offer().attempt, blob)
    assert deliver(guard, answer_to(blob, sent_at_ms=0), BOB).sent is not None


# -- V1, V2: hostile bytes and signatures


def test_v1_every_prefix_and_noise_is_a_bad_packet() -> None:
    """Outside the seal: nothing but BadPacket."""
    for data in [*prefixes(sealed(make_offer())), *noise(200, longest=1200), b"\1" + bytes(899)]:
        with pytest.raises(BadPacket):
            open_untrusted(data, key=BOB, sender=ALICE.peer_id, network_tag=TAG)


def test_v1_every_field_changed_inside_the_seal_is_a_bad_packet() -> None:
    """A hostile sender that signs what it likes: changed bodies, cut bodies, type confusion, deep nesting."""
    body = body_of(make_offer())
    deep = b"\x91" * 700 + b"\xc0"
    confused = [
        msgspec.msgpack.encode(value)
        for value in (1, None, {}, [], [1], [3, *[b""] * 8], [1, "x" * 16, 0, bytes(32), b"", [], 0],
                      [1, bytes(16), -1, bytes(32), b"", [], 0], [1, bytes(16), 2**63, bytes(32), b"", [], 0],
                      [1, bytes(16), 0, bytes(32), b"", [bytes(6)], 0], [1, bytes(16), 0, bytes(32), b"", [b""], 0],
                      [1, bytes(16), 0, bytes(32), b"", [b"\x08\x08\x08\x08\0\1"] * 11, 0],
                      [1, bytes(16), 0, bytes(32), bytes(401), [], 0], [1, bytes(16), 0, bytes(32), b"", [], 256])
    ]  # fmt: skip
    reasons = set()
    for changed in [*prefixes(body), *mutations(body), *noise(200), deep, *confused]:
        if len(changed) > 785:
            continue
        text = text_of(ALICE, BOB.peer_id, b"offer", changed)
        try:
            read_untrusted(text, sender=ALICE.peer_id, receiver=BOB.peer_id, network_tag=TAG)
        except BadPacket as bad:
            reasons.add(bad.reason)
    assert reasons <= {"malformed", "bad_address", "bad_signature"}
    for changed in confused:
        text = text_of(ALICE, BOB.peer_id, b"offer", changed)
        with pytest.raises(BadPacket):
            read_untrusted(text, sender=ALICE.peer_id, receiver=BOB.peer_id, network_tag=TAG)


def test_v1_length_field_and_padding_are_strict() -> None:
    """A length beyond the room, or anything but zeros behind the body, is malformed."""
    text = text_of(ALICE, BOB.peer_id, b"offer", body_of(make_offer()))
    for changed in (
        text[:64] + b"\xff\xff" + text[66:],
        text[:64] + b"\0\0" + text[66:],
        text[:-1] + b"\1",
        text[:-1],
        text + b"\0",
        b"",
    ):
        with pytest.raises(BadPacket, match="malformed"):
            read_untrusted(changed, sender=ALICE.peer_id, receiver=BOB.peer_id, network_tag=TAG)


def test_v2_signature_of_another_network_or_kind_is_refused() -> None:
    """Domain, network, kind and both ids are all signed."""
    text = text_of(ALICE, BOB.peer_id, b"offer", body_of(make_offer()))
    with pytest.raises(BadPacket, match="bad_signature"):
        read_untrusted(text, sender=ALICE.peer_id, receiver=BOB.peer_id, network_tag=b"othernet")
    with pytest.raises(BadPacket, match="bad_signature"):
        read_untrusted(text, sender=ALICE.peer_id, receiver=CAROL.peer_id, network_tag=TAG)
    other = text_of(ALICE, BOB.peer_id, b"answer", body_of(make_offer()))
    with pytest.raises(BadPacket, match="bad_signature"):
        read_untrusted(other, sender=ALICE.peer_id, receiver=BOB.peer_id, network_tag=TAG)


# -- O1: floods


def test_o1_unknown_sender_costs_at_most_one_opening_and_one_signature() -> None:
    """Forged seals cost one opening and no signature; what opens costs one of each; the flood soon costs nothing."""
    guard = guard_of(BOB)
    forged = [random.Random(n).randbytes(SEALED_BYTES - 1) for n in range(2_000)]
    started = time.perf_counter()
    for number, blob in enumerate(forged):
        refused(guard, b"\1" + blob, stranger(number % 7), now=number / 2_000)
    spent = time.perf_counter() - started
    statistics = guard.statistics()
    print(f"2,000 forged offers/s through one node: {statistics.opened} opened, {statistics.verified} verified, "
          f"{spent / 2_000 * 1e6:.0f} us each")  # fmt: skip
    assert statistics.verified == 0
    assert statistics.opened <= 31  # 20 at once and 10 a second
    one = guard_of(BOB)
    deliver(one, sealed(make_offer()))
    assert (one.statistics().opened, one.statistics().verified) == (1, 1)


def test_o1_flood_through_one_rendezvous_node_stops_there() -> None:
    """Contacts and strangers still get through another one, and contacts through the same."""
    guard = guard_of(BOB, ALICE)
    for number in range(5_000):
        refused(guard, b"\1" + bytes(SEALED_BYTES - 1), stranger(number % 20), now=number / 1_000)
    assert refused(guard, sealed(make_offer(), sender=CAROL), CAROL, now=4.9995) == "over_budget"
    assert deliver(guard, sealed(make_offer(), sender=CAROL), CAROL, via=OTHER_VIA, now=5.0).copy == 0
    assert deliver(guard, sealed(make_offer()), ALICE, now=5.0).copy == 0


def test_o1_rendezvous_node_that_forges_a_contacts_name_spoils_only_itself() -> None:
    """It uses up what Alice may do through it; through any other node she gets through."""
    guard = guard_of(BOB, ALICE)
    for number in range(1_000):
        refused(guard, b"\1" + bytes(SEALED_BYTES - 1), ALICE, now=number / 1_000)
    assert refused(guard, sealed(make_offer()), ALICE, now=0.9995) == "over_budget"
    assert deliver(guard, sealed(make_offer()), ALICE, via=OTHER_VIA, now=1.0).copy == 0


def test_o1_flood_through_many_nodes_leaves_contacts_their_share() -> None:
    """Valid offers of 400 strangers through 40 nodes: the total for strangers holds, contacts are not in it."""
    guard = guard_of(BOB, ALICE)
    taken = 0
    strangers = [stranger(n) for n in range(100)]
    for number in range(400):
        key = strangers[number % 100]
        blob = sealed(make_offer(attempt=number.to_bytes(16, "big")), sender=key)
        try:
            deliver(guard, blob, key, via=bytes([number % 40]) * 20, now=number / 400)
            taken += 1
        except BadPacket as bad:
            assert bad.reason == "over_budget"
    print(f"400 valid offers of strangers in a second: {taken} taken")
    assert taken <= 76  # 50 at once and 25 a second
    assert deliver(guard, sealed(make_offer()), ALICE, now=1.0).copy == 0


def test_o1_awaited_answer_gets_through_a_flood() -> None:
    """Whoever we have asked is no stranger until it has answered."""
    guard = guard_of(ALICE)
    blob = sealed(make_offer())
    guard.expect(BOB.peer_id, make_offer().attempt, blob)
    for number in range(2_000):
        refused(guard, b"\1" + bytes(SEALED_BYTES - 1), stranger(number % 100), now=number / 1_000)
    assert deliver(guard, answer_to(blob), BOB, now=2.0).sent is not None


def test_o1_memory_stays_bounded() -> None:
    """Five thousand senders, nodes and own offers leave caps' worth of state, and nothing after twenty minutes."""
    guard = guard_of(BOB)
    for number in range(5_000):
        name = number.to_bytes(20, "big")
        refused(guard, b"\1" + bytes(SEALED_BYTES - 1), stranger(number % 200), via=name, now=number / 5)
        guard.expect(CAROL.peer_id, name[-16:], name)
    assert len(guard._sent) == 256
    assert guard._awaited == {CAROL.peer_id: 256}
    assert len(guard._strangers._senders) <= 2_048
    assert len(guard._strangers._via) <= 2_048
    one = guard_of(BOB)
    deliver(one, sealed(make_offer()))
    late = make_offer(attempt=b"l" * 16, sent_at_ms=int((NOW + 1300) * 1000))
    deliver(one, sealed(late), now=1300.0)
    assert one.statistics().remembered == 1
