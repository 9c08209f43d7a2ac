"""STUN binding (RFC 8489): tell others the address we see them from, and ask for ours.

Every node is server and client. Our messages carry FINGERPRINT, and those without a valid one are dropped: on a shared
socket it tells STUN from noise (RFC 8489, section 14.7, "FINGERPRINT"). A response is at most as large as its request:
requests are padded (RFC 8489 has no such rule; amplification, A1) by an attribute of the comprehension-optional range.

Differences from RFC 8489: no SOFTWARE, no ALTERNATE-SERVER, no authentication here (ICE checks have it); a request with
a comprehension-required attribute that we do not know is dropped instead of answered by 420: nobody sends us one.
aioice's codec is not used: it lets `struct.error` escape, and unpacks every attribute of a stranger's message.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, P2PTimeoutError, RefusedError
from p2pnode.core.network import Network

__all__ = [
    "StunClient",
    "StunMessage",
    "StunServer",
    "binding_request",
    "binding_response",
    "encode_stun",
    "parse_stun_untrusted",
]

# Fixed by the specification
COOKIE = 0x2112A442
_COOKIE_BYTES = COOKIE.to_bytes(4, "big")
BINDING_REQUEST, BINDING_RESPONSE, BINDING_ERROR = 0x0001, 0x0101, 0x0111
XOR_MAPPED_ADDRESS, FINGERPRINT, MESSAGE_INTEGRITY = 0x0020, 0x8028, 0x0008
FINGERPRINT_XOR = 0x5354554E
PADDING = 0x8030  # comprehension-optional and unassigned; PADDING (0x0026, RFC 5780) is comprehension-required
# Known to us, so not a reason to drop a request that carries it: those of ICE checks
_KNOWN_REQUIRED = frozenset((0x0006, MESSAGE_INTEGRITY, 0x0014, 0x0015, XOR_MAPPED_ADDRESS, 0x0024, 0x0025, 0x0026))
_IPV4, _IPV6 = 0x01, 0x02

# Chosen by us
MAX_STUN_BYTES = 1472  # IPv4 over Ethernet: requests padded to that size show what a path lets through
_RESPONSE_BYTES = 20 + 24 + 8  # header, XOR-MAPPED-ADDRESS of IPv6, FINGERPRINT
FIRST_RETRANSMISSION_S = 0.25  # doubled each time; RFC 8489 has 0.5, chosen for links of its time


@dataclass(frozen=True, slots=True)
class StunMessage:
    """`kind`: method and class bits; `transaction_id`: 12 bytes; `attributes`: (type, value) in order."""

    kind: int
    transaction_id: bytes
    attributes: tuple[tuple[int, bytes], ...]

    def get(self, attribute: int) -> bytes | None:
        return next((value for kind, value in self.attributes if kind == attribute), None)

    def mapped_address_untrusted(self) -> Address:
        """Return XOR-MAPPED-ADDRESS. Raise BadPacket("bad_address") when it is absent or malformed."""
        value = self.get(XOR_MAPPED_ADDRESS)
        if value is None or (len(value), value[1]) not in ((8, _IPV4), (20, _IPV6)):
            raise BadPacket("bad_address")
        port = int.from_bytes(value[2:4], "big") ^ COOKIE >> 16
        mask = (_COOKIE_BYTES + self.transaction_id)[: len(value) - 4]
        return Address.unpack_untrusted(_xor(value[4:], mask) + port.to_bytes(2, "big"))

    def integrity_valid(self, data: bytes, key: bytes) -> bool:
        """Whether `data`, the message as received, carries MESSAGE-INTEGRITY (HMAC-SHA1) under `key`.

        RFC 8489, section 14.5, "MESSAGE-INTEGRITY".
        """
        position = 20
        for kind, value in self.attributes:
            if kind == MESSAGE_INTEGRITY:
                covered = data[:2] + (position - 20 + 24).to_bytes(2, "big") + data[4:position]
                return hmac.compare_digest(value, hmac.new(key, covered, "sha1").digest())
            position += 4 + len(value) + -len(value) % 4
        return False


def parse_stun_untrusted(data: bytes) -> StunMessage:
    """Read a STUN message with FINGERPRINT. Raise BadPacket: `malformed`, `no_fingerprint`, `bad_fingerprint`."""
    if not 20 <= len(data) <= MAX_STUN_BYTES or data[0] & 0xC0 or data[4:8] != _COOKIE_BYTES:
        raise BadPacket("malformed")
    if int.from_bytes(data[2:4], "big") != len(data) - 20 or len(data) % 4:
        raise BadPacket("malformed")
    attributes: list[tuple[int, bytes]] = []
    position = 20
    while position < len(data):
        kind, length = int.from_bytes(data[position : position + 2], "big"), data[position + 2 : position + 4]
        end = position + 4 + int.from_bytes(length, "big")
        if end > len(data):
            raise BadPacket("malformed")
        value = data[position + 4 : end]
        if kind == FINGERPRINT:
            if len(value) != 4 or end != len(data):
                raise BadPacket("malformed")  # it is the last attribute
            if int.from_bytes(value, "big") != _fingerprint(data[:position]):
                raise BadPacket("bad_fingerprint")
        attributes.append((kind, value))
        position = end + -end % 4
    if not attributes or attributes[-1][0] != FINGERPRINT:
        raise BadPacket("no_fingerprint")
    return StunMessage(int.from_bytes(data[:2], "big"), data[8:20], tuple(attributes))


def binding_request(transaction_id: bytes, size: int = _RESPONSE_BYTES) -> bytes:
    """Return a request of `size` bytes, a multiple of 4; usually 52, as large as the largest response."""
    padding = size - 20 - 8 - 4
    return encode_stun(BINDING_REQUEST, transaction_id, ((PADDING, bytes(padding)),))


def binding_response(transaction_id: bytes, source: Address) -> bytes:
    """Return the response that tells `source` its own address: 40 bytes for IPv4, 52 for IPv6."""
    packed = ipaddress.ip_address(source.ip.partition("%")[0]).packed
    family = _IPV4 if len(packed) == 4 else _IPV6
    port = (source.port ^ COOKIE >> 16).to_bytes(2, "big")
    mask = (_COOKIE_BYTES + transaction_id)[: len(packed)]
    return encode_stun(
        BINDING_RESPONSE, transaction_id, ((XOR_MAPPED_ADDRESS, bytes((0, family)) + port + _xor(packed, mask)),)
    )


def encode_stun(kind: int, transaction_id: bytes, attributes: tuple[tuple[int, bytes], ...]) -> bytes:
    """Return a message with these attributes (type, value), padded, and FINGERPRINT at its end."""
    body = b"".join(
        number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    head = kind.to_bytes(2, "big") + (len(body) + 8).to_bytes(2, "big") + _COOKIE_BYTES + transaction_id
    data = head + body
    crc = binascii.crc32(data) ^ FINGERPRINT_XOR
    return data + FINGERPRINT.to_bytes(2, "big") + b"\x00\x04" + crc.to_bytes(4, "big")


def _fingerprint(before: bytes) -> int:
    """CRC of everything before the attribute; the length in the header counts it (it is the last)."""
    return binascii.crc32(before) ^ FINGERPRINT_XOR


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=True))


class StunServer:
    """Answers binding requests; holds no state per client."""

    def __init__(self, send: Callable[[bytes, Address], None]) -> None:
        """`send`: the mux's; never raises."""
        self._send = send
        self._dropped: Counter[str] = Counter()
        self._answered = 0

    def datagram_received(self, data: bytes, source: Address) -> None:
        """Answer a binding request. Never raises."""
        response = self.answer_untrusted(data, source)
        if response is not None:
            self._send(response, source)

    def answer_untrusted(self, data: bytes, source: Address) -> bytes | None:
        """Return the response to a binding request, never larger than it; None for everything else (counted)."""
        try:
            message = parse_stun_untrusted(data)
            if message.kind != BINDING_REQUEST:
                raise BadPacket("not_a_request")
            if any(kind < 0x8000 and kind not in _KNOWN_REQUIRED for kind, _ in message.attributes):
                raise BadPacket("unknown_attribute")
            response = binding_response(message.transaction_id, source)
            if len(response) > len(data):
                raise BadPacket("too_short")
        except BadPacket as exc:
            self._dropped[exc.reason] += 1
            return None
        self._answered += 1
        return response

    def statistics(self) -> Mapping[str, int]:
        """Return `answered` and the drops by reason."""
        return MappingProxyType({"answered": self._answered, **self._dropped})


