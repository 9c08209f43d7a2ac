"""Access links: distributions, bursts, queues (exact), order, duplicates, MTU, presets. Fixed seeds."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from p2pnode.core.address import Address
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual
from p2pnode.simulations.virtual.links import (
    Bursts,
    Distribution,
    Lane,
    LaneProfile,
    LinkProfile,
    Lognormal,
    Normal,
    Pareto,
    Uniform,
)
from p2pnode.simulations.virtual.presets import CORE, LINKS, REGIONS

HEADERS = 28  # IPv4 and UDP
NORMAL = statistics.NormalDist()


@pytest.mark.parametrize(
    ("distribution", "median"),
    [
        (Uniform(0.025, 0.075), 0.05),
        (Normal(0.05, 0.01), 0.05),
        (Normal(0.01, 0.02), 0.01 + 0.02 * NORMAL.inv_cdf((1 + NORMAL.cdf(-0.5)) / 2)),  # half of what is left above 0
        (Lognormal(0.01, 0.02, 0.7), 0.03),
        (Pareto(0.01, 2.5), 0.01 * 2 ** (1 / 2.5)),
        (Pareto(0.01, 1.5, most=1.0), 0.01 * 2 ** (1 / 1.5)),
    ],
)
def test_distributions_have_the_mean_and_median_they_say(distribution: Distribution, median: float) -> None:
    """200,000 draws: mean within 2 %, median within 1.5 %, none below the least."""
    rng = random.Random(1)
    drawn = [distribution(rng) for _ in range(200_000)]
    print(f"{distribution}: mean {statistics.fmean(drawn):.5f}, median {statistics.median(drawn):.5f}")
    assert statistics.fmean(drawn) == pytest.approx(distribution.mean, rel=0.02)
    assert statistics.median(drawn) == pytest.approx(median, rel=0.015)
    assert min(drawn) >= getattr(distribution, "least", 0.0)


def test_heavy_tails_are_heavy() -> None:
    """Shares beyond a bound follow the formulas: Pareto 2**-alpha per doubling, lognormal by the normal's tail."""
    rng = random.Random(2)
    pareto = [Pareto(0.01, 2.0)(rng) for _ in range(100_000)]
    for factor in (2, 4, 8):
        assert sum(x > 0.01 * factor for x in pareto) / 100_000 == pytest.approx(factor**-2.0, rel=0.1)
    lognormal = [Lognormal(0.0, 1.0, 1.0)(rng) for _ in range(100_000)]
    for sigmas in (1, 2):
        tail = math.erfc(sigmas / math.sqrt(2)) / 2
        assert sum(x > math.exp(sigmas) for x in lognormal) / 100_000 == pytest.approx(tail, rel=0.06)


@pytest.mark.parametrize("wrong", [lambda: Pareto(0.01, 1.0), lambda: Bursts(0.9, 2), lambda: Bursts(0.1, 0.5),
                                   lambda: LaneProfile(loss=1.5), lambda: LaneProfile(rate_bps=0),
                                   lambda: LaneProfile(queue_bytes=-1)])  # fmt: skip
def test_impossible_parameters_are_refused(wrong: Callable[[], object]) -> None:
    """No mean, bursts that would not fit between each other, shares above 1, a rate of nothing."""
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        wrong()


@pytest.mark.parametrize(("loss", "length"), [(0.02, 4.0), (0.2, 2.0), (0.05, 25.0)])
def test_bursts_have_their_share_and_mean_length(loss: float, length: float) -> None:
    """400,000 packets: the share lost and the mean length of a run of losses are within 6 % (bursts vary)."""
    lane = Lane(LaneProfile(loss=Bursts(loss, length)), random.Random(3))
    counts: Counter[str] = Counter()
    lost = [lane.pass_on(0.0, 100, counts) is None for _ in range(400_000)]
    assert counts == {"lost": sum(lost)}
    runs = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    print(f"wanted {loss} in bursts of {length}: {sum(lost) / len(lost):.4f} in bursts of {sum(lost) / runs:.2f}")
    assert sum(lost) / len(lost) == pytest.approx(loss, rel=0.06)
    assert sum(lost) / runs == pytest.approx(length, rel=0.06)
    assert Bursts(loss, length).loss == loss


def test_elliotts_variant_loses_in_both_states() -> None:
    """With losses in the good state and not all in the bad one the share follows the formula."""
    bursts = Bursts(0.1, 10, good_loss=0.01, bad_loss=0.5)
    lane = Lane(LaneProfile(loss=bursts), random.Random(4))
    lost = sum(lane.pass_on(0.0, 100, Counter()) is None for _ in range(200_000))
    assert lost / 200_000 == pytest.approx(0.1 * 0.5 + 0.9 * 0.01, rel=0.06)
    assert bursts.loss == pytest.approx(0.059)


