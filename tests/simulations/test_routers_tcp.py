"""TCP through the router model: RFC 5382 and RFC 7857, section 2, requirement by requirement."""

from __future__ import annotations

import pytest
from support.routers import OUTSIDE, X2, A, B, X, Y, router, tcp_in, tcp_out

from p2pnode.core.address import Address
from p2pnode.simulations.routers.router import RouterModel
from p2pnode.simulations.routers.words import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT, Rule

TICK = 1e-6
SEEN = Address(OUTSIDE, A.port)


def connected(model: RouterModel, now: float = 0.0) -> Address:
    """A handshake from A to X; return as whom A is seen."""
    seen = tcp_out(model, now, A, X, "syn")
    assert isinstance(seen, Address)
    assert tcp_in(model, now, X, seen, "syn-ack") == A
    assert tcp_out(model, now, A, X, "ack") == seen
    return seen


@pytest.mark.parametrize(
    ("rule", "distinct"), [(INDEPENDENT, 1), (ADDRESS, 2), (ADDRESS_AND_PORT, 3)], ids=["EIM", "ADM", "APDM"]
)
def test_req1_mapping(rule: Rule, distinct: int) -> None:
    """REQ-1: as for UDP, and apart from it."""
    model = router(mapping=rule, ports="random")
    assert len({tcp_out(model, 0.0, A, to, "syn") for to in (X, X2, Y)}) == distinct
    assert len(model.table("udp").mappings(0.0)) == 0


def test_req2a_simultaneous_open() -> None:
    """REQ-2a: the other side's SYN meets ours and is let in; the connection is established then, for 2 h 4 min."""
    model = router()
    assert tcp_out(model, 0.0, A, X, "syn") == SEEN
    assert tcp_in(model, 0.1, X, SEEN, "syn") == A
    assert tcp_out(model, 0.2, A, X, "syn-ack") == SEEN
    assert tcp_in(model, 3600.0, X, SEEN, "ack") == A


@pytest.mark.parametrize(
    ("rule", "stranger", "other_port"),
    [(INDEPENDENT, True, True), (ADDRESS, False, True), (ADDRESS_AND_PORT, False, False)],
    ids=["EIF", "ADF", "APDF"],
)
def test_req3_filtering(rule: Rule, stranger: bool, other_port: bool) -> None:
    """REQ-3: whose SYN gets in at a port that was opened toward X; never what is not a SYN."""
    model = router("fullcone", filtering=rule)
    connected(model)
    assert tcp_in(model, 1.0, X2, SEEN, "ack") == ("no_session" if other_port else "filtered")
    assert tcp_in(model, 1.0, X2, SEEN, "syn") == (A if other_port else "filtered")
    assert tcp_in(model, 1.0, Y, SEEN, "syn") == (A if stranger else "filtered")


def test_req4_unsolicited_syn_is_dropped_and_harmless() -> None:
    """REQ-4: silence, no state; our SYN right after it opens the connection as if it had not come."""
    model = router()
    assert tcp_in(model, 0.0, X, SEEN, "syn") == "unsolicited"
    assert model.sessions(0.0) == 0
    assert tcp_out(model, 1.0, A, X, "syn") == SEEN
    assert tcp_in(model, 1.1, X, SEEN, "syn") == A


def test_req5_established_lifetime_to_the_tick() -> None:
    """REQ-5: an idle connection lives 2 h 4 min, counted from the last packet."""
    model = router()
    connected(model)
    assert tcp_in(model, 7440.0 - TICK, X, SEEN, "ack") == A
    assert tcp_out(model, 7440.0 - TICK + 7439.0, A, X, "ack") == SEEN
    assert tcp_in(model, 3 * 7440.0, X, SEEN, "ack") == "unsolicited"


def test_req5_transitory_lifetime_to_the_tick() -> None:
    """REQ-5 and RFC 7857, section 2.1: a handshake that is not finished lives 4 min; both FINs leave 4 min."""
    model = router()
    tcp_out(model, 0.0, A, X, "syn")
    assert model.sessions(240.0 - TICK) == 1
    assert tcp_in(model, 240.0, X, SEEN, "syn-ack") == "unsolicited"
    connected(model, 1000.0)
    assert tcp_out(model, 1010.0, A, X, "fin") == SEEN
    assert tcp_in(model, 5000.0, X, SEEN, "ack") == A  # half closed: it may go on for long
    assert tcp_in(model, 5001.0, X, SEEN, "fin") == A
    assert tcp_out(model, 5100.0, A, X, "ack") == SEEN  # does not prolong it
    assert tcp_in(model, 5241.0 - TICK, X, SEEN, "ack") == A
    assert tcp_in(model, 5241.0, X, SEEN, "ack") == "unsolicited"


