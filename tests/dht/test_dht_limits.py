"""Budgets, tokens and nonces."""

from __future__ import annotations

import random

import pytest

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.dht.limits import (
    Budget,
    Diversity,
    NonceCache,
    PrefixBudgets,
    crowded_among,
    prefix_of,
    wide_prefix_of,
)
from p2pnode.dht.tokens import PutTokens, RetryTokens

HERE, THERE = Address("5.0.0.1", 1).pack(), Address("5.0.0.2", 1).pack()


def test_budget_gives_its_burst_then_its_rate() -> None:
    """Ten at once, then two per second, never more than the burst saved up."""
    budget = Budget(2.0, 10.0)
    assert sum(budget.take(100.0) for _ in range(50)) == 10
    assert sum(budget.take(101.0) for _ in range(50)) == 2
    assert sum(budget.take(1e6) for _ in range(50)) == 10


def test_a_prefix_over_its_limit_leaves_the_common_budget_alone() -> None:
    """A flood from one prefix does not eat what others share; remembered prefixes are bounded."""
    budgets = PrefixBudgets(Budget(0.0, 100.0), 0.0, 3.0)
    assert sum(budgets.take(b"bad", 1.0) for _ in range(1000)) == 3
    assert sum(budgets.take(b"%d" % i, 1.0) for i in range(1000)) == 97
    for i in range(10_000):
        budgets.take(i.to_bytes(6, "big"), 2.0)
    assert len(budgets) == PrefixBudgets.MAX_PREFIXES


def test_prefixes_of_addresses() -> None:
    """/24 of IPv4, /48 and /32 of IPv6."""
    assert prefix_of("5.6.7.8") == bytes((5, 6, 7)) == wide_prefix_of(prefix_of("5.6.7.9"))
    assert prefix_of("2001:db8:1:2::3") == bytes.fromhex("20010db80001")
    assert wide_prefix_of(prefix_of("2001:db8:1:2::3")) == bytes.fromhex("20010db8")


def test_nonces_are_remembered_for_the_window_and_bounded() -> None:
    """Old ones go with time, and with number."""
    cache = NonceCache(100, 1200.0)
    cache.add(b"first", 0.0)
    assert b"first" in cache
    cache.add(b"later", 1300.0)
    assert b"first" not in cache
    for i in range(500):
        cache.add(b"%d" % i, 1301.0)
    assert len(cache) == 100


def test_put_tokens_hold_for_address_and_key_for_one_to_two_hours() -> None:
    """Another address or key, or a later time, needs another token; the port may change."""
    tokens = PutTokens(random.Random(1).randbytes)
    token = tokens.issue(HERE, b"k" * 20, 0.0)
    moved_port = Address("5.0.0.1", 999).pack()
    assert tokens.check(token, HERE, b"k" * 20, 3599.0)
    assert tokens.check(token, moved_port, b"k" * 20, 3601.0)
    assert not tokens.check(token, THERE, b"k" * 20, 3601.0)
    assert not tokens.check(token, HERE, b"j" * 20, 3601.0)
    assert not tokens.check(token, HERE, b"k" * 20, 7300.0)
    token = tokens.issue(HERE, b"k" * 20, 7300.0)
    assert not tokens.check(token, HERE, b"k" * 20, 18_000.0)


def test_put_tokens_live_two_hours_at_most_however_seldom_they_are_asked_for() -> None:
    """One given out just after a change of secrets; the next use of any is an hour and 59 minutes later."""
    tokens = PutTokens(random.Random(1).randbytes)
    tokens.issue(bytes(6), bytes(32), 0.0)
    token = tokens.issue(bytes(6), bytes(32), 1.0)
    assert tokens.check(token, bytes(6), bytes(32), 7_190.0)
    assert not tokens.check(token, bytes(6), bytes(32), 7_205.0)


def test_retry_tokens_hold_for_one_address_and_a_minute() -> None:
    """Another address, another node's secret, or a later time refuses."""
    tokens = RetryTokens(random.Random(1).randbytes)
    token = tokens.issue(HERE, 100.0)
    tokens.check_untrusted(token, HERE, 159.0)
    for bad, where, at in ((token, THERE, 100.0), (token, HERE, 200.0), (bytes(24), HERE, 0.0), (b"", HERE, 0.0)):
        with pytest.raises(BadPacket):
            tokens.check_untrusted(bad, where, at)
    with pytest.raises(BadPacket):
        RetryTokens(random.Random(2).randbytes).check_untrusted(token, HERE, 100.0)


def test_crowded_among_says_what_diversity_says() -> None:
    """For random mixtures of /24s, and of /48s of a few /32s."""
    rng = random.Random(6)
    blocks = [rng.randbytes(3) for _ in range(12)] + [
        rng.choice((b"abcd", b"abce")) + rng.randbytes(2) for _ in range(12)
    ]
    answers = set()
    for _ in range(2000):
        prefixes = rng.choices(blocks, k=rng.randrange(30))
        prefix = rng.choice(blocks)
        answers.add((len(prefix), expected := Diversity(prefixes).crowded(prefix)))
        assert crowded_among(prefixes, prefix) is expected
    assert answers == {(3, True), (3, False), (6, True), (6, False)}