def test_queue_delays_are_exact() -> None:
    """At 8,000 bit/s a byte takes 1 ms: packets leave one after the other; the queue that is full drops the next."""
    counts: Counter[str] = Counter()
    lane = Lane(LaneProfile(delay=0.5, rate_bps=8_000, queue_bytes=350), random.Random(0))
    assert [lane.pass_on(0.0, 100, counts) for _ in range(3)] == pytest.approx([0.6, 0.7, 0.8])
    assert lane.queued_bytes(0.0) == pytest.approx(300)
    assert lane.pass_on(0.0, 100, counts) is None
    assert counts == {"queue_full": 1}
    assert lane.pass_on(0.0, 50, counts) == pytest.approx(0.85)  # what fits still goes in: tail drop looks at bytes
    assert lane.queued_bytes(0.25) == pytest.approx(100)
    assert lane.pass_on(0.25, 100, counts) == pytest.approx(0.95)
    assert lane.pass_on(2.0, 100, counts) == pytest.approx(2.6)  # idle meanwhile
    assert lane.queued_bytes(5.0) == 0


def test_jitter_of_one_line_does_not_reorder_but_reordering_does() -> None:
    """Packets keep their order whatever the delay drawn; a share of 10 % is late by 20 ms and is overtaken."""
    counts: Counter[str] = Counter()
    ordered = Lane(LaneProfile(delay=Uniform(0.01, 0.1)), random.Random(5))
    arrivals = [ordered.pass_on(i * 0.001, 100, counts) for i in range(2_000)]
    assert arrivals == sorted(arrivals)
    mixed = Lane(LaneProfile(delay=0.01, reorder=0.1, reorder_s=0.02), random.Random(5))
    times = [mixed.pass_on(i * 0.001, 100, counts) for i in range(10_000)]
    late = sum(at == pytest.approx(i * 0.001 + 0.03) for i, at in enumerate(times))
    in_time = sum(at == pytest.approx(i * 0.001 + 0.01) for i, at in enumerate(times))
    assert late + in_time == 10_000
    assert late == pytest.approx(1_000, rel=0.1)


class Inbox:
    """Keeps (virtual time, bytes)."""

    def __init__(self, network: VirtualNetwork) -> None:
        self.items: list[tuple[float, bytes]] = []
        self._now = network.monotonic

    def __call__(self, data: bytes, _source: Address) -> None:
        self.items.append((round(self._now(), 6), data))


async def pair(world: VirtualWorld) -> tuple[VirtualNetwork, VirtualNetwork, Inbox, Callable[[bytes], None]]:
    """Two hosts, what the second hears, and a function with which the first sends to it."""
    a, b = world.host("198.51.100.1"), world.host("198.51.100.2")
    box = Inbox(b)
    await b.open_udp(Address("0.0.0.0", 4747), box)
    sender = await a.open_udp(Address("0.0.0.0", 0), lambda *_: None)
    return a, b, box, lambda data: sender.send(data, Address("198.51.100.2", 4747))


def test_both_links_and_the_wire_add_up() -> None:
    """Uplink (100 bytes at 8 kbit/s: 0.1 s, and 0.2 s), wire 0.05 s, downlink (0.05 s, and 0.3 s): 0.7 s in all."""

    async def main(world: VirtualWorld) -> None:
        a, b, box, send = await pair(world)
        world.set_link(a, LinkProfile("slow", up=LaneProfile(0.2, rate_bps=8_000), down=LaneProfile(99.0)))
        world.set_link(b, LinkProfile("slow", up=LaneProfile(99.0), down=LaneProfile(0.3, rate_bps=16_000)))
        send(bytes(100 - HEADERS))
        send(bytes(100 - HEADERS))
        await asyncio.sleep(5)
        assert [at for at, _ in box.items] == [0.7, 0.8]  # the second waits for the first on the uplink only
        world.set_link(a, None)
        world.set_link(b, None)
        send(b"x")
        await asyncio.sleep(5)
        assert box.items[-1] == (5.05, b"x")

    run_virtual(main, delay=0.05)


def test_downlink_takes_packets_as_they_arrive() -> None:
    """Two senders share the receiver's queue in the order of arrival, not of sending."""

    async def main(world: VirtualWorld) -> None:
        far, near, b = (world.host(f"198.51.100.{i}") for i in (1, 2, 3))
        world.set_delay(far, b, 1.0)
        world.set_link(b, LinkProfile("slow", down=LaneProfile(rate_bps=8_000)))
        box = Inbox(b)
        await b.open_udp(Address("0.0.0.0", 4747), box)
        for network, body in ((far, b"far"), (near, b"near")):
            sender = await network.open_udp(Address("0.0.0.0", 0), lambda *_: None)
            sender.send(body.ljust(100 - HEADERS), Address("198.51.100.3", 4747))
        await asyncio.sleep(5)
        assert [(at, data.strip()) for at, data in box.items] == [(0.15, b"near"), (1.1, b"far")]

    run_virtual(main, delay=0.05)


