"""Access links: what lies between a host and the rest, in both directions; delays drawn from distributions.

A `LinkProfile` is what a link is like, a `Link` is one host's, with its queue and the state of its bursts. Rules of one
direction (a `Lane`), in this order:

- A packet waits until those before it have left; when the queue is full it is dropped (tail drop). Waiting follows from
  when the line will be free: no timer per packet.
- It takes size / rate to send, headers included. What is lost afterwards has used the line.
- It then takes a delay drawn anew for each packet, but does not overtake: jitter on one line comes from scheduling and
  retransmission below IP, which keep order. Reordering is a thing of its own: a share of packets is late by a given
  time, and those behind it are not held up.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Bursts",
    "Delay",
    "Distribution",
    "Lane",
    "LaneProfile",
    "Link",
    "LinkProfile",
    "Lognormal",
    "Normal",
    "Pareto",
    "Uniform",
]

Delay = float | Callable[[random.Random], float]
"""One-way delay in seconds: a constant, or drawn anew for each packet."""
_NORMAL_TRIES = 100
_ROUNDING_BYTES = 1e-6  # times are floats; a packet that just fits must fit


class Distribution(Protocol):
    """Delays in seconds. `mean`: of what is drawn."""

    @property
    def mean(self) -> float: ...

    def __call__(self, rng: random.Random) -> float: ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Between `least` and `most`, all equally likely."""

    least: float
    most: float

    @property
    def mean(self) -> float:
        return (self.least + self.most) / 2

    def __call__(self, rng: random.Random) -> float:
        return self.least + (self.most - self.least) * rng.random()


@dataclass(frozen=True, slots=True)
class Normal:
    """The normal distribution of these parameters, cut off below `least` (drawn again)."""

    centre: float
    spread: float
    least: float = 0.0

    @property
    def mean(self) -> float:
        z = (self.least - self.centre) / self.spread
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return self.centre + self.spread * density / (math.erfc(z / math.sqrt(2)) / 2)

    def __call__(self, rng: random.Random) -> float:
        for _ in range(_NORMAL_TRIES):
            if (drawn := rng.gauss(self.centre, self.spread)) >= self.least:
                return drawn
        return self.least


