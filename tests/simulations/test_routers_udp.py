"""UDP through the router model, requirement by requirement of RFC 4787 (and RFC 6888 for carriers, RFC 6056 for ports).

Each test names its requirement. Where a kind breaks one on purpose, as routers in the field do, the test says so.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.routers import OUTSIDE, X2, A, B, X, Y, back, out, router

from p2pnode.core.address import Address
from p2pnode.simulations.routers.kinds import KINDS
from p2pnode.simulations.routers.router import RouterModel
from p2pnode.simulations.routers.words import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT, Rule

TICK = 1e-6


@pytest.mark.parametrize(
    ("rule", "distinct"), [(INDEPENDENT, 1), (ADDRESS, 2), (ADDRESS_AND_PORT, 3)], ids=["EIM", "ADM", "APDM"]
)
def test_req1_mapping(rule: Rule, distinct: int) -> None:
    """REQ-1 and section 4.1: how many outside addresses one socket has toward two addresses, one with two ports."""
    model = router(mapping=rule, ports="random")
    seen = [out(model, 0.0, A, to) for to in (X, X2, Y)]
    assert len(set(seen)) == distinct
    assert (seen[0] == seen[1]) is (rule != ADDRESS_AND_PORT)
    assert [out(model, 1.0, A, to) for to in (X, X2, Y)] == seen


def test_req2_paired_pooling() -> None:
    """REQ-2: a host keeps its outside address; hosts are spread over the pool; arbitrary pooling does neither."""
    paired = router("fullcone", pool=3)
    hosts = [Address(f"192.168.1.{number}", 4000) for number in range(10, 16)]
    ips = [{out(paired, 0.0, Address(host.ip, port), X).ip for port in range(4000, 4020)} for host in hosts]
    assert all(len(each) == 1 for each in ips)
    assert sorted(each.pop() for each in ips) == sorted(2 * [f"198.51.100.{n}" for n in (1, 2, 3)])
    arbitrary = router("fullcone", pool=3, pooling="arbitrary")
    assert len({out(arbitrary, 0.0, Address(A.ip, port), X).ip for port in range(4000, 4040)}) == 3


def test_req3_no_overloading() -> None:
    """REQ-3: two hosts with the same port never share an outside one, toward different remotes neither."""
    model = router("fullcone")
    assert out(model, 0.0, A, X) == Address(OUTSIDE, 4747)
    other = out(model, 0.0, B, Y)
    assert other != Address(OUTSIDE, 4747)
    assert back(model, 1.0, X, other) == B
    assert back(model, 1.0, Y, Address(OUTSIDE, 4747)) == A


def test_rfc7857_section_3_overlapping_ports() -> None:
    """Linux's masquerade: the port is shared toward different remotes, and another one taken toward the same."""
    model = router("masquerade")
    assert out(model, 0.0, A, X) == out(model, 0.0, B, Y) == Address(OUTSIDE, 4747)
    second = out(model, 0.0, B, X)
    assert second.port != 4747
    assert back(model, 1.0, X, Address(OUTSIDE, 4747)) == A
    assert back(model, 1.0, Y, Address(OUTSIDE, 4747)) == B
    assert back(model, 1.0, X, second) == B
    assert out(model, 1.0, B, X2) == second  # a further flow takes the port of the last one


@pytest.mark.parametrize("ports", ["preserving", "random", "sequential"])
def test_req3a_well_known_ports_stay_among_themselves(ports: str) -> None:
    """REQ-3a: a port below 1024 gets one below 1024, another one does not."""
    model = router("fullcone", ports=ports)
    for host in (A, B):
        for port in (53, 500, 1023):
            assert 1 <= out(model, 0.0, Address(host.ip, port), X).port < 1024
        for port in (1024, 4747, 65535):
            assert out(model, 0.0, Address(host.ip, port), X).port >= 1024


@pytest.mark.parametrize("ports", ["random", "sequential"])
def test_req4_parity(ports: str) -> None:
    """REQ-4: even stays even, odd stays odd; without it both occur."""
    model = router("fullcone", ports=ports, parity=True)
    assert all((out(model, 0.0, Address(A.ip, port), X).port - port) % 2 == 0 for port in range(4000, 4040))
    mixed = router("fullcone", ports="random")
    assert len({(out(mixed, 0.0, Address(A.ip, port), X).port - port) % 2 for port in range(4000, 4040)}) == 2


@pytest.mark.parametrize("lifetime", [30.0, 120.0, 300.0])
def test_req5_lifetime_to_the_tick(lifetime: float) -> None:
    """REQ-5: an unused mapping lives exactly as long as the kind says; RFC 4787 wants 120 s, home routers have 30."""
    model = router("fullcone", udp_lifetime_s=lifetime)
    seen = out(model, 100.0, A, X)
    assert back(model, 100.0 + lifetime - TICK, Y, seen) == A
    model = router("fullcone", udp_lifetime_s=lifetime)
    seen = out(model, 100.0, A, X)
    assert model.mappings(100.0 + lifetime - TICK) == 1
    assert back(model, 100.0 + lifetime, Y, seen) == "unsolicited"
    assert model.mappings(100.0 + lifetime) == 0


