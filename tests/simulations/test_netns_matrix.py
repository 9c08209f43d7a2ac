"""The matrix's plan and judgement, kinds and their rules: no namespaces needed."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from p2pnode.simulations.netns import KINDS, LabError
from p2pnode.simulations.netns.expectations import SHARED, expected, known_name
from p2pnode.simulations.netns.kinds import kind_named
from p2pnode.simulations.netns.matrix import FULL, QUICK, Attempt, Cell, Plan, pairs_of, pairs_plan
from p2pnode.simulations.netns.public_addresses import NETWORKS, PER_NETWORK, PublicAddresses
from p2pnode.simulations.netns.rules import ruleset
from p2pnode.simulations.netns.scenario_names import SCENARIOS, scenario_named

RELAYED = {"relay"}
GUESSED = {"punched", "relay"}
NOBODY = {"peer_not_found"}


@pytest.mark.parametrize(
    ("a", "b", "right"),
    [
        ("port-restricted", "port-restricted", {"punched"}),
        ("fullcone", "symmetric", {"punched"}),
        ("symmetric-sequential", "address-restricted", {"punched"}),
        ("cgnat", "port-restricted", {"punched"}),
        ("cgnat-symmetric", "fullcone", {"punched"}),
        ("ipv6-firewall", "ipv6-firewall", {"punched"}),
        ("ipv6-firewall", "hairpin", {"punched"}),
        ("symmetric", "port-restricted", GUESSED),
        ("port-restricted", "symmetric", GUESSED),
        ("symmetric", "ipv6-firewall", GUESSED),
        ("cgnat", "symmetric-sequential", GUESSED),
        ("symmetric-sequential", "symmetric-sequential", GUESSED),
        ("symmetric-sequential", "symmetric", RELAYED),
        ("symmetric", "symmetric", RELAYED),
        ("cgnat-symmetric", "symmetric", RELAYED),
        ("public", "symmetric", {"direct"}),
        ("upnp", "symmetric", {"direct"}),
        ("upnp", "upnp", {"direct"}),
        ("upnp", "udp-blocked", {"direct", *GUESSED}),  # a better path than the punch promises
        ("udp-blocked", "udp-blocked", GUESSED),
        ("udp-blocked", "symmetric", RELAYED),
        ("public", "ipv6-firewall", {"direct"}),
        ("public", "public", {"direct"}),
        ("udp-blocked", "public", {"direct", "relay"}),
        ("tcp-443", "public", RELAYED),
        ("udp-blocked", "tcp-443", RELAYED),
        ("offline", "fullcone", NOBODY),
        ("one-router", "one-router", {"lan"}),
        ("one-hairpin-router", "one-hairpin-router", {"lan"}),
        ("one-carrier", "one-carrier", {"punched"}),
    ],
)
def test_what_is_right_for_a_pair(a: str, b: str, right: set[str]) -> None:
    """One side's public port must be known, guessed or foretold; a refusal has its reason."""
    assert set(expected(a, b).results) == right
    assert expected(a, b) == expected(b, a)
    assert bool(expected(a, b).reason) is (right == NOBODY)


def test_full_plan_has_every_unordered_pair_once() -> None:
    """Fourteen kinds: 105 pairs, and three ways to share a router; the bar is 8 kinds and 36 pairs."""
    assert len(KINDS) == 14
    assert len(FULL.cells) == 105 + len(SHARED)
    pairs = [frozenset(cell) for cell in FULL.cells if cell[0] not in SHARED]
    assert set(pairs) == {frozenset(p) for p in itertools.combinations_with_replacement(KINDS, 2)}
    assert len(pairs) == len(set(pairs))


def test_some_kinds_make_a_plan_of_their_pairs() -> None:
    """A kind that is named twice counts once; a shared router is a cell of its own."""
    assert pairs_plan(["one-carrier", "cgnat", "public", "cgnat"]).cells == (
        ("cgnat", "cgnat"),
        ("cgnat", "public"),
        ("public", "public"),
        ("one-carrier", "one-carrier"),
    )


def test_refusals_and_shared_routers_are_sampled_once() -> None:
    """Waiting five times for the same time-out tells nothing more."""
    plan = Plan(FULL.cells, samples=5)
    assert plan.samples_of(("fullcone", "cgnat")) == 5
    assert plan.samples_of(("symmetric", "symmetric")) == 5
    assert plan.samples_of(("udp-blocked", "symmetric")) == 5
    assert plan.samples_of(("offline", "public")) == 1
    assert plan.samples_of(("one-router", "one-router")) == 1
    assert plan.hosts_per_kind()["offline"] == 2


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
    """`peer_not_found` is, where there is no line; a time-out is not, and neither is a connection that nobody saw."""
    made = {"connected": False, "path": None, "witnessed": False}
    for code, right in (("peer_not_found", True), ("no_path", False), ("timeout", False)):
        attempt = Attempt(**{**GOOD.__dict__, **made, "code": code})
        assert Cell("offline", "symmetric", [attempt]).as_expected is right
    assert not Cell("offline", "symmetric", []).as_expected


def test_a_relayed_cell_is_right_only_with_a_relay() -> None:
    """Between two symmetric NATs neither a refusal nor a punch is what nodes can do."""
    for path, right in (("relay", True), ("punched", False)):
        attempt = Attempt(**{**GOOD.__dict__, "path": path})
        assert Cell("symmetric", "symmetric", [attempt]).as_expected is right


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
    with pytest.raises(LabError, match="did you mean fullcone"):
        known_name("fulcone")
    with pytest.raises(LabError, match="did you mean cgnat-symmetric"):
        kind_named("carrier-symmetric")
    with pytest.raises(LabError, match="did you mean one-carrier"):
        known_name("one-carier")
    assert known_name("one-carrier") == "one-carrier"


def test_mistyped_scenario_is_suggested() -> None:
    """As kinds are; each scenario has one line."""
    with pytest.raises(LabError, match="did you mean matrix"):
        scenario_named("matrx")
    assert all(scenario.summary.endswith(".") and "\n" not in scenario.summary for scenario in SCENARIOS.values())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_rules_are_made_anew_each_time(kind: Any) -> None:
    """Loading them replaces what was there; sequential ports begin somewhere else after each reboot."""
    rng = random.Random(1)
    first, second = (ruleset(kind, "203.0.113.1", 30.0, rng) for _ in range(2))
    assert first.startswith("table ip lab\ndelete table ip lab\n")
    assert (first == second) is (kind.ports != "sequential")


def test_public_addresses_are_given_once() -> None:
    """Each from a block of its own, until there are no more; miniupnpd takes them for public."""
    addresses = PublicAddresses()
    given = [addresses.next_ip() for _ in range(NETWORKS * PER_NETWORK)]
    assert len(set(given)) == len(given)
    assert len({ip.rpartition(".")[0] for ip in given[:NETWORKS]}) == NETWORKS
    assert {ip.partition("44.128.")[0] for ip in given} == {""}
    with pytest.raises(LabError, match="room for 65024"):
        addresses.next_ip()
    assert [addresses.next_prefix() for _ in range(2)] == ["2001:db8:1", "2001:db8:2"]
