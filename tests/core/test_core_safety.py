"""Safety numbers."""

from __future__ import annotations

import hashlib
import re

from p2pnode.core.ids import PeerId, UserId
from p2pnode.core.keys import AccountKey
from p2pnode.core.safety import own_safety_number, safety_number

ALICE, BOB, EVE = (AccountKey(bytes([i]) * 32).user_id for i in (1, 2, 3))


def test_both_sides_see_the_same_sixty_digits() -> None:
    """Order does not matter; twelve groups of five digits; another key gives another number."""
    number = safety_number(ALICE, BOB)
    assert number == safety_number(BOB, ALICE)
    assert re.fullmatch(r"(\d{5} ){11}\d{5}", number)
    assert number not in (safety_number(ALICE, EVE), safety_number(EVE, BOB))


def test_the_own_number_is_one_half_of_each() -> None:
    """What `id` prints can be found in the number with anybody."""
    for other in (BOB, EVE):
        assert own_safety_number(ALICE) in safety_number(ALICE, other)
    assert len(own_safety_number(ALICE).replace(" ", "")) == 30


def test_user_and_node_of_one_key_differ() -> None:
    """The kind of id is part of the number."""
    assert own_safety_number(UserId(ALICE.raw)) != own_safety_number(PeerId(ALICE.raw))


def test_number_by_the_documented_formula() -> None:
    """docs/protocol/identity.md's text, written out once more."""
    digest = b"p2pnode/1/safety" + b"UserId" + ALICE.raw
    for _ in range(5200):
        digest = hashlib.sha512(digest + ALICE.raw).digest()
    groups = [f"{int.from_bytes(digest[i : i + 5], 'big') % 100000:05d}" for i in range(0, 30, 5)]
    assert own_safety_number(ALICE) == " ".join(groups)
