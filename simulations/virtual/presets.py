"""Access links and distances as measured in the field, rounded. The sources are in docs/world.md, "Presets"."""

from __future__ import annotations

from itertools import combinations_with_replacement

from p2pnode.simulations.virtual.links import Bursts, Delay, LaneProfile, LinkProfile, Lognormal, Uniform

__all__ = ["CORE", "LINKS", "REGIONS"]

_MBIT = 1_000_000.0
_KIB = 1024

LINKS: dict[str, LinkProfile] = {
    profile.name: profile
    for profile in (
        LinkProfile(
            "lan",
            up=LaneProfile(Uniform(0.000_05, 0.000_2), rate_bps=1000 * _MBIT, queue_bytes=512 * _KIB),
            down=LaneProfile(Uniform(0.000_05, 0.000_2), rate_bps=1000 * _MBIT, queue_bytes=512 * _KIB),
        ),
        LinkProfile(
            "home-dsl",
            up=LaneProfile(Lognormal(0.012, 0.002, 0.7), 10 * _MBIT, 128 * _KIB, loss=Bursts(0.002, 3)),
            down=LaneProfile(Lognormal(0.010, 0.002, 0.7), 50 * _MBIT, 256 * _KIB, loss=Bursts(0.002, 3)),
            mtu=1492,  # RFC 2516, "A Method for Transmitting PPP Over Ethernet", section 7
        ),
        LinkProfile(
            "home-cable",
            up=LaneProfile(Lognormal(0.006, 0.002_5, 0.8), 20 * _MBIT, 128 * _KIB, loss=Bursts(0.001, 3)),
            down=LaneProfile(Lognormal(0.003, 0.001_5, 0.8), 200 * _MBIT, 256 * _KIB, loss=Bursts(0.001, 3)),
        ),
        LinkProfile(
            "fibre",
            up=LaneProfile(Lognormal(0.003, 0.000_5, 0.6), 300 * _MBIT, 512 * _KIB, loss=0.000_2),
            down=LaneProfile(Lognormal(0.003, 0.000_5, 0.6), 300 * _MBIT, 512 * _KIB, loss=0.000_2),
        ),
        LinkProfile(
            "mobile",
            up=LaneProfile(Lognormal(0.015, 0.012, 0.7), 10 * _MBIT, 1024 * _KIB, loss=Bursts(0.003, 4)),
            down=LaneProfile(Lognormal(0.010, 0.008, 0.7), 40 * _MBIT, 1024 * _KIB, loss=Bursts(0.003, 4)),
            mtu=1358,  # 3GPP TS 23.501, annex J: what an operator may set without fragments inside its network
        ),
        LinkProfile(
            "satellite-leo",
            up=LaneProfile(Lognormal(0.009, 0.012, 0.5), 15 * _MBIT, 1024 * _KIB, loss=Bursts(0.004, 8)),
            down=LaneProfile(Lognormal(0.009, 0.012, 0.5), 150 * _MBIT, 1024 * _KIB, loss=Bursts(0.004, 8)),
        ),
        LinkProfile(
            "satellite-geo",
            up=LaneProfile(Lognormal(0.27, 0.02, 0.4), 10 * _MBIT, 1024 * _KIB, loss=Bursts(0.002, 4)),
            down=LaneProfile(Lognormal(0.27, 0.02, 0.4), 100 * _MBIT, 2048 * _KIB, loss=Bursts(0.002, 4)),
        ),
        LinkProfile(
            "datacenter",
            up=LaneProfile(Lognormal(0.000_05, 0.000_05, 0.8), 10_000 * _MBIT, 4096 * _KIB, loss=0.000_01),
            down=LaneProfile(Lognormal(0.000_05, 0.000_05, 0.8), 10_000 * _MBIT, 4096 * _KIB, loss=0.000_01),
        ),
    )
}
"""Kinds of access links by name."""

REGIONS = ("africa", "asia", "europe", "north-america", "oceania", "south-america")
_ROUND_TRIPS_MS = {
    ("africa", "africa"): 60,
    ("africa", "asia"): 260,
    ("africa", "europe"): 160,
    ("africa", "north-america"): 230,
    ("africa", "oceania"): 300,
    ("africa", "south-america"): 340,
    ("asia", "asia"): 70,
    ("asia", "europe"): 190,
    ("asia", "north-america"): 160,
    ("asia", "oceania"): 125,
    ("asia", "south-america"): 310,
    ("europe", "europe"): 20,
    ("europe", "north-america"): 90,
    ("europe", "oceania"): 260,
    ("europe", "south-america"): 190,
    ("north-america", "north-america"): 40,
    ("north-america", "oceania"): 170,
    ("north-america", "south-america"): 120,
    ("oceania", "oceania"): 40,
    ("oceania", "south-america"): 300,
    ("south-america", "south-america"): 40,
}
# Beside the distance: queues of the core, seldom more than a few milliseconds.
_CORE_JITTER_S, _CORE_SIGMA = 0.000_3, 1.0


def _core() -> dict[tuple[str, str], Delay]:
    delays: dict[tuple[str, str], Delay] = {}
    for one, other in combinations_with_replacement(REGIONS, 2):
        delay = Lognormal(_ROUND_TRIPS_MS[one, other] / 2000, _CORE_JITTER_S, _CORE_SIGMA)
        delays[one, other] = delays[other, one] = delay
    return delays


CORE: dict[tuple[str, str], Delay] = _core()
"""One-way delays between typical places of two regions, for `VirtualWorld.set_regions`; without the access links."""
