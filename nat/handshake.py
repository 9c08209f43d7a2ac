"""The two sides of the session handshake after TLS, without I/O: bytes in, bytes out, or BadPacket.

| client                           | server                          |
|----------------------------------|---------------------------------|
| ClientHello                      |                                 |
|                                  | ServerHello .. Finished, nonce  |
| Finished, proof                  |                                 |
|                                  | accepted                        |

Two round trips until the client knows that it was accepted; the server knows the client after one and a half.
"""

from __future__ import annotations

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.nat.certificate import peer_of_certificate_untrusted
from p2pnode.nat.proof import (
    ACCEPTED,
    NONCE_MESSAGE_BYTES,
    PROOF_BYTES,
    SessionFacts,
    check_proof_untrusted,
    encode_nonce,
    make_proof,
    read_nonce_untrusted,
)

__all__ = ["ClientHandshake", "ServerHandshake"]


class ClientHandshake:
    """What the side that connects does. Give it TLS's certificate first, then the nonce, then stream 0."""

    def __init__(self, key: NodeKey, network_tag: bytes) -> None:
        self._key = key
        self._network_tag = network_tag
        self._certificate: bytes | None = None
        self._nonce = b""
        self._proof_made = False
        self.server: PeerId | None = None
        """Who the server proved to be, whether or not that is who was wanted."""

    def tls_done_untrusted(self, certificate_der: bytes | None) -> None:
        """Raise BadPacket: `bad_certificate` and the other reasons of `peer_of_certificate_untrusted`."""
        if certificate_der is None:
            raise BadPacket("bad_certificate")
        self.server = peer_of_certificate_untrusted(certificate_der)
        self._certificate = certificate_der

    def nonce_received_untrusted(self, data: bytes, fin: bool) -> None:
        """Raise BadPacket when the nonce stream is not 33 bytes and its end."""
        self._nonce += data
        if len(self._nonce) > NONCE_MESSAGE_BYTES or (fin and len(self._nonce) < NONCE_MESSAGE_BYTES):
            raise BadPacket("malformed")

    def take_proof_untrusted(self) -> bytes | None:
        """Return the proof to send, once, when certificate and nonce are complete. Raise BadPacket("wrong_version")."""
        if self._proof_made or self.server is None or self._certificate is None:
            return None
        if len(self._nonce) < NONCE_MESSAGE_BYTES:
            return None
        facts = SessionFacts(
            nonce=read_nonce_untrusted(self._nonce),
            server=self.server,
            certificate_der=self._certificate,
            network_tag=self._network_tag,
        )
        self._proof_made = True
        return make_proof(self._key, facts)

    def accepted_untrusted(self, data: bytes) -> bytes:
        """Take the first bytes of stream 0; return what follows. Raise BadPacket("not_accepted")."""
        if not self._proof_made or not data.startswith(ACCEPTED):
            raise BadPacket("not_accepted")
        return data[len(ACCEPTED) :]


class ServerHandshake:
    """What the side that is connected to does."""

    def __init__(self, key: NodeKey, network_tag: bytes, certificate_der: bytes, nonce: bytes) -> None:
        """`nonce`: 32 bytes, unguessable, never used before."""
        self._facts = SessionFacts(
            nonce=nonce, server=key.peer_id, certificate_der=certificate_der, network_tag=network_tag
        )
        self.nonce_message = encode_nonce(nonce)
        self._received = b""

    def proof_received_untrusted(self, data: bytes) -> tuple[PeerId, bytes] | None:
        """Return (who proved itself, what follows) when stream 0 holds a whole proof. Raise BadPacket."""
        self._received += data
        if len(self._received) < PROOF_BYTES:
            return None
        client = check_proof_untrusted(self._received[:PROOF_BYTES], self._facts)
        rest, self._received = self._received[PROOF_BYTES:], b""
        return client, rest
