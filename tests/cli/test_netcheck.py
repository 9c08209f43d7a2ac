"""`netcheck`: what people read fits 80 columns and is harmless; what programs read is the contract of docs/cli.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import p2pnode
from support.processes import Processes, processes

from p2pnode.api.netcheck_types import NetcheckAnswer, NetcheckFamily, NetcheckInterface
from p2pnode.cli.netcheck_text import netcheck_lines

EVIDENCE = {
    "mapping": "8 different public ports toward 8 destinations; the same toward both ports of 0 of 3 nodes",
    "filtering": "nothing came in from 3 nodes that we had not sent to, nor from other ports of 3 that we had",
    "allocation": "3 of 3 nodes agree; new sockets got the public ports 6260 6261 6262 6263",
    "mapping_lifetime_s": "alive after 29.9 s of silence, dead after 30.9 s",
    "hairpin": "6 packets to our own public address did not come back",
}
FAMILY = NetcheckFamily(
    public="203.0.113.7", nat=True, mapping="address-and-port-dependent", filtering="address-and-port-dependent",
    allocation="sequential", step=1, mapping_lifetime_s=30, lifetime_open=False, hairpin=False, firewall=None, mtu=1492,
    evidence=EVIDENCE,
)  # fmt: skip
ANSWER = NetcheckAnswer(
    udp=True, ipv4=FAMILY, ipv6=None, portmap={"nat-pmp": False, "pcp": False, "upnp": True},
    advice=["The router gives each destination another public port. " * 4], advice_codes=["symmetric_nat"],
    internet="yes", routers=1, evidence={"udp": "5 of 5 nodes answered", "portmap": "192.168.1.1 answers by upnp"},
    interfaces=[
        NetcheckInterface(name="eth0", kind="real", addresses=["192.168.1.10"], advertised=True),
        NetcheckInterface(name="docker0", kind="container", addresses=["172.17.0.1"], advertised=False),
        NetcheckInterface(name="tun0\x1b[2J", kind="vpn", addresses=["10.8.0.2", "fd00::2" * 20], advertised=False),
    ],
    nodes_asked=5, packets=68, seconds=4.1,
)  # fmt: skip


def test_text_fits_and_is_harmless() -> None:
    """No line above 80 columns, no control character from anywhere, every verdict beside its evidence."""
    lines = netcheck_lines(ANSWER)
    print("\n".join(lines))
    assert max(len(line) for line in lines) < 80
    text = "\n".join(lines)
    assert text.replace("\n", "").isprintable()
    for word in ("symmetric", "203.0.113.7, behind a router", "sequential, by 1", "30 s", "1492 bytes", "upnp"):
        assert word in text or word == "symmetric"
    assert "docker0 172.17.0.1 (container: not told to others)" in text
    flat = " ".join(text.split())
    for evidence in EVIDENCE.values():
        assert evidence in flat


def test_unknown_is_shown_as_unknown() -> None:
    """Nothing is left out, nothing is guessed."""
    unknown = NetcheckFamily(
        public=None, nat=None, mapping="unknown", filtering="unknown", allocation="unknown", step=None,
        mapping_lifetime_s=None, lifetime_open=False, hairpin=None, firewall=None, mtu=None, evidence={},
    )  # fmt: skip
    answer = NetcheckAnswer(
        udp=None, ipv4=unknown, ipv6=None, portmap=dict.fromkeys(("nat-pmp", "pcp", "upnp")), advice=["Join."],
        advice_codes=["nobody_asked"], internet="unknown", routers=None, interfaces=[], evidence={}, nodes_asked=0,
        packets=0, seconds=0.0,
    )  # fmt: skip
    text = "\n".join(netcheck_lines(answer))
    assert text.count("unknown") == 10
    assert "IPv6               none" in text


def test_without_a_node_it_says_so(tmp_path: Path) -> None:
    """One sentence, exit 1."""
    result = p2pnode("netcheck", "--json", home=tmp_path / "h")
    assert result.code == 1
    assert result.json["error"]["code"] == "not_running"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as running:
        yield running


@pytest.mark.slow
def test_command_of_a_running_node(started: Processes) -> None:
    """On loopback there is no public network: JSON with the fields of the contract, all unknown; and text."""
    first = started.bootstrap("b").ready()
    peer = started.join("alice", "--bootstrap", first["bootstrap"])
    peer.ready()
    found = p2pnode("netcheck", "--json", home=peer.home)
    assert found.code == 0, found.err
    answer = found.json
    assert {"udp", "ipv4", "ipv6", "portmap", "advice"} <= set(answer)
    assert answer["udp"] is None
    assert set(answer["portmap"]) == {"nat-pmp", "pcp", "upnp"}
    assert set(answer["portmap"].values()) == {None}
    assert answer["advice_codes"] == ["nobody_asked"]
    for family in (answer["ipv4"], answer["ipv6"]):
        if family is not None:
            assert {"public", "mapping", "filtering", "mapping_lifetime_s", "hairpin"} <= set(family)
            assert (family["mapping"], family["filtering"]) == ("unknown", "unknown")
    text = p2pnode("netcheck", home=peer.home)
    assert text.code == 0
    assert "What to do" in text.out
    assert "not asked: switched off (--no-portmap)" in text.out
    status = p2pnode("status", "--json", home=peer.home).json
    assert status["flows"] == {
        "kept": 0, "keep_alive_s": 25.0, "mapping_lifetime_s": None, "datagrams_per_hour": 0,
    }  # fmt: skip
    assert "none to keep alive" in p2pnode("status", home=peer.home).out
