"""The laboratory itself: each kind of router proven by probing, the wire's delay and loss, what a capture shows."""

from __future__ import annotations

import contextlib
import dataclasses
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.lab import require_lab
from support.require import require

from p2pnode.simulations.netns import KINDS, Host, Lab, LabError, LabSettings, Verdict
from p2pnode.simulations.netns.kinds import kind_named
from p2pnode.simulations.netns.proof import differences

pytestmark = [pytest.mark.namespace, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One host of each kind, named like it, and one more public host."""
    require_lab()
    with Lab(LabSettings(pcap=tmp_path_factory.mktemp("lab") / "all.pcap")) as made:
        for kind in KINDS:
            made.home(kind, kind)
        made.public("other")
        yield made


@contextlib.contextmanager
def sockets(*hosts: Host) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(host.udp_socket()) for host in hosts]


def receive(made: socket.socket, timeout: float = 0.5) -> tuple[bytes, tuple[str, int]] | None:
    return made.recvfrom(2048) if select.select([made], [], [], timeout)[0] else None


@pytest.fixture(scope="module")
def verdicts(lab: Lab) -> dict[str, Verdict]:
    """What probing finds behind each kind; already compared with what it must be."""
    return lab.prove([lab.hosts[kind] for kind in KINDS])


def test_every_kind_is_what_it_is_called(lab: Lab, verdicts: dict[str, Verdict]) -> None:
    """RFC 5780's tests from each host: mapping, filtering, ports, hairpin, TCP, IPv6, port mapping; nothing differs."""
    for name, verdict in verdicts.items():
        assert list(differences(KINDS[name], verdict, lab.hosts[name].public_ip)) == []
        print(
            f"{name}: mapping {verdict.mapping}, filtering {verdict.filtering}, ports {verdict.allocation}"
            f" (step {verdict.step}), hairpin {verdict.hairpin}, tcp {verdict.tcp}, ipv6 {verdict.ipv6},"
            f" nat-pmp {verdict.nat_pmp}, pcp {verdict.pcp}, upnp {verdict.upnp}"
        )


def test_the_kinds_differ_as_their_names_say(verdicts: dict[str, Verdict]) -> None:
    """The table that the proof compares with is the right one."""
    found = verdicts
    independent, by_port = "endpoint-independent", "address-and-port-dependent"
    shapes = {name: (v.mapping, v.filtering, v.allocation) for name, v in found.items() if v.udp}
    assert shapes == {
        "public": (independent, independent, "preserving"),
        "fullcone": (independent, independent, "preserving"),
        "address-restricted": (independent, "address-dependent", "preserving"),
        "port-restricted": (independent, by_port, "preserving"),
        "symmetric": (by_port, by_port, "random"),
        "symmetric-sequential": (by_port, by_port, "sequential"),
        "cgnat": (independent, by_port, "random"),
        "cgnat-symmetric": (by_port, by_port, "random"),
        "hairpin": (independent, by_port, "preserving"),
        "ipv6-firewall": (independent, by_port, "preserving"),
        "upnp": (independent, by_port, "preserving"),
    }
    assert {name for name, v in found.items() if v.hairpin} == {"public", "cgnat", "hairpin"}
    assert {name: v.tcp for name, v in found.items() if v.tcp_blocked} == {"tcp-443": (443,), "offline": ()}
    assert {name: v.ipv6 for name, v in found.items() if v.ipv6 != "none"} == {
        "public": "open",
        "ipv6-firewall": "firewalled",
    }
    assert found["symmetric-sequential"].step == 1


FALSE = {
    ("fullcone", "port-restricted"): "filtering address-and-port-dependent instead of endpoint-independent",
    ("port-restricted", "address-restricted"): "filtering address-dependent instead of address-and-port-dependent",
    ("symmetric", "symmetric-sequential"): "allocation sequential instead of random",
    ("hairpin", "port-restricted"): "hairpin False instead of True",
    ("udp-blocked", "port-restricted"): "udp True instead of False",
    ("tcp-443", "udp-blocked"): "tcp (443, 80, 3478) instead of (443,)",
}


def test_a_router_of_another_kind_is_found_out(lab: Lab, verdicts: dict[str, Verdict]) -> None:
    """The proof does not rely on the rules that were meant to be loaded."""

    def judged(kinds: tuple[str, str]) -> str:
        named, is_really = kinds
        host = lab.hosts[f"false-{named}"]
        assert host.router is not None
        host.router.kind = kind_named(is_really)
        host.router.reboot()
        host.router.kind = kind_named(named)
        with pytest.raises(LabError, match=f"is not {named}: ") as refusal:
            lab.prove([host], tries=1)
        return refusal.value.message

    for named, _ in FALSE:
        lab.home(f"false-{named}", named)
    with ThreadPoolExecutor(len(FALSE)) as pool:
        for sentence, message in zip(FALSE.values(), pool.map(judged, FALSE), strict=True):
            assert sentence in message


def test_no_port_is_open_that_nobody_opened(lab: Lab) -> None:
    """A full cone router is not a computer without protection."""
    host = lab.hosts["fullcone"]
    with host.udp_socket(5555) as inside, lab.hosts["public"].udp_socket() as outside:
        outside.sendto(b"knock", (host.public_ip, 5555))
        assert receive(inside, 0.2) is None
        inside.sendto(b"hello", (lab.hosts["other"].ip, 9))  # opens the port, for everybody
        time.sleep(0.05)  # until that has passed the router; another machine's packet may come first otherwise
        outside.sendto(b"knock", (host.public_ip, 5555))
        assert receive(inside) == (b"knock", outside_address(lab, outside))


def outside_address(lab: Lab, made: socket.socket) -> tuple[str, int]:
    return lab.hosts["public"].ip, made.getsockname()[1]


def test_round_trip_takes_four_link_delays(lab: Lab) -> None:
    """20 ms on each of two links, there and back: 80 ms, and little more."""
    a, b = lab.hosts["public"], lab.hosts["other"]
    times = []
    with sockets(a, b) as (one, other):
        for i in range(5):
            began = time.monotonic()
            one.sendto(bytes([i]), (b.ip, other.getsockname()[1]))
            got = receive(other)
            assert got is not None
            other.sendto(got[0], got[1])
            assert receive(one) is not None
            times.append(time.monotonic() - began)
    print(f"round trip: {min(times) * 1000:.1f} to {max(times) * 1000:.1f} ms")
    assert 0.080 <= min(times) < 0.095


def test_every_link_loses_its_share(lab: Lab) -> None:
    """30 % at one end and 30 % at the other: half of a thousand packets arrive; the wire counts the rest."""
    a, b = lab.hosts["public"], lab.hosts["other"]
    before = lab.wire.dropped().get("loss", 0)
    for name in ("public", "other"):
        lab.set_loss(0.3, name)
    try:
        with sockets(a, b) as (one, other):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            for i in range(1000):
                one.sendto(struct.pack("!H", i), (b.ip, other.getsockname()[1]))
                if i % 100 == 99:
                    time.sleep(0.005)  # an interface queues 500 packets
            numbers = []
            while (got := receive(other, 0.2)) is not None:
                numbers.append(struct.unpack("!H", got[0])[0])
    finally:
        lab.set_loss(0.0)
    assert numbers == sorted(set(numbers))
    assert 430 < len(numbers) < 550
    assert lab.wire.dropped()["loss"] - before == 1000 - len(numbers)


def test_capture_tells_answered_flows_from_attempts(lab: Lab) -> None:
    """A packet that came out is no path; one each way, between the same two ports, is."""
    a, b = lab.hosts["port-restricted"], lab.hosts["address-restricted"]
    before = lab.counts(a)
    with sockets(a, b) as (one, other):
        port_a, port_b = one.getsockname()[1], other.getsockname()[1]  # kept by both routers
        one.sendto(b"\x44knock", (b.public_ip, port_b))
        assert receive(other, 0.2) is None
        assert lab.wire.answered(a.public_ip, b.public_ip) == []
        other.sendto(b"\x44hello", (a.public_ip, port_a))
        assert receive(one) == (b"\x44hello", (b.public_ip, port_b))
    seen = lab.wire.answered(a.public_ip, b.public_ip, "quic")
    assert [(flow.source, flow.destination) for flow in seen] == [((a.public_ip, port_a), (b.public_ip, port_b))]
    assert lab.wire.answered(a.public_ip, b.public_ip, "dht") == []
    assert (lab.counts(a) - before).by_kind() == {"quic": 2}


def test_private_addresses_do_not_cross_the_internet(lab: Lab) -> None:
    """Both homes use the same private network; the wire refuses its addresses and says so."""
    before = lab.wire.dropped().get("private_destination", 0)
    with lab.hosts["public"].udp_socket() as made:
        made.sendto(b"\x05", ("192.168.1.10", 4747))
        time.sleep(0.05)
    assert lab.wire.dropped()["private_destination"] == before + 1


def test_rebooted_router_has_forgotten_everything(lab: Lab) -> None:
    """A mapping that worked leads nowhere after it, until a packet from inside makes a new one."""
    a, b = lab.hosts["port-restricted"], lab.hosts["public"]
    assert a.router is not None
    with sockets(a, b) as (inside, outside):
        for reboot in (False, True):
            if reboot:
                a.router.reboot()
                assert a.router.conntrack_count() == 0
                outside.sendto(b"still there?", (a.public_ip, inside.getsockname()[1]))
                assert receive(inside, 0.2) is None
            inside.sendto(b"hello", (b.ip, outside.getsockname()[1]))
            got = receive(outside)
            assert got is not None
            outside.sendto(b"answer", got[1])
            assert receive(inside) is not None
            assert a.router.conntrack_count() > 0
            assert any(f"dport={outside.getsockname()[1]}" in line for line in a.router.conntrack())


def test_names_are_taken_once(lab: Lab) -> None:
    """A second host or router of a name is refused in a sentence."""
    with pytest.raises(LabError, match="already"):
        lab.public("public")
    with pytest.raises(LabError, match="already"):
        lab.behind(lab.routers["fullcone-router"], "other")


def test_packets_are_written_for_tcpdump(lab: Lab) -> None:
    """tcpdump reads the file, IPv4 and IPv6, and counts as many packets as there are whole records in it."""
    assert lab.settings.pcap is not None
    lab.wire.flush()
    data = Path(lab.settings.pcap).read_bytes()
    assert struct.unpack_from("<IHHiIII", data) == (0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)
    position, count = 24, 0
    while position < len(data):
        length, original = struct.unpack_from("<II", data, position + 8)
        assert length == original
        position += 16 + length
        count += 1
    assert position == len(data)
    assert count > 100
    require(shutil.which("tcpdump") is not None, "tcpdump is not installed: apt-get install tcpdump")
    shown = subprocess.run(
        ["tcpdump", "-n", "-r", str(lab.settings.pcap)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(shown) == count
    assert {line.split()[1] for line in shown} == {"IP", "IP6"}


def test_impossible_settings_are_refused() -> None:
    """Before anything is built."""
    for wrong in ({"loss": 1.0}, {"delay_s": -1.0}, {"mapping_s": 0.0}):
        with pytest.raises(ValueError, match="delay_s is 0 to 10"):
            dataclasses.replace(LabSettings(), **wrong)
