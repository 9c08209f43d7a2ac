"""Errors and their codes."""

from __future__ import annotations

import re

from p2pnode.core import errors


def test_each_error_has_its_own_stable_code() -> None:
    """Codes are snake case, unique, and every error is exported."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.P2PError)]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    assert {kind.__name__ for kind in kinds} <= set(errors.__all__)


def test_codes_promised_to_scripts_exist() -> None:
    """The codes that the command line documents are those of our classes."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.P2PError)]
    promised = "peer_not_found peer_offline no_path both_nats_random udp_blocked refused blocked not_running"
    promised += " home_in_use invalid_peer invalid_config timeout"
    assert set(promised.split()) <= {kind.code for kind in kinds}


def test_facts_travel_with_the_message() -> None:
    """The sentence is the exception's text; facts are attributes, not part of it."""
    error = errors.PeerNotFoundError("Nobody knows this peer.", peer="12D3", attempts=3)
    assert (str(error), error.message, error.code) == ("Nobody knows this peer.", error.message, "peer_not_found")
    assert error.facts == {"peer": "12D3", "attempts": 3}
    assert errors.BadPacket("too_short").reason == "too_short"
