"""NAT-PMP (RFC 6886) and PCP (RFC 6887) as the router answers them, byte by byte as the specifications lay them out."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest
from support.routers import OUTSIDE, A, B, X, Y, back, out, router, tcp_in

from p2pnode import BadPacket
from p2pnode.core.address import Address
from p2pnode.simulations.routers.grants import Grants
from p2pnode.simulations.routers.natpmp import NatPmp
from p2pnode.simulations.routers.openings import OPENINGS_MAX
from p2pnode.simulations.routers.pcp import Pcp
from p2pnode.simulations.routers.router import RouterModel

ASKER = Address(A.ip, 50_000)
NONCE, OTHER_NONCE = bytes(range(12)), bytes(12)
UDP, TCP = 17, 6


def natpmp(model: RouterModel) -> NatPmp:
    return NatPmp(Grants(model, random.Random(1)))


def pcp(model: RouterModel) -> Pcp:
    return Pcp(Grants(model, random.Random(1)))


def map_natpmp(opcode: int, inside: int, wanted: int, seconds: int) -> bytes:
    return struct.pack("!BBHHHI", 0, opcode, 0, inside, wanted, seconds)


def mapped(ip: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{ip}" if ":" not in ip else ip).packed


def map_pcp(
    inside: int,
    *,
    outside: int = 0,
    seconds: int = 3600,
    protocol: int = UDP,
    nonce: bytes = NONCE,
    client: str = A.ip,
    outside_ip: str = "0.0.0.0",
    options: bytes = b"",
) -> bytes:
    header = struct.pack("!BBHI", 2, 1, 0, seconds) + mapped(client)
    return header + nonce + struct.pack("!B3xHH", protocol, inside, outside) + mapped(outside_ip) + options


def ask(server: NatPmp | Pcp, now: float, data: bytes, source: Address = ASKER) -> bytes:
    answer = server.answer_untrusted(now, data, source)
    assert answer is not None
    return answer


def result_of(answer: bytes) -> int:
    return answer[3]


# NAT-PMP


def test_natpmp_external_address() -> None:
    """Section 3.2: version, opcode 128, result 0, seconds since start, the address."""
    model = router("upnp")
    assert ask(natpmp(model), 77.9, bytes(2)) == bytes.fromhex("00800000 0000004d c6336401")


def test_natpmp_dead_line() -> None:
    """Section 3.5: result 3, network failure, and no address."""
    server = natpmp(router("upnp", line=False))
    assert ask(server, 0.0, bytes(2)) == bytes.fromhex("00800003 00000000 00000000")
    assert ask(server, 0.0, map_natpmp(1, 4747, 0, 60))[:4] == bytes.fromhex("00810003")


@pytest.mark.parametrize(("opcode", "protocol"), [(1, "udp"), (2, "tcp")])
def test_natpmp_map_leads_in(opcode: int, protocol: str) -> None:
    """Section 3.3: the port is open for everybody, for as long as was granted; the other protocol's is not."""
    model = router("upnp")
    answer = ask(natpmp(model), 5.0, map_natpmp(opcode, 4747, 5000, 3600))
    assert answer == struct.pack("!BBHIHHI", 0, 128 + opcode, 0, 5, 4747, 5000, 3600)
    seen = Address(OUTSIDE, 5000)
    results = [back(model, 3604.0, Y, seen), tcp_in(model, 3604.0, Y, seen, "syn")]
    assert results == ([A, "unsolicited"] if protocol == "udp" else ["unsolicited", A])
    assert back(model, 3605.0, Y, seen) == "unsolicited"