def test_duplicates_and_mtu_are_counted() -> None:
    """Each datagram comes twice over either lane (four times); one byte above the MTU comes not at all."""

    async def main(world: VirtualWorld) -> None:
        a, b, box, send = await pair(world)
        profile = LinkProfile("twice", up=LaneProfile(duplicate=1.0), down=LaneProfile(duplicate=1.0), mtu=1400)
        world.set_link(a, profile)
        world.set_link(b, profile)
        send(bytes(1400 - HEADERS))
        send(bytes(1401 - HEADERS))
        await asyncio.sleep(1)
        assert len(box.items) == 4
        assert world.counts == {"sent": 2, "duplicated": 3, "delivered": 4, "too_big": 1}
        own = await a.open_udp(Address("0.0.0.0", 4747), Inbox(a))
        sender = await a.open_udp(Address("0.0.0.0", 0), lambda *_: None)
        sender.send(bytes(65_507), Address("127.0.0.1", 4747))  # loopback has no such limit
        await asyncio.sleep(1)
        assert world.counts["delivered"] == 5
        own.close()

    run_virtual(main)


def test_lan_wire_link_and_regions() -> None:
    """A LAN has its own wire; a host's link lies on the way of its first address only; regions set the distance."""

    async def main(world: VirtualWorld) -> None:
        router = world.host("198.51.100.1")
        router.host.add_address("192.168.0.1", lan="home")
        inside, outside = world.host("192.168.0.2", lan="home"), world.host("198.51.100.2")
        world.set_lan("home", delay=0.002)
        world.set_link(router, LinkProfile("slow", up=LaneProfile(1.0), down=LaneProfile(1.0)))
        world.set_regions({("north", "south"): 0.2})
        router.host.region, outside.host.region = "north", "south"
        box = Inbox(router)
        await router.open_udp(Address("0.0.0.0", 4747), box)
        for network, to in ((inside, "192.168.0.1"), (outside, "198.51.100.1")):
            sender = await network.open_udp(Address("0.0.0.0", 0), lambda *_: None)
            sender.send(to.encode(), Address(to, 4747))
        await asyncio.sleep(5)
        assert box.items == [(0.002, b"192.168.0.1"), (1.05, b"198.51.100.1")]  # the reverse way has no own delay
        back, answers = await router.open_udp(Address("0.0.0.0", 0), lambda *_: None), Inbox(outside)
        await outside.open_udp(Address("0.0.0.0", 4747), answers)
        back.send(b"x", Address("198.51.100.2", 4747))
        await asyncio.sleep(5)
        assert answers.items == [(6.2, b"x")]
        with pytest.raises(ValueError, match="no address"):
            world.set_link(world.host(), LINKS["lan"])

    run_virtual(main, delay=0.05)


def test_presets_give_round_trips_as_published() -> None:
    """Median round trips between two hosts with the same link, the wire without delay; printed; within their bands."""
    bands_ms = {
        "lan": (0.2, 1), "home-dsl": (48, 60), "home-cable": (20, 34), "fibre": (12, 16), "mobile": (80, 130),
        "satellite-leo": (70, 110), "satellite-geo": (1_100, 1_250), "datacenter": (0.2, 1.5),
    }  # fmt: skip
    assert set(bands_ms) == set(LINKS)

    async def main(world: VirtualWorld) -> None:
        for number, (name, profile) in enumerate(LINKS.items()):
            a, b = world.host(f"5.0.{number}.1"), world.host(f"5.0.{number}.2")
            world.set_link(a, profile)
            world.set_link(b, profile)
            trips: list[float] = []
            echo = await b.open_udp(Address("0.0.0.0", 7), lambda *datagram: echo.send(*datagram))  # noqa: B023, PLW0108
            sent_at = 0.0

            def answered(_data: bytes, _source: Address) -> None:
                trips.append(a.monotonic() - sent_at)  # noqa: B023

            sender = await a.open_udp(Address("0.0.0.0", 0), answered)
            for _ in range(500):
                sent_at = a.monotonic()
                sender.send(bytes(100), echo.local._replace(ip=f"5.0.{number}.2"))
                await asyncio.sleep(5)
            median_ms = statistics.median(trips) * 1000
            print(f"{name}: median round trip {median_ms:.2f} ms, lost {500 - len(trips)} of 500")
            assert bands_ms[name][0] <= median_ms <= bands_ms[name][1]
            assert len(trips) > 470

    run_virtual(main, delay=0.0, until=None)


def test_core_is_symmetric_and_complete() -> None:
    """Every pair of regions has a delay, the same both ways, and none is quicker than light in fibre over 1,000 km."""
    assert set(CORE) == {(one, other) for one in REGIONS for other in REGIONS}
    rng = random.Random(1)
    for one, other in CORE:
        delay = CORE[one, other]
        assert delay is CORE[other, one]
        assert callable(delay)
        assert 0.005 <= delay(rng) <= 0.25
