"""Addresses: scopes, canonical form, text and packed form."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.core.address import Address, Realm, Scope, realm_of, scope_of, split_host_port
from p2pnode.core.errors import BadPacket

# IANA IPv4 and IPv6 Special-Purpose Address Registries; first and last address of each block, and its neighbours
SCOPES = [
    ("0.0.0.0", Scope.UNSPECIFIED),
    ("::", Scope.UNSPECIFIED),
    ("0.0.0.1", Scope.RESERVED),
    ("127.0.0.0", Scope.LOOPBACK),
    ("127.255.255.255", Scope.LOOPBACK),
    ("126.255.255.255", Scope.PUBLIC),
    ("128.0.0.0", Scope.PUBLIC),
    ("::1", Scope.LOOPBACK),
    ("::2", Scope.RESERVED),
    ("10.0.0.0", Scope.PRIVATE),
    ("10.255.255.255", Scope.PRIVATE),
    ("11.0.0.0", Scope.PUBLIC),
    ("172.15.255.255", Scope.PUBLIC),
    ("172.16.0.0", Scope.PRIVATE),
    ("172.31.255.255", Scope.PRIVATE),
    ("172.32.0.0", Scope.PUBLIC),
    ("192.168.0.0", Scope.PRIVATE),
    ("192.169.0.0", Scope.PUBLIC),
    ("fc00::1", Scope.PRIVATE),
    ("fdff:ffff::1", Scope.PRIVATE),
    ("100.63.255.255", Scope.PUBLIC),
    ("100.64.0.0", Scope.SHARED),
    ("100.127.255.255", Scope.SHARED),
    ("100.128.0.0", Scope.PUBLIC),
    ("169.254.0.1", Scope.LINK_LOCAL),
    ("fe80::1", Scope.LINK_LOCAL),
    ("febf::1", Scope.LINK_LOCAL),
    ("fe80::1%eth0", Scope.LINK_LOCAL),
    ("224.0.0.251", Scope.MULTICAST),
    ("239.255.255.255", Scope.MULTICAST),
    ("ff02::fb", Scope.MULTICAST),
    ("192.0.2.1", Scope.DOCUMENTATION),
    ("198.51.100.1", Scope.DOCUMENTATION),
    ("203.0.113.255", Scope.DOCUMENTATION),
    ("2001:db8::1", Scope.DOCUMENTATION),
    ("2001:db9::1", Scope.PUBLIC),
    ("3fff:fff::1", Scope.DOCUMENTATION),
    ("3fff:1000::1", Scope.PUBLIC),
    ("192.0.0.8", Scope.RESERVED),
    ("192.88.99.1", Scope.RESERVED),
    ("198.18.0.1", Scope.RESERVED),
    ("198.19.255.255", Scope.RESERVED),
    ("198.20.0.0", Scope.PUBLIC),
    ("240.0.0.1", Scope.RESERVED),
    ("255.255.255.255", Scope.RESERVED),
    ("100::1", Scope.RESERVED),
    ("2001::1", Scope.RESERVED),
    ("2001:200::1", Scope.PUBLIC),
    ("2002:0a00:0001::1", Scope.RESERVED),
    ("fec0::1", Scope.RESERVED),
    ("5f00::1", Scope.RESERVED),
    ("4000::1", Scope.RESERVED),
    ("64:ff9b:1::1", Scope.RESERVED),
    ("2606:4700::1111", Scope.PUBLIC),
    ("8.8.8.8", Scope.PUBLIC),
    # IPv4 inside IPv6: mapped as its IPv4, NAT64 only to public IPv4, "compatible" and "translated" never
    ("::ffff:127.0.0.1", Scope.LOOPBACK),
    ("::ffff:10.1.2.3", Scope.PRIVATE),
    ("::ffff:8.8.8.8", Scope.PUBLIC),
    ("::ffff:0.0.0.0", Scope.UNSPECIFIED),
    ("64:ff9b::8.8.8.8", Scope.PUBLIC),
    ("64:ff9b::10.0.0.1", Scope.RESERVED),
    ("64:ff9b::127.0.0.1", Scope.RESERVED),
    ("::8.8.8.8", Scope.RESERVED),
    ("::ffff:0:8.8.8.8", Scope.RESERVED),
]
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
ports = st.integers(1, 65535)


@pytest.mark.parametrize(("ip", "scope"), SCOPES)
def test_scope_of_each_special_block(ip: str, scope: Scope) -> None:
    """Each block of the registries, its edges, and IPv4 inside IPv6."""
    assert scope_of(ip) is scope


def test_realms() -> None:
    """Loopback, private (with shared and link-local) and public are realms; nothing else ever gets a packet."""
    assert realm_of("127.0.0.1") is Realm.LOOPBACK
    assert {realm_of(ip) for ip in ("10.0.0.1", "100.64.0.1", "169.254.1.1", "fe80::1", "fd00::1")} == {Realm.PRIVATE}
    assert realm_of("8.8.8.8") is realm_of("2606:4700::1111") is Realm.PUBLIC
    assert {realm_of(ip) for ip in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1", "192.0.2.1")} == {None}


def test_documentation_is_public_only_in_a_laboratory() -> None:
    """The test setting opens documentation networks and nothing else."""
    assert realm_of("203.0.113.7") is None
    assert realm_of("203.0.113.7", allow_documentation=True) is Realm.PUBLIC
    assert realm_of("2001:db8::1", allow_documentation=True) is Realm.PUBLIC
    assert realm_of("224.0.0.1", allow_documentation=True) is None


@given(st.ip_addresses())
def test_what_python_calls_global_is_never_private_to_us(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """A public scope implies that no block of the standard library's lists that we know as local holds the address."""
    if scope_of(str(ip)) is Scope.PUBLIC:
        assert not (ip.is_loopback)
        assert not (ip.is_link_local)
        assert not (ip.is_multicast)
        assert not (ip.is_unspecified)


