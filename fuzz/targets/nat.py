"""STUN, ICE parameters, proofs, control frames, stream headers, certificates, retry tokens."""

from __future__ import annotations

import random

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.nat import IceParameters, StunServer
from p2pnode.nat.certificate import peer_of_certificate_untrusted
from p2pnode.nat.control import Control, ControlReader, encode_control
from p2pnode.nat.proof import (
    SessionFacts,
    check_proof_untrusted,
    encode_nonce,
    encode_stream_header,
    read_nonce_untrusted,
    read_stream_header_untrusted,
)
from p2pnode.nat.retry import RetryTokens
from p2pnode.nat.stun import StunMessage, binding_response, parse_stun_untrusted
from targets.base import Target

__all__ = ["SOURCE", "TARGETS", "proof_facts", "retry_tokens"]

SOURCE = Address("192.0.2.7", 4747)


def proof_facts() -> SessionFacts:
    """Return the session that proofs are checked against."""
    server = NodeKey(bytes([1]) * 32, bytes(32))
    return SessionFacts(nonce=bytes(32), server=server.peer_id, certificate_der=b"certificate", network_tag=bytes(8))


def retry_tokens() -> RetryTokens:
    """Return a maker of tokens with a known key, so that a token in the corpus stays valid."""
    return RetryTokens(random.Random(1).randbytes)


_FACTS, _TOKENS = proof_facts(), retry_tokens()


def hold_stun(data: bytes, message: StunMessage) -> None:
    assert len(message.transaction_id) == 12
    assert 20 + sum(4 + len(value) + -len(value) % 4 for _, value in message.attributes) == len(data)
    message.integrity_valid(data, b"key")
    try:
        address = message.mapped_address_untrusted()
    except BadPacket:
        pass
    else:
        again = parse_stun_untrusted(binding_response(message.transaction_id, address))
        assert again.mapped_address_untrusted() == address
    server_answer = StunServer(lambda _data, _to: None).answer_untrusted(data, SOURCE)
    assert server_answer is None or len(server_answer) <= len(data)


def hold_ice_parameters(_data: bytes, parameters: IceParameters) -> None:
    assert IceParameters.decode_untrusted(parameters.encode()) == parameters


def read_proof(data: bytes) -> PeerId:
    return check_proof_untrusted(data, _FACTS)


def hold_proof(data: bytes, peer: PeerId) -> None:
    assert peer.raw == data[1:33]


def hold_nonce(data: bytes, nonce: bytes) -> None:
    assert encode_nonce(nonce) == data


def read_control(data: bytes) -> list[Control]:
    return ControlReader().feed_untrusted(data)


def hold_control(data: bytes, frames: list[Control]) -> None:
    """Byte by byte gives the same as all at once."""
    assert data.startswith(b"".join(map(encode_control, frames)))
    reader, again = ControlReader(), []
    for at in range(len(data)):
        again += reader.feed_untrusted(data[at : at + 1])
    assert again == frames


def hold_stream_header(data: bytes, header: tuple[str, int] | None) -> None:
    if header is not None:
        assert encode_stream_header(header[0]) == data[: header[1]]
    for length in range(min(len(data), 66)):
        read_stream_header_untrusted(data[:length])  # what is a header is never refused half-way


def read_retry_token(data: bytes) -> tuple[bytes, bytes]:
    return _TOKENS.read_untrusted(data, SOURCE, 1.0)


TARGETS = [
    Target("stun", parse_stun_untrusted, hold_stun),
    Target("ice_parameters", IceParameters.decode_untrusted, hold_ice_parameters, max_bytes=420),
    Target("session_proof", read_proof, hold_proof, max_bytes=100),
    Target("session_nonce", read_nonce_untrusted, hold_nonce, max_bytes=40),
    Target("control", read_control, hold_control, max_bytes=200),
    Target("stream_header", read_stream_header_untrusted, hold_stream_header, max_bytes=80),
    Target("certificate", peer_of_certificate_untrusted, max_bytes=2_100),
    Target("retry_token", read_retry_token, max_bytes=90),
]
