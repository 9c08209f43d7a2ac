"""Which outside port a new mapping gets. Pure; chance comes from the router's own generator.

RFC 4787, section 4.2.1 "Port Assignment" and 4.2.2 "Port Parity"; REQ-3a: ports below 1024 stay among themselves. RFC
6056 (random ports), RFC 7422 (blocks of ports per customer).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from p2pnode.simulations.routers.kinds import RouterKind

__all__ = ["PortChooser"]

_WELL_KNOWN = (1, 1023)
_RANDOM_TRIES = 32  # then the search goes through all: the router is nearly full


class PortChooser:
    """Gives out ports of all outside addresses of a router, of one protocol."""

    def __init__(self, kind: RouterKind, rng: random.Random) -> None:
        self._kind = kind
        self._rng = rng
        self._next: dict[tuple[str, int], int] = {}  # by address and first port of the range
        self._blocks: dict[str, dict[int, str]] = {}  # by address: first port of the block to the host that has it

    def choose(self, ip: str, host: str, inside_port: int, is_free: Callable[[int], bool]) -> int | None:
        """Return a free port of outside address `ip` for a host's mapping; None when there is none.

        `is_free`: whether a port has no living mapping in the way.
        """
        kind = self._kind
        if kind.port_block:
            return self._from_blocks(ip, host, inside_port, is_free)
        ports = _WELL_KNOWN if inside_port < 1024 else kind.port_range
        if kind.ports == "preserving":
            if is_free(inside_port):
                return inside_port
            how = kind.fallback
        else:
            how = kind.ports
        return self._one_of(ip, ports, inside_port, is_free, how)

    def keep_blocks_of(self, hosts: set[str]) -> None:
        """Take back the blocks of all other hosts: they have no mapping left."""
        for blocks in self._blocks.values():
            for first in [first for first, owner in blocks.items() if owner not in hosts]:
                del blocks[first]

    def _one_of(
        self, ip: str, ports: tuple[int, int], inside_port: int, is_free: Callable[[int], bool], how: str
    ) -> int | None:
        low, high = ports
        width = high - low + 1
        if how == "sequential":
            start = self._next.get((ip, low), -1)
            if start < 0:
                start = self._rng.randint(low, high)
            stride = self._kind.step
        else:
            for _ in range(_RANDOM_TRIES):
                port = self._rng.randint(low, high)
                if self._fits(port, inside_port) and is_free(port):
                    return port
            start, stride = self._rng.randint(low, high), 1
        for port in _round(start, low, width, stride):
            if self._fits(port, inside_port) and is_free(port):
                if how == "sequential":
                    self._next[ip, low] = low + (port - low + stride) % width
                return port
        return None

    def _fits(self, port: int, inside_port: int) -> bool:
        return not self._kind.parity or (port ^ inside_port) & 1 == 0

    def _from_blocks(self, ip: str, host: str, inside_port: int, is_free: Callable[[int], bool]) -> int | None:
        """A port of the host's own blocks; when they are full, of a new block."""
        kind = self._kind
        blocks = self._blocks.setdefault(ip, {})
        how = "random" if kind.ports == "preserving" else kind.ports
        for first in [first for first, owner in blocks.items() if owner == host]:
            port = self._one_of(ip, (first, first + kind.port_block - 1), inside_port, is_free, how)
            if port is not None:
                return port
        low, high = kind.port_range
        unowned = [first for first in range(low, high - kind.port_block + 2, kind.port_block) if first not in blocks]
        if not unowned:
            return None
        first = self._rng.choice(unowned)
        blocks[first] = host
        return self._one_of(ip, (first, first + kind.port_block - 1), inside_port, is_free, how)


def _round(start: int, low: int, width: int, stride: int) -> Iterator[int]:
    """Ports from `start` on in strides, once around; then all the others one by one (some come twice)."""
    for i in range(-(-width // stride)):
        yield low + (start - low + i * stride) % width
    if stride > 1:
        for i in range(width):
            yield low + (start - low + i) % width