def test_natpmp_renewal_keeps_the_port_and_taken_ports_give_another() -> None:
    """Section 3.3: whoever renews gets his port whatever he wants; who wants another host's gets another one."""
    server = natpmp(router("upnp"))
    ask(server, 0.0, map_natpmp(1, 4747, 5000, 3600))
    renewed = ask(server, 10.0, map_natpmp(1, 4747, 6000, 3600))
    assert struct.unpack("!HHI", renewed[8:]) == (4747, 5000, 3600)
    other = ask(server, 20.0, map_natpmp(1, 4747, 5000, 3600), Address(B.ip, 50_000))
    assert result_of(other) == 0
    assert struct.unpack("!H", other[10:12])[0] != 5000


def test_natpmp_lifetime_is_capped() -> None:
    """Section 3.3: the answer tells what was granted."""
    server = natpmp(router("upnp", mapping_lease_max_s=600))
    assert struct.unpack("!I", ask(server, 0.0, map_natpmp(1, 4747, 0, 99_999))[12:])[0] == 600


def test_natpmp_delete() -> None:
    """Section 3.4: lifetime 0 closes one, inside port 0 all of a protocol; what is not there is closed already."""
    model = router("upnp")
    server = natpmp(model)
    for port in (1, 2, 3):
        ask(server, 0.0, map_natpmp(1, 4000 + port, 0, 3600))
    ask(server, 0.0, map_natpmp(2, 4000, 0, 3600))
    assert ask(server, 1.0, map_natpmp(1, 4001, 0, 0)) == struct.pack("!BBHIHHI", 0, 129, 0, 1, 4001, 0, 0)
    assert len(model.openings.living(1.0)) == 3
    assert result_of(ask(server, 1.0, map_natpmp(1, 4001, 0, 0))) == 0
    assert result_of(ask(server, 1.0, map_natpmp(1, 0, 0, 0), Address(B.ip, 9))) == 0
    assert len(model.openings.living(1.0)) == 3
    ask(server, 1.0, map_natpmp(1, 0, 0, 0))
    assert [opening.protocol for opening in model.openings.living(1.0)] == ["tcp"]


def test_natpmp_errors() -> None:
    """Section 3.5: another version, an unknown opcode; answers are ignored; too short is a bad packet."""
    server = natpmp(router("upnp"))
    assert ask(server, 0.0, bytes((1, 0))) == bytes.fromhex("00800001 00000000")
    assert ask(server, 0.0, bytes((0, 7))) == bytes.fromhex("00870005 00000000")
    assert server.answer_untrusted(0.0, bytes((0, 128)) + bytes(10), ASKER) is None
    for data in (b"", b"\x00", map_natpmp(1, 4747, 0, 60)[:11], map_natpmp(1, 0, 0, 60)):
        with pytest.raises(BadPacket):
            server.answer_untrusted(0.0, data, ASKER)


def test_epoch_begins_anew_and_openings_are_gone() -> None:
    """Section 3.6: after a restart the seconds count from 0, so that clients notice."""
    model = router("upnp")
    server = natpmp(model)
    ask(server, 1000.0, map_natpmp(1, 4747, 5000, 3600))
    model.reboot(2000.0)
    assert struct.unpack("!I", ask(server, 2003.0, bytes(2))[4:8])[0] == 3
    assert back(model, 2003.0, Y, Address(OUTSIDE, 5000)) == "unsolicited"


# PCP


def test_pcp_announce() -> None:
    """Section 14.1: header only, with the epoch; also what a restart announces."""
    request = struct.pack("!BBHI", 2, 0, 0, 0) + mapped(A.ip)
    expected = bytes.fromhex("02800000 00000000 0000000a") + bytes(12)
    server = pcp(router("upnp"))
    assert ask(server, 10.0, request) == server.announcement(10.0) == expected


def test_pcp_map() -> None:
    """Section 11.1: nonce, protocol, ports and the outside address as IPv4-mapped; then it leads in."""
    model = router("upnp")
    answer = ask(pcp(model), 10.0, map_pcp(4747, outside=5000))
    assert answer == (
        struct.pack("!BBBBII12x", 2, 0x81, 0, 0, 3600, 10)
        + NONCE
        + struct.pack("!B3xHH", UDP, 4747, 5000)
        + mapped(OUTSIDE)
    )
    assert back(model, 3609.0, Y, Address(OUTSIDE, 5000)) == A
    assert back(model, 3610.0, Y, Address(OUTSIDE, 5000)) == "unsolicited"


