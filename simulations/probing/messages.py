"""STUN requests of behaviour discovery: answer from elsewhere, answer to another port. Codec of `nat.stun`.

RFC 5780, "NAT Behavior Discovery Using STUN", section 7.2 "CHANGE-REQUEST", 7.5 "RESPONSE-PORT". Requests are padded
to the size of the largest answer, as everywhere in this package. Differences: no OTHER-ADDRESS and RESPONSE-ORIGIN (who
asks knows the server's four addresses), no PADDING test of fragments.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.nat.stun import binding_response, encode_stun, parse_stun_untrusted

__all__ = [
    "CHANGE_IP",
    "CHANGE_PORT",
    "ProbeRequest",
    "answer",
    "parse_answer_untrusted",
    "parse_request_untrusted",
    "request",
]

# Fixed by the specification
_BINDING_REQUEST, _BINDING_RESPONSE = 0x0001, 0x0101
_CHANGE_REQUEST, _RESPONSE_PORT = 0x0003, 0x0027
_PADDING = 0x8030  # as in nat.stun: comprehension-optional
CHANGE_IP, CHANGE_PORT = 4, 2
_PADDED_BYTES = 16


@dataclass(frozen=True)
class ProbeRequest:
    """`change`: bits CHANGE_IP, CHANGE_PORT. `response_port`: of the asking address; 0: where the request came from."""

    transaction_id: bytes
    change: int = 0
    response_port: int = 0


def request(asked: ProbeRequest) -> bytes:
    """Return the request, 56 bytes: above the largest answer."""
    change = asked.change.to_bytes(4, "big")
    attributes = [(_CHANGE_REQUEST, change), (_PADDING, bytes(_PADDED_BYTES))]
    if asked.response_port:
        attributes[1] = (_PADDING, bytes(_PADDED_BYTES - 8))
        attributes.append((_RESPONSE_PORT, asked.response_port.to_bytes(2, "big") + bytes(2)))
    return encode_stun(_BINDING_REQUEST, asked.transaction_id, tuple(attributes))


def parse_request_untrusted(data: bytes) -> ProbeRequest:
    """Read a request; one without our attributes asks for a plain answer. Raise BadPacket."""
    message = parse_stun_untrusted(data)
    if message.kind != _BINDING_REQUEST:
        raise BadPacket("not_a_request")
    change = message.get(_CHANGE_REQUEST) or bytes(4)
    port = message.get(_RESPONSE_PORT) or bytes(4)
    if len(change) != 4 or len(port) != 4:  # RFC 5780: the port is followed by 2 reserved bytes
        raise BadPacket("malformed")
    bits = int.from_bytes(change, "big") & (CHANGE_IP | CHANGE_PORT)
    return ProbeRequest(message.transaction_id, bits, int.from_bytes(port[:2], "big"))


def answer(asked: ProbeRequest, source: Address) -> bytes:
    """Return the answer that tells `source` its own address, 40 or 52 bytes."""
    return binding_response(asked.transaction_id, source)


def parse_answer_untrusted(data: bytes) -> tuple[bytes, Address]:
    """Return transaction id and mapped address. Raise BadPacket."""
    message = parse_stun_untrusted(data)
    if message.kind != _BINDING_RESPONSE:
        raise BadPacket("not_a_response")
    return message.transaction_id, message.mapped_address_untrusted()
