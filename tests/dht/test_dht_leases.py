"""Leases, the log of where we sent, and the opening of sealed-only requests: without network."""

from __future__ import annotations

from support.dht_pair import World, answered

from p2pnode.core.address import Address
from p2pnode.dht import DhtSettings
from p2pnode.dht.asking import MAX_OPENINGS
from p2pnode.dht.leases import MAX_WANTED, MISSES_TO_DROP, Leases
from p2pnode.dht.limits import SentLog
from p2pnode.dht.messages import Error, ErrorCode, Forward, Register, Registered

ONE, TWO = b"1" * 20, b"2" * 20
HERE, THERE = Address("5.0.0.1", 1), Address("5.0.1.1", 1)


def leases(capacity: int = 10) -> Leases:
    return Leases(capacity, 1.0, 2.0)


def test_a_renewed_lease_moves_and_lasts_longer() -> None:
    """One lease per node: the newest address and end hold, its budgets stay."""
    table = leases()
    assert table.grant(ONE, HERE, 60.0, 0.0)
    lease = table.find(ONE, 0.0)
    assert lease is not None
    assert [lease.admit(TWO, 0.0) for _ in range(3)] == [True, True, False]
    assert table.grant(ONE, THERE, 90.0, 30.0)
    renewed = table.find(ONE, 80.0)
    assert renewed is not None
    assert (renewed.address, len(table)) == (THERE, 1)
    assert [renewed.admit(TWO, 30.0) for _ in range(3)] == [True, True, False]
    assert table.find(ONE, 90.0) is None
    table.expire(90.0)
    assert len(table) == 0


def test_misses_end_a_lease_and_a_renewal_forgives_them() -> None:
    """Three unconfirmed deliveries in a row; an old lease object no longer counts."""
    table = leases()
    table.grant(ONE, HERE, 60.0, 0.0)
    lease = table.find(ONE, 0.0)
    assert lease is not None
    for _ in range(MISSES_TO_DROP - 1):
        table.missed(lease)
    table.grant(ONE, HERE, 60.0, 0.0)
    for _ in range(MISSES_TO_DROP):
        assert table.find(ONE, 0.0) is lease
        table.missed(lease)
    assert table.find(ONE, 0.0) is None
    table.missed(lease)
    assert len(table) == 0


def test_whom_the_target_spoke_to_has_a_budget_of_its_own() -> None:
    """The newest 16, beside the strangers' common one."""
    table = leases()
    table.grant(ONE, HERE, 60.0, 0.0)
    lease = table.find(ONE, 0.0)
    assert lease is not None
    lease.want(TWO, 1.0, 1.0)
    assert [lease.admit(b"x" * 20, 0.0) for _ in range(3)] == [True, True, False]
    assert [lease.admit(TWO, 0.0) for _ in range(2)] == [True, False]
    for i in range(MAX_WANTED):
        lease.want(bytes([i]) * 20, 1.0, 1.0)
    assert len(lease.wanted) == MAX_WANTED
    assert TWO not in lease.wanted


def test_a_full_table_refuses_only_who_would_crowd() -> None:
    """With one lease each nobody gives way; a prefix with several gives its oldest to another prefix."""
    table = leases(3)
    for i in range(3):
        assert table.grant(bytes([i]) * 20, Address(f"5.0.{i}.1", 1), 60.0, 0.0)
    assert not table.grant(ONE, Address("5.9.0.1", 1), 60.0, 0.0)
    assert table.grant(ONE, Address("5.9.0.1", 1), 120.0, 60.0)  # the others' time is over
    assert table.grant(TWO, Address("5.9.0.2", 1), 120.0, 60.0)
    assert table.grant(b"3" * 20, Address("5.9.0.3", 1), 120.0, 60.0)
    assert table.grant(b"4" * 20, Address("5.8.0.1", 1), 120.0, 60.0)
    assert table.find(ONE, 61.0) is None
    assert not table.grant(b"5" * 20, Address("5.9.0.4", 1), 120.0, 60.0)


def test_sent_log_knows_ports_and_ips_and_forgets_the_oldest() -> None:
    """An IP stays known while any of its addresses is."""
    log = SentLog()
    log.note(HERE)
    log.note(HERE)
    log.note(HERE._replace(port=2))
    assert HERE in log
    assert HERE._replace(port=3) not in log
    assert log.knows_ip(HERE.ip)
    for i in range(SentLog.MAX - 1):
        log.note(Address(f"6.{i >> 8}.{i & 255}.1", 1))
    assert HERE not in log
    assert log.knows_ip(HERE.ip)
    log.note(THERE)
    assert not log.knows_ip(HERE.ip)
    assert len(log) == SentLog.MAX
    assert len(log._ips) == SentLog.MAX


def test_a_sealed_only_request_opens_with_a_ping_even_when_datagrams_get_lost() -> None:
    """Each of the four datagrams of a first registration is lost once: it succeeds each time."""
    for lost in range(4):
        world = World()
        via, peer = world.peer("5.0.0.1"), world.peer("5.0.1.1", DhtSettings(serve=frozenset()))
        outcomes = peer.ask(via, Register(60), timeout=3.0)
        sent = 0
        for _ in range(60):
            while world.wire:
                if sent == lost:
                    world.wire.popleft()
                else:
                    world.deliver()
                sent += 1
            world.pass_time(0.05)
        assert answered(outcomes)
        assert isinstance(outcomes[0].answer, Registered)
        assert sent <= 7
        assert (peer.engine.calls.pending, peer.engine.calls.next_timer()) == (0, None)


def test_a_node_that_never_believes_our_address_ends_the_request() -> None:
    """Error 8 again and again: two openings, then the error is the answer."""
    world = World()
    via, peer = world.peer("5.0.0.1"), world.peer("5.0.1.1")
    via.engine.signal = lambda _, asked, *__: via.engine.answer(  # type: ignore[method-assign]
        asked, Error(peer.address.pack(), ErrorCode.UNPROVEN, 0)
    )
    outcomes = peer.ask(via, Forward(b"t" * 20, b"x", False), timeout=3.0)
    world.run()
    assert isinstance(outcomes[0].answer, Error)
    assert via.engine.counters.requests["Ping"] == MAX_OPENINGS
    assert peer.engine.calls.pending == 0