@dataclass(frozen=True, slots=True)
class Lognormal:
    """`least` plus a lognormal of this median; `sigma` 0.5 has its 99th percentile at 3.2 medians, 1.0 at 10."""

    least: float
    median: float
    sigma: float

    @property
    def mean(self) -> float:
        return self.least + self.median * math.exp(self.sigma * self.sigma / 2)

    def __call__(self, rng: random.Random) -> float:
        return self.least + self.median * math.exp(rng.gauss(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class Pareto:
    """At least `least`; twice as much in 2**-alpha of the draws, and so on; never above `most`. `alpha`: above 1."""

    least: float
    alpha: float
    most: float = math.inf

    def __post_init__(self) -> None:
        if self.alpha <= 1:
            raise ValueError("a Pareto distribution whose alpha is 1 or less has no mean")

    @property
    def mean(self) -> float:
        """Of the distribution whose draws above `most` count as `most`."""
        tail = math.pow(self.least / self.most, self.alpha - 1)
        return self.least * (self.alpha - tail) / (self.alpha - 1)

    def __call__(self, rng: random.Random) -> float:
        return min(self.most, self.least * math.pow(1.0 - rng.random(), -1.0 / self.alpha))


@dataclass(frozen=True, slots=True)
class Bursts:
    """Loss in bursts: Gilbert's model. In the bad state every packet is lost, in the good state none.

    `loss`: share of packets lost in the long run. `mean_length`: packets per burst, at least 1 / (1 - loss).
    Gilbert, "Capacity of a Burst-Noise Channel" (1960); the variant with losses in the good state too is Elliott's
    (1963): `good_loss`, `bad_loss` are the loss in each state. Per packet, not per second.
    """

    share_bad: float
    mean_length: float
    good_loss: float = 0.0
    bad_loss: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share_bad < 1 or self.mean_length < 1 or self.enter > 1:
            raise ValueError("no bursts have that share and length")

    @property
    def loss(self) -> float:
        """Share of packets lost in the long run."""
        return self.share_bad * self.bad_loss + (1 - self.share_bad) * self.good_loss

    @property
    def enter(self) -> float:
        """Probability, at each packet in the good state, that the bad state begins."""
        return self.share_bad / (1 - self.share_bad) / self.mean_length

    @property
    def leave(self) -> float:
        """Probability, at each packet in the bad state, that it ends."""
        return 1 / self.mean_length


@dataclass(frozen=True, slots=True)
class LaneProfile:
    """One direction of a link. Rates in bits per second, None: without limit. Shares in 0..1."""

    delay: Delay = 0.0
    rate_bps: float | None = None
    queue_bytes: float = math.inf
    loss: float | Bursts = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.02
    """How late a reordered packet is."""

    def __post_init__(self) -> None:
        shares = (self.loss if isinstance(self.loss, float | int) else 0.0, self.duplicate, self.reorder)
        if any(not 0 <= share <= 1 for share in shares):
            raise ValueError("a share of packets is between 0 and 1")
        if (self.rate_bps is not None and self.rate_bps <= 0) or self.queue_bytes < 0 or self.reorder_s < 0:
            raise ValueError("a rate is above 0, a queue and a lateness are not below")


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """What an access link is like. `mtu`: bytes of the largest IP packet."""

    name: str
    up: LaneProfile = LaneProfile()
    down: LaneProfile = LaneProfile()
    mtu: int = 1500


class Lane:
    """One direction of one host's link."""

    __slots__ = ("_bad", "_free_at", "_last_exit_at", "_rng", "profile")

    def __init__(self, profile: LaneProfile, rng: random.Random) -> None:
        self.profile = profile
        self._rng = rng
        self._free_at = 0.0
        self._last_exit_at = 0.0
        self._bad = False

    def queued_bytes(self, now: float) -> float:
        """Bytes that wait at `now`, with what is left of the packet that is being sent."""
        rate = self.profile.rate_bps
        return 0.0 if rate is None else max(0.0, self._free_at - now) * rate / 8

    def pass_on(self, now: float, size: int, counts: Counter[str]) -> float | None:
        """Take a packet of `size` bytes, headers included; return when it is through, None when it is not.

        Then `counts["queue_full"]` or `counts["lost"]` grows. `now` must not go back.
        """
        profile = self.profile
        leaves_at = now
        if profile.rate_bps is not None:
            if self.queued_bytes(now) + size > profile.queue_bytes + _ROUNDING_BYTES:
                counts["queue_full"] += 1
                return None
            leaves_at = self._free_at = max(now, self._free_at) + size * 8 / profile.rate_bps
        if profile.loss and self._is_lost(profile.loss):
            counts["lost"] += 1
            return None
        delay = profile.delay
        through_at = leaves_at + (delay(self._rng) if callable(delay) else delay)
        if profile.reorder and self._rng.random() < profile.reorder:
            return max(through_at, self._last_exit_at) + profile.reorder_s
        if through_at < self._last_exit_at:
            return self._last_exit_at
        self._last_exit_at = through_at
        return through_at

    def doubles(self, counts: Counter[str]) -> bool:
        """Draw whether a packet comes twice; then `counts["duplicated"]` grows."""
        if not self.profile.duplicate or self._rng.random() >= self.profile.duplicate:
            return False
        counts["duplicated"] += 1
        return True

    def _is_lost(self, loss: float | Bursts) -> bool:
        if not isinstance(loss, Bursts):
            return self._rng.random() < loss
        if self._rng.random() < (loss.leave if self._bad else loss.enter):
            self._bad = not self._bad
        chance = loss.bad_loss if self._bad else loss.good_loss
        return chance >= 1 or (chance > 0 and self._rng.random() < chance)


class Link:
    """The access link of one host. `up`: towards the network."""

    __slots__ = ("down", "profile", "up")

    def __init__(self, profile: LinkProfile, rng: random.Random) -> None:
        self.profile = profile
        self.up = Lane(profile.up, rng)
        self.down = Lane(profile.down, rng)
