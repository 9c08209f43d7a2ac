"""Several datagrams in one system call: how a burst is cut for UDP_SEGMENT (GSO), and how UDP_GRO's buffer is.

Linux takes one buffer and a segment size, and sends datagrams of that size, of which only the last may be shorter;
received ones of equal size from one source come back in the same form. Measured on loopback: an eighth of the processor
time of one call per datagram (docs/libraries.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["MAX_GROUP_BYTES", "MAX_GROUP_DATAGRAMS", "groups", "split_untrusted"]

# Linux: UDP_MAX_SEGMENTS was 64 until 6.9; what is sent must fit into one IP packet before it is cut.
MAX_GROUP_DATAGRAMS = 64
MAX_GROUP_BYTES = 65_000


def groups(datagrams: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the runs that may leave by one call, in order: equal sizes, the last may be shorter.

    An empty datagram is always alone: as a segment it would not be sent at all.
    """
    first, total = 0, len(datagrams)
    while first < total:
        size = len(datagrams[first])
        end = first + 1
        if size:
            limit = min(total, first + max(1, min(MAX_GROUP_DATAGRAMS, MAX_GROUP_BYTES // size)))
            while end < limit and len(datagrams[end]) == size:
                end += 1
            if end < limit and 0 < len(datagrams[end]) < size:
                end += 1
        yield first, end
        first = end


def split_untrusted(buffer: bytes, size: int) -> list[bytes]:
    """Return the datagrams of a received buffer: each of `size` bytes, the last of what is left. Never raises.

    A size that makes no sense leaves the buffer whole. At most 65,535 datagrams, of a byte each.
    """
    if size <= 0 or size >= len(buffer):
        return [buffer]
    return [buffer[start : start + size] for start in range(0, len(buffer), size)]
