"""The virtual world: hosts, the wires between them, names, and the trace of what was sent.

Addresses behave by scope. A public (or documentation) address is reached from every host that has a public one. Any
other address is reached within its *segment*: the hosts of one named LAN, or, where no LAN is named, of one /24 (IPv6:
/64). So two homes may use the same 192.168.1.0/24, given different LAN names. Multicast stays within a segment, and on
the loopback of its host. Every random choice comes from the seed, so the same program gives the same trace.

By itself each datagram takes the world's one-way delay and may be lost. Access links (`links.py`), regions, segments of
their own and faults (`faults.py`) come on top; see docs/world.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar

from p2pnode.core.address import Address
from p2pnode.simulations.virtual.host import VirtualHost
from p2pnode.simulations.virtual.links import Delay, Link, LinkProfile
from p2pnode.simulations.virtual.loop import BLOCKED_AFTER_S, VirtualLoop
from p2pnode.simulations.virtual.network import VirtualNetwork
from p2pnode.simulations.virtual.places import INTERNET, LOOPBACK_DELAY_S, is_public, space_of
from p2pnode.simulations.virtual.tcp_packet import TcpPacket
from p2pnode.simulations.virtual.wires import Segment, Wires, medium_of

__all__ = ["Delay", "Loss", "TraceEntry", "VirtualWorld", "host_of", "run_virtual"]

T = TypeVar("T")
Loss = float | Callable[[Address, Address, bytes], float]
"""Probability in 0..1 that a datagram is lost: a constant, or by (source, destination, bytes) (TCP: constants only)."""
# Bytes of the IP header and the UDP or TCP header behind it, by "is IPv6".
UDP_HEADERS = {False: 28, True: 48}
TCP_HEADERS = {False: 40, True: 60}
_HASH_LINES = 1024  # lines that wait to be hashed


class TraceEntry(NamedTuple):
    """One datagram or TCP packet as it left. `time`: virtual seconds. `kind`: by first byte, see `kind_of`."""

    time: float
    source: Address
    destination: Address
    kind: str
    size: int


class VirtualWorld:
    """All hosts of one simulation.

    `seed`: of every random choice. `delay`, `loss`: of datagrams between hosts (never within one host). `keep_trace`:
    off saves memory in long runs (about 200 bytes per datagram); `hash_trace` then hashes the trace as it grows.
    `loop`: by default the one that runs.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: Delay = 0.001,
        loss: Loss = 0.0,
        keep_trace: bool = True,
        hash_trace: bool = False,
        loop: VirtualLoop | None = None,
    ) -> None:
        self.seed = seed
        self.delay = delay
        self.loss = loss
        self.rng = random.Random(f"{seed}/world")
        self.names: dict[str, tuple[str, ...]] = {"localhost": ("127.0.0.1", "::1")}
        """What `Network.resolve` knows: lower-case host name to addresses."""
        self.trace: list[TraceEntry] = []
        self.counts: Counter[str] = Counter()
        """Datagrams, at each hop: sent + duplicated = delivered + forwarded + every reason + still on the wire.

        Apart, as they were never sent: no_route, message_too_long. The reasons are listed in docs/world.md.
        """
        self.tcp_counts: Counter[str] = Counter()
        """The same for TCP packets."""
        self.hosts: list[VirtualHost] = []
        self._keep_trace = keep_trace
        self._counts_traffic = False
        self.notes = keep_trace or hash_trace
        """Whether what is sent is to be noted at all."""
        self._hash = hashlib.sha256() if hash_trace else None
        self._lines: list[str] = []
        if loop is None:
            running = asyncio.get_running_loop()
            if not isinstance(running, VirtualLoop):
                raise TypeError("a virtual world needs a virtual loop")
            loop = running
        self.loop = loop
        self._wires = Wires(loop, self.rng)
        self._plain = True
        self.internet: dict[str, VirtualHost] = {}
        """Who has which public address."""
        self._spaces: dict[str, dict[str, VirtualHost]] = {INTERNET: self.internet}
        self._segments: dict[str, dict[VirtualHost, None]] = {}

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

    # What lies between hosts

    def set_delay(self, one: VirtualNetwork | VirtualHost, other: VirtualNetwork | VirtualHost, delay: Delay) -> None:
        """Give the wire between two hosts its own one-way delay."""
        self._wires.pairs[frozenset((host_of(one), host_of(other)))] = delay
        self.wires_changed()

    def set_lan(self, lan: str, *, delay: Delay, loss: float = 0.0) -> None:
        """Give the wire of a LAN its own one-way delay and loss, in place of the world's."""
        self._wires.segments[f"lan/{lan}"] = Segment(delay, loss)
        self.wires_changed()

    def set_regions(self, core: Mapping[tuple[str, str], Delay]) -> None:
        """Set one-way delays of the internet between regions, by (from, to); `VirtualHost.region` says where one is."""
        self._wires.core = dict(core)
        self.wires_changed()

    def set_link(
        self, host: VirtualNetwork | VirtualHost, profile: LinkProfile | None, *, lan: str | None = None
    ) -> None:
        """Give a host an access link, or with None take it away.

        It lies between the host and where its first address is: the internet, or a LAN (so a router's is its way out,
        if that address was given first). `lan`: the link to that LAN instead. Raise ValueError without an address.
        """
        host = host_of(host)
        if lan is None and not host.addresses():
            raise ValueError(f"{host.name} has no address yet, so a link of it leads nowhere")
        medium = f"lan/{lan}" if lan is not None else host.first_medium()
        if profile is None:
            host.links.pop(medium, None)
        else:
            rng = random.Random(f"{self.seed}/{host.name}/link/{medium}/{profile.name}")
            host.links[medium] = Link(profile, rng)
            self._wires.has_links = True
        self.wires_changed()

    @property
    def wires(self) -> Wires:
        """What is special about paths; after a change of it, `wires_changed`."""
        return self._wires

    def wires_changed(self) -> None:
        self._plain = self._wires.plain

    # The trace

    @property
    def counts_traffic(self) -> bool:
        """Whether hosts keep their `traffic`: datagrams and bytes by kind. Off at first."""
        return self._counts_traffic

    @counts_traffic.setter
    def counts_traffic(self, value: bool) -> None:
        self._counts_traffic = value
        self.notes = value or self._keep_trace or self._hash is not None

    def note(self, host: VirtualHost, source: Address, to: Address, kind: str, size: int) -> None:
        """Enter what `host` sent into the trace."""
        if self._keep_trace:
            self.trace.append(TraceEntry(self.loop.now(), source, to, kind, size))
        if self._hash is not None:
            lines = self._lines
            lines.append(_line(self.loop.now(), source, to, kind, size))
            if len(lines) >= _HASH_LINES:
                self._hash.update("".join(lines).encode())
                lines.clear()
        if self._counts_traffic:
            row = host.traffic.setdefault(kind, [0, 0, 0, 0])
            row[0] += 1
            row[1] += size

    def trace_hash(self) -> str:
        """Return the SHA-256 (hex) of the trace: equal for equal runs, kept or hashed as it grew."""
        if self._hash is None:
            return hashlib.sha256("".join(_line(*entry) for entry in self.trace).encode()).hexdigest()
        self._hash.update("".join(self._lines).encode())
        self._lines.clear()
        return self._hash.hexdigest()

    # What hosts and sockets call

    def attach(self, host: VirtualHost, ip: str, segment: str | None) -> None:
        """Enter an address into the world. Raise ValueError when it is taken."""
        space = self._spaces.setdefault(space_of(ip, segment), {})
        if ip in space:
            raise ValueError(f"{ip} is taken by {space[ip].name}")
        space[ip] = host
        if segment is not None:
            self._segments.setdefault(segment, {})[host] = None

    def detach(self, host: VirtualHost, ip: str, segment: str | None) -> None:
        del self._spaces[space_of(ip, segment)][ip]
        if segment is not None and segment not in host.segments():
            self._segments[segment].pop(host, None)

    def members(self, segment: str) -> list[VirtualHost]:
        """Hosts on a segment, in the order in which they came."""
        return list(self._segments.get(segment, ()))

    def owner(self, ip: str, segment: str | None) -> VirtualHost | None:
        """Return who has an address: a public one anywhere, another one on `segment`."""
        space = self._spaces.get(space_of(ip, segment))
        return None if space is None else space.get(ip)

    def neighbour(self, ip: str, segment: str) -> VirtualHost | None:
        """Return who has an address on this segment."""
        if not is_public(ip):
            space = self._spaces.get(segment)
            return None if space is None else space.get(ip)
        host = self.internet.get(ip)
        return host if host is not None and ip in host.segments().get(segment, ()) else None

    def entrance(self, ip: str, source: VirtualHost) -> VirtualHost | None:
        """Return who takes a packet of `source` that comes over the internet for a public address, None if nobody.

        A host behind routers is entered by the outermost, or by the one behind `source` when that is a router of it.
        """
        host = self.internet.get(ip)
        while host is not None and host.gateway is not None and host.gateway is not source:
            host = host.gateway
        return host

    def carry(
        self, data: bytes, source: Address, to: Address, one: VirtualHost, other: VirtualHost | None, group: str | None
    ) -> None:
        """Put one datagram on the wire from host `one` to host `other` (None: nobody has that address).

        `group`: the segment (or "lo") when it is multicast, else None.
        """
        counts = self.counts
        counts["sent"] += 1
        if other is None:
            counts["no_host"] += 1
        elif one.silent is not None:
            counts[one.silent] += 1
        elif one is other:
            self.loop.wire_at(self.loop.now() + LOOPBACK_DELAY_S, other.deliver, data, source, to, group)
        else:
            loss = self.loss
            if callable(loss):
                loss = loss(source, to, data)
            if not self._plain:
                size = len(data) + UDP_HEADERS[":" in to.ip]
                args = (data, source, to, group)
                self._wires.travel(counts, size, self.delay, loss, one, other, other.deliver, args)
            elif loss and self.rng.random() < loss:
                counts["lost"] += 1
            else:
                delay = self.delay
                if callable(delay):
                    delay = delay(self.rng)
                self.loop.wire_at(self.loop.now() + delay, other.deliver, data, source, to, group)

    def carry_tcp(
        self, packet: TcpPacket, source: Address, to: Address, one: VirtualHost, other: VirtualHost | None
    ) -> None:
        """The same for a TCP packet. Packets of one flow over one hop keep their order whatever the jitter."""
        counts = self.tcp_counts
        counts["sent"] += 1
        if other is None:
            counts["no_host"] += 1
        elif one.silent is not None:
            counts[one.silent] += 1
        elif one is other:
            self.loop.wire_at(self.loop.now() + LOOPBACK_DELAY_S, other.deliver_tcp, packet, source, to)
        else:
            loss = 0.0 if callable(self.loss) else self.loss
            size = len(packet.data) + TCP_HEADERS[":" in to.ip]
            args, flow = (packet, source, to), (one, source, to)
            self._wires.travel(counts, size, self.delay, loss, one, other, other.deliver_tcp, args, flow)

    def delay_between(self, one: VirtualHost, other: VirtualHost) -> float:
        """Draw the one-way delay of the wire for the next packet (seconds), without the links at its ends."""
        if one is other:
            return LOOPBACK_DELAY_S
        return self._wires.draw(self._wires.between(one, other, medium_of(one, other), self.delay, 0.0)[0])


