"""The laboratory's wire as a machine: delay, order, loss, what it refuses, what it counts."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter

import pytest

from p2pnode.simulations.netns.wire import Link, Wire
from p2pnode.simulations.netns.wire_client import Counts

A, B, ELSEWHERE = "203.0.113.1", "198.51.100.1", "192.0.2.99"
A6, B6, ELSEWHERE6 = "2001:db8:1:1::a", "2001:db8:2::1", "2001:db8:99::1"


def packet(source: str, destination: str, payload: bytes = b"\x05", *, sport: int = 1000, dport: int = 2000) -> bytes:
    """A UDP packet in IPv4; checksums are not the wire's business."""
    udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + udp


def packet6(source: str, destination: str, payload: bytes = b"\x05", *, sport: int = 1000, dport: int = 2000) -> bytes:
    """The same in IPv6."""
    udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64)
    return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) + udp


def link(name: str, ip: str, delay_s: float = 0.02, loss: float = 0.0, ipv6: str = "") -> Link:
    """A link; of an IPv6 address it gets the whole /48."""
    prefix = [socket.inet_pton(socket.AF_INET6, ipv6)[:6]] if ipv6 else []
    return Link(name, frozenset((socket.inet_aton(ip), *prefix)), delay_s, loss)


@pytest.fixture
def wire() -> Wire:
    made = Wire(random.Random(1))
    made.add(link("a", A, ipv6=A6))
    made.add(link("b", B, 0.03, ipv6=B6))
    return made


def test_packet_takes_the_delay_of_both_links(wire: Wire) -> None:
    """20 ms and 30 ms are 50 ms one way; nothing arrives before."""
    data = packet(A, B)
    assert wire.packet_untrusted(wire.links["a"], data, 10.0)
    assert wire.next_at() == pytest.approx(10.05)
    assert wire.due(10.049) == []
    assert wire.due(10.051) == [(wire.links["b"], data)]
    assert wire.next_at() is None


def test_packets_of_one_moment_stay_in_order(wire: Wire) -> None:
    """As on a real line; a heap alone would not promise it."""
    sent = [packet(A, B, bytes((5, i))) for i in range(50)]
    for data in sent:
        wire.packet_untrusted(wire.links["a"], data, 0.0)
    assert [data for _, data in wire.due(1.0)] == sent


def test_each_link_loses_its_share(wire: Wire) -> None:
    """10 % on both links: 19 % in all, the same packets for the same seed."""
    wire.links["a"].loss = wire.links["b"].loss = 0.1
    lost = [not wire.packet_untrusted(wire.links["a"], packet(A, B), 0.0) for _ in range(5000)]
    assert 0.17 < sum(lost) / len(lost) < 0.21
    assert wire.dropped == {"loss": sum(lost)}
    other = Wire(random.Random(1))
    other.add(link("a", A, loss=0.1))
    other.add(link("b", B, loss=0.1))
    assert [not other.packet_untrusted(other.links["a"], packet(A, B), 0.0) for _ in range(5000)] == lost


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packet(A, "192.168.1.10"), "private_destination"),
        (packet(A, "10.0.0.1"), "private_destination"),
        (packet(A, "172.20.0.1"), "private_destination"),
        (packet(A, ELSEWHERE), "no_route"),
        (packet(A, "224.0.0.251"), "multicast"),
        (packet(ELSEWHERE, B), "foreign_source"),
        (packet("192.168.1.10", B), "foreign_source"),
        (packet(A, "100.64.0.10"), "private_destination"),
        (packet6(A6, "fd00::1"), "private_destination"),
        (packet6(A6, "fe80::1"), "private_destination"),
        (packet6(A6, ELSEWHERE6), "no_route"),
        (packet6(A6, "ff02::fb"), "multicast"),
        (packet6(ELSEWHERE6, B6), "foreign_source"),
        (b"\x50" + bytes(39), "not_ip"),
        (b"\x60" + bytes(38), "not_ip"),
        (b"\x45", "not_ip"),
        (b"", "not_ip"),
    ],
)
def test_what_leads_nowhere_is_dropped_with_a_reason(wire: Wire, data: bytes, reason: str) -> None:
    """Private addresses never cross the internet, forged ones neither (BCP 38)."""
    assert not wire.packet_untrusted(wire.links["a"], data, 0.0)
    assert wire.dropped == {reason: 1}


def test_every_prefix_of_a_packet_is_harmless(wire: Wire) -> None:
    """Cut packets are counted or carried; nothing raises."""
    for data in (packet(A, B, b"\x05" * 20), packet6(A6, B6, b"\x05" * 20)):
        for length in range(len(data)):
            wire.packet_untrusted(wire.links["a"], data[:length], 0.0)
    wire.due(1.0)


