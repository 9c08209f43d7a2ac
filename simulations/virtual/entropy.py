"""The entropy that libraries draw by themselves, brought under the seed: in simulations, and nowhere else.

Our own code takes every random byte from `Network.token_bytes` and `Network.rng`, which the virtual world seeds. qh3,
aioice and `uuid` ask the operating system: connection ids, GREASE values and their lengths (a GREASE transport
parameter has 4 or 8 bytes), transaction ids. While a virtual loop runs, `os.urandom` and `secrets` answer from the
loop's seed.

qh3's compiled part draws its own: key shares, ids of further connections, the nonces of ECDSA. Its bytes are encrypted
or as good as random anyway and change no decision; what shows in a trace is only the length of the DER signature in
CertificateVerify (70 to 72 bytes, seldom less). So in simulations qh3's key signs again until the signature has its
most frequent length, two times on average. What is signed, and by whom it verifies, stays as it is.

Guard: everything here asks whether the calling thread runs a virtual loop at this moment; a node on a real loop gets
the operating system's entropy even while a simulation runs in another thread (`simulations.virtual.replaced`).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

from p2pnode.simulations.virtual.replaced import Replacement, Replacements

__all__ = ["SIGNATURE_BYTES", "seeded_entropy"]

SIGNATURE_BYTES = 71
"""Length of every ECDSA P-256 signature of qh3 in a simulation: half of all have it by chance."""


def _replacements() -> list[Replacement]:
    import qh3.quic.configuration as qh3_configuration  # 0.2 s: not for whoever imports the virtual world only

    system = os.urandom
    load: Callable[..., Any] = getattr(qh3_configuration, "load_pem_private_key")  # noqa: B009 - it does not export it

    def urandom(size: int, /) -> bytes:
        entropy = _entropy()
        return system(size) if entropy is None else entropy.randbytes(size)

    def load_pem_private_key(data: bytes, password: bytes | None = None) -> Any:
        key = load(data, password)
        return key if _entropy() is None or getattr(key, "curve_type", None) != 256 else _SteadyKey(key)

    return [
        (os, "urandom", urandom),
        (random, "_urandom", urandom),  # what SystemRandom calls, and through it `secrets`
        (qh3_configuration, "load_pem_private_key", load_pem_private_key),
    ]


seeded_entropy = Replacements(_replacements)
"""While `installed`, threads that run a loop with a `random.Random` named `entropy` get that for the system's."""


def _entropy() -> random.Random | None:
    """Return the entropy of the virtual loop that the calling thread runs, None when it runs none."""
    return getattr(asyncio._get_running_loop(), "entropy", None)


class _SteadyKey:
    """qh3's P-256 key, whose signatures all have the same length."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.curve_type: int = key.curve_type

    @property  # type: ignore[misc]  # as mocks do
    def __class__(self) -> Any:  # qh3 chooses the algorithm by isinstance()
        return type(self._key)

    def public_key(self) -> bytes:
        result: bytes = self._key.public_key()
        return result

    def sign(self, data: bytes) -> bytes:
        while True:
            signature: bytes = self._key.sign(data)
            if len(signature) == SIGNATURE_BYTES:
                return signature
