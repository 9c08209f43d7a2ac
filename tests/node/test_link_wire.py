"""Frames and greetings of TLS links, CONNECT and its answer, byte by byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.core.address import Address, link_address, realm_of
from p2pnode.core.errors import BadPacket
from p2pnode.dht.limits import prefix_of
from p2pnode.nat.link_wire import (
    ALIVE,
    MAX_LINK_DATAGRAM,
    FrameReader,
    greeting,
    link_frame,
    read_greeting_untrusted,
)
from p2pnode.nat.mux import kind_of
from p2pnode.proxy import (
    MAX_REPLY_BYTES,
    Proxy,
    connect_request,
    parse_proxy,
    passes_by,
    read_reply_untrusted,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "links.json"
DATAGRAM = bytes(range(0x40, 0x50))
SEEN = Address("198.51.100.9", 50123)
ADDRESSES = (Address("203.0.113.7", 4747), Address("2001:db8::7", 4747))


def make_vectors() -> dict[str, Any]:
    """What docs/protocol/links.md names."""
    return {
        "datagram": DATAGRAM.hex(),
        "frame": link_frame(DATAGRAM).hex(),
        "alive": ALIVE.hex(),
        "seen": str(SEEN),
        "addresses": [str(address) for address in ADDRESSES],
        "greeting": greeting(4747, SEEN, ADDRESSES).hex(),
        "connect": connect_request("boot.example.org", 443, "YWxpY2U6c2VjcmV0").decode(),
    }


def test_vectors_of_links() -> None:
    """The file's bytes are what we write and read, and what the byte table says."""
    stored = json.loads(VECTORS.read_text())
    assert stored == make_vectors()
    assert stored["frame"] == "0010" + stored["datagram"]
    assert FrameReader().feed_untrusted(bytes.fromhex(stored["frame"] + stored["alive"])) == [DATAGRAM, b""]
    assert stored["greeting"].startswith("10" + "128b" + "03" + "06c6336409c3cb" + "06cb007107128b" + "12")
    assert read_greeting_untrusted(bytes.fromhex(stored["greeting"])) == (4747, SEEN, ADDRESSES)
    assert kind_of(bytes.fromhex(stored["greeting"])) is None


def test_frames_are_cut_wherever_the_stream_is() -> None:
    """One byte at a time or all at once: the same datagrams."""
    sent = [DATAGRAM, b"", bytes(MAX_LINK_DATAGRAM), b"x"]
    stream = b"".join(link_frame(each) for each in sent)
    assert FrameReader().feed_untrusted(stream) == sent
    reader = FrameReader()
    assert [each for i in range(len(stream)) for each in reader.feed_untrusted(stream[i : i + 1])] == sent


def test_longer_frames_end_the_link() -> None:
    """A length above the limit is known from its two bytes: nothing is collected for it."""
    with pytest.raises(BadPacket, match="bad_length"):
        FrameReader().feed_untrusted((MAX_LINK_DATAGRAM + 1).to_bytes(2, "big"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad_length"),
        (b"\x10\x12\x8b", "bad_length"),
        (b"\x11\x12\x8b\x00", "unknown_type"),
        (b"\x10\x00\x00\x00", "bad_address"),
        (b"\x10\x12\x8b\x06", "bad_length"),
        (b"\x10\x12\x8b\x00", "bad_length"),
        (b"\x10\x12\x8b\x01", "bad_length"),
        (b"\x10\x12\x8b\x01\x06\x01", "bad_address"),
        (b"\x10\x12\x8b\x00x", "bad_length"),
    ],
)
def test_other_greetings_are_refused(data: bytes, reason: str) -> None:
    """Too short, too long, another type, no port."""
    with pytest.raises(BadPacket, match=reason):
        read_greeting_untrusted(data)


def test_a_far_end_is_nobody_elses_udp_address() -> None:
    """Same numbers, another address; scope, realm and block are those of the numbers."""
    far = link_address(Address("203.0.113.7", 4747))
    assert far.is_link
    assert far != Address("203.0.113.7", 4747)
    assert str(far) == "tcp:203.0.113.7:4747"
    assert far.pack() == Address("203.0.113.7", 4747).pack()
    assert prefix_of(far.ip) == prefix_of("203.0.113.7")
    assert realm_of(link_address(Address("9.1.1.1", 1)).ip) is realm_of("9.1.1.1")
    assert str(link_address(Address("fe80::1%eth0", 7))) == "tcp:[fe80::1]:7"


def test_proxies_are_read_from_their_urls() -> None:
    """With and without scheme, user, port; other kinds are refused in a sentence; no secret is shown."""
    assert parse_proxy("") is None
    assert parse_proxy("proxy.example.org:3128") == Proxy("proxy.example.org", 3128)
    assert parse_proxy("http://[2001:db8::1]:8080/") == Proxy("2001:db8::1", 8080)
    named = parse_proxy("http://al%40ice:s%3Aecret@10.0.0.1")
    assert named == Proxy("10.0.0.1", 80, "YWxAaWNlOnM6ZWNyZXQ=")
    assert "YWx" not in repr(named)
    for wrong in ("socks5://10.0.0.1:1080", "https://10.0.0.1", "http://", "http://a b:80", "http://a:0x"):
        with pytest.raises(ValueError, match=r"prox|host|port"):
            parse_proxy(wrong)


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("boot.example.org", "", False),
        ("boot.example.org", "*", True),
        ("boot.example.org", "localhost, example.org", True),
        ("boot.example.org", ".EXAMPLE.org", True),
        ("boot.example.org", "*.example.org", True),
        ("bootexample.org", "example.org", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.11", "10.0.0.1", False),
    ],
)
def test_no_proxy_exempts_hosts_and_domains(host: str, no_proxy: str, exempt: bool) -> None:
    """As curl reads it, without networks."""
    assert passes_by(host, no_proxy) is exempt


def test_answers_of_proxies() -> None:
    """Incomplete, good, refused; what is too long, no HTTP, or followed by other bytes is not believed."""
    assert read_reply_untrusted(b"HTTP/1.1 200 OK\r\n") is None
    assert read_reply_untrusted(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n") == 200
    assert read_reply_untrusted(b"HTTP/1.0 407 Who are you\r\n\r\n") == 407
    for wrong in (b"HTTP/2 200\r\n\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nx", bytes(MAX_REPLY_BYTES)):
        with pytest.raises(BadPacket):
            read_reply_untrusted(wrong)
