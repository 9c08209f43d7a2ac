"""Reasons of paths: one for every situation, in words that stay on the page that lists them."""

import re
from itertools import product
from pathlib import Path

from p2pnode.core.address import Address, link_address
from p2pnode.explaining import Between, PathReason, PathView, explain
from p2pnode.reachability import NatKind

PAGE = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text(encoding="utf-8")
EASY, HARD = NatKind.ENDPOINT_INDEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT
RELAY = Address("9.1.0.1", 4747)


def view(path: str, remote: str = "9.1.0.1:4747", **known: object) -> PathView:
    ip, _, port = remote.removeprefix("tcp:").rpartition(":")
    address = Address.of(ip.strip("[]"), int(port))
    facts = {"dialled": True, "between": None, "was_direct": False, "mapping": "silent", **known}
    if remote.startswith("tcp:"):
        address = link_address(address)
    return PathView(path, address, **facts)  # type: ignore[arg-type]


def test_the_page_lists_every_reason_and_no_other() -> None:
    """Rows of the tables begin with the reason."""
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE.replace("| `reason` |", ""), re.MULTILINE)) == sorted(
        each.value for each in PathReason
    )


def test_both_random_says_who_and_what_would_help() -> None:
    """The sentence that issue 7 asks for."""
    found = explain(view("relay", between=Between(HARD, HARD)))
    assert found.reason is PathReason.RELAY_BOTH_RANDOM
    assert found.text == (
        "Relayed through 9.1.0.1:4747, because both routers choose a new random port for each destination (symmetric"
        " NAT). Enabling UPnP, NAT-PMP or PCP on either router would make it direct."
    )


def test_the_advice_fits_our_own_router() -> None:
    """Who switched port mapping off, or whose router refuses, is told that."""
    texts = {state: explain(view("relay", between=Between(HARD, EASY), mapping=state)).text for state in
             ("off", "refused", "unproven", "silent", "no-gateway")}  # fmt: skip
    assert "--no-portmap" in texts["off"]
    assert "refuses to open ports" in texts["refused"]
    assert "behind another router" in texts["unproven"]
    assert texts["silent"] == texts["no-gateway"]
    assert all("our router chooses a new port" in text for text in texts.values())


def test_each_situation_has_its_reason() -> None:
    """Every reason is given to somebody."""
    cases = {
        "same_machine": view("lan", "127.0.0.1:4747"),
        "lan": view("lan", "192.168.1.7:4747"),
        "peer_is_public": view("direct"),
        "by_tls": view("direct", udp_blocked=True),
        "we_are_public": view("direct", dialled=False),
        "our_port_is_mapped": view("direct", dialled=False, mapping="believed"),
        "punched": view("punched", between=Between(EASY, EASY)),
        "punched_firewalls": view("punched", "[2a00:1::2]:4747", between=Between(EASY, EASY)),
        "punched_tcp": view("punched", "tcp:9.1.1.1:4747", between=Between(NatKind.UDP_BLOCKED, EASY)),
        "punched_random_port": view("punched", between=Between(EASY, HARD)),
        "relay_both_random": view("relay", between=Between(HARD, HARD)),
        "relay_our_random_port": view("relay", between=Between(HARD, EASY)),
        "relay_their_random_port": view("relay", between=Between(EASY, HARD)),
        "relay_our_udp_blocked": view("relay", between=Between(NatKind.UDP_BLOCKED, EASY)),
        "relay_their_udp_blocked": view("relay", between=Between(HARD, NatKind.UDP_BLOCKED)),
        "relay_nothing_passed": view("relay", between=Between(EASY, EASY)),
        "relay_only": view("relay", between=Between(HARD, EASY, hidden=True)),
        "relay_path_died": view("relay", between=Between(EASY, EASY), was_direct=True),
    }
    assert {name: explain(case).reason.value for name, case in cases.items()} == {name: name for name in cases}
    assert set(cases) == {each.value for each in PathReason}


def test_every_explanation_is_a_sentence_or_two() -> None:
    """Whatever is known: it begins with a capital letter, ends with a full stop, and is no essay."""
    kinds = [None, *(Between(*pair) for pair in product(NatKind, NatKind))]
    for path, between, was, dialled, mapping in product(
        ("lan", "direct", "punched", "relay"), kinds, (False, True), (False, True), ("off", "believed", "silent")
    ):
        text = explain(view(path, between=between, was_direct=was, dialled=dialled, mapping=mapping)).text
        assert re.fullmatch(r"(Direct|Relayed)\b.{20,300}\.", text), text
