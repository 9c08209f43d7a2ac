"""Make hostile versions of a valid message: every prefix, every single-byte change, insertions, swaps, noise."""

from __future__ import annotations

import random
from collections.abc import Iterator


def prefixes(data: bytes) -> Iterator[bytes]:
    """Every proper prefix, the empty one included."""
    return (data[:length] for length in range(len(data)))


def mutations(data: bytes, *, seed: int = 1) -> Iterator[bytes]:
    """Each byte flipped in three ways, dropped, doubled; neighbours swapped; trailing bytes; never `data` itself."""
    rng = random.Random(seed)
    candidates: list[bytes] = [data + b"\0", data + data, b"\0" + data]
    for i in range(len(data)):
        candidates += [data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :] for flip in (1, 0x80, rng.randrange(2, 255))]
        candidates.append(data[:i] + data[i + 1 :])
        candidates.append(data[: i + 1] + data[i:])
        candidates.append(data[:i] + data[i : i + 2][::-1] + data[i + 2 :])
    return (candidate for candidate in candidates if candidate != data)


def noise(count: int, *, longest: int = 300, seed: int = 1) -> Iterator[bytes]:
    """`count` random byte strings of random lengths."""
    rng = random.Random(seed)
    return (rng.randbytes(rng.randrange(longest)) for _ in range(count))
