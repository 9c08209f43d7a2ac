"""Port mapping without a network: vectors, what hostile gateways send, the epoch, when to renew."""

from __future__ import annotations

import json

import pytest
from support.portmap_vectors import GATEWAY, INTERNAL, INTERNAL6, NONCE, SERVICE, VECTORS, make

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat import natpmp, pcp, upnp
from p2pnode.nat.portmap import LIFETIME_MAX_S, RENEW_MIN_S, Epoch, Grant, MappingPlan

DESCRIBED = upnp.Endpoint(Address(GATEWAY, 5000), "/rootDesc.xml")


def answers() -> dict[str, bytes]:
    return {each["what"]: bytes.fromhex(each["answer"]) for each in json.loads(VECTORS.read_text())["datagrams"]}


def texts() -> dict[str, bytes]:
    return {each["what"]: each["answer"].encode() for each in json.loads(VECTORS.read_text())["upnp"]}


def test_vectors_are_what_the_code_makes() -> None:
    """A change of a byte is seen."""
    assert json.loads(VECTORS.read_text()) == make()


def test_vectors_are_read() -> None:
    """Each answer of a router says what the table of docs/protocol/portmap.md says."""
    read = answers()
    assert natpmp.parse_answer_untrusted(read["nat-pmp external address"]).external_ip == "203.0.113.7"
    mapped = natpmp.parse_answer_untrusted(read["nat-pmp map"])
    assert (mapped.internal_port, mapped.external_port, mapped.lifetime_s, mapped.epoch) == (4747, 4747, 7200, 1000)
    assert natpmp.parse_answer_untrusted(read["nat-pmp delete"]).lifetime_s == 0
    assert pcp.parse_answer_untrusted(read["pcp announce"]) == pcp.PcpAnswer(pcp.ANNOUNCE, 0, 0, 1000)
    granted = pcp.parse_answer_untrusted(read["pcp map"])
    assert (granted.nonce, granted.external) == (NONCE, Address("203.0.113.7", 4747))
    assert pcp.parse_answer_untrusted(read["pcp pinhole"]).external == INTERNAL6
    refused = pcp.parse_answer_untrusted(read["pcp map with another's nonce"])
    assert pcp.RESULTS[refused.result] == "not-authorized"
    found = texts()
    assert upnp.parse_search_answer_untrusted(found["search"], GATEWAY) == DESCRIBED
    description = upnp.parse_http_untrusted(found["description"])
    assert description is not None
    assert upnp.parse_description_untrusted(description.body, DESCRIBED) == SERVICE
    told = upnp.parse_http_untrusted(found["external address"])
    assert told is not None
    assert upnp.external_ip_untrusted(told) == "203.0.113.7"
    entry = upnp.parse_http_untrusted(found["specific entry"])
    assert entry is not None
    assert upnp.mapped_to_untrusted(entry) == INTERNAL
    fault = upnp.parse_http_untrusted(found["delete again"])
    assert fault is not None
    assert (fault.status, fault.error) == (500, 714)


@pytest.mark.parametrize("name", ["pcp map", "pcp announce", "pcp pinhole"])
def test_pcp_refuses_what_is_cut_or_changed(name: str) -> None:
    """No length but the right ones, no request, no other version."""
    data = answers()[name]
    for end in range(len(data)):
        if name == "pcp announce" or end != 24:
            with pytest.raises(BadPacket):
                pcp.parse_answer_untrusted(data[:end])
    for bad in (data + bytes(1100), b"\x01" + data[1:], data[:1] + bytes([data[1] & 0x7F]) + data[2:]):
        with pytest.raises(BadPacket):
            pcp.parse_answer_untrusted(bad)


def test_natpmp_refuses_what_is_cut_or_changed() -> None:
    """The same; a grant without a port is none."""
    data = answers()["nat-pmp map"]
    for bad in (*(data[:end] for end in range(len(data))), data + bytes(1100), b"\x01" + data[1:],
                data[:1] + b"\x01" + data[2:], data[:10] + bytes(2) + data[12:]):  # fmt: skip
        with pytest.raises(BadPacket):
            natpmp.parse_answer_untrusted(bad)


@pytest.mark.parametrize(
    "location",
    ["http://192.168.1.9:5000/a", "https://192.168.1.1/a", "file:///etc/passwd", "http://192.168.1.1:99999/a",
     "http://192.168.1.1@evil.example/a", "http://192.168.1.1/a\tb", "http://192.168.1.1/" + "a" * 300, ""],
)  # fmt: skip
def test_c1_no_url_leads_away_from_the_gateway(location: str) -> None:
    """Neither the search's answer nor a description sends us to another host, or anywhere by another scheme."""
    answer = f"HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n".encode()
    with pytest.raises(BadPacket):
        upnp.parse_search_answer_untrusted(answer, GATEWAY)
    if location:
        service = f"<service><serviceType>{SERVICE.kind}</serviceType><controlURL>{location}</controlURL></service>"
        with pytest.raises(BadPacket):
            upnp.parse_description_untrusted(service, DESCRIBED)


