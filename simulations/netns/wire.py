"""The wire of the laboratory ("the internet") as a machine without I/O: IP packets, delay, loss, accounts.

A packet crosses two links: the sender's and the receiver's. Each adds its one-way delay and loses its share, so with
20 ms per link a round trip takes 80 ms. What is counted here was seen outside of all routers: it is the evidence for
which two public addresses really talk.

Like an internet provider, a link drops packets with a source that is not its own (BCP 38) and everything private.
A link has IPv4 addresses and at most one IPv6 network, a /48, all of which leads to it. IPv6 extension headers are
carried, but what is behind them is not counted by kind; the laboratory's programs send none.
"""

from __future__ import annotations

import heapq
import ipaddress
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["Flow", "Link", "Wire"]

MAX_FLOWS = 50_000  # of UDP, of TCP; a guard against a scan from inside; about 10 MB each
_UDP, _TCP, _ICMP, _ICMPV6 = 17, 6, 1, 58
_PROTOCOLS = {_TCP: "tcp", _ICMP: "icmp", _ICMPV6: "icmp"}
_HEADER_BYTES = {_UDP: 8, _TCP: 20}
_SYN, _ACK = 0x02, 0x10
_PREFIX_BYTES = 6  # of IPv6: a /48

FlowKey = tuple[str, int, str, int]
"""Source and destination: address, port."""


@dataclass
class Flow:
    """One direction of UDP or TCP, counted when a packet leaves its source; `delivered`: reached the other link.

    `kinds`: of UDP as on links; of TCP `syn` (without ACK: this side opens), `data`, `ack` (all others).
    """

    packets: int = 0
    delivered: int = 0
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass
class Link:
    """Where one host or router is connected.

    `addresses`: of IPv4, 4 bytes, and IPv6 networks, 6 bytes. `loss`: share of packets from 0 to 1; `delay_s`: one way.
    """

    name: str
    addresses: frozenset[bytes]
    delay_s: float = 0.0
    loss: float = 0.0
    up: bool = True
    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    received_bytes: int = 0


