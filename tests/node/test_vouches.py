"""Where rendezvous nodes see a peer: who is believed."""

from __future__ import annotations

from p2pnode.core.address import Address
from p2pnode.vouches import Vouches

PEER, OTHER_PORT, VICTIM = Address("9.9.9.9", 1000), Address("9.9.9.9", 2000), Address("6.6.6.6", 53)
A, A2, B, C = (Address(ip, 4747) for ip in ("5.0.1.1", "5.0.1.2", "5.0.2.1", "5.0.3.1"))


def said(
    ways: tuple[Address, ...], *words: tuple[Address, Address | None], chosen_by_peer: bool = False
) -> tuple[Address | None, str | None]:
    vouches = Vouches(ways, chosen_by_peer=chosen_by_peer)
    for way, seen in words:
        vouches.add(way, seen)
    return vouches.address, vouches.ip


def test_two_that_agree_are_believed() -> None:
    assert said((A, B, C), (A, PEER), (B, PEER)) == (PEER, "9.9.9.9")


def test_one_is_not_where_there_are_several() -> None:
    assert said((A, B, C), (A, PEER)) == (None, None)
    assert said((A,), (A, PEER)) == (PEER, "9.9.9.9")


def test_a_symmetric_router_has_an_ip_address_only() -> None:
    assert said((A, B, C), (A, PEER), (B, OTHER_PORT)) == (None, "9.9.9.9")


def test_a_liar_alone_cannot_aim() -> None:
    """Neither by repeating himself, nor with a second node in his block, nor if the two others agree."""
    assert said((A, B, C), (A, VICTIM), (A, PEER), (A, VICTIM)) == (None, None)
    assert said((A, A2, B, C), (A, VICTIM), (A2, VICTIM)) == (None, None)
    assert said((A, B, C), (A, VICTIM), (B, PEER), (C, PEER)) == (PEER, "9.9.9.9")
    assert said((A, B, C), (A, VICTIM), (B, PEER)) == (None, None)


def test_who_was_not_asked_has_no_word() -> None:
    assert said((A, B), (C, VICTIM), (A, PEER)) == (None, None)


def test_nodes_of_one_block_vote_where_there_is_no_other() -> None:
    assert said((A, A2), (A, PEER), (A2, PEER)) == (PEER, "9.9.9.9")


def test_silence_and_ipv6_say_nothing() -> None:
    assert said((A, B), (A, None), (B, PEER)) == (None, None)
    assert said((A,), (A, Address("2a00::1", 5))) == (None, None)


def test_attack_c1_a_callee_that_names_its_own_nodes_only_cannot_aim() -> None:
    """One node, or two in one block, would be the callee itself: its caller guesses nowhere then."""
    assert said((A,), (A, VICTIM), chosen_by_peer=True) == (None, None)
    assert said((A, A2), (A, VICTIM), (A2, VICTIM), chosen_by_peer=True) == (None, None)
    assert said((A, B), (A, PEER), (B, PEER), chosen_by_peer=True) == (PEER, "9.9.9.9")
