"""What lies between two hosts: the wire of their segment or the internet's core, and an access link at either end.

One hop of a packet: the sender's uplink, the wire, the receiver's downlink. The downlink takes packets in the order in
which they reach it, so a packet for a host with a link costs one timer more. Where nothing is set but the world's own
delay and loss, `VirtualWorld` does not come here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2pnode.core.address import Address
from p2pnode.simulations.virtual.links import Delay, Lane
from p2pnode.simulations.virtual.loop import VirtualLoop

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost

__all__ = ["Block", "Flow", "Segment", "Wires", "medium_of"]

Receive = Callable[..., object]
Flow = tuple["VirtualHost", Address, Address]
"""A TCP connection's packets of one direction on one hop: from this host, by these addresses."""
_ORDER_MAX = 4096  # flows remembered before those without packets under way are forgotten


@dataclass(frozen=True)
class Segment:
    """The wire of one LAN. `loss`: share of packets."""

    delay: Delay
    loss: float


@dataclass(eq=False)
class Block:
    """What any of `sources` sends to any of `destinations` is lost."""

    sources: frozenset[VirtualHost]
    destinations: frozenset[VirtualHost]


class Wires:
    """Whatever is special about the paths between hosts."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.pairs: dict[frozenset[VirtualHost], Delay] = {}
        """Own one-way delay of the wire between two hosts."""
        self.segments: dict[str, Segment] = {}
        self.core: dict[tuple[str, str], Delay] = {}
        """One-way delay between two regions of the internet, for hosts that have a region."""
        self.blocks: list[Block] = []
        self.has_links = False
        self._loop = loop
        self._rng = rng
        self._order: dict[Flow, float] = {}

    @property
    def plain(self) -> bool:
        """Whether all wires are the world's own."""
        return not (self.pairs or self.segments or self.core or self.blocks or self.has_links)

    def between(
        self, one: VirtualHost, other: VirtualHost, medium: str | None, delay: Delay, loss: float
    ) -> tuple[Delay, float]:
        """Return delay and loss of the wire between two hosts; `delay`, `loss`: the world's own."""
        if medium is not None and medium in self.segments:
            segment = self.segments[medium]
            delay, loss = segment.delay, segment.loss
        elif medium is None and one.region is not None and other.region is not None:
            delay = self.core.get((one.region, other.region), delay)
        if self.pairs:
            delay = self.pairs.get(frozenset((one, other)), delay)
        return delay, loss

    def draw(self, delay: Delay) -> float:
        return max(0.0, delay(self._rng)) if callable(delay) else delay

    def travel(
        self,
        counts: Counter[str],
        size: int,
        delay: Delay,
        loss: float,
        one: VirtualHost,
        other: VirtualHost,
        receive: Receive,
        args: tuple[Any, ...],
        flow: Flow | None = None,
    ) -> None:
        """Send an IP packet of `size` bytes from `one` to `other`; call `receive(*args)` when it arrives.

        `counts`: what becomes of it otherwise. `delay`, `loss`: the world's own. `flow`: the wire keeps its order.
        """
        medium = medium_of(one, other)
        up, down = one.links.get(medium), other.links.get(medium)
        delay, loss = self.between(one, other, medium, delay, loss)
        if self.blocks and any(one in block.sources and other in block.destinations for block in self.blocks):
            counts["partitioned"] += 1
        elif (up is not None and size > up.profile.mtu) or (down is not None and size > down.profile.mtu):
            counts["too_big"] += 1
        elif loss and self._rng.random() < loss:
            counts["lost"] += 1
        else:
            rest = (delay, flow, None if down is None else down.down, counts, size, receive, args)
            now = self._loop.now()
            if up is None:
                self._cross(now, *rest)
                return
            lane = up.up
            for _ in range(2 if lane.doubles(counts) else 1):
                if (at := lane.pass_on(now, size, counts)) is not None:
                    self._cross(at, *rest)

    def _cross(
        self,
        at: float,
        delay: Delay,
        flow: Flow | None,
        lane: Lane | None,
        counts: Counter[str],
        size: int,
        receive: Receive,
        args: tuple[Any, ...],
    ) -> None:
        """Put a packet on the wire at `at`. `lane`: what lies behind."""
        at += self.draw(delay)
        if flow is not None:
            at = self._in_order(flow, at)
        if lane is None:
            self._loop.wire_at(at, receive, *args)
        else:
            self._loop.wire_at(at, self._enter, lane, counts, size, receive, args)

    def _enter(self, lane: Lane, counts: Counter[str], size: int, receive: Receive, args: tuple[Any, ...]) -> None:
        """A packet has reached the receiver's downlink."""
        now = self._loop.now()
        for _ in range(2 if lane.doubles(counts) else 1):
            if (at := lane.pass_on(now, size, counts)) is not None:
                self._loop.wire_at(at, receive, *args)

    def _in_order(self, flow: Flow, at: float) -> float:
        """Return when a packet of a flow leaves the wire: not before those in front of it."""
        if len(self._order) >= _ORDER_MAX:
            now = self._loop.now()
            self._order = {key: value for key, value in self._order.items() if value > now}
        self._order[flow] = at = max(self._order.get(flow, 0.0), at)
        return at


def medium_of(one: VirtualHost, other: VirtualHost) -> str | None:
    """Return the segment that both are on, None when the internet lies between them."""
    theirs = other.segments()
    for segment in one.segments():
        if segment in theirs:
            return segment
    return None
