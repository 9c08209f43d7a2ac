"""The mux sorts by first byte; STUN against RFC 5769's vectors."""

from __future__ import annotations

import asyncio
import errno

import pytest

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, InvalidConfigError, P2PTimeoutError, PortInUseError, RefusedError
from p2pnode.core.network import DatagramHandler, DatagramSocket, SegmentsHandler
from p2pnode.core.real_network import RealNetwork
from p2pnode.nat import StunClient, StunServer, UdpMux, kind_of
from p2pnode.nat.stun import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_RESPONSE,
    binding_request,
    binding_response,
    encode_stun,
    parse_stun_untrusted,
)
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

# RFC 5769, section 2.1, "Sample Request"; sections 2.2 and 2.3, "Sample IPv4 Response" and "Sample IPv6 Response".
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b1"
    "51263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE_4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599"
    "fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5"
    "bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


def test_rfc5769_request_is_read() -> None:
    """Kind, transaction, attributes, fingerprint and integrity of the sample request."""
    message = parse_stun_untrusted(REQUEST)
    assert message.kind == BINDING_REQUEST
    assert message.transaction_id.hex() == "b7e7a701bc34d686fa87dfae"
    assert message.get(0x0006) == b"evtj:h6vY"
    assert message.integrity_valid(REQUEST, PASSWORD)
    assert not message.integrity_valid(REQUEST, b"other")


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (RESPONSE_4, Address("192.0.2.1", 32853)),
        (RESPONSE_6, Address("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_rfc5769_responses_give_the_mapped_address(data: bytes, address: Address) -> None:
    """XOR-MAPPED-ADDRESS of both families, and back."""
    message = parse_stun_untrusted(data)
    assert message.kind == BINDING_RESPONSE
    assert message.mapped_address_untrusted() == address
    assert message.integrity_valid(data, PASSWORD)
    ours = parse_stun_untrusted(binding_response(message.transaction_id, address))
    assert ours.get(0x0020) == message.get(0x0020)
    assert ours.mapped_address_untrusted() == address


def test_response_is_never_larger_than_the_request() -> None:
    """A1: the server answers our request, and refuses one that is smaller than its answer."""
    server = StunServer(lambda _data, _to: None)
    request = binding_request(bytes(12))
    for source in (Address("192.0.2.1", 9), Address("2001:db8::1", 9)):
        answer = server.answer_untrusted(request, source)
        assert answer is not None
        assert len(answer) <= len(request)
        assert parse_stun_untrusted(answer).mapped_address_untrusted() == source
    bare = encode_stun(BINDING_REQUEST, bytes(12), ())
    assert server.answer_untrusted(bare, Address("192.0.2.1", 9)) is None
    assert server.statistics() == {"answered": 2, "too_short": 1}


def test_server_ignores_what_is_no_request() -> None:
    """Responses, wrong fingerprints and unknown required attributes are dropped and counted."""
    server = StunServer(lambda _data, _to: None)
    source = Address("192.0.2.1", 9)
    assert server.answer_untrusted(RESPONSE_4, source) is None
    assert server.answer_untrusted(REQUEST[:-1] + b"\0", source) is None
    assert server.answer_untrusted(encode_stun(BINDING_REQUEST, bytes(12), ((0x7777, bytes(40)),)), source) is None
    assert server.answer_untrusted(REQUEST[:-8], source) is None
    assert dict(server.statistics()) == {
        "answered": 0, "not_a_request": 1, "bad_fingerprint": 1, "unknown_attribute": 1, "malformed": 1,
    }  # fmt: skip


def test_message_without_fingerprint_is_refused() -> None:
    """A well-formed message that does not end with FINGERPRINT is none of ours."""
    plain = REQUEST[:2] + (0x50).to_bytes(2, "big") + REQUEST[4:-8]
    with pytest.raises(BadPacket, match="no_fingerprint"):
        parse_stun_untrusted(plain)


def test_client_learns_its_address_through_the_mux() -> None:
    """A query is answered on the shared socket; a lost request is repeated; forged answers are ignored."""

    async def main(world: VirtualWorld) -> None:
        muxes = []
        for ip in ("10.0.0.1", "10.0.0.2"):
            mux = UdpMux(world.host(ip))
            await mux.open([Address(ip, 4747)])
            muxes.append(mux)
        client = StunClient(world.host("10.0.0.3"), muxes[0].send)
        server = StunServer(muxes[1].send)

        def to_client(data: bytes, source: Address) -> None:
            client.datagram_received(data, source)

        muxes[0].on("stun", to_client)
        muxes[1].on("stun", server.datagram_received)
        assert await client.query(Address("10.0.0.2", 4747)) == Address("10.0.0.1", 4747)
        lost = iter((1.0, 1.0))
        world.loss = lambda _from, _to, _data: next(lost, 0.0)
        assert await client.query(Address("10.0.0.2", 4747)) == Address("10.0.0.1", 4747)
        with pytest.raises(P2PTimeoutError):
            await client.query(Address("10.0.0.9", 1), timeout=1)
        assert client._waiting == {}

    run_virtual(main)


def test_client_believes_only_the_server_it_asked() -> None:
    """The right transaction id from another address, or a malformed body, does not end the query; an error does."""

    async def main(world: VirtualWorld) -> None:
        sent: list[bytes] = []
        client = StunClient(world.host("10.0.0.1"), lambda data, _to: sent.append(data))
        asked, other = Address("10.0.0.2", 4747), Address("10.0.0.3", 4747)
        task = asyncio.ensure_future(client.query(asked))
        await asyncio.sleep(0)
        transaction = parse_stun_untrusted(sent[0]).transaction_id
        good = binding_response(transaction, Address("203.0.113.5", 5))
        assert not client.datagram_received(good, other)
        assert not client.datagram_received(good[:-1] + b"x", asked)
        assert not client.datagram_received(encode_stun(BINDING_RESPONSE, transaction, ()), asked)
        assert not client.datagram_received(sent[0], asked)
        assert client.datagram_received(good, asked)
        assert not client.datagram_received(good, asked)
        assert await task == Address("203.0.113.5", 5)
        task = asyncio.ensure_future(client.query(asked))
        await asyncio.sleep(0)
        client.datagram_received(encode_stun(BINDING_ERROR, parse_stun_untrusted(sent[1]).transaction_id, ()), asked)
        with pytest.raises(RefusedError):
            await task

    run_virtual(main)


def test_mux_sorts_by_first_byte() -> None:
    """The registry of docs/protocol/session.md, each of the 256 first bytes."""
    stun = bytes.fromhex("0000") + bytes(2) + bytes.fromhex("2112A442") + bytes(12)
    for byte in range(256):
        expected = (
            "stun" if byte < 4
            else "dht" if byte < 0x0B
            else "relay" if byte < 0x10
            else "quic" if 0x40 <= byte < 0x80 or byte >= 0xC0
            else None
        )  # fmt: skip
        assert kind_of(bytes([byte]) + stun[1:]) == expected
    assert kind_of(b"") is None
    assert kind_of(bytes(20)) is None  # no magic cookie
    assert kind_of(stun[:19]) is None


def test_mux_counts_and_drops() -> None:
    """Everything received is handled or counted as dropped; sending without a socket of the family is counted."""

    async def main(world: VirtualWorld) -> None:
        one, two = UdpMux(world.host("10.0.0.1")), UdpMux(world.host("10.0.0.2"))
        await one.open([Address("10.0.0.1", 1)])
        await two.open([Address("10.0.0.2", 2)])
        seen: list[bytes] = []
        two.on("dht", lambda data, _source: seen.append(data))
        for data in (b"\x05x", b"\x80x", b"\x41x", b""):
            one.send(data, two.local[0])
        one.send(b"\x05", Address("2001:db8::1", 1))
        await asyncio.sleep(0.1)
        assert seen == [b"\x05x"]
        statistics = two.statistics()
        assert statistics.dropped == {"unknown_kind": 2, "no_handler": 1}
        assert statistics.datagrams_in == {"dht": 1, "quic": 1}
        assert statistics.bytes_in["dht"] == 2
        assert one.statistics().dropped == {"no_socket": 1}
        assert one.statistics().datagrams_out == {"dht": 1, "quic": 1, "unknown": 2}
        two.close()
        two.close()
        one.send(b"\x05y", Address("10.0.0.2", 2))
        await asyncio.sleep(0.1)
        assert seen == [b"\x05x"]

    run_virtual(main)


def test_mux_maps_what_the_system_refuses() -> None:
    """Port in use, foreign address, one family twice: one sentence each; a failed open leaves no socket."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")
        first, second = UdpMux(network), UdpMux(network.host.network())
        await first.open([Address("10.0.0.1", 4747)])
        with pytest.raises(PortInUseError, match="4747"):
            await second.open([Address("10.0.0.1", 4747)])
        with pytest.raises(InvalidConfigError):
            await second.open([Address("10.9.9.9", 4747)])
        with pytest.raises(InvalidConfigError):
            await second.open([Address("10.0.0.1", 1), Address("10.0.0.1", 2)])
        with pytest.raises(InvalidConfigError):
            await second.open([])
        assert second.local == []
        await second.open([Address("10.0.0.1", 4748)])

    run_virtual(main)


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_mux_does_without_ipv6_where_there_is_none(number: int) -> None:
    """The default, both wildcards, works on a machine whose IPv6 is missing or switched off; an explicit one fails."""

    async def main(world: VirtualWorld) -> None:
        network = world.host("10.0.0.1")
        open_udp = network.open_udp

        async def without_ipv6(
            local: Address, handler: DatagramHandler, many: SegmentsHandler | None = None
        ) -> DatagramSocket:
            if local.is_ipv6:
                raise OSError(number, "no such family")
            return await open_udp(local, handler, many)

        network.open_udp = without_ipv6  # type: ignore[method-assign]
        mux = UdpMux(network)
        await mux.open([Address("0.0.0.0", 4747), Address("::", 4747)])
        assert mux.local == [Address("0.0.0.0", 4747)]
        for addresses in ([Address("::", 4748)], [Address("0.0.0.0", 4748), Address("::1", 4748)]):
            other = UdpMux(network)
            with pytest.raises(InvalidConfigError):
                await other.open(addresses)
            assert other.local == []

    run_virtual(main)


def test_mux_on_real_sockets() -> None:
    """Two muxes on loopback exchange a datagram; a taken port is named."""

    async def main() -> None:
        one, two = UdpMux(RealNetwork()), UdpMux(RealNetwork())
        try:
            await one.open([Address("127.0.0.1", 0)])
            await two.open([Address("127.0.0.1", 0)])
            got: asyncio.Future[tuple[bytes, Address]] = asyncio.get_running_loop().create_future()
            two.on("dht", lambda data, source: got.set_result((data, source)))
            one.send(b"\x05hello", two.local[0])
            async with asyncio.timeout(5):
                assert await got == (b"\x05hello", one.local[0])
            with pytest.raises(PortInUseError) as caught:
                await UdpMux(RealNetwork()).open([one.local[0]])
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EADDRINUSE
        finally:
            one.close()
            two.close()

    asyncio.run(main())
