"""What a node concludes from how others see it: table-driven, with liars."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from p2pnode.core.address import Address, Realm
from p2pnode.reachability import MAX_AGE_S, MAX_OBSERVERS, NatKind, Reachability, Reflexive

US = "93.184.216.34"
LOCAL = (Address("192.168.1.7", 4747),)


@dataclass(frozen=True)
class Case:
    """`reports`: "observer -> what it saw", a letter being the observer's block."""

    name: str
    reports: tuple[str, ...]
    kind: NatKind
    address: str | None
    ip: str | None
    known: int = 20
    local: tuple[Address, ...] = LOCAL


EI, AD, APD = NatKind.ENDPOINT_INDEPENDENT, NatKind.ADDRESS_DEPENDENT, NatKind.ADDRESS_AND_PORT_DEPENDENT
UNKNOWN, NONE = NatKind.UNKNOWN, NatKind.NONE
CASES = [
    Case("nothing_reported", (), UNKNOWN, None, None),
    Case("one_of_many_is_not_believed", ("8.0.1.1:1 1",), UNKNOWN, None, None),
    Case("two_of_many_are_not_believed", ("8.0.1.1:1 1", "8.0.2.1:1 1"), UNKNOWN, None, None),
    Case("three_blocks_agree", ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.3.1:1 1"), EI, f"{US}:1", US),
    Case("three_in_one_block_have_one_vote", ("8.0.1.1:1 1", "8.0.1.2:1 1", "8.0.1.3:1 1"), UNKNOWN, None, None),
    Case(
        "three_in_the_only_block_there_is", ("8.0.1.1:1 1", "8.0.1.2:1 1", "8.0.1.3:1 1"), EI, f"{US}:1", US, known=0
    ),
    Case("a_network_of_two_others", ("8.0.1.1:1 1", "8.0.2.1:1 1"), EI, f"{US}:1", US, known=0),
    Case("one_other_node_tells_the_address_not_the_nat", ("8.0.1.1:1 1",), UNKNOWN, f"{US}:1", US, known=0),
    Case("one_other_node_sees_our_own_address", ("8.0.1.1:1 1",), NONE, f"{US}:1", US, 0, (Address(US, 1),)),
    Case(
        "no_nat", ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.3.1:1 1"), NONE, f"{US}:1", US, local=(Address(US, 1),)
    ),
    Case("one_liar_of_three_delays", ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.3.1:1 9"), UNKNOWN, None, US),
    Case("one_liar_of_four", ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.3.1:1 9", "8.0.4.1:1 1"), EI, f"{US}:1", US),
    Case(
        "a_block_full_of_liars",
        ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.4.1:1 1", *(f"8.0.3.{i}:1 9" for i in range(1, 20))),
        EI, f"{US}:1", US,
    ),
    Case(
        "liars_with_another_ip",
        ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.4.1:1 1", "8.0.5.1:1 @5.5.5.5:1", "8.0.6.1:1 @5.5.5.5:1"),
        EI, f"{US}:1", US,
    ),
    Case(
        "as_many_liars_as_honest_are_believed_by_nobody",
        ("8.0.1.1:1 1", "8.0.2.1:1 1", "8.0.4.1:1 1", *(f"8.0.{i}.1:1 @5.5.5.5:1" for i in (5, 6, 7))),
        UNKNOWN, None, None,
    ),
    Case("a_port_for_each", ("8.0.1.1:1 1", "8.0.2.1:1 2", "8.0.3.1:1 3"), APD, None, US),
    Case(
        "a_port_for_each_also_at_one_ip", ("8.0.1.1:1 1", "8.0.1.1:2 4", "8.0.2.1:1 2", "8.0.3.1:1 3"), APD, None, US
    ),
    Case(
        "a_port_for_each_ip", ("8.0.1.1:1 1", "8.0.1.1:2 1", "8.0.2.1:1 2", "8.0.3.1:1 3"), AD, None, US
    ),
    Case(
        "private_view_of_a_public_observer_is_ignored",
        tuple(f"8.0.{i}.1:1 @192.168.1.7:4747" for i in (1, 2, 3)),
        UNKNOWN, None, None,
    ),
    Case("multicast_view_is_ignored", tuple(f"8.0.{i}.1:1 @224.0.0.1:1" for i in (1, 2, 3)), UNKNOWN, None, None),
]  # fmt: skip


def judge(reports: tuple[str, ...], known: int = 20, local: tuple[Address, ...] = LOCAL) -> Reflexive:
    reachability = Reachability()
    for number, text in enumerate(reports):
        at, _, own = text.partition(" ")
        saw = Address.parse(own[1:]) if own.startswith("@") else Address(US, int(own))
        reachability.report(at.encode(), Address.parse(at), saw, float(number))
    others = [Address(f"9.0.{i}.1", 4747) for i in range(known)]
    return reachability.verdict(Realm.PUBLIC, ipv6=False, local=local, known=others, now=100.0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(case: Case) -> None:
    """Each line of the table gives its verdict."""
    verdict = judge(case.reports, case.known, case.local)
    address = str(verdict.address) if verdict.address else None
    assert (verdict.kind, address, verdict.ip) == (case.kind, case.address, case.ip)


def agreed(reachability: Reachability, port: int, blocks: range, now: float) -> None:
    for block in blocks:
        reachability.report(bytes([block]), Address(f"8.0.{block}.1", 1), Address(US, port), now)


def verdict_of(reachability: Reachability, now: float, realm: Realm = Realm.PUBLIC, *, ipv6: bool = False) -> Reflexive:
    known = [Address(f"9.0.{i}.1", 1) for i in range(20)]
    return reachability.verdict(realm, ipv6=ipv6, local=LOCAL, known=known, now=now)


def test_restarted_router_is_noticed_by_two_observers() -> None:
    """Eight agreed; after two of them changed their minds the old address is void, after three the new one stands."""
    reachability = Reachability()
    agreed(reachability, 1, range(1, 9), 0.0)
    agreed(reachability, 2, range(1, 2), 50.0)
    assert verdict_of(reachability, 50.0).address == Address(US, 1)
    agreed(reachability, 2, range(2, 3), 51.0)
    assert verdict_of(reachability, 51.0).address is None
    agreed(reachability, 2, range(3, 4), 52.0)
    assert verdict_of(reachability, 52.0).address == Address(US, 2)
    assert reachability.statistics().voided == 6


def test_one_liar_that_flips_voids_nothing() -> None:
    """However often a single block changes its mind, the others' word stands."""
    reachability = Reachability()
    agreed(reachability, 1, range(1, 5), 0.0)
    for step in range(100):
        agreed(reachability, 1 + step % 2, range(9, 10), 1.0 + step)
        reachability.report(b"friend", Address("8.0.9.2", 1), Address(US, 1 + step % 2), 1.0 + step)
    assert verdict_of(reachability, 200.0).address == Address(US, 1)


def test_changes_of_mind_far_apart_do_not_add_up() -> None:
    """Two liars that change their minds an hour apart void nothing."""
    reachability = Reachability()
    agreed(reachability, 1, range(1, 8), 0.0)
    agreed(reachability, 2, range(1, 2), 10.0)
    agreed(reachability, 2, range(2, 3), 3610.0)
    assert verdict_of(reachability, 3610.0).address == Address(US, 1)


def test_old_reports_are_forgotten() -> None:
    """After seven hours without a word nothing is believed."""
    reachability = Reachability()
    agreed(reachability, 1, range(1, 5), 0.0)
    assert verdict_of(reachability, MAX_AGE_S).kind is EI
    assert verdict_of(reachability, MAX_AGE_S + 1) == Reflexive(UNKNOWN, None, None)
    assert reachability.statistics().observers == 0


def test_change_of_network_forgets_everything() -> None:
    """On another network the old address is worth nothing."""
    reachability = Reachability()
    agreed(reachability, 1, range(1, 5), 0.0)
    reachability.forget()
    assert verdict_of(reachability, 1.0).address is None


def test_realms_and_families_are_judged_apart() -> None:
    """What the LAN sees says nothing about the public side; IPv6 has its own verdict."""
    reachability = Reachability()
    for i in (1, 2, 3):
        reachability.report(b"", Address(f"192.168.{i}.9", 1), LOCAL[0], 0.0)
        reachability.report(b"", Address(f"2a00:{i}::1", 1), Address("2a01::5", 7), 0.0)
    assert verdict_of(reachability, 1.0).kind is UNKNOWN
    assert verdict_of(reachability, 1.0, Realm.PRIVATE).kind is NONE
    assert verdict_of(reachability, 1.0, ipv6=True).address == Address("2a01::5", 7)


def test_report_says_whether_it_is_news() -> None:
    """New observer or new address: True; the same again: False; ignored: False and counted by reason."""
    reachability = Reachability()
    at, own = Address("8.0.1.1", 1), Address(US, 1)
    assert reachability.report(b"x", at, own, 0.0)
    assert not reachability.report(b"x", at, own, 1.0)
    assert reachability.report(b"x", at, Address(US, 2), 2.0)
    assert not reachability.report(b"x", at, Address("10.0.0.1", 2), 3.0)
    assert not reachability.report(b"x", at, Address("2a00::1", 2), 3.0)
    statistics = reachability.statistics()
    assert (statistics.reports, statistics.ignored) == (3, {"other_realm": 1, "bad_address": 1})


def test_memory_is_bounded() -> None:
    """Ten thousand observers leave 64 reports, and doubts about as many addresses at most."""
    reachability = Reachability()
    for i in range(10_000):
        at = Address(f"8.{i >> 8}.{i & 255}.1", 1)
        reachability.report(b"", at, Address(US, 1 + i), float(i))
        reachability.report(b"", at, Address(US, 2 + i), float(i))
    assert reachability.statistics().observers == MAX_OBSERVERS
    assert all(len(side.doubts) <= MAX_OBSERVERS for side in reachability._sides.values())


def test_documentation_addresses_are_public_in_laboratories_only() -> None:
    """Off by default."""
    for allow, expected in ((False, UNKNOWN), (True, EI)):
        reachability = Reachability(allow_documentation=allow)
        for i in range(3):
            reachability.report(bytes([i]), Address(f"203.0.113.{i + 1}", 1), Address("198.51.100.9", 5), 0.0)
        verdict = reachability.verdict(Realm.PUBLIC, ipv6=False, local=LOCAL, known=[], now=1.0)
        assert verdict.kind is expected


def test_predictable_kinds() -> None:
    """Only these serve every peer with one address."""
    assert [kind for kind in NatKind if kind.predictable] == [NONE, EI]