def test_req5_answered_mappings_may_live_longer() -> None:
    """As Linux: 30 s for a question, 120 s once it was answered; a question asked anew after the end counts from 30."""
    model = router(udp_lifetime_s=30.0, udp_answered_lifetime_s=120.0)
    seen = out(model, 0.0, A, X)
    assert back(model, 29.0, X, seen) == A
    assert back(model, 148.0, X, seen) == A
    assert back(model, 268.0, X, seen) == "unsolicited"
    assert out(model, 300.0, A, X) == seen
    assert back(model, 330.0, X, seen) == "unsolicited"


def test_req6_outbound_refresh() -> None:
    """REQ-6: packets from inside keep a mapping, and its port, alive for as long as they come."""
    model = router("fullcone", ports="random")
    seen = out(model, 0.0, A, X)
    for now in range(25, 1000, 25):
        assert out(model, float(now), A, X) == seen
    assert model.mappings(1000.0) == 1


@pytest.mark.parametrize("inbound", [True, False])
def test_req6a_inbound_refresh(inbound: bool) -> None:
    """REQ-6a: packets from outside keep it alive, or do not."""
    model = router("fullcone", inbound_refresh=inbound)
    seen = out(model, 0.0, A, X)
    assert back(model, 29.0, X, seen) == A
    assert back(model, 31.0, X, seen) == (A if inbound else "unsolicited")


def test_filters_expire_one_by_one() -> None:
    """A mapping that one remote keeps alive lets the silent other one in no longer."""
    for kind in ("address-restricted", "port-restricted"):
        model = router(kind)
        seen = out(model, 0.0, A, X)
        out(model, 0.0, A, Y)
        assert out(model, 20.0, A, Y) == seen
        assert back(model, 30.0, Y, seen) == A
        assert back(model, 30.0, X, seen) in ("filtered", "unsolicited")


@pytest.mark.parametrize(
    ("rule", "stranger", "other_port"),
    [(INDEPENDENT, True, True), (ADDRESS, False, True), (ADDRESS_AND_PORT, False, False)],
    ids=["EIF", "ADF", "APDF"],
)
def test_req8_filtering(rule: Rule, stranger: bool, other_port: bool) -> None:
    """REQ-8 and section 5: who may answer to a port that was opened toward X."""
    model = router("fullcone", filtering=rule)
    seen = out(model, 0.0, A, X)
    assert back(model, 1.0, X, seen) == A
    assert back(model, 1.0, X2, seen) == (A if other_port else "filtered")
    assert back(model, 1.0, Y, seen) == (A if stranger else "filtered")
    assert back(model, 1.0, X, Address(OUTSIDE, 4748)) == "unsolicited"


@pytest.mark.parametrize("kind", ["fullcone", "address-restricted", "port-restricted", "symmetric"])
def test_a_strangers_packet_makes_no_state(kind: str) -> None:
    """It is dropped without a trace: the hole that is punched afterwards has the port that the other side expects."""
    model = router(kind, seed=5)
    undisturbed = router(kind, seed=5)
    for now in range(3):
        assert back(model, float(now), Y, Address(OUTSIDE, 4747)) == "unsolicited"
    assert model.mappings(3.0) == 0
    assert out(model, 3.0, A, Y) == out(undisturbed, 3.0, A, Y)
    assert back(model, 3.1, Y, out(model, 3.0, A, Y)) == A


@pytest.mark.parametrize("hairpin", ["off", "internal", "external"])
def test_req9_hairpin(hairpin: str) -> None:
    """REQ-9 and 9a: two hosts through the outside address; the source is the outside one (`external`)."""
    model = router("fullcone", hairpin=hairpin)
    seen_a, seen_b = out(model, 0.0, A, X), out(model, 0.0, B, X)
    passed = model.from_inside(1.0, "udp", A, seen_b)
    if hairpin == "off":
        assert passed == "hairpin"
    else:
        assert passed == ((seen_a if hairpin == "external" else A), B, True)


def test_hairpin_passes_the_filter_of_the_other_host() -> None:
    """Strict filters hold for hairpinned packets too, until both hosts have sent."""
    model = router("hairpin")
    seen_a, seen_b = out(model, 0.0, A, X), out(model, 0.0, B, X)
    assert model.from_inside(1.0, "udp", A, seen_b) == "filtered"
    assert not isinstance(model.from_inside(1.0, "udp", B, seen_a), str)
    assert model.from_inside(1.1, "udp", A, seen_b) == (seen_a, B, True)


def test_req11_deterministic() -> None:
    """REQ-11: the same packets at the same times give the same translation; another seed other ports."""

    def ports(seed: int) -> list[int]:
        model = router("symmetric", seed=seed)
        return [out(model, float(i), A, Address(X.ip, 1000 + i)).port for i in range(50)]

    assert ports(1) == ports(1) != ports(2)


