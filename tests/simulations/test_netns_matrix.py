"""The matrix's plan and judgement, and the probe's messages: no namespaces needed."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from p2pnode import Address, BadPacket
from p2pnode.simulations.netns import KINDS, LabError
from p2pnode.simulations.netns.kinds import kind_named
from p2pnode.simulations.netns.matrix import FULL, QUICK, Attempt, Cell, Plan, expected, pairs_of
from p2pnode.simulations.netns.probing import (
    CHANGE_IP,
    CHANGE_PORT,
    encode_request,
    encode_response,
    parse_request_untrusted,
    parse_response_untrusted,
)

REFUSED = {"no_path", "both_nats_random"}


@pytest.mark.parametrize(
    ("a", "b", "right"),
    [
        ("port-restricted", "port-restricted", {"punched"}),
        ("fullcone", "symmetric", {"punched"}),
        ("symmetric", "address-restricted", {"punched"}),
        ("symmetric", "port-restricted", REFUSED),
        ("port-restricted", "symmetric", REFUSED),
        ("symmetric", "symmetric", REFUSED),
        ("public", "symmetric", {"direct"}),
        ("public", "public", {"direct"}),
        ("one-router", "one-router", {"lan"}),
    ],
)
def test_what_is_right_for_a_pair(a: str, b: str, right: set[str]) -> None:
    """Hole punching needs one side whose public port is known to the other."""
    assert set(expected(a, b)) == right


def test_full_plan_has_every_unordered_pair_once() -> None:
    """Five kinds: fifteen pairs, and two hosts behind one router."""
    assert len(FULL.cells) == 16
    assert {frozenset(cell) for cell in FULL.cells[:-1]} == {
        frozenset(p) for p in itertools.combinations_with_replacement(KINDS, 2)
    }


def test_samples_are_pairs_that_never_met() -> None:
    """Five samples of a pair of the same kind need four hosts; no pair of nodes comes twice in a cell."""
    need = Plan(QUICK.cells, samples=5).hosts_per_kind()
    assert need == {"port-restricted": 4, "fullcone": 3, "symmetric": 3, "address-restricted": 3, "public": 3}
    nodes: dict[str, Any] = {k: [SimpleNamespace(name=f"{k}{i}") for i in range(n)] for k, n in need.items()}
    for cell in QUICK.cells[:-1]:
        pairs = pairs_of(nodes, cell, 5)
        met = {frozenset((a.name, b.name)) for a, b in pairs}
        assert len(met) == len(pairs) == 5
        assert all(len(pair) == 2 for pair in met)


def test_both_sides_call() -> None:
    """Every second connect of a cell goes the other way."""
    nodes: dict[str, Any] = {k: [SimpleNamespace(name=k)] * 2 for k in ("fullcone", "symmetric")}
    callers = [a.name for a, _ in pairs_of(nodes, ("fullcone", "symmetric"), 4)]
    assert callers == ["fullcone", "symmetric"] * 2


GOOD = Attempt("x", "y", True, "punched", 0.4, 80.0, True, True, 0.1)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"witnessed": False}, False),
        ({"delivered_once": False}, False),
        ({"path": "relay"}, False),
        ({"connected": False, "code": "no_path"}, False),
    ],
)
def test_a_path_counts_only_with_witness_and_message(change: dict[str, Any], right: bool) -> None:
    """The word of a node is not enough, and one bad sample spoils the cell."""
    bad = Attempt(**{**GOOD.__dict__, **change})
    cell = Cell("fullcone", "symmetric", [GOOD, bad])
    assert cell.as_expected is right
    assert cell.to_json()["connected"] is bad.connected


def test_an_honest_refusal_is_right_where_nothing_can_work() -> None:
    """`no_path` is; a time-out is not, and neither is a connection that nobody saw."""
    made = {"connected": False, "path": None, "witnessed": False}
    for code, right in (("no_path", True), ("both_nats_random", True), ("timeout", False)):
        attempt = Attempt(**{**GOOD.__dict__, **made, "code": code})
        assert Cell("symmetric", "symmetric", [attempt]).as_expected is right
    assert not Cell("symmetric", "symmetric", []).as_expected


def test_cell_in_json_has_the_names_of_the_contract() -> None:
    """docs/lab.md; medians over the samples."""
    slow = Attempt(**{**GOOD.__dict__, "seconds": 0.8})
    data = Cell("symmetric", "fullcone", [GOOD, slow, GOOD]).to_json()
    assert {k: data[k] for k in ("a", "b", "connected", "path", "seconds", "delivered_once")} == {
        "a": "symmetric",
        "b": "fullcone",
        "connected": True,
        "path": "punched",
        "seconds": 0.4,
        "delivered_once": True,
    }
    assert data["seconds_max"] == 0.8


@pytest.mark.parametrize(("typed", "meant"), [("fulcone", "fullcone"), ("symetric", "symmetric"), ("port", "port-re")])
def test_mistyped_kind_is_suggested(typed: str, meant: str) -> None:
    """The nearest name is offered; what is near to nothing gets the list."""
    with pytest.raises(LabError, match=f"did you mean {meant}"):
        kind_named(typed)
    with pytest.raises(LabError, match="there are: public, fullcone"):
        kind_named("xyz")


def test_probe_messages_there_and_back() -> None:
    """What is encoded is read back; RFC 8489's XOR-MAPPED-ADDRESS included."""
    for change in (0, CHANGE_IP, CHANGE_PORT, CHANGE_IP | CHANGE_PORT):
        assert parse_request_untrusted(encode_request(b"t" * 12, change)) == (b"t" * 12, change)
    source = Address("203.0.113.7", 65535)
    assert parse_response_untrusted(encode_response(b"t" * 12, source)) == (b"t" * 12, source)


def test_probe_messages_from_anybody_are_read_or_refused() -> None:
    """Every prefix and random bytes: a result or BadPacket."""
    rng = random.Random(1)
    whole = (encode_request(b"t" * 12, CHANGE_IP), encode_response(b"t" * 12, Address("1.2.3.4", 5)))
    cut = [data[:n] for data in whole for n in range(len(data))]
    changed = [data[:i] + rng.randbytes(1) + data[i + 1 :] for data in whole for i in range(len(data))]
    for data in [*cut, *changed, *(rng.randbytes(rng.randrange(40)) for _ in range(500))]:
        for parse in (parse_request_untrusted, parse_response_untrusted):
            try:
                parse(data)
            except BadPacket as refusal:
                assert refusal.reason == "malformed"
