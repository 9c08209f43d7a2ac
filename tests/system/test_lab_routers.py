"""What several hosts and several routers do together: one router, a carrier's router, IPv6, moves, port mapping."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from support.lab import require_lab

from p2pnode.simulations.netns import Host, Lab, LabError

pytestmark = [pytest.mark.namespace, pytest.mark.slow]

PORT = 4747  # what every node uses: two behind one router have it both


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two public hosts, and whatever the tests build."""
    require_lab()
    with Lab() as made:
        made.public("one")
        made.public("two")
        yield made


@contextlib.contextmanager
def opened(*sockets: socket.socket) -> Iterator[None]:
    try:
        yield
    finally:
        for made in sockets:
            made.close()


def receive(made: socket.socket, timeout: float = 1.0) -> tuple[bytes, tuple[str, int]] | None:
    return made.recvfrom(2048)[:2] if select.select([made], [], [], timeout)[0] else None


def seen_from(outside: socket.socket, inside: socket.socket, ip: str) -> tuple[str, int]:
    """Send from inside to `ip`, until it arrives; return the address that the other end sees.

    A kernel may take a second until an interface that was just plugged in sends.
    """
    token = os.urandom(8)
    for _ in range(20):
        inside.sendto(token, (ip, outside.getsockname()[1]))
        while (got := receive(outside, 0.3)) is not None:
            if got[0] == token:
                drain(outside)
                return got[1]
    raise AssertionError("nothing arrived")


def drain(made: socket.socket) -> None:
    """Take what was sent twice."""
    while receive(made, 0.05) is not None:
        pass


def test_hosts_behind_one_router_see_each_other_directly(lab: Lab) -> None:
    """Nothing of it crosses the wire, and outside both have one address."""
    router = lab.router("shared", "port-restricted")
    one, other = lab.behind(router, "shared-1"), lab.behind(router, "shared-2")
    before = router.counts()
    first, second = one.udp_socket(), other.udp_socket()
    with opened(first, second):
        assert seen_from(second, first, other.ip) == (one.ip, first.getsockname()[1])
    assert (router.counts() - before).packets == 0
    verdicts = lab.prove([one, other]).values()
    assert {v.public.ip for v in verdicts if v.public is not None} == {router.public_ip}


@pytest.mark.parametrize("kind", ["fullcone", "address-restricted", "port-restricted", "hairpin"])
def test_two_hosts_on_one_port_have_a_public_port_each(lab: Lab, kind: str) -> None:
    """The first keeps its own, the second gets another; both are the same for all destinations, and answers come in."""
    router = lab.router(f"double-{kind}", kind)
    hosts = [lab.behind(router, f"double-{kind}-{i}") for i in (1, 2)]
    one, two = lab.hosts["one"], lab.hosts["two"]
    inside, outside = [host.udp_socket(PORT) for host in hosts], [one.udp_socket(), two.udp_socket()]
    with opened(*inside, *outside):
        ports = []
        for number, made in enumerate(inside):
            seen = {seen_from(end, made, host.ip) for end, host in zip(outside, (one, two), strict=True)}
            assert len(seen) == 1
            address = seen.pop()
            ports.append(address[1])
            for end in outside:
                end.sendto(str(number).encode(), address)
                got = receive(made)
                assert got is not None
                assert got[0] == str(number).encode()
        assert ports[0] == PORT
        assert ports[1] != PORT


def test_hairpin_keeps_the_public_address_as_source(lab: Lab) -> None:
    """Two hosts of one router meet at the public address (RFC 4787, REQ-9), without the wire; plain routers refuse."""
    for kind, works in (("hairpin", True), ("port-restricted", False)):
        router = lab.router(f"loop-{kind}", kind)
        a, b = lab.behind(router, f"loop-{kind}-a"), lab.behind(router, f"loop-{kind}-b")
        first, second, outside = a.udp_socket(), b.udp_socket(), lab.hosts["one"].udp_socket()
        with opened(first, second, outside):
            public_a = seen_from(outside, first, lab.hosts["one"].ip)
            public_b = seen_from(outside, second, lab.hosts["one"].ip)
            before = router.counts()
            first.sendto(b"through the public address", public_b)
            assert receive(second, 0.3) == ((b"through the public address", public_a) if works else None)
            assert (router.counts() - before).packets == 0


def test_carrier_stands_between_home_and_wire(lab: Lab) -> None:
    """Two homes behind one carrier: 100.64/10 between, one public address; they meet through the carrier's hairpin."""
    carrier = lab.router("carrier", "carrier")
    homes = [lab.router(f"subscriber{i}", "cgnat", carrier=carrier) for i in (1, 2)]
    hosts = [lab.behind(home, f"flat{i}") for i, home in enumerate(homes, 1)]
    assert [home.wan_ip for home in homes] == ["100.64.0.10", "100.64.0.11"]
    assert {host.public_ip for host in hosts} == {carrier.wan_ip}
    assert {host.ip for host in hosts} == {"192.168.1.10"}
    lab.prove(hosts)
    first, second, outside = hosts[0].udp_socket(), hosts[1].udp_socket(), lab.hosts["one"].udp_socket()
    with opened(first, second, outside):
        public = [seen_from(outside, made, lab.hosts["one"].ip) for made in (first, second)]
        first.sendto(b"opens its router", public[1])
        assert receive(second, 0.3) is None  # the other home's router was not asked for it
        second.sendto(b"and the other", public[0])
        assert receive(first) == (b"and the other", public[1])
        first.sendto(b"now both", public[1])
        assert receive(second) == (b"now both", public[0])


