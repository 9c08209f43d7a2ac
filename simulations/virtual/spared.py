"""Public-key arithmetic whose result this process knows, spared: in simulations, and nowhere else.

All nodes of a simulation live in one process: nearly every signature that one of them verifies was made here, and the
second side of a key agreement computes what the first has computed. It was a third of a whole run. While a virtual loop
runs,

- a signature is a hash of key and message instead, of the same length, and holds for just these; every other one,
  forged, changed or made outside, is verified as ever. Who knows a public key could make it: attackers of simulations
  are ours, and do not;
- the key pairs of signed exchanges come from a pool of 64, and the secret of each two of them is computed once. The
  keys that nodes agree on still differ: they are a hash of the whole request and answer, which carry nonces, in place
  of HKDF's four.

No byte count, decision or instant depends on any of it: a test compares traces with and without. Whoever measures
processor time runs a loop with `spares_keys=False` (`--set real_keys=yes`).

Guard: everything asks whether the calling thread runs such a loop at this moment (`simulations.virtual.replaced`).
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from p2pnode.core.ids import PublicKey
from p2pnode.core.keys import SigningKey
from p2pnode.dht.keyring import KEYS_BYTES, Ephemeral
from p2pnode.simulations.virtual.replaced import Replacement, Replacements

__all__ = ["spared_arithmetic"]

SIGNATURE_BYTES = 64
POOL = 64


def _replacements() -> list[Replacement]:
    pool: list[tuple[object, bytes]] = []
    secrets: dict[tuple[bytes, bytes], bytes] = {}
    sign, verify = SigningKey.sign, PublicKey.verify
    draw, agree, derive = Ephemeral.__init__, Ephemeral.agree_untrusted, Ephemeral.derive

    def hashing_sign(self: SigningKey, message: bytes) -> bytes:
        if not _is_virtual():
            return sign(self, message)
        return blake2b(message, digest_size=SIGNATURE_BYTES, key=self.public_raw).digest()

    def hashing_verify(self: PublicKey, signature: bytes, message: bytes) -> bool:
        if _is_virtual() and signature == blake2b(message, digest_size=SIGNATURE_BYTES, key=self.raw).digest():
            return True
        return verify(self, signature, message)

    def hashing_derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
        if not _is_virtual():
            return derive(secret, salt, info)
        first = blake2b(secret + info, key=salt)
        return first.digest() + blake2b(first.digest(), digest_size=KEYS_BYTES - first.digest_size).digest()

    def pooled_init(self: Ephemeral, seed: bytes) -> None:
        if not _is_virtual():
            draw(self, seed)
            return
        if not pool:
            for number in range(POOL):
                draw(self, number.to_bytes(32, "big"))
                pool.append((self._private, self.public))
        private, self.public = pool[seed[0] % POOL]
        self._private = private  # type: ignore[assignment]

    def sparing_agree(self: Ephemeral, public: bytes) -> bytes:
        if not _is_virtual():
            return agree(self, public)
        pair = (self.public, public) if self.public < public else (public, self.public)
        secret = secrets.get(pair)
        if secret is None:
            secret = agree(self, public)
            if len(secrets) < POOL * POOL:
                secrets[pair] = secret
        return secret

    return [
        (SigningKey, "sign", hashing_sign),
        (PublicKey, "verify", hashing_verify),
        (Ephemeral, "__init__", pooled_init),
        (Ephemeral, "agree_untrusted", sparing_agree),
        (Ephemeral, "derive", staticmethod(hashing_derive)),
    ]


spared_arithmetic = Replacements(_replacements)
"""While `installed`, threads that run a loop with `spares_keys` compute no signature, and no secret twice."""


def _is_virtual() -> bool:
    """Whether the calling thread runs a virtual loop that spares keys."""
    return getattr(asyncio._get_running_loop(), "spares_keys", False)