def host_of(one: VirtualNetwork | VirtualHost) -> VirtualHost:
    """Return the host of a network, or the host itself."""
    return one.host if isinstance(one, VirtualNetwork) else one


def _line(time: float, source: Address, to: Address, kind: str, size: int) -> str:
    return f"{time:.9f} {source.ip} {source.port} {to.ip} {to.port} {kind} {size}\n"


def run_virtual(
    main: Callable[[VirtualWorld], Coroutine[Any, Any, T]],
    *,
    seed: int = 0,
    delay: Delay = 0.001,
    loss: Loss = 0.0,
    keep_trace: bool = True,
    hash_trace: bool = False,
    until: float | None = 3600.0,
    blocked_after: float | None = BLOCKED_AFTER_S,
    spares_keys: bool = True,
) -> T:
    """Run `main(world)` in a new world on a new virtual loop, and return its result.

    `until`: virtual seconds after which VirtualTimeLimitError is raised (None: no limit). `blocked_after`: real seconds
    of one step after which VirtualBlockedError is raised (None: never). `spares_keys`: as `VirtualLoop`.
    """
    loop = VirtualLoop(seed, spares_keys=spares_keys)
    world = VirtualWorld(seed, delay=delay, loss=loss, keep_trace=keep_trace, hash_trace=hash_trace, loop=loop)
    return loop.run(main(world), until=until, blocked_after=blocked_after)