def test_pcp_map_keeps_what_remotes_see_already() -> None:
    """Section 11.3: an inside port with a mapping of its own is opened at that outside port, and keeps it outward."""
    model = router("upnp", ports="random")
    seen = out(model, 0.0, A, X)
    answer = ask(pcp(model), 1.0, map_pcp(A.port, outside=5000))
    assert struct.unpack("!H", answer[42:44])[0] == seen.port
    assert out(model, 100.0, A, Y) == seen
    assert back(model, 100.0, Address("203.0.113.77", 1), seen) == A


def test_pcp_opening_is_not_given_to_others() -> None:
    """Neither a packet from inside nor another host's request gets an opened port."""
    model = router("upnp")
    server = pcp(model)
    ask(server, 0.0, map_pcp(4747, outside=4747))
    assert out(model, 1.0, B, X).port != 4747
    other = map_pcp(4747, outside=4747, client=B.ip)
    assert struct.unpack("!H", ask(server, 1.0, other, Address(B.ip, 9))[42:44])[0] != 4747


def test_pcp_prefer_failure() -> None:
    """Section 13.2: rather error 11 than another port or address."""
    server, option = pcp(router("upnp")), bytes((2, 0, 0, 0))
    ask(server, 0.0, map_pcp(4747, outside=5000))
    other = map_pcp(4747, outside=5000, client=B.ip, options=option)
    assert result_of(ask(server, 0.0, other, Address(B.ip, 9))) == 11
    elsewhere = map_pcp(4747, outside=5001, outside_ip="192.0.2.1", options=option)
    assert result_of(ask(server, 0.0, elsewhere)) == 11
    assert result_of(ask(server, 0.0, map_pcp(4748, outside=5002, outside_ip=OUTSIDE, options=option))) == 0


def test_pcp_nonce_guards_an_opening() -> None:
    """Section 11.3: with another nonce neither renewed nor deleted (error 2)."""
    model = router("upnp")
    server = pcp(model)
    ask(server, 0.0, map_pcp(4747))
    assert result_of(ask(server, 1.0, map_pcp(4747, nonce=OTHER_NONCE))) == 2
    assert result_of(ask(server, 1.0, map_pcp(4747, seconds=0, nonce=OTHER_NONCE))) == 2
    assert result_of(ask(server, 1.0, map_pcp(4747, seconds=0))) == 0
    assert model.openings.living(1.0) == []
    assert result_of(ask(server, 1.0, map_pcp(4747, seconds=0))) == 0


def test_pcp_delete_all() -> None:
    """Section 15.1: inside port 0 deletes a protocol's, protocol 0 everything."""
    model = router("upnp")
    server = pcp(model)
    for protocol in (UDP, TCP):
        for port in (4000, 4001):
            ask(server, 0.0, map_pcp(port, protocol=protocol))
    ask(server, 0.0, map_pcp(0, seconds=0, protocol=TCP))
    assert len(model.openings.living(0.0)) == 2
    ask(server, 0.0, map_pcp(0, seconds=0, protocol=0))
    assert model.openings.living(0.0) == []


