"""How the client of a connection proves its node key, and the small frames around it.

TLS (through the certificate) proves the server. qh3 cannot ask for a client certificate, so the client signs, on its
first stream (id 0), the server's fresh nonce, which the server sends on its first unidirectional stream (id 3) together
with its handshake. The signature covers both ids, the certificate and the network, so that a server which relays the
proof to a third node proves nothing to it: that node checks its own id, nonce and certificate.

Layouts, docs/protocol/session.md:

    nonce stream (server to client, id 3):   version 0x01 (1) · nonce (32) · FIN
    proof (client to server, id 0):          version 0x01 (1) · client public key (32) · signature (64)
    accepted (server to client, id 0):       0x01 (1)

What is signed: `signing_input(b"p2pnode/1/session", b"client-proof", payload)` with payload = nonce (32) · server
public key (32) · client public key (32) · SHA-256 of the server's certificate in DER (32) · network tag (8).
"""

from __future__ import annotations

import hashlib

from p2pnode.core.envelope import signing_input
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey

__all__ = [
    "ACCEPTED",
    "NONCE_BYTES",
    "NONCE_MESSAGE_BYTES",
    "PROOF_BYTES",
    "SessionFacts",
    "check_proof_untrusted",
    "encode_nonce",
    "encode_stream_header",
    "make_proof",
    "read_nonce_untrusted",
    "read_stream_header_untrusted",
]

VERSION = 0x01
DOMAIN = b"p2pnode/1/session"
PAYLOAD_TYPE = b"client-proof"
NONCE_BYTES = 32
NONCE_MESSAGE_BYTES = 1 + NONCE_BYTES
PROOF_BYTES = 1 + 32 + 64
ACCEPTED = b"\x01"
MAX_PROTOCOL_BYTES = 64


class SessionFacts:
    """What both sides know of a session and a proof is bound to."""

    __slots__ = ("certificate_hash", "network_tag", "nonce", "server")

    def __init__(self, *, nonce: bytes, server: PeerId, certificate_der: bytes, network_tag: bytes) -> None:
        """`nonce`: 32 bytes; `network_tag`: 8."""
        self.nonce = nonce
        self.server = server
        self.certificate_hash = hashlib.sha256(certificate_der).digest()
        self.network_tag = network_tag

    def signed_bytes(self, client: bytes) -> bytes:
        payload = self.nonce + self.server.raw + client + self.certificate_hash + self.network_tag
        return signing_input(DOMAIN, PAYLOAD_TYPE, payload)


def make_proof(key: NodeKey, facts: SessionFacts) -> bytes:
    """Return the client's 97 bytes."""
    return bytes((VERSION,)) + key.public_raw + key.sign(facts.signed_bytes(key.public_raw))


def check_proof_untrusted(data: bytes, facts: SessionFacts) -> PeerId:
    """Return who proved itself. Raise BadPacket: `malformed`, `wrong_version`, `bad_key`, `bad_signature`."""
    if len(data) != PROOF_BYTES:
        raise BadPacket("malformed")
    if data[0] != VERSION:
        raise BadPacket("wrong_version")
    client = PeerId.from_untrusted(data[1:33])
    if not client.verify(data[33:], facts.signed_bytes(client.raw)):
        raise BadPacket("bad_signature")
    return PeerId(client.raw)


def encode_nonce(nonce: bytes) -> bytes:
    return bytes((VERSION,)) + nonce


def read_nonce_untrusted(data: bytes) -> bytes:
    """Return the nonce of a complete nonce stream. Raise BadPacket: `malformed`, `wrong_version`."""
    if len(data) != NONCE_MESSAGE_BYTES:
        raise BadPacket("malformed")
    if data[0] != VERSION:
        raise BadPacket("wrong_version")
    return data[1:]


def encode_stream_header(protocol: str) -> bytes:
    """Return length (1) · name (1 to 64 bytes, printable ASCII without space). Raise ValueError."""
    name = protocol.encode()
    if not 1 <= len(name) <= MAX_PROTOCOL_BYTES or any(not 0x21 <= byte <= 0x7E for byte in name):
        raise ValueError("a protocol name has 1 to 64 printable ASCII characters and no space")
    return bytes((len(name),)) + name


def read_stream_header_untrusted(data: bytes) -> tuple[str, int] | None:
    """Return (protocol, bytes used), None when more bytes are needed. Raise BadPacket("bad_stream_header")."""
    if not data:
        return None
    length = data[0]
    if not 1 <= length <= MAX_PROTOCOL_BYTES:
        raise BadPacket("bad_stream_header")
    name = data[1 : 1 + length]
    if any(not 0x21 <= byte <= 0x7E for byte in name):
        raise BadPacket("bad_stream_header")
    if len(name) < length:
        return None
    return name.decode("ascii"), 1 + length