def test_rfc7857_open_and_closing_times_are_apart() -> None:
    """RFC 7857, section 2.1: two parameters."""
    model = router(tcp_open_s=10.0, tcp_closing_s=300.0)
    tcp_out(model, 0.0, A, X, "syn")
    assert model.sessions(10.0) == 0
    connected(model, 20.0)
    tcp_out(model, 21.0, A, X, "fin")
    tcp_in(model, 21.0, X, SEEN, "fin")
    assert (model.sessions(321.0 - TICK), model.sessions(321.0)) == (1, 0)


def test_rfc7857_reset_waits_and_is_survived() -> None:
    """RFC 7857, section 2.2: a RST leaves 4 min; true packets within them restore the connection."""
    model = router()
    connected(model)
    assert tcp_in(model, 10.0, X, SEEN, "rst") == A
    assert model.sessions(250.0 - TICK) == 1
    assert model.sessions(250.0) == 0
    assert tcp_out(model, 100.0, A, X, "ack") == SEEN
    assert tcp_in(model, 7000.0, X, SEEN, "ack") == A


def test_rfc7857_outbound_reset_does_not_refresh() -> None:
    """RFC 7857, section 8: a RST as answer to what was not wanted keeps nothing alive."""
    model = router("fullcone")
    connected(model)
    tcp_in(model, 100.0, Y, SEEN, "syn")
    assert tcp_out(model, 200.0, A, Y, "rst") == SEEN
    assert model.sessions(340.0) == 1  # A's own connection only: Y's handshake ended 240 s after its SYN


def test_req7_no_overloading() -> None:
    """REQ-7: as for UDP; Linux shares a port toward different remotes."""
    strict = router("fullcone")
    assert len({tcp_out(strict, 0.0, host, to, "syn") for host, to in ((A, X), (B, Y))}) == 2
    shared = router("masquerade")
    assert len({tcp_out(shared, 0.0, host, to, "syn") for host, to in ((A, X), (B, Y))}) == 1


def test_req8_hairpin() -> None:
    """REQ-8: a connection from one host to another through the outside address, seen as from outside."""
    model = router("fullcone", hairpin="external")
    connected(model)
    passed = model.from_inside(1.0, "tcp", Address(B.ip, 5000), SEEN, "syn")
    assert passed == (Address(OUTSIDE, 5000), A, True)
    answer = model.from_inside(1.1, "tcp", A, Address(OUTSIDE, 5000), "syn-ack")
    assert answer == (SEEN, Address(B.ip, 5000), True)


def test_only_a_syn_opens() -> None:
    """After a reboot an old connection's packets find nothing; neither side may go on in the middle."""
    model = router()
    connected(model)
    model.reboot(10.0)
    assert tcp_out(model, 11.0, A, X, "ack") == "no_session"
    assert tcp_in(model, 11.0, X, SEEN, "ack") == "unsolicited"
    assert tcp_out(model, 12.0, A, X, "syn") == SEEN


def test_same_ends_may_connect_again() -> None:
    """A new SYN between the same two ends begins anew while the old session still lingers."""
    model = router()
    connected(model)
    tcp_out(model, 1.0, A, X, "fin")
    tcp_in(model, 1.0, X, SEEN, "fin")
    connected(model, 2.0)
    assert tcp_in(model, 7000.0, X, SEEN, "ack") == A


def test_mapping_lives_as_long_as_its_longest_connection() -> None:
    """A socket with two connections: the closed one goes, the other one keeps the port."""
    model = router("fullcone")
    connected(model)
    tcp_out(model, 0.0, A, Y, "syn")
    tcp_in(model, 0.0, Y, SEEN, "syn-ack")
    for remote in (X,):
        tcp_out(model, 1.0, A, remote, "fin")
        tcp_in(model, 1.0, remote, SEEN, "fin")
    assert model.sessions(241.0) == 1
    assert tcp_in(model, 7000.0, Y, SEEN, "ack") == A
