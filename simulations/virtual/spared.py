"""Public-key arithmetic whose result this process knows, spared: in simulations, and nowhere else.

All nodes of a simulation live in one process, so nearly every signature that one of them verifies was made here, and
the second side of a key agreement computes what the first has computed: a quarter of a whole run.
While a virtual loop runs,

- a signature that this process made is remembered with its key and message, and holds for just these (RFC 8032:
  verification of an honest signature succeeds); every other one, forged, changed or from outside, is verified;
- the key pairs of signed exchanges come from a pool of 64, and the secret of each two of them is computed once. The
  keys that nodes agree on still differ: they are derived from the whole request and answer, which carry nonces.

Signatures are made by the real algorithm. No byte count, decision or instant depends on any of it: a test compares
traces with and without. Whoever measures processor time runs a loop with `spares_keys=False` (`--set real_keys=yes`).

Guard: everything asks whether the calling thread runs such a loop at this moment (`simulations.virtual.replaced`).
"""

from __future__ import annotations

import asyncio

from p2pnode.core.ids import PublicKey
from p2pnode.core.keys import SigningKey
from p2pnode.dht.keyring import Ephemeral
from p2pnode.simulations.virtual.replaced import Replacement, Replacements

__all__ = ["spared_arithmetic"]

REMEMBERED = 1 << 17  # signatures, about 300 bytes each: 40 MB. A forgotten one costs a verification
POOL = 64


def _replacements() -> list[Replacement]:
    made: dict[bytes, tuple[bytes, int]] = {}
    pool: list[tuple[object, bytes]] = []
    secrets: dict[tuple[bytes, bytes], bytes] = {}
    sign, verify = SigningKey.sign, PublicKey.verify
    draw, agree = Ephemeral.__init__, Ephemeral.agree_untrusted

    def remembering_sign(self: SigningKey, message: bytes) -> bytes:
        signature = sign(self, message)
        if _is_virtual():
            if len(made) >= REMEMBERED:
                del made[next(iter(made))]
            made[signature] = self.public_raw, hash(message)
        return signature

    def sparing_verify(self: PublicKey, signature: bytes, message: bytes) -> bool:
        if _is_virtual() and made.get(signature) == (self.raw, hash(message)):
            return True
        return verify(self, signature, message)

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
        (SigningKey, "sign", remembering_sign),
        (PublicKey, "verify", sparing_verify),
        (Ephemeral, "__init__", pooled_init),
        (Ephemeral, "agree_untrusted", sparing_agree),
    ]


spared_arithmetic = Replacements(_replacements)
"""While `installed`, threads that run a loop with `spares_keys` compute no signature or secret twice."""


def _is_virtual() -> bool:
    """Whether the calling thread runs a virtual loop that spares keys."""
    return getattr(asyncio._get_running_loop(), "spares_keys", False)
