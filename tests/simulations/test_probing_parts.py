"""The probe's messages, its server and its judgement, each alone."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from p2pnode import Address, BadPacket
from p2pnode.nat.behaviour import allocation_of, filtering_of, mapping_of
from p2pnode.nat.stun import binding_request, parse_stun_untrusted
from p2pnode.simulations.probing import ProbeServer, ProbeServers, ProbeSettings, Verdict
from p2pnode.simulations.probing.messages import (
    CHANGE_IP,
    CHANGE_PORT,
    ProbeRequest,
    answer,
    parse_answer_untrusted,
    parse_request_untrusted,
    request,
)
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

TRANSACTION = bytes(range(12))
P, Q, R = Address("198.51.100.1", 1), Address("198.51.100.1", 2), Address("198.51.100.1", 3)


@pytest.mark.parametrize("change", [0, CHANGE_PORT, CHANGE_IP | CHANGE_PORT])
@pytest.mark.parametrize("port", [0, 4747])
def test_request_there_and_back(change: int, port: int) -> None:
    """RFC 5780, section 7: CHANGE-REQUEST and RESPONSE-PORT; always 56 bytes, so that no answer is larger."""
    asked = ProbeRequest(TRANSACTION, change, port)
    data = request(asked)
    assert len(data) == 56
    assert parse_request_untrusted(data) == asked
    assert parse_stun_untrusted(data).get(0x0003) == change.to_bytes(4, "big")


def test_plain_binding_requests_are_understood() -> None:
    """Any STUN client gets its answer; so does ours from any server, IPv6 too."""
    assert parse_request_untrusted(binding_request(TRANSACTION)) == ProbeRequest(TRANSACTION)
    for source in (P, Address("2001:db8::7", 4747)):
        data = answer(ProbeRequest(TRANSACTION), source)
        assert parse_answer_untrusted(data) == (TRANSACTION, source)
        assert len(data) <= 56


def test_hostile_messages_are_bad_packets() -> None:
    """Prefixes and random bytes; an answer is no request and the other way round."""
    rng = random.Random(5)
    good = [request(ProbeRequest(TRANSACTION, 6, 1)), answer(ProbeRequest(TRANSACTION), P)]
    samples = [data[:end] for data in good for end in range(len(data))] + [rng.randbytes(60) for _ in range(200)]
    for data in samples:
        for parse in (parse_request_untrusted, parse_answer_untrusted):
            with pytest.raises(BadPacket):
                parse(data)
    for data, parse in zip(good, (parse_answer_untrusted, parse_request_untrusted), strict=True):
        with pytest.raises(BadPacket):
            parse(data)


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        ((P, P, P, P), "endpoint-independent"),
        ((P, P, Q, Q), "address-dependent"),
        ((P, Q, R, P), "address-and-port-dependent"),
        ((P, P, Q, R), "address-and-port-dependent"),
        ((P, None, P, P), "unknown"),
        ((None, None, None, None), "unknown"),
    ],
)
def test_mapping(seen: tuple[Address | None, ...], word: str) -> None:
    """By four views of one socket."""
    assert mapping_of(seen) == word


@pytest.mark.parametrize(
    ("who", "word"),
    [
        ((True, True, True), "endpoint-independent"),
        ((True, False, True), "address-dependent"),
        ((True, False, False), "address-and-port-dependent"),
        ((False, False, False), "unknown"),
    ],
)
def test_filtering(who: tuple[bool, bool, bool], word: str) -> None:
    """By who got in."""
    own, stranger, other_port = who
    assert filtering_of(own=own, stranger=stranger, other_port=other_port) == word


@pytest.mark.parametrize(
    ("ports", "verdict"),
    [
        ([(1000, 1000), (2000, 2000), (3000, 3000)], ("preserving", None)),
        ([(1000, 1000), (2000, 2000), (3000, 61234)], ("preserving", None)),
        ([(1000, 5001), (2000, 5002), (3000, 5003)], ("sequential", 1)),
        ([(1000, 5002), (2000, 5004), (3000, 5006), (4000, 5010)], ("sequential", 2)),
        ([(1000, 65535), (2000, 1024), (3000, 1025), (4000, 1026)], ("sequential", 1)),
        ([(1000, 5001), (2000, 40_000), (3000, 7), (4000, 20_000)], ("random", None)),
        ([(1000, 5003), (2000, 5002), (3000, 5001)], ("random", None)),
        ([(1000, 1000), (2000, 2000)], ("unknown", None)),
    ],
)
def test_allocation(ports: list[tuple[int, int]], verdict: tuple[str, int | None]) -> None:
    """By the order of ports; a port that was taken, a neighbour's connection and the end of the range are forgiven."""
    assert allocation_of([(private, Address("198.51.100.1", public)) for private, public in ports]) == verdict


