"""What is not translation: IPv6 firewalls (RFC 6092), blocked UDP, allowed ports, dead lines; the table of kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.routers import A, X, back, out, router, tcp_in, tcp_out

from p2pnode.core.address import Address
from p2pnode.simulations.netns.kinds import KINDS as LAB_KINDS
from p2pnode.simulations.routers.kinds import KINDS, RouterKind, kind_named
from p2pnode.simulations.routers.words import ADDRESS_AND_PORT, INDEPENDENT

A6, X6, Y6 = Address("2001:db8:1::10", 4747), Address("2001:db8::1", 1000), Address("2001:db8::2", 1000)
TICK = 1e-6


def test_rfc6092_nothing_comes_in_unasked() -> None:
    """Section 3.2.3: a packet from outside passes only where one went out; addresses and ports stay what they are."""
    model = router("ipv6-firewall")
    assert back(model, 0.0, X6, A6) == "unsolicited"
    assert out(model, 0.0, A6, X6) == A6
    assert back(model, 1.0, X6, A6) == A6
    assert back(model, 1.0, Y6, A6) == "filtered"


def test_rfc6092_endpoint_independent_filtering() -> None:
    """Section 3.2.3 recommends it: one packet out opens the port for all."""
    model = router("ipv6-firewall", ipv6_filtering=INDEPENDENT)
    out(model, 0.0, A6, X6)
    assert back(model, 1.0, Y6, A6) == A6
    assert back(model, 1.0, Y6, Address(A6.ip, 9)) == "unsolicited"


def test_rfc6092_state_ends() -> None:
    """Section 3.2.3: idle state goes after the lifetime of the kind; both sides' packets count."""
    model = router("ipv6-firewall", udp_lifetime_s=120.0)
    out(model, 0.0, A6, X6)
    assert back(model, 119.0, X6, A6) == A6
    assert back(model, 239.0 - TICK, X6, A6) == A6
    assert back(model, 500.0, X6, A6) == "unsolicited"


def test_rfc6092_tcp_simultaneous_open() -> None:
    """Section 3.3.1: both sides' SYNs cross, and the firewall lets the other one in."""
    model = router("ipv6-firewall")
    assert tcp_in(model, 0.0, X6, A6, "syn") == "unsolicited"
    assert tcp_out(model, 0.1, A6, X6, "syn") == A6
    assert tcp_in(model, 0.2, X6, A6, "syn") == A6
    assert tcp_in(model, 7000.0, X6, A6, "ack") == A6


def test_open_ipv6_is_open() -> None:
    """Without a firewall everything passes; without IPv6 nothing does."""
    model = router(ipv6="open")
    assert back(model, 0.0, X6, A6) == A6
    assert out(model, 0.0, A6, X6) == A6
    model = router()
    assert back(model, 0.0, X6, A6) == "no_ipv6"
    assert model.from_inside(0.0, "udp", A6, X6) == "no_ipv6"


def test_quota_is_for_translation_only() -> None:
    """IPv6 needs no ports of the router's."""
    model = router("ipv6-firewall", quota=1)
    for port in range(4000, 4010):
        out(model, 0.0, Address(A6.ip, port), X6)


def test_udp_blocked() -> None:
    """No UDP in either direction; TCP as if nothing were."""
    model = router("udp-blocked")
    assert model.from_inside(0.0, "udp", A, X) == "udp_blocked"
    assert back(model, 0.0, X, Address("198.51.100.1", 4747)) == "udp_blocked"
    assert tcp_out(model, 0.0, A, X, "syn") == Address("198.51.100.1", 4747)


def test_only_tcp_443() -> None:
    """Connections to remote port 443 pass, their answers come back; nothing else does."""
    model = router("tcp-443")
    https = Address(X.ip, 443)
    assert tcp_out(model, 0.0, A, X, "syn") == "tcp_port_blocked"
    seen = tcp_out(model, 0.0, A, https, "syn")
    assert isinstance(seen, Address)
    assert tcp_in(model, 0.0, https, seen, "syn-ack") == A
    assert model.from_inside(0.0, "udp", A, https) == "udp_blocked"


def test_dead_line() -> None:
    """Nothing passes, and the reason is the line."""
    model = router("offline")
    assert model.from_inside(0.0, "udp", A, X) == tcp_out(model, 0.0, A, X, "syn") == "line_dead"
    assert back(model, 0.0, X, Address("198.51.100.1", 4747)) == "line_dead"


def test_names_are_those_of_the_laboratory() -> None:
    """Both worlds call the same kind by the same name; the plain masquerade is ours alone."""
    assert set(KINDS) - {"masquerade"} == set(LAB_KINDS)
    for name in LAB_KINDS:
        kind = KINDS[name]
        ours = kind.carrier.mapping if kind.carrier is not None else kind.mapping
        assert (ours, kind.filtering) == (LAB_KINDS[name].mapping, LAB_KINDS[name].filtering), name


@pytest.mark.parametrize(("typed", "meant"), [("fulcone", "fullcone"), ("symetric", "symmetric"), ("cgn", "cgnat")])
def test_mistyped_kind_is_suggested(typed: str, meant: str) -> None:
    """One sentence with the nearest name; all names when none is near."""
    with pytest.raises(ValueError, match=f"did you mean {meant}"):
        kind_named(typed)
    with pytest.raises(ValueError, match="there are: public, fullcone"):
        kind_named("zzzzzz")


@pytest.mark.parametrize(
    "changes",
    [
        {"overload": True, "ports": "random"},
        {"overload": True, "filtering": INDEPENDENT},
        {"port_range": (5000, 4000)},
        {"port_range": (0, 100)},
        {"step": 0},
        {"pool": 0},
        {"port_block": 70_000},
        {"udp_lifetime_s": 0.0},
    ],
)
def test_impossible_kinds_are_refused(changes: dict[str, object]) -> None:
    """Parameters that contradict each other are noticed when the kind is made."""
    with pytest.raises(ValueError, match="x: "):
        replace(RouterKind("x", ""), **changes)  # type: ignore[arg-type]


def test_lifetime_of_a_kind_reaches_its_carrier() -> None:
    """A laboratory with short lifetimes has them in both routers."""
    kind = kind_named("cgnat").with_lifetime(3.0)
    assert kind.carrier is not None
    assert kind.udp_lifetime_s == kind.carrier.udp_lifetime_s == kind.answered_lifetime_s == 3.0
    assert kind.filtering == ADDRESS_AND_PORT


def test_rfc6146_nat64() -> None:
    """Section 3.5: a host's packet to an IPv4 address in the prefix leaves as IPv4, and the answer comes back as IPv6.

    What the other IPv4 host sends is filtered as by any NAT of the kind; IPv6 passes beside it untranslated.
    """
    model = router("ipv6-firewall", nat64="64:ff9b::/96")
    server, stranger = Address("9.0.0.1", 53), Address("9.0.0.2", 53)
    inside = Address("64:ff9b::900:1", 53)
    passed = model.from_inside(0.0, "udp", A6, inside)
    assert not isinstance(passed, str)
    assert (passed.source.ip, passed.to, passed.inside) == (model.outside_ips[0], server, False)
    answer = model.from_outside(0.1, "udp", server, passed.source)
    assert answer == (inside, A6, True)
    assert model.from_outside(0.2, "udp", stranger, passed.source) == "filtered"
    assert out(model, 0.3, A6, X6) == A6
    assert back(model, 0.4, X6, A6) == A6
