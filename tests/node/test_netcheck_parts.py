"""The judgement behind `netcheck`, each rule alone; what HTTP servers may say; advice."""

from __future__ import annotations

import random

import pytest

from p2pnode import Address, BadPacket
from p2pnode.netcheck_advice import advice_for
from p2pnode.netcheck_judge import LetIn, View, Voters, judge_allocation, judge_filtering, judge_mapping
from p2pnode.netcheck_outside import PortalAnswer, Reached, judge_outside, read_http_untrusted
from p2pnode.netcheck_report import FamilyReport, InterfaceReport, NetcheckReport

A, B, C, D = (Address(f"9.{n}.0.1", 4747) for n in range(4))
VOTERS = Voters([A, B, C, D])
PUBLIC = "11.1.0.1"


def views(**seen: int) -> list[View]:
    """`a=5` means: A saw our port 5; `a2`: its second port did."""
    servers = {"a": A, "b": B, "c": C, "d": D}
    return [
        View(servers[n[0]]._replace(port=9) if n[1:] else servers[n[0]], Address(PUBLIC, port), fresh=bool(n[1:]))
        for n, port in seen.items()
    ]


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (views(a=5, b=5, c=5), "endpoint-independent"),
        (views(a=5, b=5, c=5, d=6), "endpoint-independent"),
        (views(a=5, b=5), "endpoint-independent"),
        (views(a=5), "unknown"),
        (views(a=5, a2=6), "unknown"),
        (views(a=5, b=6), "unknown"),
        (views(a=5, b=6, a2=5, b2=6), "unknown"),
        (views(a=5, b=6, a2=7, b2=8), "address-and-port-dependent"),
        (views(a=5, b=6, c=7), "address-and-port-dependent"),
        (views(a=5, b=6, c=7, a2=5, b2=6), "address-dependent"),
        (views(a=5, b=6, c=7, a2=5, b2=6, c2=1), "address-dependent"),
        (views(a=5, b=6, c=7, a2=8, b2=9, c2=7), "address-and-port-dependent"),
        ([], "unknown"),
    ],
)
def test_mapping(seen: list[View], word: str) -> None:
    """A majority of voters; where it depends, pairs of ports; of two that contradict each other nobody is believed."""
    verdict = judge_mapping(seen, [Address("192.168.1.2", 5)], VOTERS, documentation=False)
    assert verdict.mapping == word
    assert verdict.evidence


def test_own_address_means_no_nat() -> None:
    """Seen from outside as it is."""
    verdict = judge_mapping(views(a=5, b=5, c=5), [Address(PUBLIC, 5)], VOTERS, documentation=False)
    assert (verdict.nat, verdict.public) == (False, PUBLIC)
    behind = judge_mapping(views(a=5, b=5, c=5), [Address("10.0.0.1", 5)], VOTERS, documentation=False)
    assert (behind.nat, behind.public) == (True, PUBLIC)


def let_in(helper: Address, other_port: bool | None, **strangers: bool) -> LetIn:
    return LetIn(helper, other_port, {{"a": A, "b": B, "c": C, "d": D}[n]: came for n, came in strangers.items()})


@pytest.mark.parametrize(
    ("tries", "word"),
    [
        ([], "unknown"),
        ([let_in(A, True)], "unknown"),
        ([let_in(A, False)], "unknown"),
        ([let_in(A, False, b=True)], "endpoint-independent"),
        ([let_in(A, False, b=False, c=False)], "unknown"),
        ([let_in(A, True, b=False)], "unknown"),
        ([let_in(A, True, b=False, c=False)], "address-dependent"),
        ([let_in(A, False, b=False), let_in(B, False, a=False)], "address-and-port-dependent"),
        ([let_in(A, False, b=False), let_in(B, True, a=False)], "address-dependent"),
        ([let_in(A, None, b=False, c=False), let_in(B, False, c=False)], "unknown"),
    ],
)
def test_filtering(tries: list[LetIn], word: str) -> None:
    """One arrival proves; silence takes two voters."""
    assert judge_filtering(tries, VOTERS)[0] == word
    assert judge_filtering(tries, VOTERS)[1]


def test_voters_are_blocks_where_there_are_three() -> None:
    """Two nodes of one /24 are one voter, but in a network of fewer blocks."""
    twin = Address("9.0.0.2", 4747)
    assert VOTERS.of(A) == VOTERS.of(twin)
    small = Voters([A, twin, B])
    assert small.of(A) != small.of(twin)