def test_c1_a_reference_to_a_character_of_5000_digits() -> None:
    """Python makes no number of it: the error ended all port mapping of the node."""
    service = f"<service><serviceType>{SERVICE.kind}</serviceType><controlURL>&#{'9' * 5000};</controlURL></service>"
    with pytest.raises(BadPacket):
        upnp.parse_description_untrusted(service, DESCRIBED)


def test_http_answers_in_all_framings() -> None:
    """By length, in chunks, and to the end of the connection; whole or not at all."""
    head, body = b"HTTP/1.1 200 OK\r\n", b"<errorCode>718</errorCode>"
    whole = [
        head + b"Content-Length: 26\r\n\r\n" + body,
        head
        + b"Transfer-Encoding: chunked\r\n\r\na\r\n"
        + body[:10]
        + b"\r\n10;x=y\r\n"
        + body[10:]
        + b"\r\n0\r\n\r\n",
    ]
    for data in whole:
        answer = upnp.parse_http_untrusted(data)
        assert answer is not None
        assert (answer.body, answer.error) == (body.decode(), 718)
        assert upnp.parse_http_untrusted(data[:-8]) is None
    open_end = head + b"\r\n" + body
    assert upnp.parse_http_untrusted(open_end) is None
    ended = upnp.parse_http_untrusted(open_end, ended=True)
    assert ended is not None
    assert ended.error == 718
    for bad in (b"SSH-2.0\r\n\r\n", head + b"Content-Length: 99999999\r\n\r\n", bytes(70_000)):
        with pytest.raises(BadPacket):
            upnp.parse_http_untrusted(bad, ended=True)


@pytest.mark.parametrize("answer", [b"a:\r\n" * 3_000, b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 300])
def test_c1_http_of_many_small_parts_is_not_read_again_and_again(answer: bytes) -> None:
    """An answer of 60 kB in such parts, sent byte by byte, cost 30 ms for each."""
    with pytest.raises(BadPacket, match="too_long"):
        upnp.parse_http_untrusted(b"HTTP/1.1 200 OK\r\n" + answer)


def test_the_epoch_tells_a_restart() -> None:
    """RFC 6887, section 8.5: a clock that runs evenly, a bit fast or slow, is no restart; one that jumps is."""
    epoch = Epoch()
    assert not epoch.seen(0.0, 5000)
    assert not epoch.seen(100.0, 5100)
    assert not epoch.seen(100.0, 5099)
    assert not epoch.seen(1100.0, 6150)
    assert epoch.contradicts(1200.0, 40)
    assert epoch.seen(1200.0, 40)
    assert not epoch.seen(1300.0, 140)
    assert epoch.seen(1310.0, 1400)


def test_renewed_at_half_life_then_at_half_of_what_is_left() -> None:
    """And when it has expired, asked again more and more seldom."""
    plan = MappingPlan(0.0)
    assert plan.granted(Grant("203.0.113.7", 4747, 7200), 0.0)
    assert plan.due_at == 3600
    plan.failed(3600.0, silent=True)
    assert plan.due_at == 5400
    plan.failed(7190.0, silent=True)
    assert plan.due_at == 7200
    pauses, now = [], 7200.0
    for _ in range(5):
        plan.failed(now, silent=False)
        assert plan.lease is None
        pauses.append(plan.due_at - now)
        now = plan.due_at
    assert pauses == [30, 120, 600, 3600, 3600]


@pytest.mark.parametrize(("lifetime", "pause"), [(1, RENEW_MIN_S), (2**32 - 1, LIFETIME_MAX_S / 2)])
def test_c1_no_lifetime_makes_us_ask_all_the_time_or_never(lifetime: int, pause: float) -> None:
    """A hostile gateway grants a second, or a century."""
    plan = MappingPlan(0.0)
    plan.granted(Grant("203.0.113.7", 4747, lifetime), 0.0)
    assert plan.due_at == pause


def test_c1_forged_announcements_cost_one_question_in_ten_seconds() -> None:
    """They are multicast; anybody on the LAN can send them."""
    plan = MappingPlan(0.0)
    plan.granted(Grant("203.0.113.7", 4747, 7200), 0.0)
    assert sum(plan.hinted(at / 100) for at in range(10_000)) == 10


def test_requests_come_from_our_own_address() -> None:
    """PCP's client address is the source address: section 8.1 of RFC 6887."""
    request = pcp.map_request(INTERNAL, None, 0, NONCE)
    assert request[8:24] == bytes(10) + b"\xff\xff" + bytes((192, 168, 1, 10))
    assert len(request) == 60