def test_sequential_ports_follow_each_other() -> None:
    """Each new mapping, whoever asks, gets the next free port; a stride is kept; the end leads to the beginning."""
    for step in (1, 2, 5):
        model = router("symmetric-sequential", step=step)
        ports = [out(model, 0.0, host, Address(X.ip, 1000 + i)).port for i in range(20) for host in (A, B)]
        assert {after - before for before, after in pairwise(ports)} <= {step, step - 64512}
    model = router("symmetric-sequential", port_range=(2000, 2003))
    ports = [out(model, 0.0, A, Address(X.ip, 1000 + i)).port for i in range(4)]
    assert sorted(ports) == [2000, 2001, 2002, 2003]
    assert model.from_inside(0.0, "udp", A, Y) == "no_port"
    assert out(model, 30.0, A, Y).port in ports  # the old ones have expired


def test_rfc6056_random_ports_fill_the_range() -> None:
    """All ports come, none twice; the full range leaves nothing."""
    model = router("symmetric", port_range=(2000, 2099))
    ports = {out(model, 0.0, A, Address(X.ip, 1000 + i)).port for i in range(100)}
    assert ports == set(range(2000, 2100))
    assert model.from_inside(0.0, "udp", B, X) == "no_port"


def test_rfc6888_req4_quota() -> None:
    """A host has at most so many mappings; another one is not harmed, and what expires makes room."""
    model = router("fullcone", quota=3, ports="random")
    for port in (1, 2, 3):
        out(model, float(port), Address(A.ip, 4000 + port), X)
    assert model.from_inside(4.0, "udp", Address(A.ip, 4004), X) == "quota"
    out(model, 4.0, B, X)
    out(model, 5.0, Address(A.ip, 4003), Y)  # an existing mapping goes on
    out(model, 31.0, Address(A.ip, 4004), X)
    assert model.from_inside(31.0, "udp", Address(A.ip, 4005), X) == "quota"
    assert model.drops["quota"] == 2


def test_table_of_a_cheap_router_fills_up() -> None:
    """At its limit of sessions nothing new passes, what is there goes on, and the expired makes room."""
    model = router(table_max=4)
    for i in range(4):
        out(model, float(i), A, Address(X.ip, 1000 + i))
    assert model.from_inside(4.0, "udp", A, Y) == "table_full"
    out(model, 4.0, A, Address(X.ip, 1003))
    assert model.sessions(4.0) == 4
    out(model, 30.0, A, Y)


def test_rfc7422_blocks_of_ports() -> None:
    """Each host draws from blocks of its own, a further one when it is full; none is shared; unused ones return."""
    model = router("fullcone", ports="random", port_block=64, port_range=(1024, 1024 + 4 * 64 - 1))
    blocks: dict[str, set[int]] = {}
    for host in (A, B):
        for port in range(4000, 4100):
            seen = out(model, 0.0, Address(host.ip, port), X)
            blocks.setdefault(host.ip, set()).add((seen.port - 1024) // 64)
    assert [len(each) for each in blocks.values()] == [2, 2]
    assert not blocks[A.ip] & blocks[B.ip]
    third = Address("192.168.1.12", 4000)
    assert model.from_inside(0.0, "udp", third, X) == "no_port"
    out(model, 40.0, third, X)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.translates and kind.udp and kind.line])
def test_memory_is_bounded_by_what_is_alive(kind: str) -> None:
    """Thousands of packets to ever new addresses leave no more than a few times the living ones behind."""
    model = router(kind, quota=0)
    for i in range(5000):
        model.from_inside(i * 1.0, "udp", A, Address(f"203.0.{i // 250 % 256}.{i % 250 + 1}", 1000 + i % 7))
    assert held(model) <= 4 * 30 + 256
    assert model.sessions(5000.0) <= 30


def held(model: RouterModel) -> int:
    """Sessions in memory, dead ones too."""
    return model.sessions(float("-inf"))


def test_reboot_forgets_and_renumbering_moves() -> None:
    """After a restart nobody is known; with a new outside address mappings are at that."""
    model = router("fullcone")
    seen = out(model, 0.0, A, X)
    model.reboot(1.0)
    assert back(model, 1.0, X, seen) == "unsolicited"
    assert model.started_at == 1.0
    out(model, 2.0, A, X)
    model.renumber(("198.51.100.77",))
    assert out(model, 3.0, A, X) == Address("198.51.100.77", 4747)


def test_reasons_of_drops_are_counted() -> None:
    """What did not pass is counted by reason, what passed in all."""
    model = router("address-restricted")
    seen = out(model, 0.0, A, X)
    back(model, 0.0, Y, seen)
    back(model, 0.0, Y, seen)
    back(model, 0.0, Y, Address(OUTSIDE, 9))
    model.from_inside(0.0, "udp", A, seen)
    assert model.drops == {"filtered": 2, "unsolicited": 1, "hairpin": 1}
    assert model.passed == 1