def test_ipv6_goes_to_the_link_that_has_its_network(wire: Wire) -> None:
    """A /48 each, hosts behind a router included; counted and delayed as IPv4 is."""
    data = packet6(A6, "2001:db8:2:1::10", b"\xc0")
    assert wire.packet_untrusted(wire.links["a"], data, 10.0)
    assert wire.due(10.049) == []
    assert wire.due(10.051) == [(wire.links["b"], data)]
    assert wire.links["b"].received == {"quic": 1}
    assert wire.flows[A6, 1000, "2001:db8:2:1::10", 2000].delivered == 1


def test_renumbered_link_has_only_its_new_address(wire: Wire) -> None:
    """What goes to the old one leads nowhere; another link's address is refused."""
    wire.readdress("b", frozenset((socket.inet_aton(ELSEWHERE),)))
    assert not wire.packet_untrusted(wire.links["a"], packet(A, B), 0.0)
    assert wire.packet_untrusted(wire.links["a"], packet(A, ELSEWHERE), 0.0)
    with pytest.raises(ValueError, match="taken"):
        wire.readdress("b", frozenset((socket.inet_aton(A),)))


def test_unplugged_link_carries_nothing(wire: Wire) -> None:
    """Neither out, nor in, nor what was on its way."""
    wire.packet_untrusted(wire.links["b"], packet(B, A), 0.0)
    wire.links["a"].up = False
    assert wire.due(1.0) == []
    assert not wire.packet_untrusted(wire.links["a"], packet(A, B), 1.0)
    assert not wire.packet_untrusted(wire.links["b"], packet(B, A), 1.0)
    assert wire.dropped == {"link_down": 3}


def test_flows_count_what_left_and_what_arrived(wire: Wire) -> None:
    """A lost packet left but did not arrive: it proves no path."""
    wire.packet_untrusted(wire.links["a"], packet(A, B), 0.0)
    wire.links["b"].loss = 1.0
    wire.packet_untrusted(wire.links["a"], packet(A, B), 0.0)
    wire.due(1.0)
    flow = wire.flows[A, 1000, B, 2000]
    assert (flow.packets, flow.delivered) == (2, 1)
    assert flow.kinds == {"udp:05": 2}


def tcp_packet(flags: int, payload: bytes = b"", *, sport: int = 1000, dport: int = 2000) -> bytes:
    """A TCP segment from A to B in IPv4, with 4 bytes of options."""
    segment = struct.pack("!HHIIBBHHHI", sport, dport, 0, 0, 6 << 4, flags, 0, 0, 0, 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0)
    return head + socket.inet_aton(A) + socket.inet_aton(B) + segment


def test_flows_of_tcp_tell_who_opens_and_who_says_something(wire: Wire) -> None:
    """They are kept apart from UDP between the same ports; a truncated header is of no flow."""
    syn, syn_ack, ack, push = 0x02, 0x12, 0x10, 0x18
    for data in (tcp_packet(syn), tcp_packet(syn_ack), tcp_packet(ack), tcp_packet(push, b"x"), packet(A, B)):
        wire.packet_untrusted(wire.links["a"], data, 0.0)
    wire.packet_untrusted(wire.links["a"], tcp_packet(syn)[:39], 0.0)
    wire.due(1.0)
    flow = wire.tcp[A, 1000, B, 2000]
    assert flow.kinds == {"syn": 1, "ack": 2, "data": 1}
    assert (flow.packets, flow.delivered, flow.bytes) == (4, 4, 4 * 44 + 1)
    assert wire.flows[A, 1000, B, 2000].kinds == {"udp:05": 1}


def test_links_count_by_kind(wire: Wire) -> None:
    """Kinds are those of the node's mux: first byte of the payload."""
    a = wire.links["a"]
    for payload in (b"\x00", b"\x05", b"\x05", b"\x0f", b"\x40", b"\xc3", b"\x80", b""):
        wire.packet_untrusted(a, packet(A, B, payload), 0.0)
    assert a.sent == {"udp:00": 1, "udp:05": 2, "udp:0f": 1, "quic": 2, "udp:80": 1, "udp:": 1}
    counts = Counts(a.sent, Counter(), a.sent_bytes, 0)
    assert counts.by_kind() == {"stun": 1, "dht": 2, "relay": 1, "quic": 2, "other": 1, "udp": 1}
    assert (counts - counts).packets == 0


def test_an_address_belongs_to_one_link(wire: Wire) -> None:
    """A taken name or address is refused; a removed one is free again."""
    with pytest.raises(ValueError, match="taken"):
        wire.add(link("c", A))
    wire.remove("a")
    wire.add(link("c", A))
