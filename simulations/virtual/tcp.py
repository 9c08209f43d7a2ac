"""TCP streams of the virtual world: ordered bytes with the delay of the wire, a window, refusal and reset.

The kernel's retransmission is not modelled: loss does not reach streams. A cable that is out breaks a stream after
`BROKEN_AFTER_S`, as a TCP user time-out would.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost

__all__ = ["VirtualTcpStream", "connect"]

# Bytes sent and not yet read by the other side before `write` waits.
WINDOW_BYTES = 256 * 1024
CHUNK_BYTES = 16 * 1024
CONNECT_TIMEOUT_S = 20.0
BROKEN_AFTER_S = 15.0


class VirtualTcpStream:
    """One end of a connection."""

    def __init__(self, host: VirtualHost, local: Address, remote: Address) -> None:
        self.local = local
        self.remote = remote
        self._host = host
        self._peer: VirtualTcpStream | None = None
        self._inbox = bytearray()
        self._ended = False
        self._closed = False
        self._error: OSError | None = None
        self._outstanding = 0
        self._last_arrival_at = 0.0
        self._changed = asyncio.Event()

    @classmethod
    def pair(
        cls, one: VirtualHost, local: Address, other: VirtualHost, remote: Address
    ) -> tuple[VirtualTcpStream, VirtualTcpStream]:
        """Return the two ends of a new connection."""
        near, far = cls(one, local, remote), cls(other, remote, local)
        near._peer, far._peer = far, near
        return near, far

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, b"" at the end. Raise OSError when the connection broke."""
        await self._until(lambda: bool(self._inbox) or self._ended or self._closed)
        data = bytes(self._inbox[:limit])
        del self._inbox[:limit]
        if data:
            self._send_to_peer("acknowledged", b"", len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other side is slow. Raise OSError."""
        for start in range(0, len(data), CHUNK_BYTES):
            await self._until(lambda: self._outstanding < WINDOW_BYTES or self._closed)
            if self._closed:
                raise _os_error(errno.EPIPE)
            chunk = bytes(data[start : start + CHUNK_BYTES])
            self._outstanding += len(chunk)
            self._host.world.note(self.local, self.remote, "tcp", len(chunk))
            self._send_to_peer("data", chunk)

    def close(self) -> None:
        """Close both directions; the other side reads what was sent, then the end."""
        if not self._closed:
            self._closed = True
            self._send_to_peer("end")
            self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if condition():
                return
            self._changed.clear()
            await self._changed.wait()

    def _send_to_peer(self, kind: str, data: bytes = b"", count: int = 0) -> None:
        peer = self._peer
        if peer is None:
            return
        world = self._host.world
        # Never before what was sent earlier: a stream keeps its order whatever the jitter.
        arrival_at = max(self._last_arrival_at, world.loop.time() + world.delay_between(self._host, peer._host))
        self._last_arrival_at = arrival_at
        world.loop.call_at(arrival_at, peer._arrive, kind, data, count)

    def _arrive(self, kind: str, data: bytes, count: int) -> None:
        peer = self._peer
        if peer is None or self._error is not None:
            return
        if not (self._host.up and peer._host.up):
            self._host.world.loop.call_later(BROKEN_AFTER_S, self._break, errno.ETIMEDOUT)
            self._host.world.loop.call_later(BROKEN_AFTER_S, peer._break, errno.ETIMEDOUT)
        elif kind == "data" and self._closed:
            self._send_to_peer("reset")
        elif kind == "data":
            self._inbox += data
        elif kind == "acknowledged":
            self._outstanding -= count
        elif kind == "end":
            self._ended = True
        elif kind == "reset":
            self._break(errno.ECONNRESET)
        self._changed.set()

    def _break(self, code: int) -> None:
        if self._error is None:
            self._error = _os_error(code)
        self._changed.set()


async def connect(host: VirtualHost, to: Address) -> VirtualTcpStream:
    """Connect from `host`: one round trip. Raise OSError (ENETUNREACH, ECONNREFUSED, ETIMEDOUT)."""
    world = host.world
    route = host.route(to, "::" if to.is_ipv6 else "0.0.0.0")
    if route is None:
        raise _os_error(errno.ENETUNREACH)
    source_ip, other = route
    if other is None or not host.up or not other.up:
        await asyncio.sleep(CONNECT_TIMEOUT_S)
        raise _os_error(errno.ETIMEDOUT)
    await asyncio.sleep(world.delay_between(host, other))
    handler = other.tcp.get(to) or other.tcp.get(Address("::" if to.is_ipv6 else "0.0.0.0", to.port))
    if handler is None:
        await asyncio.sleep(world.delay_between(other, host))
        raise _os_error(errno.ECONNREFUSED)
    near, far = VirtualTcpStream.pair(host, Address(source_ip, world.rng.randint(32_768, 60_999)), other, to)
    handler(far)
    await asyncio.sleep(world.delay_between(other, host))
    return near


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