def test_sequences_at_several_addresses_are_looked_at_apart() -> None:
    """A pool of two, each with a counter of its own."""
    samples = [(9, Address(f"198.51.100.{i % 2}", (5000, 30_000)[i % 2] + i // 2)) for i in range(6)]
    assert allocation_of(samples) == ("sequential", 1)


def test_server_answers_from_where_it_was_asked_to() -> None:
    """Two addresses and two ports: another one of either on request, to another port on request; noise is counted."""

    async def main(world: VirtualWorld) -> tuple[list[tuple[Address, Address]], int]:
        servers = ProbeServers(("203.0.113.1", "203.0.113.2"), tcp_ports=())
        server = await ProbeServer.open(world.host(*servers.ips), servers)
        client = world.host("198.51.100.1")
        got: list[tuple[Address, Address]] = []
        first = await client.open_udp(Address("0.0.0.0", 5000), lambda _data, source: got.append((P, source)))
        await client.open_udp(Address("0.0.0.0", 6000), lambda _data, source: got.append((Q, source)))
        for asked in (
            ProbeRequest(TRANSACTION), ProbeRequest(TRANSACTION, CHANGE_PORT),
            ProbeRequest(TRANSACTION, CHANGE_IP | CHANGE_PORT), ProbeRequest(TRANSACTION, 0, 6000),
        ):  # fmt: skip
            first.send(request(asked), servers.at(0, 0))
            await asyncio.sleep(1)
        first.send(b"noise", servers.at(1, 1))
        await asyncio.sleep(1)
        server.close()
        server.close()
        return got, server.bad

    got, bad = run_virtual(main)
    assert got == [
        (P, Address("203.0.113.1", 3478)), (P, Address("203.0.113.1", 3479)), (P, Address("203.0.113.2", 3479)),
        (Q, Address("203.0.113.1", 3478)),
    ]  # fmt: skip
    assert bad == 1


def test_server_that_cannot_listen_leaves_nothing_open() -> None:
    """An address that is not its host's: OSError, and the ports before it are free again."""

    async def main(world: VirtualWorld) -> int:
        host = world.host("203.0.113.1")
        with pytest.raises(OSError, match="assign"):
            await ProbeServer.open(host, ProbeServers(("203.0.113.1", "203.0.113.2")))
        return len(host.host.udp)

    assert run_virtual(main) == 0


def test_verdict_in_json() -> None:
    """Plain types, unknown where nothing was found."""
    data = json.loads(json.dumps(Verdict(public=P, lifetime_s=(30.0, float("inf"))).to_json()))
    assert (data["public"], data["own"], data["mapping"], data["port_kept"]) == (str(P), None, "unknown", None)
    assert data["lifetime_s"] == [30.0, None]


@pytest.mark.parametrize(
    "changes",
    [{"wait_s": 0.0}, {"tries": 0}, {"allocation_sockets": 2}, {"lifetime_max_s": -1.0}, {"lifetime_step_s": 0.0}],
)
def test_impossible_settings(changes: dict[str, float]) -> None:
    """Refused when they are made."""
    with pytest.raises(ValueError, match="above 0"):
        ProbeSettings(**changes)  # type: ignore[arg-type]