def ports(*numbers: int) -> list[tuple[int, Address]]:
    return [(1000 + 10 * i, Address(PUBLIC, number)) for i, number in enumerate(numbers)]


@pytest.mark.parametrize(
    ("series", "word", "step"),
    [
        ([ports(1000, 1010, 1020)] * 2, "preserving", None),
        ([ports(50, 52, 54), ports(56, 58, 60), ports(7, 4000, 9)], "sequential", 2),
        ([ports(50, 52, 54)], "unknown", None),
        ([ports(50, 52, 54), ports(1000, 1010, 1020)], "unknown", None),
        ([ports(50, 52), []], "unknown", None),
        ([], "unknown", None),
    ],
)
def test_allocation(series: list[list[tuple[int, Address]]], word: str, step: int | None) -> None:
    """Two helpers must say the same, and be more than half."""
    assert judge_allocation(series)[:2] == (word, step)
    assert judge_allocation(series)[2]


def test_http_answers_are_read_and_hostile_ones_refused() -> None:
    """Status and where it leads; whatever else is a BadPacket."""
    moved = read_http_untrusted(b"HTTP/1.1 302 Found\r\nLocation: http://login.example:8080/x\r\n\r\n")
    assert (moved.status, moved.redirect) == (302, "login.example")
    assert read_http_untrusted(b"HTTP/1.0 511\nlocation: /here\n\n").redirect == ""
    rng = random.Random(7)
    for data in (b"", b"HTTP/2 200\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 302 x\r\nLocation: http://[::1\r\n",
                 *(rng.randbytes(40) for _ in range(100))):  # fmt: skip
        with pytest.raises(BadPacket):
            read_http_untrusted(data)


def page(status: int, redirect: str = "", data: bytes = b"x") -> PortalAnswer:
    return PortalAnswer(status, redirect, data)


@pytest.mark.parametrize(
    ("reached", "udp", "internet"),
    [
        ([], None, "unknown"),
        ([Reached(udp=True), Reached()], True, "yes"),
        ([Reached(tcp=(443,))], False, "yes"),
        ([Reached(refused=(80,))], None, "yes"),
        ([Reached(refused=(80,)), Reached(refused=(443,))], False, "yes"),
        ([Reached()], None, "unknown"),
        ([Reached(), Reached()], None, "no"),
        ([Reached(tcp=(80,), http=page(511))], None, "captive-portal"),
        ([Reached(tcp=(80,), http=page(302, "login.example"))], None, "captive-portal"),
        ([Reached(tcp=(80,), http=page(301, "9.0.0.1"))], False, "yes"),
        ([Reached(tcp=(80,), http=page(200))] * 2, None, "captive-portal"),
        ([Reached(tcp=(80,), http=page(200)), Reached(tcp=(80,), http=page(200, "", b"y"))], False, "yes"),
    ],
)
def test_outside(reached: list[Reached], udp: bool | None, internet: str) -> None:
    """A node that has gone is not UDP blocked; a site that leads to itself is no login page."""
    found = judge_outside({f"9.{i}.0.1": each for i, each in enumerate(reached)})
    assert (found.udp, found.internet) == (udp, internet)
    assert found.evidence


def test_advice_names_what_matters() -> None:
    """Carrier's router, second router, short memory, small packets, VPN; never empty, each sentence ends."""
    report = NetcheckReport(
        udp=True, internet="yes", helpers=5, routers=2,
        ipv4=FamilyReport(nat=True, mapping="endpoint-independent", filtering="endpoint-independent",
                          mapping_lifetime_s=15, mtu=1200),
        interfaces=(InterfaceReport("eth0", "real", ("192.168.1.2",), True),
                    InterfaceReport("tun0", "vpn", ("10.8.0.2",), False)),
    )  # fmt: skip
    advice = advice_for(report)
    assert [each.code for each in advice] == ["double_nat", "short_lifetime", "small_mtu", "no_ipv6", "vpn_hidden"]
    assert all(each.text.endswith(".") for each in advice)
    report.interfaces = (InterfaceReport("eth0", "real", ("100.64.0.9",), True),)
    assert advice_for(report)[0].code == "carrier_nat"
    report.ipv4 = FamilyReport(nat=False, firewall=True, mapping="endpoint-independent")
    report.interfaces, report.routers = (), 0
    assert [each.code for each in advice_for(report)] == ["firewall"]
    assert advice_for(NetcheckReport())