@pytest.mark.parametrize(
    ("request_", "source", "result"),
    [
        (map_pcp(4747, client=B.ip), ASKER, 12),
        (map_pcp(4747, protocol=132), ASKER, 9),
        (map_pcp(0), ASKER, 3),
        (map_pcp(4747)[:-4], ASKER, 3),
        (bytes((2, 2)) + map_pcp(4747)[2:], ASKER, 4),
        (map_pcp(4747, options=bytes((3, 0, 0, 0))), ASKER, 5),
        (map_pcp(4747, options=bytes((2, 0, 0, 4)) + bytes(4)), ASKER, 6),
        (map_pcp(4747, options=bytes((2, 0, 1, 0))), ASKER, 6),
        (map_pcp(4747, options=bytes((2, 0, 0, 0, 2, 0, 0, 0))), ASKER, 6),
        (map_pcp(4747, options=bytes((200, 0, 0, 0))), ASKER, 0),
        (bytes((1, 1)) + map_pcp(4747)[2:], ASKER, 1),
        (map_pcp(4747, seconds=0, protocol=132), ASKER, 9),
    ],
)
def test_pcp_results(request_: bytes, source: Address, result: int) -> None:
    """Section 7.4: each error has its code; errors repeat the request's data; optional options are skipped."""
    model = router("upnp")
    answer = ask(pcp(model), 0.0, request_, source)
    assert answer[:4] == bytes((2, request_[1] | 0x80, 0, result))
    assert len(answer) % 4 == 0
    assert bool(model.openings.living(0.0)) is (result == 0)


def test_pcp_too_long_and_not_for_us() -> None:
    """Section 8.2: above 1,100 bytes is malformed, an answer is ignored, less than two bytes cannot be answered."""
    server = pcp(router("upnp"))
    assert result_of(ask(server, 0.0, map_pcp(4747, options=bytes((200, 0, 4, 24)) + bytes(1048)))) == 3
    assert server.answer_untrusted(0.0, server.announcement(0.0), ASKER) is None
    with pytest.raises(BadPacket):
        server.answer_untrusted(0.0, b"\x02", ASKER)


def test_pcp_lifetimes_and_limits() -> None:
    """Section 15: raised to 120 s, capped; a full router says error 8 and to come back soon."""
    model = router("upnp", mapping_lease_max_s=600)
    server = pcp(model)
    for asked, granted in ((1, 120), (300, 300), (9999, 600)):
        assert struct.unpack("!I", ask(server, 0.0, map_pcp(4747, seconds=asked))[4:8])[0] == granted
    for number in range(OPENINGS_MAX):
        answer = ask(server, 0.0, map_pcp(10_000 + number))
    assert (result_of(answer), struct.unpack("!I", answer[4:8])[0]) == (8, 30)
    assert result_of(ask(pcp(router("upnp", line=False)), 0.0, map_pcp(4747))) == 7


def test_pcp_opens_a_pinhole_for_ipv6() -> None:
    """An IPv6 host keeps its address and port; the firewall lets everybody in there, and only there."""
    model = router("ipv6-firewall", port_mapping=frozenset(("pcp",)))
    host = Address("2001:db8:1::10", 4747)
    answer = ask(pcp(model), 0.0, map_pcp(4747, client=host.ip, outside_ip="::"), host)
    assert result_of(answer) == 0
    assert answer[44:60] == ipaddress.IPv6Address(host.ip).packed
    stranger = Address("2001:db8::99", 1)
    assert back(model, 1.0, stranger, host) == host
    assert back(model, 1.0, stranger, Address(host.ip, 4748)) == "unsolicited"


@pytest.mark.parametrize("make", [natpmp, pcp])
def test_hostile_bytes_give_an_answer_or_bad_packet(make: object) -> None:
    """Prefixes of valid requests, flipped bits and random bytes; never more than the request and its header."""
    rng = random.Random(7)
    server = make(router("upnp"))  # type: ignore[operator]
    good = [bytes(2), map_natpmp(1, 4747, 0, 60), map_pcp(4747, options=bytes((2, 0, 0, 0)))]
    samples = [data[:end] for data in good for end in range(len(data))]
    samples += [rng.randbytes(rng.randint(0, 1200)) for _ in range(300)]
    for data in good:
        for _ in range(300):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            samples.append(bytes(flipped))
    for data in samples:
        try:
            answer = server.answer_untrusted(0.0, data, ASKER)
        except BadPacket:
            continue
        assert answer is None or len(answer) <= max(len(data) + 3, 24)
