"""The code that links a device, and what it proves. No I/O. docs/protocol/devices.md, "Linking".

    12D3KooW...@192.168.1.5:4747,203.0.113.7:4747~198.51.100.1:4747#wq3m5x...

The old device's id, where it listens, a way into the network (after `~`, may be absent), and after `#` the secret. Who
has the code may become a device of the account, once, within minutes: it is shown to the user alone.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pnode import AccountKey, BadPacket, LinkCodeError, P2PError, PeerId, PeerSpec, parse_host_port, parse_peer

__all__ = [
    "NONCE_BYTES",
    "PROOF_BYTES",
    "SECRET_BYTES",
    "LinkCode",
    "host_port",
    "open_account_untrusted",
    "proof_of",
    "seal_account",
]

# Fixed by this protocol.
SECRET_BYTES = 16
NONCE_BYTES = 16
PROOF_BYTES = 32
MAX_CODE = 1_000  # characters
_DOMAIN = b"p2pnode/1/link"
_HOST = re.compile(r"[0-9A-Za-z.:%_-]+")  # of an address or a name
_SEAL_NONCE = bytes(12)  # each key seals once: both sides put chance into it


@dataclass(frozen=True, slots=True)
class LinkCode:
    """`device`: the old one, as a PEER with addresses. `way`: HOST:PORT of a node to join through, or empty."""

    device: PeerSpec
    way: str
    secret: bytes = field(repr=False)

    @property
    def peer(self) -> PeerId:
        peer = self.device.peer
        assert peer is not None  # noqa: S101 - `parse` and the maker see to it
        return peer

    @property
    def text(self) -> str:
        hosts = ",".join(host_port(host, port) for host, port in self.device.hosts)
        way = f"~{self.way}" if self.way else ""
        secret = base64.b32encode(self.secret).decode().rstrip("=").lower()
        return f"{self.peer}{'@' if hosts else ''}{hosts}{way}#{secret}"

    @classmethod
    def parse(cls, text: str) -> LinkCode:
        """Raise LinkCodeError."""
        text = "".join(text.split())  # pasted from a terminal it may have line ends inside
        where, _, secret_text = text.partition("#")
        device_text, _, way = where.partition("~")
        try:
            if len(text) > MAX_CODE:
                raise ValueError("longer than any code")
            secret = base64.b32decode(secret_text.upper() + "=" * (-len(secret_text) % 8))
            device = parse_peer(device_text)
            hosts = [*device.hosts, *([parse_host_port(way)] if way else [])]
            if not all(_HOST.fullmatch(host) for host, _ in hosts):
                raise ValueError("not a host")
            way = host_port(*hosts[-1]) if way else ""
        except (ValueError, P2PError):
            device, secret = PeerSpec(text=""), b""
        if device.peer is None or len(secret) != SECRET_BYTES:
            raise LinkCodeError("This is not a code of `p2pnode id link`; copy all of it.")
        return cls(device, way, secret)


def host_port(host: str, port: int) -> str:
    """Return HOST:PORT as it is typed."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proof_of(secret: bytes, old: PeerId, new: PeerId, nonce: bytes) -> bytes:
    """Return the new device's proof (32 bytes) that it has the code."""
    key = _derive(secret, b"request", b"")
    return hmac.digest(key, old.raw + new.raw + nonce, "sha256")


def seal_account(secret: bytes, old: PeerId, new: PeerId, nonces: bytes, account: AccountKey) -> bytes:
    """Return the account key (48 bytes), readable with the code only. `nonces`: the new one's, then the old one's."""
    key = _derive(secret, b"account" + old.raw + new.raw, nonces)
    return ChaCha20Poly1305(key).encrypt(_SEAL_NONCE, account.seed, account.public_raw)


def open_account_untrusted(
    secret: bytes, old: PeerId, new: PeerId, nonces: bytes, user: bytes, sealed: bytes
) -> AccountKey:
    """Return the account key of `user`. Raise BadPacket("not_opened")."""
    key = _derive(secret, b"account" + old.raw + new.raw, nonces)
    try:
        account = AccountKey(ChaCha20Poly1305(key).decrypt(_SEAL_NONCE, sealed, user))
    except (InvalidTag, ValueError) as exc:
        raise BadPacket("not_opened") from exc
    if account.public_raw != user:
        raise BadPacket("not_opened")
    return account


def _derive(secret: bytes, what: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=salt or None, info=_DOMAIN + b"/" + what).derive(secret)