@pytest.mark.parametrize(
    ("ip", "canonical"),
    [
        ("::FFFF:1.2.3.4", "1.2.3.4"),
        ("2001:0DB8:0:0::1", "2001:db8::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("2606::1%eth0", "2606::1"),
    ],
)
def test_one_address_has_one_form(ip: str, canonical: str) -> None:
    """Mapped, long, upper-case and needlessly zoned forms become one text."""
    assert Address.of(ip, 1).ip == canonical


@pytest.mark.parametrize(
    "ip", ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "localhost", "fe80::1%", "fe80::1%\x1b[0m", "1.2.3.4%eth0", "::1::"]
)
def test_what_is_no_address_is_refused(ip: str) -> None:
    """ValueError for text that is not an IP address, or has an unusable zone."""
    with pytest.raises(ValueError, match=r"."):
        Address.of(ip, 1)


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_out_of_range_are_refused(port: int) -> None:
    """A port is 0 (to bind) to 65535."""
    with pytest.raises(ValueError, match="port"):
        Address.of("1.2.3.4", port)


@given(ipv4 | ipv6, ports)
def test_text_and_packed_forms_round_trip(ip: str, port: int) -> None:
    """`parse` undoes `str`, `unpack_untrusted` undoes `pack`, for every address of both families."""
    address = Address.of(ip, port)
    assert Address.parse(str(address)) == address
    assert Address.unpack_untrusted(address.pack()) == address
    assert len(address.pack()) == (18 if address.is_ipv6 else 6)


@given(st.binary(max_size=24))
def test_unpacking_gives_an_address_or_bad_packet(data: bytes) -> None:
    """Any bytes: an address that packs to the same bytes, or BadPacket("bad_address")."""
    try:
        address = Address.unpack_untrusted(data)
    except BadPacket as exc:
        assert exc.reason == "bad_address"
    else:
        assert address.pack() == data
        assert address.port > 0


def test_mapped_and_portless_packed_addresses_are_refused() -> None:
    """An IPv4-mapped form would be a second name of one address; port 0 cannot be sent to."""
    for data in (bytes(10) + b"\xff\xff\x01\x02\x03\x04\x00\x05", b"\x01\x02\x03\x04\0\0"):
        with pytest.raises(BadPacket, match="bad_address"):
            Address.unpack_untrusted(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org:5", ("example.org", 5)),
        ("1.2.3.4:65535", ("1.2.3.4", 65535)),
        ("[::1]:5", ("::1", 5)),
        ("[fe80::1%eth0]:5", ("fe80::1%eth0", 5)),
        (" localhost ", ("localhost", 4747)),
        ("[::1]", ("::1", 4747)),
        ("::1", ("::1", 4747)),
        ("::", ("::", 4747)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
    ],
)
def test_host_and_port_are_split(text: str, expected: tuple[str, int]) -> None:
    """Names, IPv4, bracketed and bare IPv6, with and without port."""
    assert split_host_port(text, default_port=4747) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":5",
        "a:",
        "[::1]:",
        "[::1",
        "[::1]5",
        "[example]:5",
        "a:b",
        "a:65536",
        "a:-1",
        "a:+5",
        "a:٣",
        "a:" + "9" * 5000,
    ],
)
def test_bad_hosts_and_ports_are_refused_briefly(text: str) -> None:
    """Each has a ValueError whose text is short and printable."""
    with pytest.raises(ValueError, match=r".") as caught:
        split_host_port(text, default_port=4747)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_without_default_a_port_is_needed() -> None:
    """A missing port is an error when the caller has no default."""
    with pytest.raises(ValueError, match="no port"):
        Address.parse("1.2.3.4")
