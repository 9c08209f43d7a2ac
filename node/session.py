"""A session: a proven QUIC connection to a peer, as applications see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pnode.core.address import Address, Scope
from p2pnode.core.errors import P2PError, PeerOfflineError
from p2pnode.core.ids import PeerId
from p2pnode.nat import Connection, Path, Priority, Stream
from p2pnode.trace import Trace

__all__ = ["ECHO_PROTOCOL", "Session", "path_of"]

ECHO_PROTOCOL = "p2pnode/echo/1"
_LAN_SCOPES = frozenset({Scope.LOOPBACK, Scope.PRIVATE, Scope.LINK_LOCAL, Scope.SHARED})


def path_of(remote: Address, *, punched: bool = False) -> str:
    """Name the path to `remote` as docs/cli.md does.

    `lan` for a private or loopback address, `direct` when one side dialled what the other published, else `punched`.
    """
    if remote.scope in _LAN_SCOPES:
        return "lan"
    return "punched" if punched else "direct"


class Session:
    """An open, authenticated session. Ends once; a new `Node.connect` makes a new one."""

    def __init__(self, connection: Connection, trace: Trace, clock: Callable[[], float]) -> None:
        """`clock`: `Network.monotonic`; the loop's own may count whole milliseconds (uvloop)."""
        self.punched = False
        """Whether it goes through a hole in a NAT that both sides made."""
        self.was_direct = False
        """Whether it had a direct path at some time."""
        self.connection = connection
        self._clock = clock
        self.trace = trace
        self.end_reason: str | None = None

    @property
    def peer(self) -> PeerId:
        return self.connection.peer

    @property
    def remote(self) -> Address:
        """Where its packets go now; the relay when they are relayed."""
        return self.connection.remote

    @property
    def path(self) -> str:
        return self.path_by(self.connection.path)

    def path_by(self, path: Path) -> str:
        """Name one of its paths."""
        return "relay" if path.relayed else path_of(path.remote, punched=self.punched)

    @property
    def initiator(self) -> bool:
        """Whether we opened it."""
        return self.connection.initiator

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        return self.connection.rtt_s

    @property
    def opened_at(self) -> float:
        """Monotonic seconds."""
        return self.connection.opened_at

    @property
    def bytes_sent(self) -> int:
        return self.connection.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self.connection.bytes_received

    @property
    def closed(self) -> bool:
        return self.connection.closed

    async def open_stream(self, protocol: str, priority: Priority = Priority.NORMAL) -> Stream:
        """Open a bidirectional stream for `protocol`. Raise P2PError when the session has ended."""
        return await self.connection.open_stream(protocol, priority)

    def send_datagram(self, data: bytes) -> None:
        """Send up to 1,100 bytes, unreliable and unordered."""
        self.connection.send_datagram(data)

    async def ping(self, timeout: float = 5.0) -> float:
        """Return the seconds until the peer's program echoed one byte. Raise P2PError when it does not."""
        started = self._clock()
        try:
            async with asyncio.timeout(timeout):
                stream = await self.open_stream(ECHO_PROTOCOL)
                await stream.write(b"\x01")
                stream.finish()
                await stream.readexactly(1)
        except (TimeoutError, EOFError) as exc:
            raise PeerOfflineError(f"{self.peer} does not answer on its session.", peer=str(self.peer)) from exc
        return self._clock() - started

    def close(self, reason: str = "closed") -> None:
        """Close it; streams end."""
        if self.end_reason is None:
            self.end_reason = reason
        self.connection.close(reason=reason)

    async def wait_closed(self) -> str:
        """Return the reason once it has ended."""
        reason = await self.connection.wait_closed()
        return self.end_reason or str(reason)

    def __repr__(self) -> str:
        return f"<Session {self.peer} {self.path} {self.remote}>"


async def serve_echo(stream: Stream) -> None:
    """Answer the echo protocol: send back what came, at most 64 KiB per stream."""
    budget = 65_536
    try:
        while budget > 0 and (data := await stream.read(min(budget, 4096))):
            budget -= len(data)
            await stream.write(data)
        stream.finish()
    except P2PError:
        return  # the session ended; nobody is left to answer