def test_ipv6_is_not_translated_and_nothing_comes_in_unasked(lab: Lab) -> None:
    """A global address inside; a stranger's packet is dropped, an answer passes."""
    host, stranger = lab.home("six", "ipv6-firewall"), lab.hosts["one"]
    assert host.ipv6 is not None
    assert stranger.ipv6 is not None
    inside, outside = host.udp_socket(PORT, "::"), stranger.udp_socket(PORT, "::")
    with opened(inside, outside):
        outside.sendto(b"knock", (host.ipv6, PORT))
        assert receive(inside, 0.3) is None
        assert seen_from(outside, inside, stranger.ipv6)[:2] == (host.ipv6, PORT)
        outside.sendto(b"answer", (host.ipv6, PORT))
        assert receive(inside) is not None
    assert lab.wire.answered(host.ipv6, stranger.ipv6)


def test_moved_host_has_the_address_of_its_new_place(lab: Lab) -> None:
    """Carried to another router, then plugged in there again: the wire sees the other router."""
    home, cafe = lab.router("home", "port-restricted"), lab.router("cafe", "fullcone")
    laptop, outside = lab.behind(home, "laptop"), lab.hosts["one"].udp_socket()
    seen = []
    with opened(outside):
        for router in (None, cafe, cafe):
            if router is not None:
                lab.move(laptop, router)
            with laptop.udp_socket() as made:
                seen.append((laptop.ip, seen_from(outside, made, lab.hosts["one"].ip)[0]))
    assert seen == [
        ("192.168.1.10", home.public_ip),
        ("192.168.1.10", cafe.public_ip),
        ("192.168.1.11", cafe.public_ip),
    ]
    assert laptop.kind == "fullcone"
    assert laptop in cafe.hosts
    assert laptop not in home.hosts
    with pytest.raises(LabError, match="has no router to leave"):
        lab.move(lab.hosts["one"], cafe)


def test_renumbered_line_has_another_public_address(lab: Lab) -> None:
    """The host notices nothing; outside it is somebody else, and the old address leads nowhere."""
    host = lab.home("renumbered", "fullcone")
    assert host.router is not None
    inside, outside = host.udp_socket(), lab.hosts["one"].udp_socket()
    with opened(inside, outside):
        before = seen_from(outside, inside, lab.hosts["one"].ip)
        lab.renumber(host.router)
        after = seen_from(outside, inside, lab.hosts["one"].ip)
        assert before[0] != after[0] == host.public_ip
        outside.sendto(b"old", before)
        assert receive(inside, 0.3) is None
        outside.sendto(b"new", after)
        assert receive(inside) is not None
    lab.prove([host])


def ask_router(host: Host, request: bytes) -> bytes:
    """Send to the port of NAT-PMP and PCP; return the answer."""
    assert host.router is not None
    with host.udp_socket() as made:
        for _ in range(10):
            made.sendto(request, (host.router.lan_ip, 5351))
            if (got := receive(made)) is not None:
                return got[0]
    raise AssertionError("the router does not answer")


def open_by_nat_pmp(host: Host) -> int:
    """RFC 6886, section 3.3 "Requesting a Mapping"; return the public port."""
    answer = ask_router(host, struct.pack("!BBHHHI", 0, 1, 0, PORT, PORT, 3600))
    _, _, result, _, _, public_port, _ = struct.unpack("!BBHIHHI", answer)
    assert result == 0
    return int(public_port)


def open_by_pcp(host: Host) -> int:
    """RFC 6887, section 11 "MAP Opcode"; return the public port."""
    own = bytes(10) + b"\xff\xff" + socket.inet_aton(host.ip)
    any_address = bytes(10) + b"\xff\xff" + bytes(4)
    head = struct.pack("!BBHI", 2, 1, 0, 3600) + own
    answer = ask_router(host, head + b"nonce-of-12b" + struct.pack("!B3xHH", 17, PORT, PORT) + any_address)
    assert answer[:2] == b"\x02\x81"
    assert answer[3] == 0
    assert answer[56:60] == socket.inet_aton(host.public_ip)
    return int.from_bytes(answer[42:44], "big")


@pytest.mark.parametrize("open_port", [open_by_nat_pmp, open_by_pcp])
def test_upnp_router_opens_a_port_when_asked(lab: Lab, open_port: Callable[[Host], int]) -> None:
    """At the real miniupnpd: strangers reach the host then; a reboot closes the port again, and the daemon is back."""
    host = lab.home(f"mapped-{open_port.__name__}", "upnp")
    outside, stranger = lab.hosts["one"].udp_socket(), lab.hosts["one"]
    assert host.router is not None
    with opened(outside), host.udp_socket(PORT) as inside:
        outside.sendto(b"knock", (host.public_ip, PORT))
        assert receive(inside, 0.3) is None
        assert open_port(host) == PORT
        outside.sendto(b"knock", (host.public_ip, PORT))
        assert receive(inside) == (b"knock", (stranger.ip, outside.getsockname()[1]))
        host.router.reboot()
        outside.sendto(b"knock", (host.public_ip, PORT))
        assert receive(inside, 0.3) is None
        assert open_port(host) == PORT
