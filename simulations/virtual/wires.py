"""What lies between two hosts: the wire of their segment or the internet's core, and an access link at either end.

One hop of a packet: the sender's uplink, the wire, the receiver's downlink. The downlink takes packets in the order in
which they reach it, so a packet for a host with a link costs one timer more. Where nothing is set but the world's own
delay and loss, `VirtualWorld` does not come here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from p2pnode.simulations.virtual.links import Delay, Lane, Link
from p2pnode.simulations.virtual.loop import VirtualLoop

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost

__all__ = ["Block", "Segment", "Wires"]

Receive = Callable[..., object]


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


@dataclass(eq=False)
class Wires:
    """Whatever is special about the paths between hosts."""

    pairs: dict[frozenset[VirtualHost], Delay] = field(default_factory=dict)
    """Own one-way delay of the wire between two hosts."""
    segments: dict[str, Segment] = field(default_factory=dict)
    core: dict[tuple[str, str], Delay] = field(default_factory=dict)
    """One-way delay between two regions of the internet, for hosts that have a region."""
    blocks: list[Block] = field(default_factory=list)
    has_links: bool = False

    @property
    def plain(self) -> bool:
        """Whether all wires are the world's own."""
        return not (self.pairs or self.segments or self.core or self.blocks or self.has_links)

    def blocked(self, one: VirtualHost, other: VirtualHost) -> bool:
        return any(one in block.sources and other in block.destinations for block in self.blocks)

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


def medium_of(one: VirtualHost, other: VirtualHost) -> str | None:
    """Return the segment that both are on, None when the internet lies between them."""
    theirs = other.segments()
    for segment in one.segments():
        if segment in theirs:
            return segment
    return None


class Trip:
    """One packet over one hop. `counts`: where it ends up. `receive(*args)` is called when it arrives."""

    __slots__ = ("_args", "_counts", "_cross_wire", "_down", "_loop", "_receive", "_size")

    def __init__(
        self,
        loop: VirtualLoop,
        counts: Counter[str],
        size: int,
        cross_wire: Callable[[float], float],
        receive: Receive,
        args: tuple[Any, ...],
    ) -> None:
        """`cross_wire`: when a packet that enters the wire at a given time leaves it."""
        self._loop = loop
        self._counts = counts
        self._size = size
        self._cross_wire = cross_wire
        self._receive = receive
        self._args = args
        self._down: Lane | None = None

    def begin(self, up: Link | None, down: Link | None) -> None:
        """Send it over these links, None where there is none."""
        now = self._loop.now()
        if down is not None:
            self._down = down.down
        if up is None:
            self._cross(now)
            return
        self._through(up.up, now, self._cross)
        if up.up.doubles():
            self._counts["duplicated"] += 1
            self._through(up.up, now, self._cross)

    def _through(self, lane: Lane, now: float, further: Callable[[float], object]) -> None:
        at = lane.pass_on(now, self._size)
        if isinstance(at, str):
            self._counts[at] += 1
        else:
            further(at)

    def _cross(self, at: float) -> None:
        arrives_at = self._cross_wire(at)
        if self._down is None:
            self._loop.wire_at(arrives_at, self._receive, *self._args)
        else:
            self._loop.wire_at(arrives_at, self._enter)

    def _enter(self) -> None:
        lane = self._down
        assert lane is not None  # noqa: S101 - set before `_cross`
        now = self._loop.now()
        self._through(lane, now, self._arrive)
        if lane.doubles():
            self._counts["duplicated"] += 1
            self._through(lane, now, self._arrive)

    def _arrive(self, at: float) -> None:
        self._loop.wire_at(at, self._receive, *self._args)


def too_big(size: int, links: Iterable[Link | None]) -> bool:
    """Whether an IP packet of `size` bytes is above the MTU of one of the links."""
    return any(link is not None and size > link.profile.mtu for link in links)
