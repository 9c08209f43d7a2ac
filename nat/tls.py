"""TLS 1.3 over a `TcpStream`, on OpenSSL's memory buffers: the same in the real and in the virtual world.

The server shows a certificate of its node key (`nat.certificate`); the client stays nameless here, because what travels
inside proves its sender by itself. No session tickets: a link is made seldom, and a ticket would let two of a client's
links be told to be of one.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from p2pnode.core.keys import NodeKey
from p2pnode.core.network import TcpStream
from p2pnode.nat.certificate import make_link_certificate
from p2pnode.nat.link_wire import LINK_ALPN

__all__ = ["TlsChannel", "client_context", "server_context"]

READ_BYTES = 16_384
MAX_HANDSHAKE_BYTES = (
    16_384  # of the other side; a ClientHello with post-quantum keys has 1,500, a server's flight 1,200
)


@lru_cache(maxsize=1)
def client_context() -> ssl.SSLContext:
    """Checks no name and no authority: the caller compares the certificate with the node key that it wants."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([LINK_ALPN])
    return context


def server_context(key: NodeKey, token_bytes: Callable[[int], bytes]) -> ssl.SSLContext:
    """With a fresh certificate. OpenSSL's binding reads keys from files only: the key is there for a moment, encrypted
    under a password that is never written."""
    password = token_bytes(16).hex()
    certificate = make_link_certificate(key, token_bytes, password.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols([LINK_ALPN])
    with tempfile.TemporaryDirectory(prefix="p2pnode-") as folder:
        path = Path(folder) / "link.pem"
        path.write_bytes(certificate.pem + certificate.key_pem)
        context.load_cert_chain(path, password=password)
    return context


class TlsChannel:
    """One TLS connection. `read` and `write` are for one task each. What goes wrong is an OSError."""

    def __init__(self, stream: TcpStream, context: ssl.SSLContext, *, server: bool, host: str | None = None) -> None:
        """`host`: the name for the server's virtual hosts (SNI), for a client that dials a name."""
        self.stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=host)

    async def handshake(self) -> None:
        """Raise OSError (`ssl.SSLError` is one) when the other side speaks no TLS 1.3 or not our protocol in it."""
        received = 0
        try:
            while True:
                try:
                    self._object.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._flush()
                data = await self.stream.read(READ_BYTES)
                received += len(data)
                if not data or received > MAX_HANDSHAKE_BYTES:
                    raise ConnectionResetError("no TLS handshake came")
                self._incoming.write(data)
        except ssl.SSLError:
            await self._flush()  # the alert that says why
            raise
        await self._flush()
        if self._object.selected_alpn_protocol() != LINK_ALPN:
            raise ConnectionResetError("another protocol in TLS")

    @property
    def certificate(self) -> bytes | None:
        """The other side's, DER."""
        return self._object.getpeercert(binary_form=True)

    async def read(self) -> bytes:
        """Return what came, b"" at the end."""
        while True:
            try:
                return self._object.read(READ_BYTES)
            except ssl.SSLWantReadError:
                pass
            data = await self.stream.read(READ_BYTES)
            if not data:
                return b""
            self._incoming.write(data)

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other side is slow."""
        self._object.write(data)
        await self._flush()

    def close(self) -> None:
        self.stream.close()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self.stream.write(self._outgoing.read())
