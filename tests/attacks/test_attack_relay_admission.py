"""T1: who owns a block of addresses, or is a neighbour, and wants all of a relay: places, openings, bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.relay_table import RelaySettings, RelayTable


def table_of(**settings: Any) -> RelayTable:
    return RelayTable(RelaySettings(**settings), random.Random(7).randbytes)


def node_id(number: int) -> bytes:
    return number.to_bytes(20, "big")


def opens(table: RelayTable, number: int, ip: str, now: float, lease: float = 120) -> bool:
    """A node of its own, at an address."""
    return table.open(node_id(10 + number), node_id(5), Address(ip, 1 + number % 60_000), lease, now) is not None


def wide_ip(number: int) -> str:
    """Of an IPv6 /32, in another /48 each."""
    return f"2a00:1234:{number % 65_536:x}::1"


def pair(table: RelayTable, number: int, at: str, now: float = 0.0) -> tuple[int, Address]:
    """Both sides of a flow, the first one's number and address."""
    one, other = node_id(2 * number + 1), node_id(2 * number + 2)
    first = table.open(one, other, Address(at, 9), 120, now)
    assert first is not None
    assert table.open(other, one, Address(f"99.{number >> 8}.{number & 255}.1", 9), 120, now) is not None
    return first.flow, Address(at, 9)


def passed(
    table: RelayTable, flows: Sequence[tuple[int, Address]], rates: Sequence[float], began: float
) -> list[float]:
    """Send for six seconds at `rates` (bytes per second); return the share of each that passed in the last five."""
    owed, offered, taken = [0.0] * len(flows), [0] * len(flows), [0] * len(flows)
    for tick in range(1_200):
        now = began + 0.005 * tick
        for i, (flow, at) in enumerate(flows):
            owed[i] += rates[i] * 0.005
            while owed[i] >= 1000:
                owed[i] -= 1000
                try:
                    table.forward_untrusted(flow, bytes(1000), at, now)
                    got = 1
                except BadPacket as bad:
                    assert bad.reason == "over_rate"
                    got = 0
                if tick >= 200:
                    offered[i] += 1
                    taken[i] += got
    return [t / o for t, o in zip(taken, offered, strict=True)]


def test_t1_a_whole_ipv6_provider_block_does_not_fill_a_relay() -> None:
    """20,000 reservations, each from another /48 of one /32, against twenty of others: these stay, newcomers get in."""
    table = table_of()
    others = [f"2a01:{n:x}::1" for n in range(10)] + [f"9.{n}.0.1" for n in range(10)]
    for number in range(20_000):
        now = number * 0.005
        opens(table, 1_000 + number, wide_ip(number), now)
        if number % 4_000 == 0:
            assert all(opens(table, n, ip, now) for n, ip in enumerate(others))
    held = table.statistics().flows
    assert table.open(node_id(10), node_id(5), Address(others[0], 1), 120, now) is not None
    before = table.statistics().refused
    assert all(opens(table, n, ip, now) for n, ip in enumerate(others))  # renewed: all are still there
    assert all(opens(table, 900 + n, f"2a02:{n:x}::1", now + 1) for n in range(20))
    print(f"T1: {held} sides held, refused {before}; 20 of 20 others stay, 20 of 20 newcomers get in")
    assert table.statistics().refused == before


@pytest.mark.parametrize("block", ["2a00:1234:/32", "6.6.6.0/24, one address"])
def test_t1_opening_and_ending_without_end_uses_up_nobody_elses_openings(block: str) -> None:
    """300 a second; another block, of the address's own neighbours where that is one, opens one each second."""
    table = table_of()
    wide = ":" in block
    neighbour = "2a00:9999::1" if wide else "6.6.6.7"
    got = 0
    for number in range(9_000):
        now = number / 300
        ip = wide_ip(number) if wide else "6.6.6.6"
        opens(table, 1_000 + number, ip, now)
        opens(table, 1_000 + number, ip, now, lease=0)
        if number % 300 == 299:
            got += opens(table, number // 300, neighbour, now)
    print(f"T1: {block}: {got} of 30 openings of others, {table.statistics().refused}")
    assert got == 30


def test_t1_a_neighbour_in_the_same_block_does_not_take_all_its_places() -> None:
    """One address fills its /24's 128 places and keeps trying; ten others of a carrier's customers get four each."""
    table = table_of()
    first = [opens(table, n, "6.6.6.9", n / 10) for n in range(4)]
    for number in range(2_000):
        opens(table, 1_000 + number, "6.6.6.6", 1 + number / 40)
    now = 52.0
    came = [opens(table, 100 + n, f"6.6.6.{100 + n % 10}", now + n) for n in range(40)]
    for number in range(400):
        opens(table, 5_000 + number, "6.6.6.6", now + 40 + number / 40)
    refused = dict(table.statistics().refused)
    stay = [opens(table, n, "6.6.6.9", now + 51) for n in range(4)]
    stay += [opens(table, 100 + n, f"6.6.6.{100 + n % 10}", now + 51) for n in range(40)]
    print(f"T1: {sum(came)} of 40 neighbours' get in, {sum(stay)} of 44 stay, {table.statistics().flows} sides")
    assert all(first + came + stay)
    assert table.statistics().refused == refused
    assert table.statistics().flows == 128


def test_t1_a_flooding_neighbour_leaves_his_block_its_bytes() -> None:
    """2 MB/s from one address of a /24, five others of it want 20 kB/s each, as do five elsewhere: all pass."""
    table = table_of()
    ips = ["6.6.6.6", *(f"6.6.6.{n}" for n in range(7, 12)), *(f"7.{n}.0.1" for n in range(5))]
    shares = passed(table, [pair(table, n, ip) for n, ip in enumerate(ips)], [2e6] + 10 * [2e4], 0.0)
    print("T1: shares that pass: " + " ".join(f"{share:.3f}" for share in shares))
    assert min(shares[1:]) >= 0.98
    assert shares[0] <= 0.6


def test_t1_floods_from_many_blocks_of_one_ipv6_provider_leave_others_their_share() -> None:
    """100 /48s of one /32 send 100 kB/s each, ten times what the relay gives all; ten others 25 kB/s: these pass."""
    table = table_of(total_rate=1e6, each_rate=2.5e5)
    ips = [wide_ip(n) for n in range(100)] + [f"2a03:{n:x}::1" for n in range(5)] + [f"7.{n}.0.1" for n in range(5)]
    flows = [pair(table, n, ip, 0.2 * n) for n, ip in enumerate(ips)]
    shares = passed(table, flows, [1e5] * 100 + [2.5e4] * 10, 30.0)
    flood = sum(shares[:100]) * 1e5
    print(f"T1: others pass {min(shares[100:]):.3f}, the /32 gets {flood:.0f} bytes/s")
    assert min(shares[100:]) >= 0.98
    assert flood <= 8e5


def test_t1_sides_come_and_go_and_leave_nothing() -> None:
    """A thousand nodes of all kinds open, move and end: no count is left behind."""
    table, rng = table_of(), random.Random(3)
    ips = [f"6.6.{rng.randrange(3)}.{rng.randrange(9)}" for _ in range(30)] + [wide_ip(n) for n in range(30)]
    for number in range(5_000):
        opens(table, rng.randrange(1_000), rng.choice(ips), number * 0.05, rng.choice((0, 1, 30, 120)))
    table.expire(1_000.0)
    assert table.statistics().flows == 0
    assert not table._of_node
    parties = table._parties
    for left in (parties._sites, parties._sides, parties._blocks, table._share._members):
        assert not left
