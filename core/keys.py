"""Private keys: the node's identity (Ed25519 and X25519) and the account's key.

The X25519 key is a key of its own, not converted from the Ed25519 one: the two schemes' proofs say nothing about a
shared secret scalar. Files are `core.keyfile`'s business.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2pnode.core.ids import NodeId, PeerId, UserId

__all__ = ["AccountKey", "NodeKey", "SigningKey"]


class SigningKey:
    """An Ed25519 private key. `repr` shows nothing secret."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes (RFC 8032, "Key Generation")."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_raw: bytes = self._key.public_key().public_bytes_raw()

    @property
    def seed(self) -> bytes:
        """The secret 32 bytes; only `core.keyfile` asks for it."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes. Pass `core.envelope.signing_input(...)`, never bare bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class NodeKey(SigningKey):
    """A node's identity: Ed25519 to sign, X25519 to be sealed to."""

    def __init__(self, seed: bytes, x25519_seed: bytes) -> None:
        super().__init__(seed)
        self.peer_id = PeerId(self.public_raw)
        self.x25519 = X25519PrivateKey.from_private_bytes(x25519_seed)
        self.x25519_public: bytes = self.x25519.public_key().public_bytes_raw()

    @property
    def node_id(self) -> NodeId:
        return self.peer_id.node_id

    @classmethod
    def generate(cls, token_bytes: Callable[[int], bytes]) -> NodeKey:
        return cls(token_bytes(32), token_bytes(32))


class AccountKey(SigningKey):
    """A user's account key."""

    def __init__(self, seed: bytes) -> None:
        super().__init__(seed)
        self.user_id = UserId(self.public_raw)

    @classmethod
    def generate(cls, token_bytes: Callable[[int], bytes]) -> AccountKey:
        return cls(token_bytes(32))
