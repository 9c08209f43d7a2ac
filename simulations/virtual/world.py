"""The virtual world: hosts, the wires between them, names, and the trace of what was sent.

A first, plain model: each datagram takes a one-way delay and may be lost; there are no NAT boxes, queues or MTUs yet.
Addresses behave by scope. A public (or documentation) address is reached from every host that has a public one. Any
other address is reached within its *segment*: the hosts of one named LAN, or, where no LAN is named, of one /24 (IPv6:
/64). So two homes may use the same 192.168.1.0/24, given different LAN names. Multicast stays within a segment, and on
the loopback of its host. Every random choice comes from the seed, so the same program gives the same trace.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from p2pnode.core.address import Address
from p2pnode.simulations.virtual.host import VirtualHost, VirtualNetwork
from p2pnode.simulations.virtual.loop import VirtualLoop
from p2pnode.simulations.virtual.places import LOOPBACK_DELAY_S, space_of

__all__ = ["Delay", "Loss", "TraceEntry", "VirtualWorld", "run_virtual"]

T = TypeVar("T")
Delay = float | Callable[[random.Random], float]
"""One-way delay in seconds: a constant, or drawn anew for each datagram."""
Loss = float | Callable[[Address, Address, bytes], float]
"""Probability in 0..1 that a datagram is lost: a constant, or by (source, destination, bytes)."""


class TraceEntry(NamedTuple):
    """One datagram or TCP chunk as it left. `time`: virtual seconds. `kind`: by first byte, see `kind_of`."""

    time: float
    source: Address
    destination: Address
    kind: str
    size: int


class VirtualWorld:
    """All hosts of one simulation.

    `seed`: of every random choice. `delay`, `loss`: of datagrams between hosts (never within one host). `keep_trace`:
    off saves memory in long runs (about 200 bytes per datagram). `loop`: by default the one that runs.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: Delay = 0.001,
        loss: Loss = 0.0,
        keep_trace: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.seed = seed
        self.delay = delay
        self.loss = loss
        self.rng = random.Random(f"{seed}/world")
        self.names: dict[str, tuple[str, ...]] = {"localhost": ("127.0.0.1", "::1")}
        """What `Network.resolve` knows: lower-case host name to addresses."""
        self.trace: list[TraceEntry] = []
        self.counts: Counter[str] = Counter()
        """Datagrams: sent = delivered + lost + no_host + no_socket + down + still on the wire; no_route apart."""
        self.hosts: list[VirtualHost] = []
        self._keep_trace = keep_trace
        self._loop = loop
        self._pairs: dict[frozenset[VirtualHost], Delay] = {}
        self._registry: dict[tuple[str, str], VirtualHost] = {}
        self._segments: dict[str, dict[VirtualHost, None]] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def host(self, *ips: str, lan: str | None = None, name: str = "") -> VirtualNetwork:
        """Make a host with these addresses (and loopback) and return its first `Network`.

        `lan`: name of the segment that it is on. Further nodes on the same host: `.network()` of what is returned.
        Raise ValueError when an address is taken.
        """
        host = VirtualHost(self, name or f"host-{len(self.hosts) + 1}")
        self.hosts.append(host)
        for ip in ips:
            host.add_address(ip, lan=lan)
        return host.network()

    def set_delay(self, one: VirtualNetwork, other: VirtualNetwork, delay: Delay) -> None:
        """Give the wire between two hosts its own one-way delay."""
        self._pairs[frozenset((one.host, other.host))] = delay

    def trace_hash(self) -> str:
        """Return the SHA-256 (hex) of the trace: equal for equal runs."""
        digest = hashlib.sha256()
        for entry in self.trace:
            line = f"{entry.time:.9f} {entry.source} {entry.destination} {entry.kind} {entry.size}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    # What hosts and sockets call.

    def attach(self, host: VirtualHost, ip: str, segment: str | None) -> None:
        """Enter an address into the world. Raise ValueError when it is taken."""
        key = (space_of(ip, segment), ip)
        if key in self._registry:
            raise ValueError(f"{ip} is taken by {self._registry[key].name}")
        self._registry[key] = host
        if segment is not None:
            self._segments.setdefault(segment, {})[host] = None

    def detach(self, host: VirtualHost, ip: str, segment: str | None) -> None:
        del self._registry[space_of(ip, segment), ip]
        if segment is not None and segment not in host.segments():
            self._segments[segment].pop(host, None)

    def members(self, segment: str) -> list[VirtualHost]:
        """Hosts on a segment, in the order in which they came."""
        return list(self._segments.get(segment, ()))

    def owner(self, ip: str, segment: str | None) -> VirtualHost | None:
        return self._registry.get((space_of(ip, segment), ip))

    def delay_between(self, one: VirtualHost, other: VirtualHost) -> float:
        """Draw the one-way delay of the next datagram (seconds)."""
        if one is other:
            return LOOPBACK_DELAY_S
        delay = self._pairs.get(frozenset((one, other)), self.delay) if self._pairs else self.delay
        return max(0.0, delay(self.rng) if callable(delay) else delay)

    def carry(
        self, data: bytes, source: Address, to: Address, one: VirtualHost, other: VirtualHost | None, group: str | None
    ) -> None:
        """Put one datagram on the wire from host `one` to host `other` (None: nobody has that address).

        `group`: the segment (or "lo") when it is multicast, else None.
        """
        self.counts["sent"] += 1
        if other is None:
            self.counts["no_host"] += 1
        elif not one.up:
            self.counts["down"] += 1
        elif one is not other and self._is_lost(source, to, data):
            self.counts["lost"] += 1
        else:
            at = self.loop.time() + self.delay_between(one, other)
            self.loop.call_at(at, other.deliver, data, source, to, group)

    def note(self, source: Address, to: Address, kind: str, size: int) -> None:
        """Enter what was sent into the trace."""
        if self._keep_trace:
            self.trace.append(TraceEntry(self.loop.time(), source, to, kind, size))

    def _is_lost(self, source: Address, to: Address, data: bytes) -> bool:
        probability = self.loss(source, to, data) if callable(self.loss) else self.loss
        return probability > 0 and self.rng.random() < probability


def run_virtual(
    main: Callable[[VirtualWorld], Coroutine[Any, Any, T]],
    *,
    seed: int = 0,
    delay: Delay = 0.001,
    loss: Loss = 0.0,
    keep_trace: bool = True,
    until: float | None = 3600.0,
) -> T:
    """Run `main(world)` in a new world on a new virtual loop, and return its result.

    `until`: virtual seconds after which VirtualTimeLimitError is raised (None: no limit).
    """
    loop = VirtualLoop()
    world = VirtualWorld(seed, delay=delay, loss=loss, keep_trace=keep_trace, loop=loop)
    return loop.run(main(world), until=until)