class StunClient:
    """Asks servers for our address; feed it the mux's STUN datagrams."""

    def __init__(self, network: Network, send: Callable[[bytes, Address], None]) -> None:
        self._network = network
        self._send = send
        self._waiting: dict[bytes, tuple[Address, asyncio.Future[Address]]] = {}

    async def query(
        self, server: Address, timeout: float = 3.0, *, size: int = _RESPONSE_BYTES, once: bool = False
    ) -> Address:
        """Return our address as `server` sees it. Raise P2PTimeoutError; RefusedError for an error response.

        `size`: bytes of the request, 52 at least; `once`: nothing is repeated.
        """
        transaction_id = self._network.token_bytes(12)
        request = binding_request(transaction_id, size)
        answer: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        self._waiting[transaction_id] = (server, answer)
        pause = FIRST_RETRANSMISSION_S
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._send(request, server)
                    done, _ = await asyncio.wait((answer,), timeout=timeout if once else pause)
                    if done:
                        return answer.result()
                    pause *= 2
        except TimeoutError as exc:
            raise P2PTimeoutError(f"No STUN answer from {server} within {timeout:g} s.", address=str(server)) from exc
        finally:
            del self._waiting[transaction_id]

    def datagram_received(self, data: bytes, source: Address) -> bool:
        """Take a response. Return whether it belonged to a query of ours. Never raises."""
        waiting = self._waiting.get(data[8:20])
        if waiting is None or waiting[0] != source or waiting[1].done():
            return False
        answer = waiting[1]
        try:
            message = parse_stun_untrusted(data)
            if message.kind == BINDING_ERROR:
                answer.set_exception(RefusedError(f"{source} refuses STUN requests.", address=str(source)))
            elif message.kind == BINDING_RESPONSE:
                answer.set_result(message.mapped_address_untrusted())
            else:
                return False
        except BadPacket:
            return False  # somebody else's bytes: the true answer may still come
        return True
