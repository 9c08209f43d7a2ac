"""The density test: silent in honest networks of any size, awake where ids were ground, with an estimate that holds."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from functools import cache

import pytest

from p2pnode.dht.density import ID_SPACE, SizeEstimate, is_dense, region_aims, region_radius

K = 20
SIZES = (30, 100, 1_000, 10_000)


class Space:
    """A network's ids; a search finds the true nearest."""

    def __init__(self, count: int, rng: random.Random) -> None:
        self.ids = sorted(rng.getrandbits(160) for _ in range(count))

    def search(self, target: int) -> list[int]:
        """Return the distances of the k nearest, ascending."""
        bits = max(0, (len(self.ids) // K).bit_length() - 2)
        while True:
            low = target >> (160 - bits) << (160 - bits)
            run = self.ids[bisect_left(self.ids, low) : bisect_left(self.ids, low + (1 << 160 - bits))]
            if len(run) >= K or not bits:
                return sorted(node_id ^ target for node_id in run)[:K]
            bits -= 1


@cache
def searches(count: int) -> list[tuple[bytes, list[int], float]]:
    """Target, distances found, and the size believed then: 8 nodes' first 16 searches in each of 15 networks."""
    rng = random.Random(count)
    made: list[tuple[bytes, list[int], float]] = []
    for _ in range(15):
        space = Space(count, rng)
        for _ in range(8):
            sizes = SizeEstimate()
            for _ in range(17):
                target = rng.getrandbits(160)
                distances = space.search(target)
                name = target.to_bytes(20, "big")
                size = sizes.cautious(name)
                if size is not None:
                    made.append((name, distances, size))
                sizes.learned(name, distances)
    return made


@pytest.mark.parametrize("count", SIZES)
def test_e1_no_alarm_in_an_honest_network(count: int) -> None:
    """Below 1 % of searches find ids that seem too dense, with estimates of one to sixteen searches."""
    alarms = sum(is_dense(distances, size) for _, distances, size in searches(count))
    share = alarms / len(searches(count))
    print(f"E1: {count} honest nodes: false alarms in {share:.2%} of {len(searches(count))} searches")
    assert share < 0.01


@pytest.mark.parametrize("count", SIZES[1:])
def test_e1_ground_ids_are_noticed(count: int) -> None:
    """Twenty ids nearer than all others: always; ten, too. Spread so that each seems likely: from 14 of 20 on."""
    rng = random.Random(count)
    noticed: dict[int, float] = {}
    spread: dict[int, float] = {}
    for ground in (6, 10, 12, 14, 16, 20):
        alarms = spread_alarms = 0
        for _, distances, size in searches(count):
            near = [rng.randrange(ID_SPACE // count) for _ in range(ground)]
            alarms += is_dense(sorted(near + distances)[:K], size)
            # As far apart as can be while `ground` of the twenty nearest are theirs.
            radius = distances[K - ground] if ground < K else distances[0]
            evenly = [radius * (i + 1) // (ground + 1) for i in range(ground)]
            spread_alarms += is_dense(sorted(evenly + distances)[:K], size)
        noticed[ground] = alarms / len(searches(count))
        spread[ground] = spread_alarms / len(searches(count))
    shares = ", ".join(f"{ground}: {share:.1%}" for ground, share in noticed.items())
    evenly_spread = ", ".join(f"{ground}: {share:.1%}" for ground, share in spread.items())
    print(f"E1: {count} nodes, noticed by ids ground nearest: {shares}; spread evenly: {evenly_spread}")
    assert noticed[20] == 1.0
    assert spread[20] >= 0.99
    assert noticed[10] >= 0.99
    assert spread[16] >= 0.8


def test_e1_the_estimate_holds_while_a_quarter_of_the_searches_met_no_ground_ids() -> None:
    """Keys of the attacker's choice, own neighbourhood ground as well: the cautious size moves by less than half."""
    rng = random.Random(5)
    space = Space(1_000, rng)
    worst_median, cautious = 0.0, []
    for _ in range(100):
        sizes = SizeEstimate()
        for number in range(16):
            target = rng.getrandbits(160)
            distances = space.search(target)
            if number % 4:  # three of four were met by ids ground ten thousand times as near
                distances = [distance // 10_000 for distance in distances]
            sizes.learned(target.to_bytes(20, "big"), distances)
        estimate = sizes.cautious(bytes(20))
        assert estimate is not None
        cautious.append(estimate)
        few = SizeEstimate()
        for number in range(16):
            target = rng.getrandbits(160)
            distances = space.search(target)
            few.learned(target.to_bytes(20, "big"), [d // (10_000 if number < 6 else 1) for d in distances])
        worst_median = max(worst_median, few.median(own=1e9))
    print(f"E1: 1,000 nodes; 12 of 16 searches lied to: {min(cautious):.0f} to {max(cautious):.0f}; "
          f"median with 6 of 16 and the own neighbourhood: at most {worst_median:.0f}")  # fmt: skip
    assert min(cautious) > 400
    assert max(cautious) < 3_000
    assert worst_median < 3_000


def test_the_estimate_follows_a_growing_network() -> None:
    """Searches are forgotten: the last 16 count, and only the newest once the network is known to have grown."""
    sizes = SizeEstimate()
    for number in range(100):
        sizes.learned(bytes([number]) * 20, [ID_SPACE // 100 * (i + 1) // 10 for i in range(K)])
    assert len(sizes) == 16
    assert sizes.others(bytes([99]) * 20) == 15
    for number in (200, 201):
        sizes.learned(bytes([number]) * 20, [ID_SPACE // 10_000 * (i + 1) // 10 for i in range(K)])
    before = sizes.cautious(bytes(20))
    sizes.outdated(2)
    after = sizes.cautious(bytes(20))
    assert before is not None
    assert after is not None
    assert after > 50 * before
    assert sizes.newest(bytes(20)) == after
    assert SizeEstimate().newest(bytes(20)) == 0.0


def test_the_aims_cover_the_region() -> None:
    """The k nearest of the aims and of the target hold nearly every node within the region's radius."""
    rng = random.Random(7)
    covered = total = 0
    for _ in range(50):
        space = Space(2_000, rng)
        target = rng.getrandbits(160)
        aims = region_aims(target.to_bytes(20, "big"), 2_000.0)
        assert 3 <= len(aims) <= 6
        found = set()
        for goal in (int.from_bytes(aim, "big") for aim in aims):
            found |= set(sorted(space.ids, key=goal.__xor__)[:K])
        region = [node_id for node_id in space.ids if node_id ^ target <= region_radius(2_000.0)]
        total += len(region)
        covered += len(found & set(region))
    print(f"nodes of the region found by its aims: {covered / total:.1%} of {total / 50:.1f}")
    assert covered / total > 0.95


def test_the_region_of_a_tiny_network_is_the_whole_id_space() -> None:
    """Below twenty nodes the aims stay ids, one in each half, quarter, ... that holds a node."""
    target = (7 << 150).to_bytes(20, "big")
    for size in (1.0, 2.0, 12.0, 20.0):
        aims = region_aims(target, size)
        assert all(len(aim) == 20 for aim in aims)
        assert len(aims) == int(math.log2(size))