class Wire:
    """All links. Times are seconds of any clock that never goes back."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._number = 0
        self._on_way: list[tuple[float, int, Link, bytes, Flow | None, str]] = []
        self._by_address: dict[bytes, Link] = {}
        self.links: dict[str, Link] = {}
        self.flows: dict[FlowKey, Flow] = {}
        """UDP."""
        self.tcp: dict[FlowKey, Flow] = {}
        self.dropped: Counter[str] = Counter()

    def add(self, link: Link) -> None:
        """Connect a link. Raise ValueError when its name or an address is taken."""
        if link.name in self.links or any(address in self._by_address for address in link.addresses):
            raise ValueError(f"the name or an address of {link.name} is taken")
        self.links[link.name] = link
        for address in link.addresses:
            self._by_address[address] = link

    def remove(self, name: str) -> None:
        """Cut a link for good; what is on its way to it is lost."""
        link = self.links.pop(name)
        for address in link.addresses:
            del self._by_address[address]
        link.up = False

    def readdress(self, name: str, addresses: frozenset[bytes]) -> None:
        """Give a link other addresses. Raise ValueError when one is taken."""
        link = self.links[name]
        if any(self._by_address.get(address, link) is not link for address in addresses):
            raise ValueError(f"an address for {name} is taken")
        for address in link.addresses:
            del self._by_address[address]
        link.addresses = addresses
        for address in addresses:
            self._by_address[address] = link

    def packet_untrusted(self, source: Link, data: bytes, now: float) -> bool:
        """Take a packet from a link. Return whether it is under way; otherwise it is counted in `dropped`."""
        reason, target = self._check(source, data)
        if target is None:
            self.dropped[reason] += 1
            return False
        kind = kind_of_packet(data)
        source.sent[kind] += 1
        source.sent_bytes += len(data)
        flow = self._flow(data)
        if flow is not None:
            flow.packets += 1
            flow.bytes += len(data)
            flow.kinds[_tcp_kind(data) if kind == "tcp" else kind] += 1
        if self._lost(source) or self._lost(target):
            self.dropped["loss"] += 1
            return False
        self._number += 1  # packets of the same moment stay in order, and links need no comparison
        due = now + source.delay_s + target.delay_s
        heapq.heappush(self._on_way, (due, self._number, target, data, flow, kind))
        return True

    def due(self, now: float) -> list[tuple[Link, bytes]]:
        """Return what arrives by `now`, in order."""
        arrived: list[tuple[Link, bytes]] = []
        while self._on_way and self._on_way[0][0] <= now:
            _, _, target, data, flow, kind = heapq.heappop(self._on_way)
            if not target.up:
                self.dropped["link_down"] += 1
                continue
            target.received[kind] += 1
            target.received_bytes += len(data)
            if flow is not None:
                flow.delivered += 1
            arrived.append((target, data))
        return arrived

    def next_at(self) -> float | None:
        """Return when the next packet arrives, None when nothing is under way."""
        return self._on_way[0][0] if self._on_way else None

    def _check(self, source: Link, data: bytes) -> tuple[str, Link | None]:
        ends = _ends(data)
        if ends is None:
            return "not_ip", None
        sender, receiver = ends
        if not source.up:
            return "link_down", None
        target = self._by_address.get(receiver[:_PREFIX_BYTES])
        if target is None:
            return _why_no_route(receiver), None
        if sender[:_PREFIX_BYTES] not in source.addresses:
            return "foreign_source", None
        if not target.up:
            return "link_down", None
        return "", target

    def _lost(self, link: Link) -> bool:
        return link.loss > 0 and self.rng.random() < link.loss

    def _flow(self, data: bytes) -> Flow | None:
        protocol, start = _payload(data)
        ends = _ends(data)
        if protocol not in (_UDP, _TCP) or len(data) < start + _HEADER_BYTES[protocol] or ends is None:
            return None
        flows = self.tcp if protocol == _TCP else self.flows
        key = (
            _text(ends[0]),
            int.from_bytes(data[start : start + 2], "big"),
            _text(ends[1]),
            int.from_bytes(data[start + 2 : start + 4], "big"),
        )
        flow = flows.get(key)
        if flow is None:
            if len(flows) >= MAX_FLOWS:
                return None
            flow = flows[key] = Flow()
        return flow


def _ends(data: bytes) -> tuple[bytes, bytes] | None:
    """Return source and destination address, None for what is no whole IP header."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        return data[12:16], data[16:20]
    return (data[8:24], data[24:40]) if version == 6 and len(data) >= 40 else None


def _payload(data: bytes) -> tuple[int, int]:
    """Return protocol and where its header begins, of a whole IP header."""
    return (data[9], (data[0] & 15) * 4) if data[0] >> 4 == 4 else (data[6], 40)


def _why_no_route(address: bytes) -> str:
    first, second = address[0], address[1]
    if first == 0xFF if len(address) == 16 else 224 <= first <= 239:
        return "multicast"
    if len(address) == 16:
        private = first & 0xFE == 0xFC or (first == 0xFE and second & 0xC0 == 0x80)
    else:
        private = (
            first == 10
            or (first, second) == (192, 168)
            or (first == 172 and 16 <= second <= 31)
            or (first == 100 and 64 <= second <= 127)
        )
    return "private_destination" if private else "no_route"


@lru_cache(maxsize=8192)
def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def _tcp_kind(data: bytes) -> str:
    """Return what a TCP segment does: `syn`, `data`, `ack`. RFC 9293, section 3.1; the whole header is there."""
    _, start = _payload(data)
    length = int.from_bytes(data[2:4], "big") if data[0] >> 4 == 4 else 40 + int.from_bytes(data[4:6], "big")
    if data[start + 13] & (_SYN | _ACK) == _SYN:
        return "syn"
    return "data" if length > start + (data[start + 12] >> 4) * 4 else "ack"


def kind_of_packet(data: bytes) -> str:
    """Return `udp:05` (first byte of the payload, hex; `udp:` when empty), `quic`, `tcp`, `icmp` or `ip`.

    QUIC's first byte is mostly random: one name for all.
    """
    protocol, start = _payload(data)
    if protocol != _UDP:
        return _PROTOCOLS.get(protocol, "ip")
    start += 8
    if len(data) <= start:
        return "udp:"
    return "quic" if data[start] & 0x40 else f"udp:{data[start]:02x}"
